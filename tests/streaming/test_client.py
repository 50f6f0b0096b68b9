"""Our client against our server, over each protocol and without one: exec and attach."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podwright.api import Cri
from podwright.engines.streams import Size, Streams
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError, Unavailable, Unimplemented
from podwright.streaming import client
from podwright.streaming.client import Options, Transport
from podwright.streaming.pipe import Pipe
from tests.streaming.stand_in import Node, node

LIMIT = 60


class Door:
    """A node, and a way to it."""

    def __init__(self, node: Node, way: str) -> None:
        self.node = node
        self.asked = 0
        self.options = Options() if way == "here" else Options(Transport(way))
        self.is_remote = way != "here"
        self.cri = cast(Cri, self._far()) if self.is_remote else cast(Cri, node.runtime)

    def _far(self) -> SimpleNamespace:
        """The calls of the CRI alone, as over a socket."""

        def counted(call: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
            async def asked(request: Any) -> Any:
                self.asked += 1
                return await call(request)

            return asked

        runtime = self.node.runtime
        return SimpleNamespace(
            exec=counted(runtime.exec),
            attach=counted(runtime.attach),
            port_forward=counted(runtime.port_forward),
        )

    async def exec(self, *argv: str, **streams: Any) -> int:
        made = Streams(**(streams or {"stdout": Kept()}))
        return await asyncio.wait_for(
            client.exec(self.cri, self.node.container, argv, made, self.options), LIMIT
        )


class Kept:
    """A sink that keeps everything, or its digest alone."""

    def __init__(self, *, digest: bool = False) -> None:
        self.data = bytearray()
        self.length = 0
        self.digest = hashlib.sha256() if digest else None
        self.closed = asyncio.Event()
        self.came = asyncio.Event()

    async def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self.length += len(data)
        if self.digest is not None:
            self.digest.update(data)
        else:
            self.data += data
        self.came.set()

    async def close(self) -> None:
        self.closed.set()


class Given:
    """A source of `chunks`, and then its end."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def read(self) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


@pytest.fixture(params=["here", "auto", "websocket", "spdy"])
async def door(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async with node(tmp_path) as made:
        yield Door(made, request.param)


async def test_output_and_errors_come_apart_and_end(door: Door) -> None:
    out, err = Kept(), Kept()
    assert await door.exec("echo", "hello", stdout=out, stderr=err) == 0
    assert await door.exec("err", "oops", stdout=Kept(), stderr=err) == 0
    assert (bytes(out.data), bytes(err.data)) == (b"hello\n", b"oops")
    if door.is_remote:
        assert out.closed.is_set()
        assert door.asked == 2


@pytest.mark.parametrize("code", [1, 127, 255])
async def test_the_exit_code_is_passed_on(door: Door, code: int) -> None:
    assert await door.exec("exit", str(code)) == code


async def test_every_byte_passes_in_both_directions(door: Door) -> None:
    chunks = [os.urandom(300_000) for _ in range(20)] + [bytes(range(256))]
    out = Kept(digest=True)
    assert await door.exec("cat", stdin=Given(*chunks), stdout=out) == 0
    assert out.digest is not None
    assert out.digest.digest() == hashlib.sha256(b"".join(chunks)).digest()


async def test_the_end_of_the_input_is_told_while_output_still_comes(door: Door) -> None:
    out = Kept()
    assert await door.exec("count", stdin=Given(b"x" * 70_000, b"y"), stdout=out) == 0
    assert out.data == b"70001"


async def test_a_terminal_is_told_its_sizes(door: Door) -> None:
    changes: asyncio.Queue[Size] = asyncio.Queue()

    async def sizes() -> AsyncIterator[Size]:
        while True:
            yield await changes.get()

    out = Kept()
    changes.put_nowait(Size(80, 24))
    running = asyncio.ensure_future(door.exec("sizes", "2", stdout=out, tty=True, sizes=sizes()))
    await asyncio.wait_for(out.came.wait(), LIMIT)
    changes.put_nowait(Size(120, 50))
    assert await running == 0
    assert out.data == b"80x24 120x50 "


async def test_an_error_of_the_engine_is_the_same_everywhere(door: Door) -> None:
    with pytest.raises(FailedPrecondition, match="the runtime says no"):
        await door.exec("refuse")


async def test_an_error_of_the_call_is_the_same_everywhere(door: Door) -> None:
    with pytest.raises(InvalidArgument, match="no command"):
        await door.exec()


async def test_cancelling_hangs_up(door: Door) -> None:
    running = asyncio.ensure_future(door.exec("hang"))
    await asyncio.wait_for(door.node.engine.started.wait(), LIMIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(door.node.engine.hung_up.wait(), LIMIT)


async def test_a_source_that_fails_ends_the_session_with_its_error(door: Door) -> None:
    if not door.is_remote:
        pytest.skip("the engine's affair")

    class Broken:
        async def read(self) -> bytes:
            raise OSError(5, "the disk is broken")

    with pytest.raises(OSError, match="the disk is broken"):
        await door.exec("cat", stdin=Broken(), stdout=Kept())


async def test_one_sink_that_breaks_leaves_the_others(door: Door) -> None:
    if not door.is_remote:
        pytest.skip("the engine's affair")

    class Broken(Kept):
        async def write(self, data: bytes | bytearray | memoryview, /) -> None:
            raise BrokenPipeError("nobody reads")

    assert await door.exec("echo", "x", stdout=Broken(), stderr=Kept()) == 0
    assert await door.exec("count", stdin=Given(b"x"), stdout=Broken()) == 0


async def test_a_server_that_vanishes_is_told_as_such(door: Door) -> None:
    if not door.is_remote:
        pytest.skip("there is no server")
    running = asyncio.ensure_future(door.exec("hang"))
    await asyncio.wait_for(door.node.engine.started.wait(), LIMIT)
    door.node.server.abort()
    with pytest.raises(Unavailable, match="the connection to the streaming server is lost"):
        await running


async def test_a_hundred_at_once_do_not_mix(door: Door) -> None:
    async def one(number: int) -> None:
        out = Kept()
        text = f"{number} ".encode() * 1000
        assert await door.exec("cat", stdin=Given(text, text), stdout=out) == 0
        assert out.data == text * 2

    await asyncio.gather(*(one(number) for number in range(100)))
    assert door.node.engine.running == 0


async def test_a_slow_reader_holds_the_writer_up(door: Door) -> None:
    total = 64 << 20
    gate, out = asyncio.Event(), Kept(digest=True)

    class Slow:
        async def write(self, data: bytes | bytearray | memoryview, /) -> None:
            await gate.wait()
            await out.write(data)

        async def close(self) -> None:
            await out.close()

    class Counted(Given):
        given = 0

        async def read(self) -> bytes:
            if Counted.given >= total:
                return b""
            Counted.given += 1 << 18
            return bytes(1 << 18)

    running = asyncio.ensure_future(door.exec("cat", stdin=Counted(), stdout=Slow()))
    before = -1
    while before != Counted.given:  # until nothing moves any more
        before = Counted.given
        for _ in range(200):
            await asyncio.sleep(0.001)
    assert 0 < Counted.given < total // 2
    gate.set()
    assert await running == 0
    assert out.length == total


async def test_attach_goes_both_ways_and_ends(door: Door) -> None:
    out = Kept()
    streams = Streams(stdin=Given(b"typed\n"), stdout=out)
    await asyncio.wait_for(client.attach(door.cri, door.node.container, streams, door.options), LIMIT)
    assert out.data == b"attached\ntyped\n"


async def test_a_library_pipe_is_a_stream(door: Door) -> None:
    stdin, stdout = Pipe(), Pipe()
    running = asyncio.ensure_future(door.exec("cat", stdin=stdin, stdout=stdout))
    for word in (b"one", b"two"):
        await stdin.write(word)
        assert await asyncio.wait_for(stdout.read(), LIMIT) == word
    await stdin.close()
    assert await running == 0


# Ways to a server


async def test_a_server_without_v5_is_spoken_to_over_spdy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from podwright.streaming import channels

    monkeypatch.setattr(channels, "REMOTE_COMMAND", ("v4.channel.k8s.io",))
    async with node(tmp_path) as made:
        door = Door(made, "auto")
        out = Kept()
        assert await door.exec("count", stdin=Given(b"abc"), stdout=out) == 0
        assert out.data == b"3"
        assert door.asked == 2  # the URL that WebSocket was refused at is used up
        forced = Door(made, "websocket")
        assert await forced.exec("exit", "7") == 7
        with pytest.raises(Unimplemented, match="use SPDY"):
            await forced.exec("count", stdin=Given(b"abc"), stdout=Kept())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot you\n", r"refused \(403\): not you"),
        (b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n", r"refused \(404\): Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", r"refused \(200\)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "speaks no HTTP"),
        (b"", "closed the connection without an answer"),
    ],
)
@pytest.mark.parametrize("transport", list(Transport))
async def test_a_refusal_is_told_in_its_words(transport: Transport, answer: bytes, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def url(request: Any) -> Any:
        return SimpleNamespace(url=f"http://127.0.0.1:{port}/exec/token")

    cri = cast(Cri, SimpleNamespace(exec=url))
    try:
        with pytest.raises(PodwrightError, match=words):
            await client.exec(cri, "c", ["x"], Streams(stdout=Kept()), Options(transport))
    finally:
        server.close()


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/x", "http:///exec/x", "http://127.0.0.1:port/x"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    async def answer(request: Any) -> Any:
        return SimpleNamespace(url=url)

    cri = cast(Cri, SimpleNamespace(exec=answer))
    with pytest.raises(InvalidArgument, match="url"):
        await client.exec(cri, "c", ["x"], Streams(stdout=Kept()))
