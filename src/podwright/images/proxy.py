"""The client of `skopeo experimental-image-proxy`: one skopeo that holds images open and streams their blobs.

It answers requests one at a time over a SOCK_SEQPACKET socket, in order; a blob comes through a pipe whose
reading end comes with the answer. The protocol is described at the head of skopeo's cmd/skopeo/proxy.go.
Nothing here knows references, stores or what an error means: `remote.py` does.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podwright.errors import FailedPrecondition
from podwright.images.inflow import Inflow, Progress
from podwright.linux import spawn

PACKET = 1 << 17
"""An answer is at most as long as skopeo's own buffer, 32 KiB, with an error text that may be longer."""
LOG_KEPT = 1 << 18
"""Bytes of the end of skopeo's debug log that are kept."""


class Refused(Exception):
    """What skopeo said when it could not do something."""


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    pipe: int
    """Its number at skopeo; 0 when there is none."""
    fd: int
    """-1 when there is none."""


class Proxy:
    """See `started`."""

    def __init__(self, ours: socket.socket, child: spawn.Serving) -> None:
        self._socket = ours
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[_Answer]] = deque()
        self._sending = asyncio.Lock()
        self._gone = False
        self._loop.add_reader(ours.fileno(), self._receive)

    async def begin(self) -> None:
        """The first request, before all others."""
        await self._call("Initialize")

    def log(self) -> str:
        """The end of its debug log."""
        return self._child.said()

    async def open(self, image: str) -> int:
        """A handle of `image` (skopeo's notation)."""
        return int((await self._call("OpenImage", image)).value)

    async def manifest(self, handle: int) -> tuple[str, bytes]:
        """The digest of the manifest as served, and the manifest: another one when it was none of OCI's."""
        answer = await self._call("GetManifest", handle)
        finished = self._finish(answer)
        with Inflow(answer.fd) as inflow:
            content = await inflow.read()
        await finished
        return str(answer.value), content

    async def blob(self, handle: int, digest: str, size: int, target: Path, progress: Progress) -> None:
        """Write a blob to the new file `target`; Refused when it is not what `digest` and `size` say, and the
        file is gone.

        skopeo closes a pipe only when it is told to finish; it answers when all has been written, and nothing
        else meanwhile. So it is told when all has come; or when nothing comes any more, for a blob that is
        shorter than announced shows in nothing else.
        """
        answer = await self._call("GetBlob", handle, digest, size)
        finished: list[asyncio.Task[_Answer]] = []

        def quiet() -> None:
            if not finished:
                finished.append(self._finish(answer))

        with Inflow(answer.fd) as inflow:
            wrong = await inflow.save(target, digest, size, progress, quiet=quiet)
        # The reading end is closed: if there is more than announced, skopeo fails to write it.
        quiet()
        try:
            await finished[0]
            if wrong:
                raise Refused(wrong)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    @asynccontextmanager
    async def pieces(
        self, handle: int, digest: str, size: int, progress: Progress
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A blob piece by piece; Refused, by the iteration, when it is shorter than `size` or skopeo could
        not read it. Nobody has compared it with `digest`. Who leaves before its end ends the proxy, too."""
        answer = await self._call("GetBlob", handle, digest, size)
        with Inflow(answer.fd) as inflow:
            async with aclosing(self._checked(inflow, answer, digest, size, progress)) as pieces:
                yield pieces

    async def _checked(
        self, inflow: Inflow, answer: _Answer, digest: str, size: int, progress: Progress
    ) -> AsyncGenerator[bytes, None]:
        finished: list[asyncio.Task[_Answer]] = []

        def quiet() -> None:
            if not finished:
                finished.append(self._finish(answer))

        came = 0
        async for piece in inflow.pieces(size, quiet=quiet):
            came += len(piece)
            progress(len(piece))
            yield piece
        inflow.close()  # see `blob`
        quiet()
        await finished[0]
        if came < size:
            raise Refused(f"{digest}: only {came} of {size} bytes came")

    def _finish(self, answer: _Answer) -> asyncio.Task[_Answer]:
        task = self._loop.create_task(self._call("FinishPipe", answer.pipe))
        task.add_done_callback(_seen)  # also when nobody waits for it any more
        return task

    async def _call(self, method: str, *arguments: object) -> _Answer:
        packet = json.dumps({"method": method, "args": arguments}).encode()
        answer: asyncio.Future[_Answer] = self._loop.create_future()
        async with self._sending:
            if self._gone:
                raise Refused(self._last_words())
            # In the order of the requests, also when the caller gives up: then nobody takes the answer.
            self._waiting.append(answer)
            try:
                await self._send(packet)
            except OSError:
                self.end()
        return await answer

    async def _send(self, packet: bytes) -> None:
        while True:
            try:
                self._socket.send(packet)
                return
            except BlockingIOError:
                room: asyncio.Future[None] = self._loop.create_future()
                self._loop.add_writer(self._socket.fileno(), _wake, room)
                try:
                    await room
                finally:
                    self._loop.remove_writer(self._socket.fileno())

    def _receive(self) -> None:
        try:
            packet, ancillary, _, _ = self._socket.recvmsg(
                PACKET, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary = b"", []
        fd = -1
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and data:
                fd = array.array("i", data)[0]
        if not packet or not self._waiting:
            if fd >= 0:
                os.close(fd)
            self.end()
            return
        future = self._waiting.popleft()
        if future.done():
            if fd >= 0:
                os.close(fd)
            return
        try:
            reply = json.loads(packet)
            if reply["success"]:
                future.set_result(_Answer(reply.get("value"), int(reply.get("pipeid") or 0), fd))
                return
            failure = str(reply.get("error"))
        except (ValueError, LookupError, TypeError) as error:
            failure = f"skopeo's answer cannot be read: {error}"
        if fd >= 0:
            os.close(fd)
        future.set_exception(Refused(failure))

    def end(self) -> None:
        """It has gone: whoever waits hears so."""
        if self._gone:
            return
        self._gone = True
        self._loop.remove_reader(self._socket.fileno())
        for future in self._waiting:
            if not future.done():
                future.set_exception(Refused(self._last_words()))
        self._waiting.clear()

    def _last_words(self) -> str:
        lines = self.log().strip().splitlines()
        return f"skopeo has ended: {lines[-1] if lines else 'it said nothing'}"


@asynccontextmanager
async def started(
    options: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[Proxy]:
    """A proxy with these global `options` and `arguments` of its own; its process ends with the context.

    Raises FailedPrecondition without skopeo, and Refused.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    async with AsyncExitStack() as stack:
        stack.enter_context(ours)
        with theirs:  # closed here once it has been passed on, so that its end is seen
            ours.setblocking(False)
            argv = ["skopeo", "--debug", *options, "experimental-image-proxy"]
            argv += ["--sockfd", str(theirs.fileno()), *arguments]
            serving = spawn.serving(argv, env=environment, pass_fds=[theirs.fileno()], kept=LOG_KEPT)
            try:
                child = await stack.enter_async_context(serving)
            except FileNotFoundError:
                raise FailedPrecondition("images are pulled by skopeo, which is not installed") from None
        proxy = Proxy(ours, child)
        stack.callback(proxy.end)
        await proxy.begin()
        yield proxy


def _wake(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)


def _seen(task: asyncio.Task[_Answer]) -> None:
    if not task.cancelled():
        task.exception()
