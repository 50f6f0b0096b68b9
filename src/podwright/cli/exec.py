"""exec: a program in a running container, at the user's terminal or pipes; its status is the command's.

With --timeout it runs by ExecSync, which alone can bound its time; so it does on a server without streaming.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from podwright.cli.find import find
from podwright.errors import CommandFailed, InvalidArgument, PodwrightError, Unimplemented
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.streaming.client import Options

NOT_FOUND, CANNOT_RUN = 127, 126
"""What shells say of a program that is not there, and of one that cannot be run."""

_NO_PROGRAM = re.compile(r"executable file .*not found|no such file or directory", re.I | re.S)
_NO_RIGHT = re.compile(r"permission denied|is a directory|exec format error", re.I)


class Failed(PodwrightError):
    """The program never ran; `status` is how a shell would end."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


async def exec(
    door: Door,
    word: str,
    argv: Sequence[str],
    *,
    interactive: bool,
    tty: bool,
    timeout: int,
    detach_keys: str,
    options: Options,
) -> int:
    """Run `argv` in the container that `word` names, and return its exit code.

    Raises Failed when it could not be run, InvalidArgument for options that exclude each other.
    """
    if argv[0] == "--" and len(argv) > 1:
        argv = argv[1:]  # as kubectl's users write it
    if timeout:
        if interactive or tty:
            raise InvalidArgument("--timeout", "does not go together with -i or -t")
        async with door.cri() as runtime:
            return await _sync(runtime, (await find(runtime, word, ("container",))).id, argv, timeout)
    from podwright.cli import session, terminal
    from podwright.cli.share import lasting

    keys = terminal.keys(detach_keys)
    if tty and not session.has_terminal(stdin=interactive):
        print("podwright: -t: there is no terminal here, so the command gets none", file=sys.stderr)
        tty = False
    async with lasting(door, None) as runtime:
        from podwright.streaming import client

        container = await find(runtime, word, ("container",))
        try:
            return await session.converse(
                lambda streams: client.exec(runtime, container.id, argv, streams, options),
                stdin=interactive,
                tty=tty,
                keys=keys,
            )
        except session.Detached:
            return 0
        except Unimplemented:
            if interactive or tty:
                raise
            return await _sync(runtime, container.id, argv, 0)
        except PodwrightError as error:
            raise judged(error) from None


async def _sync(runtime: Cri, container: str, argv: Sequence[str], timeout: int) -> int:
    """Run it to its end, and print its output then."""
    request = cri.ExecSyncRequest(container_id=container, cmd=argv, timeout=timeout)
    try:
        answer = await runtime.exec_sync(request)
    except PodwrightError as error:
        raise judged(error) from None
    for stream, data in ((sys.stdout, answer.stdout), (sys.stderr, answer.stderr)):
        stream.buffer.write(data)
        stream.buffer.flush()
    return answer.exit_code


def judged(error: PodwrightError) -> PodwrightError:
    """Runtimes tell of a program that cannot be run in words alone."""
    if type(error) in (PodwrightError, CommandFailed):
        if _NO_PROGRAM.search(str(error)):
            return Failed(str(error), NOT_FOUND)
        if _NO_RIGHT.search(str(error)):
            return Failed(str(error), CANNOT_RUN)
    return error
