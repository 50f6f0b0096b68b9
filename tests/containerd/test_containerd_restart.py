"""podwright or containerd goes away in the middle: no exit code, no line of a log and no time is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Presence
from podwright.engines.containerd.tasks import Tasks
from podwright.errors import Unavailable
from podwright.linux import cgroups, spawn
from podwright.wire import cri_pb2 as cri
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import NEWER, Daemon, running
from tests.oci.bench import Bench

pytestmark = pytest.mark.root

LINES = 20_000
TALKS = f"mkfifo /tmp/go; cat /tmp/go; seq {LINES}; exit 7"
"""Once it is let go."""


async def test_an_end_that_was_noted_and_no_more_is_told_by_the_next_podwright(
    containerd_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with containerd_opened(containerd_config) as bench:

        async def killed(tasks: Tasks, id: str) -> None:
            raise Unavailable("podwright is killed here")

        container = await bench.container(await bench.sandbox(), "sh", "-c", TALKS)
        with monkeypatch.context() as patch:
            patch.setattr(Tasks, "_delete", killed)
            await _let_go(bench, container.facts.pid)
            file = Path(containerd_config.run, "exits", container.id)
            async with asyncio.timeout(20):
                while not file.exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        noted = file.stat().st_mtime_ns
        kept = dict(bench.sandboxes), dict(bench.containers)
        bench.sandboxes.clear()
        bench.containers.clear()
    async with containerd_opened(containerd_config) as bench:
        bench.sandboxes.update(kept[0])
        bench.containers.update(kept[1])
        seen = await bench.engine.observe_container(container)
        assert seen.exit is not None
        assert (seen.presence, seen.exit.code, seen.exit.finished_at) == (Presence.EXITED, 7, noted)
        assert _said(container.log_path) == [str(number + 1) for number in range(LINES)]
        # Once more, and again after another podwright: it stays so.
        assert await bench.engine.observe_container(container) == seen


async def test_what_ends_while_nobody_is_there_is_told_as_it_was(
    containerd_config: Config, daemon: Daemon
) -> None:
    async with containerd_opened(containerd_config) as bench:
        config = cri.ContainerConfig()
        config.linux.resources.memory_limit_in_bytes = 20 << 20
        sandbox = await bench.sandbox()
        talks = await bench.container(sandbox, "sh", "-c", TALKS)
        eats = await bench.container(
            sandbox,
            "sh",
            "-c",
            "mkfifo /tmp/go; cat /tmp/go; head -c 100000000 /dev/zero | tail; exit 137",
            config=config,
        )
        for each in (talks, eats):
            await bench.exec(each, "sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done")
        kept = dict(bench.sandboxes), dict(bench.containers)
        bench.sandboxes.clear()
        bench.containers.clear()
    for each in (talks, eats):
        await _open(each.facts.pid)
    for each in (talks, eats):
        await spawn.exited(each.facts.pid)
    async with asyncio.timeout(20):
        while await asyncio.to_thread(_runs, daemon, talks.id, eats.id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    opened = time.time_ns()
    async with containerd_opened(containerd_config) as bench:
        bench.sandboxes.update(kept[0])
        bench.containers.update(kept[1])
        first, second = [(await bench.engine.observe_container(each)).exit for each in (talks, eats)]
        assert first is not None and second is not None
        assert (first.code, first.oom_killed, second.code, second.oom_killed) == (7, False, 137, True)
        assert max(first.finished_at, second.finished_at) < opened, "when it was noticed is no time"
        assert _said(talks.log_path) == [str(number + 1) for number in range(LINES)]


@pytest.mark.parametrize("version", ["", *NEWER])
async def test_containerd_is_killed_and_comes_back(tmp_path: Path, version: str) -> None:
    with running(tmp_path / "daemon", program=NEWER.get(version, "containerd")) as daemon:
        config = engine_config(daemon, tmp_path)
        async with containerd_opened(config) as bench:
            sandbox = await bench.sandbox()
            ends = await bench.container(sandbox, "sh", "-c", TALKS)
            stays = await bench.container(sandbox, "sleep", "1000")
            await bench.exec(ends, "sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done")
            (following,) = [each for each in asyncio.all_tasks() if "collect_exits" in str(each.get_coro())]
            daemon.stop(number=signal.SIGKILL)
            with pytest.raises(Unavailable):
                await asyncio.wait_for(asyncio.shield(following), 20)
            with pytest.raises(Unavailable):
                await bench.engine.observe_container(ends)
            # What podwright knows by itself it goes on telling.
            assert (await bench.engine.container_info(ends))["pid"] == ends.facts.pid
            assert "error" in str((await bench.engine.sandbox_info(sandbox))["containerd"])
            await _open(ends.facts.pid)
            # The kernel has it still.
            await bench.engine.signal_container(stays, signal.SIGKILL)
            for each in (ends, stays):
                await spawn.exited(each.facts.pid)
            assert not cgroups.pids(f"{config.cgroup_parent}/{stays.id}")
            daemon.restart()
            async with asyncio.timeout(30):
                while (await bench.engine.status()).runtime_error:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # gRPC tries to reach it now and then
            again = asyncio.ensure_future(bench.collect_exits())
            try:
                # As core does: those that follow are told, the others are looked at.
                first, second = [(await bench.engine.observe_container(each)).exit for each in (ends, stays)]
                assert first is not None and second is not None
                assert (first.code, second.code) == (7, 137)
                assert _said(ends.log_path) == [str(number + 1) for number in range(LINES)]
                assert await bench.engine.sandbox_alive(sandbox)
                later = await bench.container(sandbox, "sh", "-c", "exit 5")
                assert (await bench.exit_of(later)).code == 5
            finally:
                again.cancel()
                await asyncio.wait([again])
        assert not left_over(daemon, config)


async def _let_go(bench: Bench, pid: int) -> None:
    (container,) = bench.containers.values()
    await bench.exec(container, "sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done")
    await _open(pid)


async def _open(pid: int) -> None:
    """The reader inside finds its FIFO's end."""
    await asyncio.to_thread(Path(f"/proc/{pid}/root/tmp/go").write_bytes, b"")


def _said(log_path: str) -> list[str]:
    return [line.split()[-1] for line in Path(log_path).read_text().splitlines()]


def _runs(daemon: Daemon, *ids: str) -> bool:
    rows = [line.split() for line in daemon.ctr("tasks", "list").splitlines()]
    return any(row[0] in ids and row[2] != "STOPPED" for row in rows)
