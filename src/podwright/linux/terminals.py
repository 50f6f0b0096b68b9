"""Pseudo-terminals that a runtime makes: receiving them, their size and settings."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

from podwright.linux.readiness import readable

_WINSIZE = struct.Struct("HHHH")  # struct winsize (ioctl_tty(2)): rows, columns, and two unused
_OFLAG, _CC = 1, 6  # places in what termios.tcgetattr returns


class Console:
    """A socket to which a runtime sends the terminal that it makes (`--console-socket`)."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self.path = path
        """For the runtime's option: short, whatever directory it lies in."""
        self._listener = listener
        self._accepted = False

    @property
    def called(self) -> bool:
        """Whether somebody has connected, be it that nobody has looked yet."""
        if self._accepted:
            return True
        knock = select.poll()
        knock.register(self._listener, select.POLLIN)
        return bool(knock.poll(0))

    async def receive(self) -> FileIO:
        """The master of the terminal, in non-blocking mode; the caller closes it.

        Raises ConnectionError when something else came.
        """
        await readable(self._listener.fileno())
        connection, _ = self._listener.accept()
        self._accepted = True
        with connection:
            connection.setblocking(False)
            await readable(connection.fileno())
            fds = array.array("i")
            _, parts, _, _ = connection.recvmsg(
                4096, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        for level, kind, content in parts:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not fds:
            raise ConnectionError("the runtime connected to the console socket and sent no terminal")
        os.set_blocking(fds[0], False)
        return FileIO(fds[0], "r+")


@asynccontextmanager
async def console(path: Path) -> AsyncIterator[Console]:
    """Listen on the new socket `path`, which is removed at the end."""
    # A socket's path has room for 107 bytes only (unix(7)): it is named by way of its directory.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/{os.getpid()}/fd/{directory}/{path.name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            listener.setblocking(False)
            listener.bind(short)
            try:
                listener.listen(1)
                yield Console(listener, short)
            finally:
                path.unlink(missing_ok=True)
    finally:
        os.close(directory)


def set_size(terminal: int, width: int, height: int) -> None:
    """In characters; the processes in the foreground get SIGWINCH. Impossible sizes are left out."""
    if 0 < width <= 0xFFFF and 0 < height <= 0xFFFF:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, _WINSIZE.pack(height, width, 0, 0))


def size(terminal: int) -> tuple[int, int]:
    """Width and height in characters."""
    rows, columns, _, _ = _WINSIZE.unpack(fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(_WINSIZE.size)))
    return columns, rows


def return_carriages(terminal: int) -> None:
    """Newlines of programs become carriage return and newline, which clients' terminals expect."""
    settings = termios.tcgetattr(terminal)
    settings[_OFLAG] |= termios.OPOST | termios.ONLCR
    termios.tcsetattr(terminal, termios.TCSANOW, settings)


def end_of_file(terminal: int) -> bytes:
    """The character that means the end of input to who reads lines from it; b"" when there is none."""
    character = termios.tcgetattr(terminal)[_CC][termios.VEOF]
    assert isinstance(character, bytes)
    return character.rstrip(b"\0")
