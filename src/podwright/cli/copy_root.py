"""A container's files through its root directory, as the host's kernel shows it: for containers without tar.

It takes root, and a container whose processes are this kernel's. Its mounts are seen as it sees them. Paths
are resolved by the kernel inside that root, whatever the container makes of its links meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from podwright.cli import copy_tree
from podwright.cli.copy_thread import drained, fed, report
from podwright.cli.output import in_words
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.linux.beneath import open_in_root
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.find import Found
    from podwright.engines.streams import Sink, Source


@asynccontextmanager
async def seen(runtime: Cri, container: Found) -> AsyncIterator[ByRoot]:
    """The files of a running container. FailedPrecondition when they cannot be seen from here."""
    import msgspec

    answer = await runtime.container_status(
        cri.ContainerStatusRequest(container_id=container.id, verbose=True)
    )
    info = msgspec.json.decode(answer.info.get("info", "{}"))
    try:
        root, owner = _opened(info)
    except (PodwrightError, OSError, ValueError) as error:
        why = in_words(error)
        raise FailedPrecondition(
            f"container {container.title} has no tar, and its files cannot be reached from here: {why}"
        ) from None
    try:
        yield ByRoot(root, owner)
    finally:
        os.close(root)


def _opened(info: dict[str, Any]) -> tuple[int, copy_tree.Owner]:
    """The root directory of the container, and whose files its root user's are."""
    pid, rootfs = int(info.get("pid") or 0), _rootfs(info)
    if pid <= 0 or rootfs is None:
        raise PodwrightError("its runtime does not tell its process and its root directory")
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The process of a virtual machine or of gVisor, or one that has the number now, has another root.
        there, told = os.fstat(root), rootfs.stat()
        if (there.st_dev, there.st_ino) != (told.st_dev, told.st_ino):
            raise PodwrightError(f"process {pid} does not have {rootfs} as its root")
        return root, copy_tree.Owner(_outside(pid, "uid_map"), _outside(pid, "gid_map"))
    except BaseException:
        os.close(root)
        raise


def _rootfs(info: dict[str, Any]) -> Path | None:
    """Where the container's root is mounted on the host: podwright says it so, CRI-O in the spec."""
    told = info.get("rootfs") or ((info.get("runtimeSpec") or {}).get("root") or {}).get("path") or ""
    return Path(told) if told.startswith("/") else None


def _outside(pid: int, table: str) -> int:
    """What id 0 of the process' user namespace is here (user_namespaces(7))."""
    for line in Path(f"/proc/{pid}/{table}").read_text().splitlines():
        inside, outside, _ = map(int, line.split())
        if inside == 0:
            return outside
    raise PodwrightError(f"the user namespace of process {pid} has no id 0")


class ByRoot:
    """A `copy.Container`."""

    def __init__(self, root: int, owner: copy_tree.Owner) -> None:
        self._root, self._owner = root, owner

    async def is_directory(self, path: str) -> bool:
        try:
            os.close(self._directory(path))
        except NotFound:
            return False
        return True

    async def read(self, directory: str, name: str, sink: Sink) -> None:
        fd = self._directory(directory)
        try:

            def pack(file: BinaryIO) -> None:
                copy_tree.pack(fd, name, name, file, report)

            async def send(source: Source) -> None:
                while data := await source.read():
                    await sink.write(data)
                await sink.close()

            await fed(pack, send)
        finally:
            os.close(fd)

    async def write(self, directory: str, source: Source) -> None:
        fd = self._directory(directory)
        try:

            def unpack(file: BinaryIO) -> None:
                copy_tree.unpack(file, fd, ".", ".", self._owner, report)

            async def receive(sink: Sink) -> None:
                while data := await source.read():
                    await sink.write(data)

            await drained(unpack, receive)
        finally:
            os.close(fd)

    def _directory(self, path: str) -> int:
        try:
            return open_in_root(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise NotFound(f"{path} in the container: {error.strerror}") from None
