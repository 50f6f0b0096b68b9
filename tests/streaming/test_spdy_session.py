"""SPDY sessions over real sockets, and over a pipe that a test holds in its hands."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from podwright.errors import Unavailable
from podwright.streaming.spdy import Limits, ProtocolError, ResetStatus, Session, frames
from podwright.streaming.spdy.frames import Data, GoAway, Ping, RstStream, SynReply, SynStream, WindowUpdate
from podwright.streaming.spdy.headers import Compressor
from tests.streaming.spdy_ends import arrived, echo_all, ends, held, read_all, settle

KIB = 1 << 10


async def ask(session: Session, question: bytes) -> bytes:
    stream = await session.open({"requestid": "1"})

    async def send() -> None:
        for at in range(0, len(question), 50_000):
            await stream.write(question[at : at + 50_000])
        await stream.close()

    _, answer = await asyncio.gather(send(), read_all(stream))
    await stream.wait_closed()
    return answer


async def _echoes() -> None:
    async with ends() as (client, server):
        server_side = asyncio.create_task(echo_all(server))
        questions = [bytes([n]) * (n * 40_000) for n in range(20)]
        answers = await asyncio.gather(*(ask(client, question) for question in questions))
        assert answers == questions
        assert await client.ping() >= 0
        await client.close()
        assert await client.closed is None
        assert await server.closed is None
        await server_side


async def test_many_streams_carry_their_bytes_both_ways() -> None:
    await _echoes()


def test_many_streams_carry_their_bytes_both_ways_on_uvloop() -> None:
    uvloop.run(_echoes())


async def test_a_slow_reader_holds_up_only_its_own_stream() -> None:
    async with ends() as (client, server):
        slow = await_opened = asyncio.create_task(client.open({"n": "slow"}))
        slow_end = await arrived(server)
        slow_end.accept()
        stream = await await_opened
        writing = asyncio.create_task(stream.write(bytes(4 << 20)))
        assert slow.done()
        answering = asyncio.create_task(echo_all(server))
        assert await ask(client, b"x" * 1_000_000) == b"x" * 1_000_000
        assert not writing.done()
        received = 0
        while received < 4 << 20:
            received += len(await slow_end.read())
        await writing
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def test_the_session_stops_reading_from_a_peer_without_windows_and_goes_on() -> None:
    session, pipe = held(Limits(stream_window=64 * KIB, session_window=100 * KIB))
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    for _ in range(10):
        pipe.say(Data(1, bytes(10 * KIB)))
    assert pipe.reading
    pipe.say(Data(1, b"x"))
    assert not pipe.reading
    assert len(await stream.read()) == 100 * KIB + 1
    assert pipe.reading
    session.abort()


async def test_a_stream_that_is_given_up_holds_up_nobody() -> None:
    session, pipe = held(Limits(stream_window=64 * KIB, session_window=64 * KIB))
    for number, last in ((1, Data(1, b"x")), (3, RstStream(3, 5)), (5, Data(5, b"x", True))):
        pipe.syn(number)
        stream = await arrived(session)
        stream.accept()
        pipe.say(Data(number, bytes(65 * KIB)), last)
        assert not pipe.reading
        await stream.reset()
        assert pipe.reading
        with pytest.raises(ConnectionResetError):
            await stream.read()
    session.abort()


async def test_a_write_waits_for_the_transport_and_streams_take_turns() -> None:
    session, pipe = held(Limits(data_frame=1000))
    written: list[asyncio.Task[None]] = []
    for number in (1, 3):
        pipe.syn(number)
        stream = await arrived(session)
        stream.accept()
        if not written:
            session.pause_writing()
        written.append(asyncio.create_task(stream.write(bytes(2500))))
    await settle()
    assert not any(task.done() for task in written)
    assert not [frame for frame in pipe.heard() if isinstance(frame, Data)]
    session.resume_writing()
    await asyncio.gather(*written)
    sent = [(frame.stream_id, len(frame.payload)) for frame in pipe.heard() if isinstance(frame, Data)]
    assert sent == [(1, 1000), (3, 1000), (1, 1000), (3, 1000), (1, 500), (3, 500)]
    session.abort()


async def test_the_end_comes_after_what_still_waits() -> None:
    session, pipe = held()
    pipe.syn(1, fin=True)
    stream = await arrived(session)
    stream.accept()
    session.pause_writing()
    writing = asyncio.create_task(stream.write(b"last"))
    await settle()
    closing = asyncio.create_task(stream.close())
    waiting = asyncio.create_task(stream.wait_closed())
    await settle()
    assert not waiting.done()
    with pytest.raises(BrokenPipeError):
        await stream.write(b"more")
    session.resume_writing()
    await asyncio.gather(writing, closing, waiting)
    assert pipe.heard()[-2:] == [Data(1, b"last"), Data(1, b"", True)]
    await stream.close()
    assert pipe.heard() == []
    session.abort()


async def test_a_cancelled_write_sends_no_more() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    session.pause_writing()
    writing = asyncio.create_task(stream.write(b"first"))
    await settle()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    session.resume_writing()
    await stream.write(b"second")
    assert [frame for frame in pipe.heard() if isinstance(frame, Data)] == [Data(1, b"second")]
    session.abort()


async def test_a_buffer_may_be_used_again_after_it_was_written() -> None:
    async with ends() as (client, server):
        opening = asyncio.create_task(client.open({}))
        other = await arrived(server)
        other.accept()
        stream = await opening
        buffer = bytearray(1 << 20)

        async def write() -> None:
            for number in range(8):
                buffer[:] = bytes([number]) * len(buffer)
                await stream.write(memoryview(buffer))
            buffer[:] = bytes([99]) * len(buffer)
            await stream.close()

        _, received = await asyncio.gather(write(), read_all(other))
        assert received == b"".join(bytes([number]) * len(buffer) for number in range(8))


async def test_what_came_before_a_reset_is_read_and_then_the_reset_is_told() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    writing = asyncio.create_task(stream.wait_closed())
    pipe.say(Data(1, b"exit status"), RstStream(1, ResetStatus.CANCEL))
    assert await stream.read() == b"exit status"
    with pytest.raises(ConnectionResetError, match="CANCEL"):
        await stream.read()
    with pytest.raises(BrokenPipeError, match="CANCEL"):
        await stream.write(b"x")
    await stream.close()
    await stream.reset()
    await writing
    session.abort()


async def test_a_reset_wakes_whoever_waits() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    session.pause_writing()
    reading, writing = asyncio.create_task(stream.read()), asyncio.create_task(stream.write(b"x"))
    await settle()
    pipe.say(RstStream(1, 77))
    outcomes = await asyncio.gather(reading, writing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionResetError, BrokenPipeError]
    assert "status 77" in str(outcomes[0])
    session.abort()


async def test_a_stream_the_peer_refuses_is_not_opened() -> None:
    async with ends() as (client, server):
        opening = asyncio.create_task(client.open({}))
        await (await arrived(server)).reset(ResetStatus.REFUSED_STREAM)
        with pytest.raises(ConnectionResetError, match="REFUSED_STREAM"):
            await opening


async def test_an_open_that_is_cancelled_resets_the_stream() -> None:
    async with ends() as (client, server):
        opening = asyncio.create_task(client.open({}))
        stream = await arrived(server)
        opening.cancel()
        with pytest.raises(ConnectionResetError, match="CANCEL"):
            await stream.read()


async def test_a_peer_that_vanishes_ends_everything() -> None:
    async with ends() as (client, server):
        opening = asyncio.create_task(client.open({}))
        other = await arrived(server)
        other.accept()
        stream = await opening
        await stream.write(b"still there")
        assert await other.read() == b"still there"
        await stream.write(b"unread")
        waiting = [asyncio.create_task(server.ping()), asyncio.create_task(other.wait_closed())]
        server_side = asyncio.create_task(echo_all(server))
        client.abort()
        error = await server.closed
        assert isinstance(error, ConnectionError)
        await server_side
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[1] is None
        with pytest.raises(BrokenPipeError):
            await other.write(b"x")
        with pytest.raises(Unavailable):
            await server.open({})
        with pytest.raises(ConnectionResetError):
            await server.ping()
        assert isinstance(await client.closed, Exception | None)


async def test_what_had_come_of_a_lost_session_is_read() -> None:
    session, pipe = held()
    pipe.syn(1)
    pipe.syn(3)
    streams = session.accept()
    one, two = await anext(streams), await anext(streams)
    pipe.say(Data(1, b"whole", True), Data(3, b"half"))
    session.eof_received()
    assert await read_all(one) == b"whole"
    assert await two.read() == b"half"
    with pytest.raises(ConnectionResetError):
        await two.read()
    with pytest.raises(StopAsyncIteration):
        await anext(streams)
    session.connection_lost(None)
    assert isinstance(await session.closed, ConnectionResetError)


class LatePeer:
    """A server that grants all windows, takes one stream, and then reads when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.heard: list[frames.Frame] = []

    async def take(self) -> None:
        await self._reader.read(1)
        self.writer.write(frames.encode(SynReply(1, Compressor().block({}))))
        self.writer.write(frames.encode(WindowUpdate(0, 1 << 24)) + frames.encode(WindowUpdate(1, 1 << 24)))

    async def read(self) -> None:
        # One byte is missing: the first frame, SETTINGS.
        octets = b"\x80" + await self._reader.read(-1)
        self.heard = list(frames.Decoder(1 << 20).feed(octets))


class WatchedSession(Session):
    """It tells when its transport is full."""

    def __init__(self) -> None:
        super().__init__(client=True)
        self.full = asyncio.Event()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full.set()


@asynccontextmanager
async def full_session() -> AsyncIterator[tuple[Session, LatePeer]]:
    """A session that has written as much as its transport takes to a peer that does not read."""
    ours, theirs = socket.socketpair()
    session = WatchedSession()
    await asyncio.get_running_loop().create_connection(lambda: session, sock=ours)
    peer = LatePeer(*await asyncio.open_connection(sock=theirs, limit=1 << 12))
    _, stream = await asyncio.gather(peer.take(), session.open({}))
    try:
        async with asyncio.timeout(60):
            writing = asyncio.create_task(stream.write(bytes(8 << 20)))
            await session.full.wait()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await stream.close()
            yield session, peer
    finally:
        session.abort()
        peer.writer.close()
        await session.closed


async def test_close_waits_until_a_slow_peer_has_taken_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podwright.streaming.spdy.session._LINGER_SECONDS", 0.001)
    async with full_session() as (session, peer):
        closing = [asyncio.create_task(session.close()) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in closing)
        await asyncio.gather(peer.read(), *closing)
        assert peer.heard[-2:] == [Data(1, b"", True), GoAway(0, 0)]
        assert await session.closed is None


async def test_close_shows_its_end_and_reads_on_until_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podwright.streaming.spdy.session._LINGER_SECONDS", 1000.0)
    async with full_session() as (session, peer):
        closing = asyncio.create_task(session.close())
        # What nobody reads any more must not cost the peer what it has not read yet.
        peer.writer.write(frames.encode(Data(1, bytes(1 << 20))))
        await peer.read()
        assert peer.heard[-1] == GoAway(0, 0)
        await peer.writer.drain()
        assert not closing.done()
        peer.writer.close()
        await closing
        assert await session.closed is None


async def test_close_reads_on_from_a_peer_that_was_held_up() -> None:
    session, pipe = held(Limits(stream_window=64 * KIB, session_window=64 * KIB))
    pipe.syn(1)
    stream = await arrived(session)
    pipe.say(Data(1, bytes(65 * KIB)))
    assert not pipe.reading
    closing = asyncio.create_task(session.close())
    await settle()
    assert pipe.reading
    await closing
    assert pipe.heard()[-1] == GoAway(1, 0)
    assert len(await stream.read()) == 65 * KIB


async def test_close_of_a_connection_that_the_peer_has_cut_is_quiet() -> None:
    session, pipe = held()
    pipe.half = True
    await session.close()
    assert await session.closed is None
    assert pipe.closed and not pipe.aborted


async def test_a_session_that_never_had_a_pipe_can_be_ended() -> None:
    session = Session(client=True)
    opening = asyncio.create_task(session.open({}))
    await settle()
    session.abort()
    with pytest.raises(ConnectionResetError):
        await opening
    assert await session.closed is None


async def test_an_end_comes_even_if_nobody_waits_for_it_any_more() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    session.pause_writing()
    writing, closing = asyncio.create_task(stream.write(b"last")), asyncio.create_task(stream.close())
    await settle()
    closing.cancel()
    await settle()
    session.resume_writing()
    await writing
    assert pipe.heard()[-2:] == [Data(1, b"last"), Data(1, b"", True)]
    session.abort()


async def test_the_peers_goaway_ends_the_session_after_the_last_stream() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    stream.accept()
    pipe.say(GoAway(0, 0))
    assert not pipe.closed
    pipe.say(Data(1, b"last", True))
    assert await read_all(stream) == b"last"
    await stream.write(b"answer")
    await stream.close()
    assert pipe.closed
    assert await session.closed is None
    assert pipe.heard()[-2:] == [Data(1, b"answer"), Data(1, b"", True)]


async def test_a_peer_that_breaks_the_protocol_is_told_and_left() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    reading = asyncio.create_task(stream.read())
    await settle()
    pipe.say(SynStream(2, b""))
    error = await session.closed
    assert isinstance(error, ProtocolError)
    assert pipe.closed
    assert pipe.heard()[-1] == GoAway(1, 1)
    with pytest.raises(ConnectionResetError, match=r"header block|stream 2"):
        await reading


async def test_answers_for_a_peer_that_reads_nothing_are_bounded() -> None:
    session, pipe = held()
    session.pause_writing()
    flood = [Ping(number) for number in range(1, 20_001, 2)]
    for _ in range(20):
        if not pipe.aborted:
            pipe.say(*flood)
    assert pipe.aborted
    assert len(pipe._written) < 3 << 20
    assert isinstance(await session.closed, ProtocolError)


async def test_streams_that_are_opened_and_reset_at_once_are_not_kept() -> None:
    session, pipe = held(Limits(streams=10))
    for number in range(1, 4001, 2):
        pipe.syn(number)
        pipe.say(RstStream(number, 5))
    assert len(session._arrived) == len(session._streams) == 0
    pipe.syn(4001)
    assert (await arrived(session)).headers == {"n": "4001"}
    session.abort()


async def test_data_in_tiny_frames_costs_little_more_than_its_bytes() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    octets = frames.encode(Data(1, b"x")) * 1000
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            session.data_received(octets)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 4 * 50_000
    assert await stream.read() == b"x" * 50_000
    session.abort()


async def test_one_task_reads_a_stream() -> None:
    session, pipe = held()
    pipe.syn(1)
    stream = await arrived(session)
    reading = asyncio.create_task(stream.read())
    await settle()
    with pytest.raises(RuntimeError, match="being read"):
        await stream.read()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    pipe.say(Data(1, b"x"))
    assert await stream.read() == b"x"
    session.abort()


async def test_a_session_takes_over_a_connection_with_what_was_read_of_it() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    other = Session(client=True)
    await asyncio.get_running_loop().create_connection(lambda: other, sock=theirs)
    opening = asyncio.create_task(other.open({"x": "y"}))
    leftover = await reader.readexactly(11)
    session = Session(client=False)
    session.take_over(writer.transport, leftover + bytes(reader._buffer), owner=writer)  # type: ignore[attr-defined]
    del reader, writer
    gc.collect()
    stream = await arrived(session)
    assert stream.headers == {"x": "y"}
    stream.accept({"taken": "over"})
    assert (await opening).reply_headers == {"taken": "over"}
    await session.close()
    assert await other.closed is None
