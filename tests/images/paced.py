"""A registry in the test's process whose blobs come when the test wants: half of one, and then the rest."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.images.layouts import digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Paced:
    """Serves images from OCI layouts; `shut` blobs stop half-way until they are opened."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[str] = []
        """Paths of all requests, but for pings."""
        self.absent: set[str] = set()
        """Digests of blobs that are not there."""
        self.trickle: tuple[int, float] | None = None
        """Bytes of a layer that come at once, and the seconds between."""
        self.halfway: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Set when half of a blob has been sent."""
        self.under_way: Counter[str] = Counter()
        self.most = 0
        """Layers that were ever sent at the same time."""
        self.gone = asyncio.Condition()
        self._manifests: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}
        self._shut: dict[str, asyncio.Event] = {}
        self._breaking: set[str] = set()
        self._layers: set[str] = set()

    def add(self, layout: Path, name: str) -> list[str]:
        """Serve the image of a layout as `name`:v1; the digests of its layers, bottom first."""
        top = json.loads((layout / "index.json").read_bytes())["manifests"][0]
        content = (layout / "blobs/sha256" / top["digest"][7:]).read_bytes()
        for tag in ("v1", digest(content)):
            self._manifests[f"{name}/manifests/{tag}"] = content
        for file in (layout / "blobs/sha256").iterdir():
            self._blobs[f"sha256:{file.name}"] = file.read_bytes()
        layers = [str(layer["digest"]) for layer in json.loads(content)["layers"]]
        self._layers.update(layers)
        return layers

    def shut(self, *digests: str) -> None:
        for each in digests:
            self._shut[each] = asyncio.Event()

    def open(self, *digests: str) -> None:
        """These, or all."""
        for each in digests or list(self._shut):
            self._shut[each].set()

    def break_off(self, digest: str) -> None:
        """Break the connections on which a shut blob has stopped half-way."""
        self._breaking.add(digest)
        self._shut[digest].set()

    def blobs_asked(self) -> list[str]:
        return [match[1] for path in self.asked if (match := re.search(r"/blobs/(sha256:\w+)", path))]

    def size(self, digest: str) -> int:
        return len(self._blobs[digest])

    async def quiet(self) -> None:
        """Wait until no blob is being sent."""
        async with self.gone:
            await self.gone.wait_for(lambda: not +self.under_way)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while path := await _path(reader):
                await self._answer(path, reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path == "/v2/":
            writer.write(_head(200, 0))
            return
        self.asked.append(path)
        kind, _, name = path.removeprefix("/v2/").partition("/blobs/")
        if not name:
            content = self._manifests.get(kind)
            writer.write(UNKNOWN if content is None else _head(200, len(content), MANIFEST) + content)
            return
        content = self._blobs.get(name)
        if content is None or name in self.absent:
            writer.write(UNKNOWN)
            return
        writer.write(_head(200, len(content)))
        self.under_way[name] += 1
        self.most = max(self.most, sum(self.under_way[each] for each in self._layers))
        try:
            await self._send(name, content, reader, writer)
        finally:
            self.under_way[name] -= 1
            async with self.gone:
                self.gone.notify_all()

    async def _send(
        self, name: str, content: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.trickle is not None and name in self._layers:
            step, pause = self.trickle
            for start in range(0, len(content), step):
                await asyncio.sleep(pause if start else 0)
                writer.write(content[start : start + step])
                await writer.drain()
            return
        half = len(content) // 2
        writer.write(content[:half])
        await writer.drain()
        self.halfway[name].set()
        if name in self._shut:
            await _until(self._shut[name], reader)
            if name in self._breaking:
                self._breaking.discard(name)
                raise ConnectionResetError
        writer.write(content[half:])
        await writer.drain()


@asynccontextmanager
async def paced() -> AsyncIterator[Paced]:
    registry = Paced()
    talking: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            await registry.converse(reader, writer)
        finally:
            talking.discard(task)

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    registry.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield registry
    finally:
        server.close()
        while talking:
            for task in talking:
                task.cancel()
            await asyncio.wait(set(talking))


async def _until(opened: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Wait for `opened`; ConnectionResetError when the client has left before."""
    waits = {asyncio.ensure_future(opened.wait()), asyncio.ensure_future(reader.read(1))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not opened.is_set():
            raise ConnectionResetError
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def _path(reader: asyncio.StreamReader) -> str:
    """Of the next request; "" at the end, and for a TLS client, which is to fall back to HTTP."""
    first = await reader.read(1)
    if first in (b"", b"\x16"):
        return ""
    head = first + await reader.readuntil(b"\r\n\r\n")
    return head.decode().split()[1]


def _head(status: int, length: int, media: str = "application/octet-stream") -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n".encode()


_WORDS = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
UNKNOWN = _head(404, len(_WORDS), "application/json") + _WORDS
