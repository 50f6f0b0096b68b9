"""What is asked of containerd about a program that runs in a container: how it ended, a signal, an end of
its input, to be forgotten. Signals go through the kernel where the program is one of this host's, because the
API knows no process groups."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from podwright.engines.containerd.api import Containerd
from podwright.engines.node.host_process import HostProcess
from podwright.errors import CommandFailed, FailedPrecondition, NotFound, Unavailable
from podwright.wire.containerd import task_types_pb2, tasks_pb2

KIND = "exec"
"""How the ids of these programs begin, and the names of their directories."""
HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0
"""Seconds that its end may take to be told after SIGKILL."""
DAEMON_GRACE = 60.0
"""Seconds that a daemon which is gone may take to come back and tell how a program has ended."""
_AGAIN = 0.2


async def exit_code(containerd: Containerd, id: str, exec_id: str) -> int:
    """Wait for the end of a program that has been made known. Raises CommandFailed when nobody knows."""
    request = tasks_pb2.WaitRequest(container_id=id, exec_id=exec_id)
    deadline = 0.0
    while True:
        asked = asyncio.get_running_loop().time()
        try:
            answer = await containerd.ask(containerd.tasks.Wait, request, "exec", timeout=None)
            return int(answer.exit_status)
        except NotFound as error:
            raise CommandFailed("containerd exec", -signal.SIGKILL, "its container is gone") from error
        except Unavailable as error:
            now = asyncio.get_running_loop().time()
            # What was waited for meanwhile says that the daemon was there.
            deadline = now + DAEMON_GRACE if not deadline or now - asked > 2 * _AGAIN else deadline
            if now > deadline:
                raise CommandFailed("containerd exec", -signal.SIGKILL, str(error)) from error
            await asyncio.sleep(_AGAIN)


async def send(containerd: Containerd, id: str, exec_id: str, pid: int, number: int) -> None:
    """Signal a program with its process group, or alone where it is no process of this kernel; fine when it
    has ended."""
    if (process := HostProcess.of(pid, id)) is not None:
        try:
            if number == signal.SIGKILL:
                process.kill()
            else:
                process.hang_up()
        finally:
            process.close()
        return
    request = tasks_pb2.KillRequest(container_id=id, exec_id=exec_id, signal=number)
    with suppress(NotFound, FailedPrecondition):
        await containerd.ask(containerd.tasks.Kill, request, "signal of an exec")


async def close_stdin(containerd: Containerd, id: str, exec_id: str = "") -> None:
    """No more comes: the shim lets go of the stdin of a program, or of the container's own process."""
    request = tasks_pb2.CloseIORequest(container_id=id, exec_id=exec_id, stdin=True)
    with suppress(NotFound, FailedPrecondition):
        await containerd.ask(containerd.tasks.CloseIO, request, "end of stdin")


async def forget(containerd: Containerd, id: str, exec_id: str) -> None:
    """Have the shim forget a program that has ended, or could not be started."""
    request = tasks_pb2.DeleteProcessRequest(container_id=id, exec_id=exec_id)
    with suppress(NotFound):
        await containerd.ask(containerd.tasks.DeleteProcess, request, "end of an exec")


async def pid(containerd: Containerd, id: str, exec_id: str) -> int:
    """Of a program that runs; 0 when it does not."""
    request = tasks_pb2.GetRequest(container_id=id, exec_id=exec_id)
    try:
        found = (await containerd.ask(containerd.tasks.Get, request, "exec")).process
    except NotFound:
        return 0
    return int(found.pid) if found.status == task_types_pb2.RUNNING else 0
