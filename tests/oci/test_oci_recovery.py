"""After podwright died or the host went down: what a new engine makes of what it finds."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import signal
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config
from podwright.engines.base import Presence
from podwright.engines.oci import conmon
from podwright.linux import cgroups, mounts, namespaces, proc, spawn
from tests.oci.bench import POD, Bench, opened

pytestmark = pytest.mark.root


async def test_a_new_engine_knows_everything_again(place: Config, busybox: Path) -> None:
    """The old engine goes without a word; its successor collects what happened meanwhile."""
    async with opened(place, busybox) as old:
        sandbox = await old.sandbox(network=POD, pid=POD)
        running = await old.container(sandbox, "sleep", "1000")
        created = await old.container(sandbox, "sleep", "1000", start=False)
        ended = await old.container(sandbox, "sh", "-c", "echo last words; exit 9")
        early = await old.exit_of(ended)
        killed = await old.container(sandbox, "sleep", "1000")
        lost = await old.container(sandbox, "sleep", "1000")
        old.containers.clear()
        old.sandboxes.clear()
    os.kill(killed.facts.pid, signal.SIGKILL)
    bundle = Path(place.run, "containers", killed.id)
    supervisor = conmon.supervisor(bundle)
    if supervisor:
        await spawn.exited(supervisor)
    os.kill(conmon.supervisor(Path(place.run, "containers", lost.id)), signal.SIGKILL)
    os.kill(lost.facts.pid, signal.SIGKILL)
    await spawn.exited(lost.facts.pid)
    async with opened(place, busybox) as new:
        new.sandboxes[sandbox.id] = sandbox
        for each in (running, created, ended, killed, lost):
            new.containers[each.id] = each
        assert await new.engine.sandbox_alive(sandbox)
        seen = {each.id: await new.engine.observe_container(each) for each in new.containers.values()}
        assert seen[running.id].presence is Presence.RUNNING
        assert seen[created.id].presence is Presence.CREATED
        assert seen[ended.id].exit == early
        end = seen[killed.id].exit
        assert end is not None and end.code == 137
        assert seen[lost.id].presence is Presence.MISSING
        await new.engine.start_container(created)
        await new.engine.signal_container(running, signal.SIGKILL)
        assert (await new.exit_of(running)).code == 137
        assert await new.engine.orphans(set(new.sandboxes), set(new.containers)) == []


async def test_an_exit_is_reported_though_the_supervisor_died(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "1000")
    os.kill(conmon.supervisor(Path(bench.config.run, "containers", container.id)), signal.SIGKILL)
    await bench.engine.signal_container(container, signal.SIGKILL)
    assert (await bench.exit_of(container)).code == 255


async def test_an_exit_that_is_just_being_reported_is_waited_for(place: Config, busybox: Path) -> None:
    """The process is gone, its supervisor has not yet written how it ended."""
    async with opened(place, busybox) as old:
        container = await old.container(await old.sandbox(), "sleep", "1000")
        supervisor = conmon.supervisor(Path(place.run, "containers", container.id))
        kept = dict(old.sandboxes)
        old.containers.clear()
        old.sandboxes.clear()
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(container.facts.pid, signal.SIGKILL)
    async with opened(place, busybox) as new:
        new.containers[container.id] = container
        new.sandboxes.update(kept)
        asyncio.get_running_loop().call_later(0.2, os.kill, supervisor, signal.SIGCONT)
        seen = await new.engine.observe_container(container)
        assert seen.exit is not None and (seen.presence, seen.exit.code) == (Presence.EXITED, 137)


async def test_one_task_that_cannot_be_cleared_away_hides_no_other_exit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cgroup: str) -> None:
        raise OSError(errno.ENODEV, "the cgroup has just gone")

    monkeypatch.setattr("podwright.engines.oci.tasks.kill_left", fail)
    sandbox = await bench.sandbox()
    for code in (3, 4):
        ended = await bench.container(sandbox, "sh", "-c", f"exit {code}")
        assert (await bench.exit_of(ended)).code == code


async def test_after_a_reboot_everything_volatile_is_missing(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as old:
        sandbox = await old.sandbox(network=POD)
        container = await old.container(sandbox, "sleep", "1000")
        await old.engine.signal_container(container, signal.SIGKILL)
        await old.exit_of(container)
        old.containers.clear()
        old.sandboxes.clear()
    for kind in namespaces.PINNABLE:
        namespaces.unpin(Path(place.run, "sandboxes", sandbox.id, "ns", kind))
    mounts.unmount_below(Path(place.run))
    Path(place.run, "boot-id").write_text("another boot")
    async with opened(place, busybox) as new:
        new.sandboxes[sandbox.id], new.containers[container.id] = sandbox, container
        assert not await new.engine.sandbox_alive(sandbox)
        assert (await new.engine.observe_container(container)).presence is Presence.MISSING
        await new.engine.stop_sandbox(sandbox)
        assert new.engine.network.cached_ids() == set()


async def test_orphans_are_found_and_removed(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as old:
        sandbox = await old.sandbox(network=POD, pid=POD)
        container = await old.container(sandbox, "sleep", "1000")
        keep = await old.sandbox(network=POD)
        old.containers.clear()
        old.sandboxes.clear()
    async with opened(place, busybox) as new:
        new.sandboxes[keep.id] = keep
        found = await new.engine.orphans({keep.id}, set())
        kinds = {each.kind for each in found}
        assert {"process", "runtime", "cgroup", "cni", "netns", "mount", "directory"} <= kinds
        assert not [each for each in found if keep.id in each.name]
        for each in found:
            await new.engine.remove_orphan(each)
        assert await new.engine.orphans({keep.id}, set()) == []
        assert not proc.alive(container.facts.pid) and not proc.alive(sandbox.facts.pid)
        assert await new.engine.sandbox_alive(keep)


async def test_a_stray_cgroup_and_directory_go(bench: Bench) -> None:
    id = secrets.token_hex(32)
    cgroups.create(f"{bench.config.cgroup_parent}/{id}")
    Path(bench.config.root, "containers", id, "upper").mkdir(parents=True)
    Path(bench.config.run, "exits", id).write_text("0")
    found = await bench.engine.orphans(set(), set())
    assert {each.kind for each in found} == {"cgroup", "directory", "file"}
    for each in found:
        await bench.engine.remove_orphan(each)
    assert await bench.engine.orphans(set(), set()) == []


async def test_what_another_podwright_runs_is_no_orphan(bench: Bench, busybox: Path, tmp_path: Path) -> None:
    container = await bench.container(await bench.sandbox(), "sleep", "1000")
    beside = msgspec.structs.replace(
        bench.config, root=str(tmp_path / "other-root"), run=str(tmp_path / "other-run")
    )
    async with opened(beside, busybox) as other:
        assert beside.cgroup_parent == bench.config.cgroup_parent
        assert await other.engine.orphans(set(), set()) == []
    assert proc.alive(container.facts.pid)
