"""Built-in programs that listen on a port of the pod, or connect with one: netcat."""

from __future__ import annotations

import asyncio

from podwright.engines.fake.programs.context import CHUNK, Context
from podwright.engines.fake.programs.options import UsageError
from podwright.engines.fake.programs.ports import Listener, Socket
from podwright.engines.fake.programs.streams import BrokenPipe, Stream

LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


async def nc(context: Context) -> int:
    """`nc -l -p PORT`, `nc -ll -p PORT -e PROG ARG...` (or -lk: again and again), `nc localhost PORT`."""
    try:
        listens, again, port, program = _options(context.argv[1:])
    except UsageError as error:
        await context.error(str(error))
        return 1
    try:
        if not listens:
            return await _talk(context, context.inside.ports.connect(port), program)
        with Listening(context, port) as listener:
            while True:
                code = await _talk(context, await listener.accept(), program, wait=not again)
                if not again:
                    return code
    except OSError as error:
        await context.error(error.strerror or str(error))
        return 1


class Listening:
    """A port, held as one more descriptor of the process: its end frees the port."""

    def __init__(self, context: Context, port: int) -> None:
        """OSError when somebody else listens there."""
        self._context = context
        self._listener = context.inside.ports.listen(port)
        self._fd = max(context.fds, default=2) + 1
        context.fds[self._fd] = self._listener

    def __enter__(self) -> Listener:
        return self._listener

    def __exit__(self, *_: object) -> None:
        if self._context.process.code is None and self._context.fds.get(self._fd) is self._listener:
            del self._context.fds[self._fd]
            self._listener.close()


def port_number(text: str) -> int:
    """UsageError."""
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise UsageError(f"bad port '{text}'")


def _options(words: list[str]) -> tuple[bool, bool, int, list[str]]:
    """Whether to listen, and to go on doing so; the port; a program."""
    listens, again, port, program = False, False, "", list[str]()
    operands: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word[:1] != "-":
            operands.append(word)
        elif word == "-e":
            program, rest = rest, []
            if not program:
                raise UsageError("option requires an argument -- 'e'")
        elif word == "-p" and rest:
            port = rest.pop(0)
        else:
            letters = word[1:].removesuffix("p") if rest else word[1:]
            if set(letters) - set("lkn"):
                raise UsageError(f"unrecognized option: {word}")
            again = again or "k" in letters or "ll" in letters
            listens = listens or "l" in letters
            if letters != word[1:]:
                port = rest.pop(0)
    if not listens:
        if len(operands) != 2:
            raise UsageError("give a host and a port, or -l -p PORT")
        if operands[0] not in LOCAL:
            raise UsageError(f"bad address '{operands[0]}': there is nothing but localhost")
        port = operands[1]
    elif operands and not port:
        port = operands.pop()
    return listens, again, port_number(port), program


async def _talk(context: Context, socket: Socket, program: list[str], *, wait: bool = True) -> int:
    """One connection: with `program`, or with the own standard streams."""
    if program:
        found = context.inside.resolve(program, context.cwd)
        if found is None:
            socket.reset()
            socket.close()
            await context.error(f"can't execute '{program[0]}': No such file or directory")
            return 127
        fds: dict[int, Stream] = {0: socket, 1: socket.share(), 2: socket.share()}
        process = context.inside.spawn(*found, fds, env=context.env, cwd=context.cwd, parent=context.process)
        return await process.wait() if wait else 0
    try:
        sending = asyncio.ensure_future(_send(context, socket))
        try:
            while data := await socket.read(CHUNK):
                await context.out(data)
        finally:
            sending.cancel()
        return 0
    finally:
        socket.close()


async def _send(context: Context, socket: Socket) -> None:
    try:
        while data := await context.stdin.read(CHUNK):
            await socket.write(data)
        socket.end()
    except (BrokenPipe, OSError):
        pass
