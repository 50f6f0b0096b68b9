"""Redirections: what the descriptors of a shell stand for during a command."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from podwright.engines.fake.programs.shell.syntax import Redirection
from podwright.engines.fake.programs.streams import Stream, Text

if TYPE_CHECKING:
    from podwright.engines.fake.programs.shell.interpreter import Shell


class Redirected:
    """The descriptors of a shell, changed for one command; as a context it is false when they cannot be."""

    def __init__(self, shell: Shell, redirections: tuple[Redirection, ...]) -> None:
        self._shell = shell
        self._redirections = redirections
        self._before: list[tuple[int, Stream | None]] = []

    async def __aenter__(self) -> bool:
        return not self._redirections or await self.apply()

    async def __aexit__(self, *_: object) -> None:
        fds = self._shell.fds
        for fd, stream in reversed(self._before):
            if self._shell.context.process.code is not None:
                # It was killed, and its descriptors are closed, but not those that were put aside.
                if stream is not None:
                    stream.close()
                continue
            if fd in fds:
                fds.pop(fd).close()
            if stream is not None:
                fds[fd] = stream
        self._before.clear()

    async def apply(self) -> bool:
        """False when one cannot be opened: the complaint is written, the status is 1."""
        shell = self._shell
        for each in self._redirections:
            target = ""
            try:
                target = "" if each.document is not None else await shell.expansion.text(each.target)
                stream = await self._opened(each, target)
            except OSError as error:
                verb = "create" if each.operator in (">", ">>", ">|") else "open"
                problem = error.strerror or str(error)
                if error.errno == errno.EBADF:
                    await shell.complain(f"{target}: {problem}")
                else:
                    await shell.complain(f"can't {verb} {target}: {problem}")
                await self.__aexit__()
                shell.state.status = 1
                return False
            self._before.append((each.fd, shell.fds.pop(each.fd, None)))
            if stream is not None:
                shell.fds[each.fd] = stream
        return True

    def keep(self) -> None:
        for _, stream in self._before:
            if stream is not None:
                stream.close()
        self._before.clear()

    async def _opened(self, each: Redirection, target: str) -> Stream | None:
        if each.document is not None:
            text = await self._shell.expansion.text(tuple(each.document.body))
            return Text(text.encode(errors="surrogateescape"))
        if each.operator in ("<&", ">&"):
            if target == "-":
                return None
            source = self._shell.fds.get(int(target)) if target.isdecimal() else None
            if source is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return source.share()
        mode = {"<": "r", ">": "w", ">|": "w", ">>": "a", "<>": "r+"}[each.operator]
        return self._shell.context_here().open(target, mode)
