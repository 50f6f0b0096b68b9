"""cp: files into a container and out of it, as a tar stream.

A container's own tar reads and writes them, run by exec: so it sees what the container sees, with its rights,
and works at every CRI server. Where there is no tar they go through the container's root directory, if it is
one of this host (`copy_root`).
"""

# Paths are plain strings here: "dir/." is not "dir".
# ruff: noqa: PTH100, PTH112, PTH119

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from podwright.cli import copy_tree
from podwright.cli.copy_thread import drained, fed, report
from podwright.cli.find import find
from podwright.engines.streams import Sink, Source, Streams
from podwright.errors import InvalidArgument, NotFound, PodwrightError

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.streaming.client import Options

WORDS_LIMIT = 4096
"""Bytes of what a tar says that are kept for the error."""


@dataclass(frozen=True, slots=True)
class Place:
    container: str
    """"" is this side."""
    path: str

    @property
    def is_stream(self) -> bool:
        return not self.container and self.path == "-"

    @property
    def name(self) -> str:
        """What a copy of it is called; "" for the contents of a directory ("dir/.") and for "/"."""
        last = self.path.rstrip("/").rpartition("/")[2]
        return "" if last in (".", "..") else last


class NoTar(Exception):
    """The container has no tar."""


class Container(Protocol):
    """The files of a container, whatever way they are reached. Paths are absolute."""

    async def is_directory(self, path: str) -> bool: ...

    async def read(self, directory: str, name: str, sink: Sink) -> None:
        """The tar of `name` in `directory`, under that name; the sink is closed in the end."""

    async def write(self, directory: str, source: Source) -> None:
        """Unpack a tar in `directory`."""


async def copy(door: Door, source: str, target: str, options: Options) -> None:
    """Copy a file or directory to `target`: into it when it is a directory, else under its name."""
    origin, goal = place(source), place(target)
    if bool(origin.container) == bool(goal.container):
        raise InvalidArgument("", "one of SRC and DST is CONTAINER:PATH, the other one a path here or -")
    from podwright.cli.share import lasting

    async with lasting(door, None) as runtime:
        container = await find(runtime, origin.container or goal.container, ("container",))
        inside: Container = ByTar(runtime, container.id, options)
        try:
            await _copy(inside, origin, goal)
        except NoTar:
            from podwright.cli import copy_root

            async with copy_root.seen(runtime, container) as inside:
                await _copy(inside, origin, goal)


async def _copy(inside: Container, origin: Place, goal: Place) -> None:
    if origin.is_stream:
        if not await inside.is_directory(goal.path):
            raise NotFound(f"{goal.container}:{goal.path} is no directory, into which an archive could go")
        from podwright.cli.standard import Input

        await inside.write(goal.path, Input(0))
    elif goal.is_stream:
        from podwright.cli.standard import Output

        out = Output(1)
        try:
            await inside.read(*_split(origin.path), out)
        finally:
            await out.close()
    elif goal.container:
        await _copy_in(inside, origin, goal)
    else:
        await _copy_out(inside, origin, goal)


def place(text: str) -> Place:
    """ "web/main:/etc/hosts" is in a container, as is "web:etc"; what begins with / or ., or has no colon, is
    here. A relative path in a container starts at its root."""
    word, colon, path = text.partition(":")
    if not colon or not word or word[0] in "/.":
        return Place("", text)
    return Place(word, posixpath.join("/", path) if path.endswith("/.") or path == "." else _clean(path))


def _clean(path: str) -> str:
    clean = posixpath.normpath(posixpath.join("/", path))
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _split(path: str) -> tuple[str, str]:
    """A directory and a name in it: "/etc/hosts" -> "/etc", "hosts"; "/etc/." -> "/etc", "."."""
    directory, _, name = path.rstrip("/").rpartition("/")
    return directory or "/", name or "."


async def _copy_in(inside: Container, origin: Place, goal: Place) -> None:
    path = os.path.abspath(origin.path)
    if not os.path.lexists(path):
        raise NotFound(f"{origin.path}: no such file or directory")
    if await inside.is_directory(goal.path):
        directory, name = goal.path, origin.name or ("." if os.path.isdir(path) else os.path.basename(path))
    elif goal.path.endswith("/"):
        raise NotFound(f"{goal.container}:{goal.path} is no directory")
    else:
        directory, name = _split(goal.path)
        if not await inside.is_directory(directory):
            raise NotFound(f"{goal.container}:{directory} is no directory")
    # The name "." is of no entry that could be opened: the directory itself is meant.
    parent, base = os.path.split(path) if path != "/" else ("/", ".")
    directory_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:

        def pack(file: BinaryIO) -> None:
            copy_tree.pack(directory_fd, base, name, file, report)

        await fed(pack, lambda source: inside.write(directory, source))
    finally:
        os.close(directory_fd)


async def _copy_out(inside: Container, origin: Place, goal: Place) -> None:
    directory, name = _split(origin.path)
    parent, as_name = goal.path, origin.name or "."
    if not os.path.isdir(goal.path):
        if goal.path.endswith("/") and origin.name:
            raise NotFound(f"{goal.path} is no directory")
        parent, as_name = os.path.split(os.path.abspath(goal.path))
    try:
        directory_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"{parent}: {error.strerror}") from None
    try:

        def unpack(file: BinaryIO) -> None:
            copy_tree.unpack(file, directory_fd, name, as_name, None, report)

        await drained(unpack, lambda sink: inside.read(directory, name, sink))
    finally:
        os.close(directory_fd)


class ByTar:
    """Through the container's own tar."""

    def __init__(self, runtime: Cri, container: str, options: Options) -> None:
        self._runtime, self._container, self._options = runtime, container, options

    async def is_directory(self, path: str) -> bool:
        # No other program is needed than the one that is needed anyway.
        return await self._tar(("cf", "-", "-C", path, "--no-recursion", ".")) == ""

    async def read(self, directory: str, name: str, sink: Sink) -> None:
        # A name must not be taken for an option.
        name = f"./{name}" if name.startswith("-") else name
        self._check(await self._tar(("cf", "-", "-C", directory, name), stdout=sink))

    async def write(self, directory: str, source: Source) -> None:
        self._check(await self._tar(("xf", "-", "-C", directory), stdin=source))

    def _check(self, words: str) -> None:
        if words:
            raise PodwrightError(f"tar in the container: {words}")

    async def _tar(
        self, arguments: tuple[str, ...], *, stdin: Source | None = None, stdout: Sink | None = None
    ) -> str:
        """ "" when it succeeded, else what it said. Raises NoTar."""
        from podwright.cli.exec import Failed, judged
        from podwright.streaming import client

        words = _Words()
        streams = Streams(stdin=stdin, stdout=stdout or _Words(), stderr=words)
        try:
            status = await client.exec(
                self._runtime, self._container, ["tar", *arguments], streams, self._options
            )
        except PodwrightError as error:
            if isinstance(judged(error), Failed):
                raise NoTar from None
            raise
        # Runtimes that start the program before they know whether they can say it so.
        if status in (126, 127):
            raise NoTar
        return "" if status == 0 else words.text() or f"it ended with {status}"


class _Words:
    """A `Sink` that keeps the beginning."""

    def __init__(self) -> None:
        self._kept = bytearray()

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._kept += bytes(data[: WORDS_LIMIT - len(self._kept)])

    async def close(self) -> None:
        pass

    def text(self) -> str:
        return self._kept.decode(errors="replace").strip()
