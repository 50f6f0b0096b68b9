"""Ends of a containerd's tasks, told with their codes whatever dies first."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from podwright.engines.base import Container, Presence
from podwright.engines.containerd.task_events import Ended
from podwright.engines.containerd.tasks import Tasks
from podwright.errors import Unavailable
from podwright.linux import cgroups, spawn
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.containerd.daemon import NAMESPACE, Daemon, shim_socket
from tests.oci.bench import POD, Bench, processes_with

pytestmark = pytest.mark.root


async def test_the_end_of_a_shim_ends_its_pod_with_137(containerd_bench: Bench, daemon: Daemon) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sh", "-c", "echo said; sleep 1000")
    await _line(container)
    (shim,) = daemon.shims()  # one for the whole pod
    socket = shim_socket(daemon.state / "io.containerd.runtime.v2.task" / NAMESPACE / container.id)
    os.kill(shim, signal.SIGKILL)
    end = await bench.exit_of(container, 40)
    assert (end.code, end.sandbox) == (137, False)
    assert (await bench.exit_of(sandbox, 40)).sandbox
    seen = await bench.engine.observe_container(container)
    assert seen.exit is not None and (seen.presence, seen.exit.code) == (Presence.EXITED, 137)
    assert not await bench.engine.sandbox_alive(sandbox)
    await spawn.exited(container.facts.pid)
    assert socket is not None
    socket.unlink(missing_ok=True)  # containerd 1.6 leaves those of shims that are killed


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_out_of_memory_is_told_from_a_kill(containerd_bench: Bench, handler: str) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox(handler=handler)
    config = cri.ContainerConfig()
    config.linux.resources.memory_limit_in_bytes = 20 << 20
    short = await bench.container(
        sandbox, "sh", "-c", "head -c 100000000 /dev/zero | tail; echo survived; exit 137", config=config
    )
    killed = await bench.container(sandbox, "sh", "-c", "exit 137", config=config)
    end, other = await bench.exit_of(short, 60), await bench.exit_of(killed, 60)
    assert (end.oom_killed, end.code, other.oom_killed, other.code) == (True, 137, False, 137)
    seen = await bench.engine.observe_container(short)
    assert seen.exit == end


async def test_who_shares_a_pods_processes_leaves_none_behind(containerd_bench: Bench) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox(pid=POD)
    container = await bench.container(sandbox, "sh", "-c", "sleep 1000 & sleep 1000 & echo both; exit 3")
    assert (await bench.exit_of(container)).code == 3
    assert "both" in Path(container.log_path).read_text()
    assert not cgroups.pids(f"{bench.config.cgroup_parent}/{container.id}")


async def test_an_end_is_told_when_nothing_of_it_can_be_lost(
    containerd_bench: Bench, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is deleted, its log written, however slow the writer is."""
    monkeypatch.setattr("podwright.logs.writing.SETTLE_TIMEOUT", 30.0)
    bench = containerd_bench
    container = await bench.container(
        await bench.sandbox(), "sh", "-c", "mkfifo /tmp/go; cat /tmp/go; echo said at the end; exit 4"
    )
    await bench.exec(container, "sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done")
    (writer,) = processes_with(f"{bench.config.run}/logs")
    os.kill(writer, signal.SIGSTOP)
    try:
        go = Path(f"/proc/{container.facts.pid}/root/tmp/go")
        await asyncio.to_thread(go.write_bytes, b"")
        with pytest.raises(TimeoutError):
            await bench.exit_of(container, 0.7)
    finally:
        os.kill(writer, signal.SIGCONT)
    assert (await bench.exit_of(container)).code == 4
    assert Path(container.log_path).read_text().endswith(" stdout F said at the end\n")
    assert container.id not in daemon.ctr("tasks", "list")


async def test_an_end_that_others_have_brought_about(containerd_bench: Bench, daemon: Daemon) -> None:
    """By containerd's own client, which also deletes the task, perhaps before we have looked."""
    bench = containerd_bench
    container = await bench.container(await bench.sandbox(), "sleep", "1000")
    with suppress(AssertionError):  # it cannot be done twice, and we may have been quicker
        await asyncio.to_thread(daemon.ctr, "tasks", "delete", "--force", container.id)
    assert (await bench.exit_of(container)).code == 137


async def test_what_is_removed_tells_no_end(containerd_bench: Bench) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox()
    gone = await bench.container(sandbox, "sleep", "1000")
    await bench.remove(gone)
    with pytest.raises(TimeoutError):
        await bench.exit_of(gone, 0.3)
    other = await bench.container(sandbox, "true")
    await bench.exit_of(other)
    assert [each.name for each in Path(bench.config.run, "exits").iterdir()] == [other.id]


async def test_a_removal_that_fails_half_way_loses_no_end(
    containerd_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event comes while the task is being ended, and is not for telling; the task says how it ended."""
    bench = containerd_bench
    container = await bench.container(await bench.sandbox(), "sleep", "1000")

    async def fail(tasks: Tasks, id: str) -> None:
        raise Unavailable("containerd has gone away")

    with monkeypatch.context() as patched:
        patched.setattr(Tasks, "_delete", fail)
        with pytest.raises(Unavailable, match="gone away"):
            await bench.engine.remove_container(container)
    seen = await bench.engine.observe_container(container)
    assert seen.exit is not None and (seen.presence, seen.exit.code) == (Presence.EXITED, 137)
    await bench.remove(container)
    assert not Path(bench.config.run, "exits", container.id).exists()


async def test_an_end_that_is_heard_of_after_the_removal_leaves_no_note(containerd_bench: Bench) -> None:
    bench = containerd_bench
    gone = await bench.container(await bench.sandbox(), "sleep", "1000")
    tasks = cast(Tasks, cast(object, bench.engine._tasks))
    await bench.remove(gone)
    assert await tasks._settled(gone.id, Ended(gone.id, 137, 1)) is None
    assert list(Path(bench.config.run, "exits").iterdir()) == []


async def _line(container: Container) -> None:
    """Wait until it has said something."""
    async for _ in reader.follow(container.log_path, follow=True):
        return
