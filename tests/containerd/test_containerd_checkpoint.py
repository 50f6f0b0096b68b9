"""Checkpoints of a containerd's containers, and restores, with a CRIU that works with this kernel."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.engines.base import Container, Presence
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux.criu import Criu
from podwright.wire import cri_pb2 as cri
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import Daemon, running
from tests.oci.bench import POD, Bench
from tests.oci.test_oci_checkpoint import OWN_CRIU

pytestmark = pytest.mark.root

COUNT = (
    "echo changed >/etc/motd; rm /bin/zcat; i=0;"
    " while [ ! -e /data/stop ]; do i=$((i+1)); echo $i; usleep 20000; done; exit 7"
)


@pytest.fixture(scope="module")
def criu_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A containerd whose runtimes find a CRIU."""
    program = str(OWN_CRIU) if OWN_CRIU.exists() else "criu"
    try:
        asyncio.run(_require(program))
    except FailedPrecondition as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{OWN_CRIU.parent}:{os.environ['PATH']}")
        with running(tmp_path_factory.mktemp("criu")) as started:
            yield started


async def _require(program: str) -> None:
    await Criu(program).require()


@pytest.fixture(params=["overlayfs", "native"])
async def criu_bench(
    criu_daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Bench]:
    """With snapshots whose changes are a directory, and with others."""
    config = engine_config(criu_daemon, tmp_path, "runc")
    handlers = {
        name: msgspec.structs.replace(each, snapshotter=request.param)
        for name, each in config.handlers.items()
    }
    config = msgspec.structs.replace(config, handlers=handlers)
    async with containerd_opened(config) as made:
        yield made
    assert not left_over(criu_daemon, config)


async def test_a_container_goes_on_after_its_checkpoint_and_again_where_it_was(
    criu_bench: Bench, tmp_path: Path
) -> None:
    bench = criu_bench
    sandbox = await bench.sandbox(network=POD)
    data = tmp_path / "data"
    data.mkdir()
    config = cri.ContainerConfig(mounts=[cri.Mount(host_path=str(data), container_path="/data")])
    container = await bench.container(sandbox, "sh", "-c", COUNT, config=config)
    await _until(lambda: _counts(container) > 3)

    archive = tmp_path / "checkpoint.tar"
    await bench.engine.checkpoint_container(container, _status(container), archive)
    at_checkpoint = _counts(container)
    await _until(lambda: _counts(container) > at_checkpoint)  # it goes on
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
    at_end = _counts(container)
    await bench.remove(container)

    twin = await _to_be_restored(bench, archive, container)
    # It waits without a process.
    await bench.engine.signal_container(twin, 15)
    assert ((await bench.engine.observe_container(twin)).presence, twin.facts.pid) == (Presence.CREATED, 0)
    facts = await bench.engine.start_container(twin)
    assert facts is not None and facts.pid > 0
    twin = bench.containers[twin.id] = replace(twin, facts=facts)
    await _until(lambda: _counts(twin))
    first = _lines(twin)[0]
    assert 3 < first <= at_checkpoint + 1 <= at_end + 1, "neither from 1 nor from its end"
    shown = await bench.exec(twin, "sh", "-c", "cat /etc/motd; ls /bin/zcat 2>&1 || true")
    assert shown.splitlines() == ["changed", "ls: /bin/zcat: No such file or directory"]
    seen = await bench.engine.observe_container(replace(twin, facts=type(twin.facts)()))
    assert seen.presence is Presence.RUNNING
    (data / "stop").touch()
    assert (await bench.exit_of(twin)).code == 7

    other = await _to_be_restored(bench, archive, container)
    await bench.engine.signal_container(other, 9)
    assert (await bench.exit_of(other)).code == 137
    seen = await bench.engine.observe_container(other)
    assert seen.exit is not None and (seen.presence, seen.exit.code) == (Presence.EXITED, 137)


async def test_what_cannot_be_checkpointed_says_why(
    containerd_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = containerd_bench
    monkeypatch.setattr("podwright.engines.containerd.dumping.shim_path", lambda socket: str(tmp_path))
    container = await bench.container(await bench.sandbox(handler="crun"), "sleep", "1000")
    with pytest.raises(FailedPrecondition) as told:
        await bench.engine.checkpoint_container(container, _status(container), tmp_path / "a.tar")
    assert "built without CRIU" in str(told.value)
    assert f"criu is not installed where containerd looks for programs: {tmp_path}" in str(told.value)
    assert not (tmp_path / "a.tar").exists()
    assert "not installed" in (await bench.engine.status()).info["criu"]["error"]


async def test_a_look_into_an_image_is_forgotten_with_its_lease(
    containerd_bench: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def views() -> list[str]:
        return [each for each in daemon.ctr("snapshots", "list").split() if "#" in each]

    def leases() -> list[str]:
        return [each for each in daemon.ctr("leases", "list", "-q").split() if each.startswith("podwright-")]

    seen: list[int] = []

    async def look(*_: object) -> None:
        seen.append(len(views()))
        # What containerd does some time when nobody ends it any more.
        for each in leases():
            daemon.ctr("leases", "delete", "--sync", each)
        seen.append(len(views()))
        raise InvalidArgument("image", "is none")

    monkeypatch.setattr("podwright.checkpoints.reading.look", look)
    with pytest.raises(InvalidArgument):
        await containerd_bench.engine.read_checkpoint(containerd_bench.image.id)
    assert seen == [1, 0] and not views() and not leases()


async def _to_be_restored(bench: Bench, archive: Path, container: Container) -> Container:
    id = os.urandom(32).hex()
    twin = replace(
        container,
        id=id,
        checkpoint=await bench.engine.read_checkpoint(str(archive)),
        log_path=str(bench.logs / id[:8] / "0.log"),
        facts=type(container.facts)(),
    )
    bench.containers[id] = replace(twin, checkpoint=None)
    async with AsyncExitStack() as undo:
        facts = await bench.engine.create_container(twin, undo)
        undo.pop_all()
    twin = bench.containers[id] = replace(twin, checkpoint=None, facts=facts)
    return twin


def _status(container: Container) -> cri.ContainerStatus:
    return cri.ContainerStatus(
        id=container.id, metadata=container.config.metadata, image_ref=container.image.id, created_at=1
    )


def _lines(container: Container) -> list[int]:
    try:
        written = Path(container.log_path).read_text()
    except FileNotFoundError:
        return []
    return [int(line.split()[-1]) for line in written.splitlines(keepends=True) if line.endswith("\n")]


def _counts(container: Container) -> int:
    """How far it has counted."""
    return (_lines(container) or [0])[-1]


async def _until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
