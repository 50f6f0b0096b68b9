"""Programs are started, fed, collected and ended as asked; none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podwright.errors import CommandFailed, DeadlineExceeded
from podwright.linux import proc, spawn


async def test_output_and_status_come_back() -> None:
    done = await spawn.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"fed")
    assert (done.status, done.stdout, done.stderr) == (3, b"fed", b"err\n")


async def test_large_input_and_output_do_not_block_each_other() -> None:
    data = os.urandom(1 << 22)
    assert await spawn.check(["cat"], input=data) == data


async def test_limit_keeps_the_beginning_and_drops_the_rest() -> None:
    done = await spawn.run(["sh", "-c", "head -c 300000 /dev/zero"], limit=1000)
    assert (done.status, len(done.stdout)) == (0, 1000)


async def test_input_that_nobody_reads_is_no_error() -> None:
    assert (await spawn.run(["true"], input=bytes(1 << 20))).status == 0


async def test_a_death_by_signal_is_a_negative_status() -> None:
    assert (await spawn.run(["sh", "-c", "kill -TERM $$"])).status == -signal.SIGTERM


async def test_check_raises_with_the_programs_own_words() -> None:
    with pytest.raises(CommandFailed, match="sh failed with status 4: no luck"):
        await spawn.check(["sh", "-c", "echo no luck >&2; exit 4"])


async def test_a_missing_program_is_file_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        await spawn.run(["/nonexistent/program"])


async def test_a_timeout_kills_the_whole_process_group(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    script = f"sleep 1000 & echo $! > {note}; echo $$ >> {note}; wait"
    with pytest.raises(DeadlineExceeded, match=r"sh did not end within 0\.5 s"):
        await spawn.run(["sh", "-c", script], timeout=0.5)
    for pid in map(int, note.read_text().split()):
        async with asyncio.timeout(10):
            await spawn.exited(pid)
        assert not proc.alive(pid)


async def test_a_cancelled_call_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    os.mkfifo(note)
    task = asyncio.create_task(spawn.run(["sh", "-c", f"echo $$ > {note}; exec sleep 1000"]))
    await asyncio.sleep(0)  # the program starts in the task's first step
    pid = int(await asyncio.to_thread(note.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(f"/proc/{pid}").exists()


def _children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


async def test_a_call_cancelled_twice_leaves_no_zombie_and_no_reader() -> None:
    watched = len(asyncio.get_running_loop()._selector.get_map())  # type: ignore[attr-defined]
    others = _children()  # daemons of other tests' fixtures, perhaps
    for _ in range(5):
        call = asyncio.create_task(spawn.run(["sleep", "1000"], input=b"x" * (2 << 20)))
        while not (started := _children() - others):  # noqa: ASYNC110
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
    assert len(asyncio.get_running_loop()._selector.get_map()) == watched  # type: ignore[attr-defined]


async def test_a_daemonised_child_that_holds_the_output_does_not_delay_the_answer(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    began = time.monotonic()
    done = await spawn.run(["sh", "-c", f"setsid sleep 1000 & echo $! > {note}; echo out"], grace=0.05)
    assert done.stdout == b"out\n"
    assert time.monotonic() - began < 10
    os.kill(int(note.read_text()), signal.SIGKILL)


async def test_exited_returns_at_once_for_a_process_that_is_gone() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await spawn.exited(process.pid)


def reaped(pid: int) -> bool:
    """Not even a zombie is left of it."""
    return not Path(f"/proc/{pid}").exists()


async def test_a_program_serves_as_long_as_the_context_and_is_reaped(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with open(ours, "rb") as said:
        script = f"sleep 1000 & echo $! >/proc/self/fd/{theirs}; wait"
        async with spawn.serving(["sh", "-c", script], pass_fds=[theirs], kept=100) as child:
            os.close(theirs)
            grandchild = int(await asyncio.to_thread(said.readline))
            assert proc.alive(child.pid) and proc.alive(grandchild)
        assert reaped(child.pid)
        await asyncio.wait_for(spawn.exited(grandchild), 60)


async def test_a_serving_program_is_ended_by_a_cancellation_and_by_an_error() -> None:
    async def serve(started: asyncio.Future[int]) -> None:
        async with spawn.serving(["sleep", "1000"], kept=100) as child:
            started.set_result(child.pid)
            await asyncio.Event().wait()

    started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(started))
    pid = await started
    assert proc.alive(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reaped(pid)
    with pytest.raises(ZeroDivisionError):
        async with spawn.serving(["sleep", "1000"], kept=100) as child:
            raise ZeroDivisionError
    assert reaped(child.pid)
    with pytest.raises(FileNotFoundError):
        async with spawn.serving(["/nonexistent/program"], kept=100):
            pass


async def test_of_what_a_serving_program_says_the_end_is_kept() -> None:
    script = "head -c 5000000 /dev/zero >&2; printf 'last words' >&2"
    async with spawn.serving(["sh", "-c", script], kept=1000) as child:
        await spawn.exited(child.pid)
        assert child.said() == "\0" * 990 + "last words"


IN_A_PROCESS_OF_ITS_OWN = """
import asyncio, ctypes, os, sys
from podwright.linux import spawn

forks = 0

@ctypes.CFUNCTYPE(None)
def prepare():
    global forks
    forks += 1

assert ctypes.CDLL(None).__register_atfork(prepare, None, None, None) == 0

async def everything():
    await spawn.run(["cat"], input=b"x", cwd="/", env={}, owner=(os.geteuid(), os.getegid()), sigpipe=False)
    await spawn.check(["true"], timeout=60)
    async with spawn.serving(["sleep", "1000"], kept=10):
        pass
    async with spawn.connected(["sleep", "1000"], cwd="/"):
        pass
    with spawn.echoing(["cat"], 60):
        pass

asyncio.run(everything())
print(forks)
if not os.fork():
    os._exit(0)
os.wait()
print(forks)
"""


def test_no_librarys_fork_handler_runs_for_a_program() -> None:
    # gRPC's start threads in the child, which crash it in a process with connections.
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["0", "1"]
