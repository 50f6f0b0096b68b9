"""Checkpoints and restores with CRIU itself, where there is one that works with this kernel."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config
from podwright.engines.base import Container, Presence
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux.criu import Criu
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench, opened

pytestmark = pytest.mark.root

OWN_CRIU = Path(__file__).parents[2] / "build/criu/criu"
"""What tools/install.sh puts there, for the host's own may be too old for its kernel."""

COUNT = (
    # Renamed, so that nobody reads a file that is just being written.
    "echo changed >/etc/motd; rm /bin/zcat; echo shared >/dev/shm/word;"
    " i=0; while [ ! -e /data/stop ]; do i=$((i+1)); echo $i >/data/new; mv /data/new /data/count; usleep 20000; done; exit 7"
)


@pytest.fixture
async def criu_bench(place: Config, busybox: Path) -> AsyncIterator[Bench]:
    program = str(OWN_CRIU) if OWN_CRIU.exists() else "criu"
    try:
        await Criu(program).require()
    except FailedPrecondition as error:
        pytest.skip(str(error))
    async with opened(msgspec.structs.replace(place, criu=program), busybox) as made:
        yield made


async def _restored(bench: Bench, archive: Path, container: Container, *, start: bool = True) -> Container:
    found = await bench.engine.read_checkpoint(str(archive))
    id = os.urandom(32).hex()
    twin = replace(
        container,
        id=id,
        checkpoint=found,
        log_path=str(bench.logs / id[:8] / "0.log"),
        facts=type(container.facts)(),
    )
    bench.containers[id] = replace(twin, checkpoint=None)
    async with AsyncExitStack() as undo:
        facts = await bench.engine.create_container(twin, undo)
        undo.pop_all()
    twin = bench.containers[id] = replace(twin, checkpoint=None, facts=facts)
    if start:
        facts = await bench.engine.start_container(twin) or facts
        twin = bench.containers[id] = replace(twin, facts=facts)
    return twin


def _status(container: Container) -> cri.ContainerStatus:
    return cri.ContainerStatus(
        id=container.id, metadata=container.config.metadata, image_ref=container.image.id, created_at=1
    )


async def test_a_container_goes_on_after_its_checkpoint_and_again_where_it_was(
    criu_bench: Bench, tmp_path: Path
) -> None:
    bench = criu_bench
    sandbox = await bench.sandbox(network=POD, handler="runc")
    data = tmp_path / "data"
    data.mkdir()
    config = cri.ContainerConfig(mounts=[cri.Mount(host_path=str(data), container_path="/data")])
    container = await bench.container(sandbox, "sh", "-c", COUNT, config=config)
    await _until(lambda: _count(data) > 3)

    archive = tmp_path / "checkpoint.tar"
    await bench.engine.checkpoint_container(container, _status(container), archive)
    assert archive.stat().st_mode & 0o7777 == 0o600
    at_checkpoint = _count(data)
    await _until(lambda: _count(data) > at_checkpoint)  # it goes on
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        content = tar.extractfile("rootfs-diff.tar")
        assert content is not None
        with tarfile.open(fileobj=content) as diff:
            changed = set(diff.getnames())
    assert names >= {
        *("config.dump", "spec.dump", "status.dump", "status", "dump.log", "stats-dump", "container.log"),
        *("rootfs-diff.tar", "checkpoint", "checkpoint/inventory.img", "checkpoint/pstree.img"),
    }
    assert changed >= {"etc/motd", "bin/.wh.zcat"}
    await bench.engine.signal_container(container, 9)
    assert (await bench.exit_of(container)).code == 137
    count = _count(data)
    await bench.remove(container)

    twin = await _restored(bench, archive, container)
    assert twin.facts.pid > 0
    await _until(lambda: _count(data) != count)
    assert _count(data) <= count + 20  # it went on from the checkpoint, not from 1, and not from its end
    assert _count(data) > 3
    shown = await bench.exec(twin, "sh", "-c", "cat /etc/motd; ls /bin/zcat 2>&1; cat /dev/shm/word")
    assert shown.splitlines() == ["changed", "ls: /bin/zcat: No such file or directory", "shared"]
    for kind in ("net", "uts", "ipc"):
        # The pod's own, not a copy.
        pin = Path(bench.config.run) / "sandboxes" / sandbox.id / "ns" / kind
        assert Path(f"/proc/{twin.facts.pid}/ns/{kind}").stat().st_ino == pin.stat().st_ino, kind
    seen = await bench.engine.observe_container(replace(twin, facts=type(twin.facts)()))
    assert seen.presence is Presence.RUNNING
    (data / "stop").touch()
    assert (await bench.exit_of(twin)).code == 7


def _count(data: Path) -> int:
    try:
        return int((data / "count").read_text() or 0)
    except FileNotFoundError:
        return 0


async def _until(condition: object, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)
