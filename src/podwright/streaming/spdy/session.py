"""A SPDY session over an asyncio transport, or any other pipe of bytes: streams with back-pressure.

The session is the transport's protocol. Nothing runs in the background: frames are handled where they arrive,
in `data_received`, and writers that had to wait are served in turn where the transport or a window opens.

Memory is bounded whatever the peer does. Sending: a write returns when the transport has taken it, and
nothing is handed to a transport that is full but answers to control frames, for which there is a limit.
Receiving: a peer that keeps windows sends no more than they allow, and the slow reader of one stream holds up
that stream only. A peer without windows (Go's spdystream) can be stopped only by reading nothing at all from
the transport: that happens when `Limits.session_window` bytes wait for their readers, and then the streams
wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import cast

from podwright.errors import FailedPrecondition, Unavailable
from podwright.streaming.spdy import events
from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.frames import ProtocolError
from podwright.streaming.spdy.limits import DEFAULTS, Limits
from podwright.streaming.spdy.pipe import Pipe
from podwright.streaming.spdy.stream import Stream

_WRITE_BUFFER = 1 << 18
"""Bytes that the transport may hold before writers wait."""
_CONTROL_BUFFER = 1 << 20
"""Bytes of answers to control frames that may be held for a peer that does not read them."""
_LINGER_SECONDS = 2.0
_SHUTDOWN_SECONDS = 30.0
_ENDED = "the SPDY session has ended"


class Session(asyncio.Protocol):
    """One end of a session. Make it where an event loop runs, and give it its transport with `take_over`."""

    def __init__(self, *, client: bool, limits: Limits = DEFAULTS) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Exception | None] = self.loop.create_future()
        """Done when the session has ended: None after `close` or the peer's, otherwise what went wrong."""
        self.last_active = self.loop.time()
        """The loop's time of the last byte in either direction."""
        self._limits = limits
        self._connection = Connection(client, limits)
        self._pipe: Pipe | None = None
        self._owner: object = None
        self._streams: dict[int, Stream] = {}
        self._arrived: dict[int, Stream] = {}  # opened by the peer and not yet given to `accept`
        self._arrival: asyncio.Future[None] | None = None
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._senders: deque[Stream] = deque()  # streams with something to send, in turn
        self._full = False  # the transport wants no more
        self._drained: asyncio.Future[None] | None = None
        self._control_waits = 0
        self._waits = 0  # bytes that have come and were not read
        self._reading = True
        self._closing = False
        self._gone = False  # the peer sent GOAWAY
        self._opened = False  # a window, while input is handled
        self._lost = False
        self._error: Exception | None = None

    def take_over(
        self, transport: asyncio.BaseTransport, leftover: bytes = b"", owner: object = None
    ) -> None:
        """Be the protocol of a transport from now on, as after an HTTP upgrade. `leftover`: what the protocol
        before has already read of SPDY. `owner` is kept as long as the session: a StreamWriter closes its
        transport when it is collected."""
        self._owner = owner
        transport.set_protocol(self)
        self.connection_made(cast(Pipe, transport))
        if leftover:
            self.data_received(leftover)
        if self._reading and self._pipe is not None and not transport.is_closing():
            self._pipe.resume_reading()

    async def open(self, headers: Mapping[str, str], *, fin: bool = False) -> Stream:
        """A new stream, when the peer has replied to it. With `fin` nothing can be written.
        ConnectionResetError when the peer refuses it; Unavailable when the session is ending,
        ResourceExhausted at the peer's limit."""
        if self._lost:
            raise Unavailable(f"SPDY: no stream can be opened, {_ENDED}")
        stream_id = self._connection.open_stream(headers, fin)
        stream = self._streams[stream_id] = Stream(self, stream_id, dict(headers), by_peer=False)
        if fin:
            stream.sent_all()
        self._flush()
        try:
            await stream.wait_reply()
        except asyncio.CancelledError:
            await stream.reset()
            raise
        return stream

    async def accept(self) -> AsyncIterator[Stream]:
        """The streams that the peer opens, until the session ends. Each wants `accept`, or `reset` with
        REFUSED_STREAM."""
        while True:
            while self._arrived:
                yield self._arrived.pop(next(iter(self._arrived)))
            if self._lost:
                return
            self._arrival = self.loop.create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None

    async def ping(self) -> float:
        """The round trip's time in seconds. ConnectionResetError when the session ends before the answer."""
        if self._lost:
            raise ConnectionResetError(_ENDED)
        begin, answer = self.loop.time(), self.loop.create_future()
        ping_id = self._connection.ping()
        self._pings[ping_id] = answer
        self._flush()
        try:
            await answer
        finally:
            self._pings.pop(ping_id, None)
        return self.loop.time() - begin

    async def close(self) -> None:
        """End the session. What was written is still delivered, however slowly the peer reads: bound it or
        cancel it where that must end. Streams that are open are lost. Twice is fine."""
        pipe = self._pipe
        if pipe is None or self.closed.done():
            return
        if not self._closing:
            self._connection.goaway()
            self._flush()
            self._closing = True
            self._lose(None)
            # What comes is thrown away from now on; a peer that is held up in sending may read nothing.
            self._resume()
        try:
            await self._drain(pipe)
            # A socket that is closed while input waits tells the peer so at once, and the peer's kernel
            # throws away what it has not read. So first our end, then the peer's.
            half = pipe.can_write_eof() and not self.closed.done()
            if half:
                try:
                    pipe.write_eof()
                except OSError:
                    pass  # the peer has cut the connection, and the transport does not know it yet
                else:
                    await asyncio.wait({self.closed}, timeout=_LINGER_SECONDS)
            pipe.close()
            await asyncio.wait({self.closed}, timeout=_LINGER_SECONDS if half else _SHUTDOWN_SECONDS)
        finally:
            if not self.closed.done():
                pipe.abort()

    def abort(self, error: Exception | None = None) -> None:
        """End the session at once; what the transport has not sent yet is thrown away."""
        self._closing = True
        self._lose(error)
        if self._pipe is not None:
            self._pipe.abort()
        elif not self.closed.done():
            self.closed.set_result(error)

    # What the transport calls

    def connection_made(self, transport: Pipe) -> None:  # type: ignore[override]
        self._pipe = transport
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self.last_active = self.loop.time()
        for event in self._connection.receive(data):
            self._happened(event)
            if self._lost:
                return
        self._flush()
        if self._opened:
            # Only now: an event may tell of a window whose stream a later one ends.
            self._opened = False
            self._pump()
        if self._waits > self._limits.session_window and self._reading and self._pipe is not None:
            self._reading = False
            self._pipe.pause_reading()
        self._leave_if_done()

    def eof_received(self) -> bool:
        """SPDY knows no half of a session."""
        self._lose(None if self._gone else ConnectionResetError("the peer has closed the SPDY session"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._full = True
        self._lose(exc or (None if self._gone else ConnectionResetError("the connection is lost")))
        _tell(self._drained)
        if not self.closed.done():
            self.closed.set_result(self._error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._control_waits = 0
        self.last_active = self.loop.time()
        _tell(self._drained)
        self._pump()

    # What streams call

    def send(self, stream: Stream, data: memoryview) -> int:
        """How much of `data` has been handed to the transport."""
        sent, limit = 0, self._limits.data_frame
        while sent < len(data) and not self._full:
            piece = data[sent : sent + limit]
            taken = self._connection.send(stream.id, piece)
            sent += taken
            self._flush()
            if taken < len(piece):
                break
        return sent

    def send_fin(self, stream: Stream) -> None:
        self._connection.send(stream.id, b"", fin=True)
        self._flush()
        self._settle(stream)
        self._leave_if_done()

    def send_reset(self, stream: Stream, status: int) -> None:
        self._arrived.pop(stream.id, None)
        self._streams.pop(stream.id, None)
        self._connection.reset(stream.id, status)
        self._flush()
        self._leave_if_done()

    def reply(self, stream: Stream, headers: Mapping[str, str]) -> None:
        try:
            self._connection.reply(stream.id, headers)
        except FailedPrecondition:
            return  # it wants no reply, or is gone
        self._flush()

    def consumed(self, stream_id: int, length: int) -> None:
        self._waits -= length
        self._connection.consumed(stream_id, length)
        self._flush()
        if 2 * self._waits <= self._limits.session_window:
            self._resume()

    def wants_to_send(self, stream: Stream) -> None:
        if not stream.in_turn:
            stream.in_turn = True
            self._senders.append(stream)

    # Inside

    def _leave_if_done(self) -> None:
        """After the peer's GOAWAY the end of the last stream is the session's."""
        if self._gone and not self._connection.open_streams and not self._closing:
            self._hang_up(None)

    def _pump(self) -> None:
        """Let the streams that wait send, a frame each in turn, as far as transport and windows go."""
        held = 0  # streams one after another whose windows are shut
        while self._senders and not self._full and held < len(self._senders):
            stream = self._senders.popleft()
            if stream.writes:
                held = 0 if self._serve(stream) else held + 1
            if stream.writes:
                self._senders.append(stream)
            else:
                stream.in_turn = False

    def _serve(self, stream: Stream) -> bool:
        """Send a frame of what waits first; False when nothing could be sent."""
        write = stream.writes[0]
        taken = self._connection.send(stream.id, write.rest[: self._limits.data_frame], write.fin)
        self._flush()
        write.rest = write.rest[taken:]
        if write.rest:
            return taken > 0
        stream.writes.popleft()
        if not write.done.done():
            write.done.set_result(None)
        if write.fin:
            self._settle(stream)
        return True

    def _happened(self, event: events.Event) -> None:
        match event:
            case events.DataReceived(stream_id, data, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    self._waits += len(data)
                    self._received(stream, data, fin)
            case events.StreamOpened(stream_id, headers, fin, unidirectional):
                stream = self._streams[stream_id] = Stream(self, stream_id, headers, by_peer=True)
                if unidirectional:
                    stream.sent_all()
                self._arrived[stream_id] = stream
                self._received(stream, b"", fin)
                _tell(self._arrival)
            case events.StreamReplied(stream_id, headers, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    stream.was_replied(headers)
                    self._received(stream, b"", fin)
            case events.HeadersReceived(stream_id, _, fin):
                if (stream := self._streams.get(stream_id)) is not None:
                    self._received(stream, b"", fin)
            case events.StreamReset(stream_id, status):
                self._arrived.pop(stream_id, None)
                if (stream := self._streams.pop(stream_id, None)) is not None:
                    stream.was_reset(status)
            case events.WindowOpened():
                self._opened = True
            case events.Pong(ping_id):
                _tell(self._pings.get(ping_id))
            case events.GoneAway():
                self._gone = True
            case events.Failed(error):
                self._hang_up(error)

    def _received(self, stream: Stream, data: bytes, fin: bool) -> None:
        if data or fin:
            stream.received(data, fin)
        if fin:
            self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Nothing more comes for a stream that has ended."""
        if stream.ended:
            stream.has_ended()
            self._streams.pop(stream.id, None)

    def _flush(self) -> None:
        if self._pipe is None or self.closed.done():
            return
        output = self._connection.output()
        if not output:
            return
        data = output[0] if len(output) == 1 else b"".join(output)
        if self._full:
            self._control_waits += len(data)
            if self._control_waits > _CONTROL_BUFFER:
                self.abort(ProtocolError("the peer does not read the answers to what it sends"))
                return
        self._pipe.write(data)

    def _hang_up(self, error: Exception | None) -> None:
        """Close without waiting for the peer, but let it have what was written, if it reads that soon."""
        self._flush()
        self._closing = True
        self._lose(error)
        if self._pipe is not None:
            self._pipe.close()
            self.loop.call_later(_LINGER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self._pipe is not None and not self.closed.done():
            self._pipe.abort()

    def _lose(self, error: Exception | None) -> None:
        """Every stream ends. Twice is fine: the first error is the one."""
        if self._lost:
            return
        self._lost = True
        self._error = error
        why = ConnectionResetError(f"the SPDY session has ended: {error}" if error else _ENDED)
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.was_lost(why)
        self._senders.clear()
        self._arrived.clear()
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(why)
        _tell(self._arrival)

    def _resume(self) -> None:
        if not self._reading and self._pipe is not None:
            self._reading = True
            self._pipe.resume_reading()

    async def _drain(self, pipe: Pipe) -> None:
        """Until the transport has sent all it was given, or is lost."""
        pipe.set_write_buffer_limits(high=0)
        while pipe.get_write_buffer_size() and not self.closed.done():
            if self._drained is None or self._drained.done():
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)


def _tell(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
