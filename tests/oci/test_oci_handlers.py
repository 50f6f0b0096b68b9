"""The runtimes behind the handlers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from podwright.engines.base import Presence
from podwright.engines.node.places import Places
from podwright.engines.oci import runtimes
from podwright.engines.oci.runtimes import Runtimes
from podwright.errors import DeadlineExceeded, FailedPrecondition
from podwright.house import open_house
from podwright.linux import cgroups, mounts
from podwright.linux.threads import run_in_fresh_thread
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench, opened

pytestmark = pytest.mark.root
HANDLERS = [
    "crun",
    "runc",
    # Not every Debian has it.
    pytest.param("runsc", marks=pytest.mark.skipif(shutil.which("runsc") is None, reason="not installed")),
]


@pytest.mark.parametrize("handler", HANDLERS)
async def test_each_handler_runs_a_pod(bench: Bench, handler: str) -> None:
    sandbox = await bench.sandbox(network=POD, handler=handler)
    container = await bench.container(sandbox, "sh", "-c", "echo from $0; sleep 1000", "inside")
    log = Path(container.log_path)
    done = await bench.engine.exec_sync(container, ["sh", "-c", "echo hi; exit 4"], 20, 1 << 20)
    assert (done.stdout, done.code) == (b"hi\n", 4)
    async with asyncio.timeout(60):
        # What it says first may come after what an exec said.
        while "from inside" not in log.read_text():
            await asyncio.to_thread(os.sched_yield)
    await bench.engine.signal_container(container, signal.SIGKILL)
    assert (await bench.exit_of(container)).code == 137


async def test_what_runc_warns_of_is_not_the_containers_output(
    place: Config, busybox: Path, tmp_path: Path
) -> None:
    """Its standard error is the container's while it makes one; newer ones warn of user namespaces."""
    runtime = tmp_path / "runc"
    runtime.write_text(
        '#!/bin/sh\ncase " $* " in *" --log "*) ;; *) echo level=warning >&2 ;; esac\n'
        f'exec {shutil.which("runc")} "$@"\n'
    )
    runtime.chmod(0o755)
    handlers = {"runc": HandlerConfig(path=str(runtime))}
    config = msgspec.structs.replace(place, handlers=handlers, default_handler="runc")
    async with opened(config, busybox) as bench:
        sandbox = await bench.sandbox(handler="runc")
        assert await bench.run(sandbox, "echo own >&2") == "own\n"
        container = await bench.container(sandbox, "sleep", "1000")
        done = await bench.engine.exec_sync(container, ["sh", "-c", "echo own >&2"], 20, 1 << 20)
        assert (done.stdout, done.stderr) == (b"", b"own\n")


@pytest.mark.parametrize("handler", HANDLERS)
async def test_each_handler_has_the_pods_hostname_and_runs_privileged(bench: Bench, handler: str) -> None:
    pod = cri.PodSandboxConfig(hostname="of-the-pod")
    pod.linux.security_context.privileged = True
    sandbox = await bench.sandbox(network=POD, handler=handler, config=pod)
    wanted = cri.ContainerConfig()
    wanted.linux.security_context.privileged = True
    container = await bench.container(sandbox, "sleep", "1000", config=wanted)
    done = await bench.engine.exec_sync(container, ["hostname"], 20, 1 << 20)
    assert done.stdout == b"of-the-pod\n"


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_container_that_was_never_started_can_be_killed(bench: Bench, handler: str) -> None:
    sandbox = await bench.sandbox(network=POD, handler=handler)
    container = await bench.container(sandbox, "sleep", "1000", start=False)
    await bench.engine.signal_container(container, signal.SIGKILL)
    assert (await bench.exit_of(container)).code == 137


@pytest.mark.parametrize("handler", HANDLERS)
async def test_an_exec_that_times_out_leaves_no_process(bench: Bench, handler: str) -> None:
    sandbox = await bench.sandbox(network=POD, handler=handler)
    container = await bench.container(sandbox, "sleep", "1000")
    with pytest.raises(DeadlineExceeded):
        await bench.engine.exec_sync(container, ["sh", "-c", "sleep 301 & sleep 302"], 1, 1 << 20)
    done = await bench.engine.exec_sync(container, ["ps", "-o", "args"], 20, 1 << 20)
    assert b"sleep 1000" in done.stdout and b"sleep 30" not in done.stdout, done.stdout


async def test_status_says_what_each_can_do(bench: Bench) -> None:
    status = await bench.engine.status()
    handlers = {each.name: each for each in status.handlers}
    assert handlers["crun"].available and handlers["crun"].recursive_read_only
    assert handlers["runc"].available and handlers["runc"].recursive_read_only
    assert status.runtime_error == "" and status.network_error == "" and status.default_handler == "crun"


async def test_a_handler_that_cannot_work_says_why(place: Config, busybox: Path) -> None:
    config = msgspec.structs.replace(
        place, handlers={**place.handlers, "kata": HandlerConfig(path="no-such-runtime")}
    )
    async with opened(config, busybox) as bench:
        with pytest.raises(FailedPrecondition, match="no-such-runtime is not installed"):
            bench.engine.check_handler("kata")
        kata = next(each for each in (await bench.engine.status()).handlers if each.name == "kata")
        assert not kata.available and "not installed" in kata.reason


async def test_what_a_handler_made_can_be_ended_and_removed_when_it_has_left(
    place: Config, busybox: Path
) -> None:
    leaving = msgspec.structs.replace(
        place, handlers={**place.handlers, "leaving": HandlerConfig(path="crun")}
    )
    async with opened(leaving, busybox) as old:
        sandbox = await old.sandbox(network=POD, pid=POD, handler="leaving")
        running = await old.container(sandbox, "sleep", "1000")
        created = await old.container(sandbox, "sleep", "1000", start=False)
        old.containers.clear()
        old.sandboxes.clear()
    state = Path(place.run, "runtime", "leaving")
    assert len(list(state.iterdir())) == 3
    async with opened(place, busybox) as new:
        new.sandboxes[sandbox.id] = sandbox
        for each in (running, created):
            new.containers[each.id] = each
            assert (await new.engine.observe_container(each)).presence is Presence.RUNNING
            await new.engine.signal_container(each, signal.SIGKILL)
            assert (await new.exit_of(each)).code == 137
            await new.remove(each)
        await new.remove_sandbox(sandbox)
        assert list(state.iterdir()) == []
        assert await new.engine.orphans(set(), set()) == []


async def test_each_runtime_is_asked_once_however_many_want_to_know(tmp_path: Path) -> None:
    program, asked = tmp_path / "crun", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho $1 >>{asked}\necho crun version 1.8.1\n")
    program.chmod(0o755)
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        handlers={"crun": HandlerConfig(path=str(program))},
    )
    runtimes = Runtimes(config, Places(config))
    runtimes.find()
    known = await asyncio.gather(*(runtimes.handlers() for _ in range(3)))
    assert known[0] == known[1] == known[2] and known[0][0].available
    assert asked.read_text().split() == ["--version", "features"]


async def test_a_conmon_that_is_not_there_is_told_by_its_key(tmp_path: Path) -> None:
    config = Config(root=str(tmp_path / "root"), run=str(tmp_path / "run"), conmon="nope")
    with pytest.raises(FailedPrecondition, match="configuration conmon: 'nope' is no program here"):
        async with open_house(config):
            raise AssertionError("it was opened")


def test_the_unified_hierarchy_is_hidden_from_crun_alone_where_mounts_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As systemd makes all mounts: what is mounted on one comes up in every copy of it."""
    unified = tmp_path / "unified"
    unified.mkdir()
    mounts.tmpfs(unified, size=1 << 20)
    try:
        mounts.make_shared(unified)
        (unified / "cgroup.controllers").touch()
        layout = replace(cgroups.layout(), unified=unified)
        monkeypatch.setattr(cgroups, "layout", lambda: layout)
        namespace = run_in_fresh_thread(runtimes._without_unified)
        try:
            seen = subprocess.run(
                ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{namespace}", "ls", str(unified)],
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            os.close(namespace)
        assert seen.stdout == ""
        assert (unified / "cgroup.controllers").exists(), "the host's own view is covered"
    finally:
        mounts.unmount_below(tmp_path)
