"""Programs run inside containers and waited for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from podwright.engines.base import Container
from podwright.errors import CommandFailed, DeadlineExceeded
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import Bench

pytestmark = pytest.mark.root
LIMIT = 1 << 20


@pytest.fixture(params=["crun", "runc"])
async def container(bench: Bench, request: pytest.FixtureRequest) -> Container:
    sandbox = await bench.sandbox(handler=request.param)
    config = cri.ContainerConfig(working_dir="/tmp")
    config.envs.add(key="COLOUR", value=b"blue=green")
    config.linux.security_context.run_as_user.value = 1000
    return await bench.container(sandbox, "sleep", "1000", config=config)


async def test_it_runs_as_the_container_does(bench: Bench, container: Container) -> None:
    out = await bench.exec(container, "sh", "-c", "echo $COLOUR; pwd; id -u")
    assert out.split() == ["blue=green", "/tmp", "1000"]


async def test_files_of_an_exec_that_a_crash_cut_short_are_not_believed(
    bench: Bench, container: Container
) -> None:
    bundle = Path(bench.config.run, "containers", container.id)
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # noqa: ASYNC220
        try:
            for number in range(20):  # as an earlier podwright left them
                (bundle / f"exec-{number}.pid").write_text(str(stranger.pid))
                os.mkfifo(bundle / f"exec-{number}.out")
            assert await bench.exec(container, "echo", "fine") == "fine\n"
            refused = await bench.engine.exec_sync(container, ["no-such-program"], 10, LIMIT)
            assert refused.code == 127
            with pytest.raises(DeadlineExceeded):
                await bench.exec(container, "sleep", "1000", timeout=0.001)
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_streams_and_exit_code(bench: Bench, container: Container) -> None:
    done = await bench.engine.exec_sync(container, ["sh", "-c", "echo a; echo b >&2; exit 42"], 10, LIMIT)
    assert (done.stdout, done.stderr, done.code) == (b"a\n", b"b\n", 42)
    done = await bench.engine.exec_sync(container, ["sh", "-c", "kill -9 $$"], 10, LIMIT)
    assert done.code == 137


async def test_each_stream_is_capped(bench: Bench, container: Container) -> None:
    done = await bench.engine.exec_sync(
        container, ["sh", "-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"], 10, 100000
    )
    assert (len(done.stdout), len(done.stderr), done.code) == (100000, 100000, 0)


async def test_what_cannot_be_run_has_the_codes_that_shells_give(bench: Bench, container: Container) -> None:
    done = await bench.engine.exec_sync(container, ["no-such-program"], 10, LIMIT)
    assert (done.code, done.stdout) == (127, b"") and b"no-such-program" in done.stderr
    done = await bench.engine.exec_sync(container, ["/etc/passwd"], 10, LIMIT)
    assert (done.code, done.stdout) == (126, b"") and b"ermission denied" in done.stderr


async def test_a_timeout_kills_all_of_it(bench: Bench, container: Container) -> None:
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"timed out.*0\.3 s"):
        await bench.engine.exec_sync(container, ["sh", "-c", "sleep 501 & sleep 502"], 0.3, LIMIT)
    assert time.monotonic() - before < 2.5
    seen = await bench.exec(container, "ps", "-o", "args,stat")
    assert not [row for row in seen.splitlines() if "sleep 50" in row and "Z" not in row]
    assert await bench.exec(container, "echo", "well") == "well\n"


async def test_a_daemonised_child_does_not_hold_the_answer(bench: Bench, container: Container) -> None:
    before = time.monotonic()
    done = await bench.engine.exec_sync(container, ["sh", "-c", "setsid sleep 503 & echo started"], 10, LIMIT)
    assert done.stdout == b"started\n" and time.monotonic() - before < 5


async def test_many_at_once(bench: Bench, container: Container) -> None:
    all = await asyncio.gather(*(bench.exec(container, "echo", str(n)) for n in range(12)))
    assert all == [f"{n}\n" for n in range(12)]


async def test_after_the_end_it_fails(bench: Bench, container: Container) -> None:
    await bench.engine.signal_container(container, 9)
    await bench.exit_of(container)
    with pytest.raises(CommandFailed):
        await bench.engine.exec_sync(container, ["true"], 10, LIMIT)


async def test_limits_change_while_it_runs(bench: Bench, container: Container) -> None:
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_shares=512)
    await bench.engine.update_container(container, limits)
    path = f"{bench.config.cgroup_parent}/{container.id}"
    name = "memory.limit_in_bytes" if cgroups.layout().version == 1 else "memory.max"
    assert (cgroups.directory(path, "memory") / name).read_text().strip() == str(64 << 20)
    await bench.engine.signal_container(container, 9)
    await bench.exit_of(container)
    await bench.engine.update_container(container, limits)


async def test_out_of_memory_is_told_from_a_kill(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.linux.resources.memory_limit_in_bytes = 20 << 20
    container = await bench.container(
        sandbox, "sh", "-c", "head -c 100000000 /dev/zero | tail; echo survived; exit 137", config=config
    )
    end = await bench.exit_of(container)
    assert end.oom_killed and end.code == 137
