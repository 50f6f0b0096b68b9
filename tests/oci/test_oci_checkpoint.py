"""Checkpoints and restores with CRIU itself, where there is one that works with this kernel."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import podwright
from podwright.checkpoints.layout import Checkpoint
from podwright.config import Config
from podwright.engines.base import Container, Presence
from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.linux.criu import Criu
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench, opened

pytestmark = pytest.mark.root

OWN_CRIU = Path(__file__).parents[2] / "build/criu/criu"
"""What tools/install.sh puts there, for the host's own may be too old for its kernel."""

COUNT = (
    "echo changed >/etc/motd; rm /bin/zcat; echo shared >/dev/shm/word;"
    " i=0; while [ ! -e /data/stop ]; do i=$((i+1)); echo $i; usleep 20000; done; exit 7"
)
"""No file of the volume is open: what is on volumes goes on changing, it is not part of a checkpoint."""


@pytest.fixture
async def criu_bench(place: Config, busybox: Path) -> AsyncIterator[Bench]:
    program = str(OWN_CRIU) if OWN_CRIU.exists() else "criu"
    try:
        await Criu(program).require()
    except FailedPrecondition as error:
        pytest.skip(str(error))
    async with opened(msgspec.structs.replace(place, criu=program), busybox) as made:
        yield made


async def _restored(
    bench: Bench, source: Path | Checkpoint, container: Container, *, start: bool = True
) -> Container:
    found = await bench.engine.read_checkpoint(str(source)) if isinstance(source, Path) else source
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
    await _until(lambda: _counts(container) > 3)

    archive = tmp_path / "checkpoint.tar"
    await bench.engine.checkpoint_container(container, _status(container), archive)
    assert archive.stat().st_mode & 0o7777 == 0o600
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

    twin = await _restored(bench, archive, container)
    assert twin.facts.pid > 0
    await _until(lambda: _counts(twin))
    first = _lines(twin)[0]
    assert 3 < first <= at_checkpoint + 1 <= at_end + 1, "neither from 1 nor from its end"
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


def _lines(container: Container) -> list[int]:
    try:
        written = Path(container.log_path).read_text()
    except FileNotFoundError:
        return []
    return [int(line.split()[-1]) for line in written.splitlines(keepends=True) if line.endswith("\n")]


def _counts(container: Container) -> int:
    """How far it has counted."""
    return (_lines(container) or [0])[-1]


async def _until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _made(bench: Bench, tmp_path: Path, *command: str) -> tuple[Container, Path]:
    """A container on a pod's network, and its checkpoint."""
    sandbox = await bench.sandbox(network=POD, handler="runc")
    container = await bench.container(sandbox, *(command or ("sleep", "1000")))
    archive = tmp_path / "checkpoint.tar"
    await bench.engine.checkpoint_container(container, _status(container), archive)
    return container, archive


async def test_what_is_to_be_restored_waits_without_a_process(criu_bench: Bench, tmp_path: Path) -> None:
    bench = criu_bench
    container, archive = await _made(bench, tmp_path)
    twin = await _restored(bench, archive, container, start=False)
    seen = await bench.engine.observe_container(twin)
    assert (seen.presence, twin.facts.pid) == (Presence.CREATED, 0)
    await bench.engine.signal_container(twin, 15)
    assert (await bench.engine.observe_container(twin)).presence is Presence.CREATED
    await bench.engine.signal_container(twin, 9)
    assert (await bench.exit_of(twin)).code == 137
    # Its end is seen also by a podwright that was not told of it.
    assert (await bench.engine.observe_container(twin)).presence is Presence.EXITED
    other = await _restored(bench, archive, container, start=False)
    await bench.remove(other)
    assert not (Path(bench.config.root) / "containers" / other.id).exists()


async def test_connections_of_another_address_are_closed_and_listeners_stay(
    criu_bench: Bench, tmp_path: Path
) -> None:
    bench = criu_bench
    sandbox = await bench.sandbox(network=POD, handler="runc")
    talk = (
        "httpd -f -p 8080 & until netstat -tln | grep -q 8080; do usleep 20000; done;"
        f" sleep 1000 | nc {sandbox.facts.ips[0]} 8080 & wait"
    )
    container = await bench.container(sandbox, "sh", "-c", talk)
    async with asyncio.timeout(20):
        while "ESTABLISHED" not in await bench.exec(container, "netstat", "-tn"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    archive = tmp_path / "checkpoint.tar"
    try:
        await bench.engine.checkpoint_container(container, _status(container), archive)
    except FailedPrecondition as error:
        if "sockets: Can't get" not in str(error):
            raise
        pytest.skip(f"this CRIU does not know this kernel's sockets: {error}")
    elsewhere = await bench.sandbox(network=POD, handler="runc")
    twin = await _restored(bench, archive, replace(container, sandbox=elsewhere))
    sockets = await bench.exec(twin, "netstat", "-tan")
    assert "8080" in sockets and "LISTEN" in sockets
    assert "ESTABLISHED" in await bench.exec(container, "netstat", "-tn"), "the other one goes on"


async def test_an_image_of_an_archive_is_a_checkpoint(criu_bench: Bench, tmp_path: Path) -> None:
    bench = criu_bench
    container, archive = await _made(bench, tmp_path, "sh", "-c", "echo kept >/kept; sleep 1000")
    (image,) = await bench.engine.images.import_image(
        str(archive), "localhost/checkpoint:1", {"Labels": {"org.criu.checkpoint.container.name": "main"}}
    )
    assert image.checkpoint and not bench.image.checkpoint
    found = await bench.engine.read_checkpoint(image.id)
    assert found.config.id == container.id
    twin = await _restored(bench, found, container)
    assert await bench.exec(twin, "cat", "/kept") == "kept\n"


async def test_images_that_criu_cannot_read_are_told_in_its_words(criu_bench: Bench, tmp_path: Path) -> None:
    bench = criu_bench
    container, archive = await _made(bench, tmp_path)
    twin = await _restored(bench, archive, container, start=False)
    (Path(bench.config.root) / "containers" / twin.id / "restore/checkpoint/pstree.img").write_bytes(b"no")
    with pytest.raises(FailedPrecondition, match=r"cannot be restored: .*trimmed"):
        await bench.engine.start_container(twin)


async def test_a_container_that_was_left_frozen_is_resumed(bench: Bench) -> None:
    sandbox = await bench.sandbox(handler="runc")
    container = await bench.container(sandbox, "sleep", "1000")
    root = Path(bench.config.run) / "runtime/runc"
    done = await spawn.run(["runc", "--root", str(root), "pause", container.id])
    assert done.status == 0, done
    assert (await bench.engine.observe_container(container)).presence is Presence.RUNNING
    assert await bench.exec(container, "echo", "goes on") == "goes on\n"


SLOW = """#!/bin/sh
case $1 in
    --version) echo Version: 4.1 ;;
    check) [ -e {place}/works ] || {{ echo 'Error (x.c:1): the kernel is too old' >&2; exit 1; }} ;;
    *) touch {place}/started; exec sleep 1000 ;;
esac
"""


@pytest.fixture
async def slow_bench(place: Config, busybox: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    """With a CRIU that works for ever, or not at all."""
    program = tmp_path / "criu"
    program.write_text(SLOW.format(place=tmp_path))
    program.chmod(0o755)
    async with opened(msgspec.structs.replace(place, criu=str(program)), busybox) as made:
        yield made


async def test_where_criu_cannot_work_the_reason_is_told(slow_bench: Bench, tmp_path: Path) -> None:
    bench = slow_bench
    sandbox = await bench.sandbox(handler="runc")
    container = await bench.container(sandbox, "sleep", "1000")
    with pytest.raises(FailedPrecondition, match="`criu check`: the kernel is too old"):
        await bench.engine.checkpoint_container(container, _status(container), tmp_path / "a.tar")
    assert (await bench.engine.status()).info["criu"]["error"] == "`criu check`: the kernel is too old"
    (tmp_path / "works").touch()
    missing = msgspec.structs.replace(bench.config, criu=str(tmp_path / "absent"))
    assert "not installed" in (await Criu(missing.criu).words())["error"]
    assert not (tmp_path / "a.tar").exists()


async def test_a_kill_does_not_wait_for_criu(slow_bench: Bench, tmp_path: Path) -> None:
    bench = slow_bench
    (tmp_path / "works").touch()
    sandbox = await bench.sandbox(handler="runc")
    container = await bench.container(sandbox, "sleep", "1000")
    work = asyncio.ensure_future(
        bench.engine.checkpoint_container(container, _status(container), tmp_path / "a.tar")
    )
    await _until((tmp_path / "started").exists)
    work.cancel()
    await bench.engine.signal_container(container, 9)
    assert (await bench.exit_of(container)).code == 137
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not (tmp_path / "a.tar").exists()
    assert not (Path(bench.config.root) / "containers" / container.id / "dump").exists()


async def test_a_pod_comes_back_through_the_library_and_outlives_it(
    criu_bench: Bench, place: Config, busybox: Path, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(
        criu_bench.config, root=str(tmp_path / "own"), run=str(tmp_path / "own-run")
    )
    archive = tmp_path / "pod.tar"
    count = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 20000; done"]
    async with podwright.open(config=config) as runtime:
        await runtime.import_root(busybox, "localhost/busybox:1")
        async with await runtime.run_sandbox("web", handler="runc") as sandbox:
            first = await sandbox.run("main", "localhost/busybox:1", count)
            await _until(lambda: len(first.log.read_text().splitlines()) > 5)
            assert await sandbox.checkpoint(archive, timeout=60) == ["main"]
            assert (await first.status()).state == cri.CONTAINER_RUNNING
        restored = await runtime.restore_pod(archive)
        [made] = await runtime.containers()
        assert made.state == cri.CONTAINER_RUNNING
        request = cri.ContainerStatusRequest(container_id=made.id, verbose=True)
        told = msgspec.json.decode((await runtime.cri.container_status(request)).info["info"])
        assert Path(f"/proc/{told['pid']}").is_dir()
        log = Path((await runtime.cri.container_status(request)).status.log_path)
        await _until(lambda: log.exists() and log.read_text().count("\n") > 1)
        assert int(log.read_text().split("\n")[0].split()[-1]) > 5
    async with podwright.open(config=config) as runtime:
        [again] = await runtime.containers()
        assert (again.id, again.state) == (made.id, cri.CONTAINER_RUNNING)
        await runtime.cri.stop_container(cri.StopContainerRequest(container_id=again.id, timeout=0))
        status = (await runtime.cri.container_status(request)).status
        assert (status.state, status.exit_code) == (cri.CONTAINER_EXITED, 137)
        await runtime.cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=restored.id))
