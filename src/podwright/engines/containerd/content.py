"""containerd's content store: blobs by digest, written under a reference by which a broken write goes on.

References of writes are those of containerd's own clients ("layer-sha256:…"), so two clients of one namespace
that want the same blob meet: the second waits, and finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc

from podwright.engines.containerd.api import Containerd, refusal
from podwright.errors import AlreadyExists, NotFound, PodwrightError, Unavailable
from podwright.images.documents import Descriptor
from podwright.wire.containerd import content_pb2

Pieces = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]

GC_CONTENT = "containerd.io/gc.ref.content"
"""A label of a blob: another one that it needs. What follows after a dot is of no matter."""
GC_SNAPSHOT = "containerd.io/gc.ref.snapshot"
"""A label of a blob, with a snapshotter's name behind a dot: the snapshot that it needs."""
SOURCE = "containerd.io/distribution.source"
"""A label of a blob, with a registry behind a dot: the repositories there that have it."""
UNCOMPRESSED = "containerd.io/uncompressed"
"""A label of a layer: its diff id."""
LABEL_SIZE = 4096
"""Bytes that a label may have with its key."""
MAX_DOCUMENT = 8 << 20
CHUNK = 1 << 20
LOCKED = "locked"
"""In the words of a refused write: somebody else is writing the same."""
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0
"""Seconds between two tries to write what somebody else is writing: containerd tells nobody when it ends."""


class Content:
    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd

    async def info(self, digest: str) -> content_pb2.Info | None:
        request = content_pb2.InfoRequest(digest=digest)
        try:
            answer = await self._containerd.ask(self._containerd.content.Info, request, f"content {digest}")
        except NotFound:
            return None
        found: content_pb2.Info = answer.info
        return found

    async def all(self) -> list[content_pb2.Info]:
        listed = self._containerd.listen(
            self._containerd.content.List, content_pb2.ListContentRequest(), "its content"
        )
        return [info async for answer in listed for info in answer.info]

    async def read(self, digest: str) -> bytes:
        """A document. NotFound; PodwrightError when it is too large for one."""
        found = bytearray()
        async for piece in self.pieces(digest):
            found += piece
            if len(found) > MAX_DOCUMENT:
                raise PodwrightError(
                    f"{digest} has more than {MAX_DOCUMENT >> 20} MiB, which no document has"
                )
        return bytes(found)

    async def pieces(self, digest: str) -> AsyncIterator[bytes]:
        request = content_pb2.ReadContentRequest(digest=digest)
        async for answer in self._containerd.listen(
            self._containerd.content.Read, request, f"content {digest}", timeout=None
        ):
            yield answer.data

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Give a blob `labels` beside those that it has. NotFound."""
        info = await self.info(digest)
        if info is None:
            raise NotFound(f"containerd: content {digest}: not found")
        wanted = _merged(info.labels, labels)
        if not wanted:
            return
        request = content_pb2.UpdateRequest(info=content_pb2.Info(digest=digest, labels=wanted))
        request.update_mask.paths.extend(f"labels.{key}" for key in wanted)
        await self._containerd.ask(self._containerd.content.Update, request, f"labels of content {digest}")

    async def put(self, ref: str, content: bytes, digest: str, labels: Mapping[str, str]) -> None:
        """Keep a document."""

        @asynccontextmanager
        async def pieces() -> AsyncIterator[AsyncIterator[bytes]]:
            yield _once(content)

        await self.write(ref, Descriptor(digest, size=len(content)), pieces, labels)

    async def write(self, ref: str, blob: Descriptor, pieces: Pieces, labels: Mapping[str, str]) -> None:
        """Keep a blob, unless it is here, and give it `labels`. A write under `ref` that broke off is
        continued: of `pieces`, which begin with the blob's beginning, what is here is left out.

        PodwrightError when what came is not `blob`; nothing is kept of it then.
        """
        wait = FIRST_WAIT
        while True:
            if await self.info(blob.digest) is None:
                try:
                    await self._write(ref, blob, pieces, labels)
                except AlreadyExists:
                    pass
                except Unavailable as error:
                    if LOCKED not in str(error):
                        raise
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, LONGEST_WAIT)
                    continue
                except _Wrong as wrong:
                    await self.abort(ref)
                    raise wrong.error from wrong.error.__cause__
            return await self.label(blob.digest, labels)

    async def abort(self, ref: str) -> None:
        """Forget what was written under `ref` and not committed."""
        request = content_pb2.AbortRequest(ref=ref)
        try:
            await self._containerd.ask(self._containerd.content.Abort, request, f"write {ref}")
        except NotFound:
            pass

    async def _write(self, ref: str, blob: Descriptor, pieces: Pieces, labels: Mapping[str, str]) -> None:
        for again in (False, True):
            had, wrong = await self._stream(ref, blob, pieces, labels)
            if not wrong:
                return
            await self.abort(ref)
            if again or not had:
                raise PodwrightError(wrong)
            # What an earlier write had left was broken: once more, from the beginning.

    async def _stream(
        self, ref: str, blob: Descriptor, pieces: Pieces, labels: Mapping[str, str]
    ) -> tuple[int, str]:
        """How many bytes were here already; why what came is not `blob`, "" when it is."""
        told: dict[str, Any] = {"ref": ref, "total": blob.size, "expected": blob.digest}
        stream = self._containerd.converse(self._containerd.content.Write)
        try:
            first = await _say(stream, content_pb2.WriteContentRequest(action=content_pb2.STAT, **told))
            had = at = int(first.offset)
            if not blob.size or at < blob.size:
                at = await self._send(stream, told, at, pieces)
            last = content_pb2.WriteContentRequest(
                action=content_pb2.COMMIT, offset=at, labels=dict(labels), **told
            )
            try:
                await _say(stream, last)
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE):
                    return had, f"{blob.digest}: {error.details()}"
                raise
        except grpc.aio.AioRpcError as error:
            raise refusal(error, f"write of {blob.digest}") from error
        finally:
            stream.cancel()
        return had, ""

    async def _send(self, stream: Any, told: Mapping[str, Any], had: int, pieces: Pieces) -> int:
        """Write what is missing; how many bytes it has now."""
        at, waiting = 0, bytearray()

        async def flush() -> None:
            request = content_pb2.WriteContentRequest(
                action=content_pb2.WRITE, offset=at - len(waiting), data=bytes(waiting), **told
            )
            waiting.clear()
            await _say(stream, request)

        try:
            async with pieces() as coming:
                async for piece in coming:
                    waiting += piece[max(0, had - at) :]
                    at += len(piece)
                    # A pipe gives little at a time, and each message has its answer.
                    if len(waiting) >= CHUNK:
                        await flush()
                if waiting:
                    await flush()
        except PodwrightError as error:
            if at >= told["total"] > 0:
                raise _Wrong(error) from error
            raise
        return max(at, had)


class _Wrong(Exception):
    """All bytes have come, and where they come from says that they are not the blob."""

    def __init__(self, error: PodwrightError) -> None:
        super().__init__(str(error))
        self.error = error


async def _say(stream: Any, request: content_pb2.WriteContentRequest) -> content_pb2.WriteContentResponse:
    """Write a request and wait for its answer."""
    try:
        await stream.write(request)
    except asyncio.InvalidStateError:
        pass  # it has ended: reading says why
    answer = await stream.read()
    if answer is grpc.aio.EOF:
        raise Unavailable(f"containerd: write of {request.expected}: it ended the stream")
    assert isinstance(answer, content_pb2.WriteContentResponse)
    return answer


async def _once(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


def _merged(there: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """Those of `labels` that say something new. Of sources there may be several, with commas between them."""
    wanted = {}
    for key, value in labels.items():
        before = there.get(key, "")
        if key.startswith(f"{SOURCE}.") and before:
            value = before if value in before.split(",") else f"{before},{value}"
        if value != before and len(key) + len(value) <= LABEL_SIZE:
            wanted[key] = value
    return wanted
