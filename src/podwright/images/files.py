"""Writing OCI layouts and archives: what a reader finds is whole, or it is not there. Blocks, for threads."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypeVar

import msgspec

from podwright.errors import InvalidArgument, PodwrightError, ResourceExhausted
from podwright.images.local import FULL_NAME, REF_NAME
from podwright.linux.waiting import to_the_end

T = TypeVar("T")
CHUNK = 1 << 20
ENOSPC = 28


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Interrupted(Exception):
    """Nobody waits for it any more."""


class Interrupt:
    """Ends the copying that was given it."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        self._asked.set()

    def copy(self, source: Source, target: BinaryIO) -> int:
        """Copy all of `source`; how many bytes they were."""
        size = 0
        while block := source.read(CHUNK):
            self.check()
            size += target.write(block)
        return size

    def check(self) -> None:
        if self._asked.is_set():
            raise Interrupted


async def in_thread(work: Callable[[Interrupt], T]) -> T:
    """Run `work` in a thread; a cancellation interrupts it and waits for its end. Errors of the system are
    told by the file that they concern."""
    interrupt = Interrupt()
    task = asyncio.ensure_future(asyncio.to_thread(work, interrupt))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        interrupt.ask()
        await to_the_end(asyncio.wait([task]))
        if not task.cancelled():
            task.exception()  # seen: it has no other reader
        raise
    except OSError as error:
        kind = ResourceExhausted if error.errno == ENOSPC else PodwrightError
        raise kind(f"{error.filename or 'writing'}: {error.strerror}") from error


class Layout:
    """An OCI layout in a directory, which may have images already."""

    VERSION = b'{"imageLayoutVersion":"1.0.0"}'

    def __init__(self, directory: Path, interrupt: Interrupt) -> None:
        self._directory = directory
        self._interrupt = interrupt
        self.written = 0
        is_layout = (directory / "oci-layout").is_file()
        if directory.exists() and not is_layout and not (directory.is_dir() and not any(directory.iterdir())):
            raise InvalidArgument("target", f"{directory} is there and is no OCI layout")
        (directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)

    def add(self, blob: Path) -> None:
        """Copy `blob`, a file named by its digest, unless it is there."""
        target = self._directory / "blobs/sha256" / blob.name
        if target.is_file() and target.stat().st_size == blob.stat().st_size:
            return

        def copy(part: Path) -> int:
            with blob.open("rb") as source, part.open("xb") as out:
                return self._interrupt.copy(source, out)

        self.written += self._put(target, copy)

    def name(self, descriptor: dict[str, Any]) -> None:
        """List the manifest `descriptor` instead of what had its name; at last, when all blobs are there.

        InvalidArgument when an image of another full name has the same tag in this layout.
        """
        index = self._directory / "index.json"
        tree: dict[str, Any] = (
            msgspec.json.decode(index.read_bytes())
            if index.exists()
            else {"schemaVersion": 2, "manifests": []}
        )
        marks, kept = descriptor.get("annotations") or {}, []
        for each in tree["manifests"]:
            theirs = each.get("annotations") or {}
            if theirs.get(REF_NAME) != marks.get(REF_NAME):
                kept.append(each)
            elif theirs.get(FULL_NAME, "") not in ("", marks.get(FULL_NAME, "")):
                raise InvalidArgument(
                    "target",
                    f"{self._directory} has {theirs[FULL_NAME]} as {theirs[REF_NAME]!r}: give this image"
                    f" another name in it, oci:{self._directory}:NAME",
                )
        tree["manifests"] = [*(each for each in kept if each != descriptor), descriptor]
        for file, content in (
            (self._directory / "oci-layout", self.VERSION),
            (index, msgspec.json.encode(tree)),
        ):
            self._put(file, partial(_write, content))

    def _put(self, target: Path, write: Callable[[Path], int]) -> int:
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            size = write(part)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        return size


class Archive:
    """A tar that comes into its place when the context ends well."""

    def __init__(self, file: Path, interrupt: Interrupt) -> None:
        self.interrupt = interrupt
        self.written = 0
        # A device or a directory would be replaced, not written to.
        if file.exists() and not file.is_file():
            raise InvalidArgument("target", f"{file} is there and is no file")
        self._file = file
        self._part = file.with_name(f".{file.name}.{os.getpid()}")

    def __enter__(self) -> Self:
        try:
            self._tar = tarfile.open(self._part, "x", format=tarfile.PAX_FORMAT)
        except OSError as error:
            raise InvalidArgument("target", f"{self._file}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tar.close()
            if error is None:
                self.written = self._part.stat().st_size
                self._part.rename(self._file)
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, name: str, path: Path) -> None:
        """A file's content; nothing else of it gets in, so that the same image gives the same archive."""
        with path.open("rb") as file:
            self._add(name, path.stat().st_size, _Checked(file, self.interrupt))

    def add_text(self, name: str, content: bytes) -> None:
        self._add(name, len(content), io.BytesIO(content))

    def _add(self, name: str, size: int, content: Any) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = size, 0o644
        self._tar.addfile(entry, content)


class _Checked:
    def __init__(self, file: BinaryIO, interrupt: Interrupt) -> None:
        self._file = file
        self._interrupt = interrupt

    def read(self, size: int, /) -> bytes:
        self._interrupt.check()
        return self._file.read(size)


def _write(content: bytes, target: Path) -> int:
    return target.write_bytes(content)
