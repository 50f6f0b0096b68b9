"""SPDY/3.1 without I/O: bytes and calls in, bytes and events out. No sockets, no clock, no tasks.

What arrives is handed on at once, also in pieces of frames. The connection buffers no data; what it keeps
grows with the streams that are open, whose number is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from podwright.errors import FailedPrecondition, ResourceExhausted, Unavailable
from podwright.streaming.spdy import events, frames, windows
from podwright.streaming.spdy.frames import GoAwayStatus, ProtocolError, ResetStatus, Setting
from podwright.streaming.spdy.headers import Compressor, Decompressor, MalformedHeaders, decode_block
from podwright.streaming.spdy.limits import DEFAULTS, Limits
from podwright.streaming.spdy.table import Entry, Table
from podwright.streaming.spdy.windows import Flow, Incoming, Kept, Overrun

_REMEMBERED_RESETS = 1000


class Connection:
    """One end of a session."""

    def __init__(self, client: bool, limits: Limits = DEFAULTS) -> None:
        self._limits = limits
        self._decoder = frames.Decoder(limits.control_frame)
        self._compressor = Compressor()
        self._decompressor = Decompressor(limits.header_block)
        self._output: list[bytes] = []
        # A Go client may lose what comes before its first frame, so a server begins with its first input.
        self._silent = not client
        self._failed = False
        self._streams = Table(client)
        self._next_ping = 1 if client else 2
        self._resets_told: dict[int, None] = {}  # streams the peer has been told are gone, oldest first
        self._sent_goaway = False
        self._got_goaway = False
        self._peer_streams = frames.MAX_STREAM_ID  # how many we may have open
        self._flow = Flow(limits.session_window)
        self._probe = 0  # the id of the PING that asks whether the peer keeps windows
        self._events: list[events.Event] = []
        self._put(
            frames.Settings(
                (
                    (Setting.MAX_CONCURRENT_STREAMS, limits.streams),
                    (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
                )
            )
        )
        if limits.session_window > windows.DEFAULT:
            self._put(frames.WindowUpdate(0, limits.session_window - windows.DEFAULT))

    # What the driver of the connection calls

    @property
    def open_streams(self) -> int:
        """Streams of both sides that are not closed in both directions."""
        return len(self._streams)

    def receive(self, data: bytes) -> list[events.Event]:
        """What the peer's bytes mean, in order. Nothing is raised: what ends the session is `Failed`, the
        last event, and later input is ignored."""
        if self._failed:
            return []
        self._silent = False
        try:
            for frame in self._decoder.feed(data):
                _HANDLERS[type(frame)](self, frame)
        except ProtocolError as error:
            self._fail(error)
        except Overrun as error:
            self._fail(ProtocolError(f"the session's window: {error}"))
        told, self._events = self._events, []
        return told

    def output(self) -> list[bytes]:
        """What must be written now, and is forgotten here. Nothing at a server before its first input."""
        if self._silent:
            return []
        written, self._output = self._output, []
        return written

    def open_stream(
        self,
        headers: Mapping[str, str],
        fin: bool = False,
        *,
        priority: int = 0,
        unidirectional: bool = False,
    ) -> int:
        """The new stream's id. Unavailable after a GOAWAY, ResourceExhausted at the peer's limit of streams,
        ValueError for headers that cannot be sent."""
        if self._failed or self._got_goaway or self._sent_goaway:
            raise Unavailable("SPDY: the session is ending, no stream can be opened; open another session")
        if self._streams.ours >= self._peer_streams or self._streams.exhausted:
            raise ResourceExhausted(
                f"SPDY: the peer allows {self._peer_streams} streams, {self._streams.ours} are open"
            )
        block = self._compressor.block(headers)
        stream = self._streams.open(self._flow.initial, self._limits.stream_window)
        stream.received_fin = unidirectional
        stream.replied = unidirectional
        self._put(frames.SynStream(stream.id, block, fin, unidirectional, priority))
        if fin:
            self._streams.sent_fin(stream)
        return stream.id

    def reply(self, stream_id: int, headers: Mapping[str, str] | None = None, fin: bool = False) -> None:
        """Take a stream that the peer opened. FailedPrecondition when it is gone or has been replied to."""
        stream = self._sending(stream_id)
        if stream.ours or stream.replied:
            raise FailedPrecondition(f"SPDY: stream {stream_id} wants no reply")
        self._put(frames.SynReply(stream_id, self._compressor.block(headers or {}), fin))
        stream.replied = True
        if fin:
            self._streams.sent_fin(stream)

    def send_headers(self, stream_id: int, headers: Mapping[str, str], fin: bool = False) -> None:
        """More headers on an open stream. FailedPrecondition when nothing can be sent on it."""
        stream = self._sending(stream_id)
        self._reply_first(stream)
        self._put(frames.HeadersFrame(stream_id, self._compressor.block(headers), fin))
        if fin:
            self._streams.sent_fin(stream)

    def send(self, stream_id: int, data: bytes | bytearray | memoryview, fin: bool = False) -> int:
        """How many bytes of `data` the windows took; they have been copied. The rest can be sent after
        `WindowOpened`. `fin` goes with the last byte. FailedPrecondition when nothing can be sent on the
        stream."""
        stream = self._sending(stream_id)
        self._reply_first(stream)
        length = len(data)
        taken = min(length, self._flow.allowance(stream.outgoing))
        ends = fin and taken == length
        view = memoryview(data)
        limit = self._limits.data_frame
        for at in range(0, taken, limit):
            piece = view[at : min(at + limit, taken)]
            head = frames.data_head(stream_id, len(piece), ends and at + limit >= taken)
            self._output.append(b"".join((head, piece)))
        if ends and not taken:
            self._output.append(frames.data_head(stream_id, 0, True))
        self._flow.sent(stream.outgoing, taken)
        if taken < length and not self._probe and self._flow.doubtful(stream.outgoing):
            self._probe = self.ping()
        if ends:
            self._streams.sent_fin(stream)
        return taken

    def reset(self, stream_id: int, status: int = ResetStatus.CANCEL) -> None:
        """End a stream in both directions; nothing when it has ended already."""
        if (stream := self._streams.get(stream_id)) is not None:
            self._streams.forget(stream)
            self._tell_reset(stream_id, status)

    def consumed(self, stream_id: int, length: int) -> None:
        """`length` bytes of the stream's data have been used, or thrown away: the peer may send more. Also
        for streams that have ended."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.received_fin:
            stream.incoming.consumed(length)
            self._grant_stream(stream)
        self._flow.incoming.consumed(length)
        self._grant_session()

    def _grant_stream(self, stream: Entry) -> None:
        if self._flow.streams_kept is not Kept.NO and (delta := stream.incoming.grant()):
            self._put(frames.WindowUpdate(stream.id, delta))

    def _grant_session(self) -> None:
        if self._flow.session_kept is not Kept.NO and (delta := self._flow.incoming.grant()):
            self._put(frames.WindowUpdate(0, delta))

    def ping(self) -> int:
        """The id that `Pong` will have."""
        ping_id = self._next_ping
        self._next_ping = ping_id + 2 if ping_id + 2 <= 0xFFFFFFFF else 2 - ping_id % 2
        self._put(frames.Ping(ping_id))
        return ping_id

    def goaway(self, status: GoAwayStatus = GoAwayStatus.OK) -> None:
        """Take no new streams. Go's peers read nothing after it, so let it be the last thing."""
        if not self._sent_goaway:
            self._sent_goaway = True
            self._put(frames.GoAway(self._streams.last_peer_id, status))

    # What comes from the peer

    def _on_data(self, frame: frames.Data) -> None:
        stream_id, length = frame.stream_id, len(frame.payload)
        self._take(self._flow.incoming, length)
        stream = self._streams.get(stream_id)
        if stream is None:
            known = self._streams.ever_opened(stream_id)
            self._tell_reset(stream_id, ResetStatus.PROTOCOL_ERROR if known else ResetStatus.INVALID_STREAM)
        elif stream.received_fin:
            self._break(stream_id, ResetStatus.STREAM_ALREADY_CLOSED)
        elif stream.ours and not stream.replied:
            self._break(stream_id, ResetStatus.PROTOCOL_ERROR)
        else:
            try:
                self._take(stream.incoming, length)
            except Overrun:
                self._break(stream_id, ResetStatus.FLOW_CONTROL_ERROR)
            else:
                if length or frame.fin:
                    self._events.append(events.DataReceived(stream_id, frame.payload, frame.fin))
                if frame.fin:
                    self._streams.received_fin(stream)
                return
        self.consumed(stream_id, length)

    def _take(self, window: Incoming, length: int) -> None:
        known = self._flow.overrun
        self._flow.take(window, length)
        if self._flow.overrun and not known:
            self._opened(0)

    def _on_syn_stream(self, frame: frames.SynStream) -> None:
        plain = self._decompressor.block(frame.block)
        stream_id = frame.stream_id
        if stream_id == 0 or self._streams.is_ours(stream_id):
            raise ProtocolError(f"the peer opened stream {stream_id}, which is not one of its own numbers")
        if self._sent_goaway:
            return
        if stream_id <= self._streams.last_peer_id:
            # The draft ends the session for a smaller number; old Go clients send them, and are told this.
            self._break(stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        self._streams.last_peer_id = stream_id
        if self._streams.theirs >= self._limits.streams:
            self._tell_reset(stream_id, ResetStatus.REFUSED_STREAM)
            return
        try:
            headers = decode_block(plain)
        except MalformedHeaders:
            self._tell_reset(stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        stream = self._streams.opened(stream_id, self._flow.initial, self._limits.stream_window)
        stream.sent_fin = frame.unidirectional
        self._events.append(
            events.StreamOpened(stream_id, headers, frame.fin, frame.unidirectional, frame.priority)
        )
        if frame.fin:
            self._streams.received_fin(stream)

    def _on_syn_reply(self, frame: frames.SynReply) -> None:
        if (found := self._headers(frame)) is None:
            return
        stream, headers = found
        if not stream.ours or stream.replied:
            self._break(frame.stream_id, ResetStatus.STREAM_IN_USE)
            return
        stream.replied = True
        self._events.append(events.StreamReplied(frame.stream_id, headers, frame.fin))
        if frame.fin:
            self._streams.received_fin(stream)

    def _on_headers(self, frame: frames.HeadersFrame) -> None:
        if (found := self._headers(frame)) is None:
            return
        stream, headers = found
        if stream.ours and not stream.replied:
            self._break(frame.stream_id, ResetStatus.PROTOCOL_ERROR)
            return
        self._events.append(events.HeadersReceived(frame.stream_id, headers, frame.fin))
        if frame.fin:
            self._streams.received_fin(stream)

    def _headers(self, frame: frames.SynReply | frames.HeadersFrame) -> tuple[Entry, dict[str, str]] | None:
        """The frame's stream and headers; None when one of them is bad, which the peer has been told."""
        plain = self._decompressor.block(frame.block)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._tell_reset(frame.stream_id, ResetStatus.INVALID_STREAM)
            return None
        if stream.received_fin:
            self._break(frame.stream_id, ResetStatus.STREAM_ALREADY_CLOSED)
            return None
        try:
            return stream, decode_block(plain)
        except MalformedHeaders:
            self._break(frame.stream_id, ResetStatus.PROTOCOL_ERROR)
            return None

    def _on_rst_stream(self, frame: frames.RstStream) -> None:
        if (stream := self._streams.get(frame.stream_id)) is not None:
            self._streams.forget(stream)
            self._events.append(events.StreamReset(frame.stream_id, frame.status, True))

    def _on_settings(self, frame: frames.Settings) -> None:
        values = dict(reversed(frame.values))  # the first of equal ones counts
        self._peer_streams = values.get(Setting.MAX_CONCURRENT_STREAMS, self._peer_streams)
        size = values.get(Setting.INITIAL_WINDOW_SIZE)
        if size is None:
            return
        if size > windows.LARGEST:
            raise ProtocolError(f"an initial window of {size} bytes; 2^31-1 is the most")
        self._keeps_streams()
        if change := size - self._flow.initial:
            self._flow.initial = size
            for stream in self._streams.all():
                self._grant(stream, change)
            self._opened(0)

    def _on_window_update(self, frame: frames.WindowUpdate) -> None:
        if frame.stream_id == 0:
            self._flow.session_kept = Kept.YES
            self._grant_session()
            self._flow.outgoing.grant(frame.delta)
            self._opened(0)
            return
        self._keeps_streams()
        stream = self._streams.get(frame.stream_id)
        if stream is not None and self._grant(stream, frame.delta):
            self._opened(frame.stream_id)

    def _keeps_streams(self) -> None:
        """One that was taken for a peer without windows may be waiting for what it was not granted."""
        changed = self._flow.streams_kept is Kept.NO
        self._flow.streams_kept = Kept.YES
        for stream in self._streams.all() if changed else ():
            if not stream.received_fin:
                self._grant_stream(stream)

    def _grant(self, stream: Entry, delta: int) -> bool:
        try:
            stream.outgoing.grant(delta)
        except Overrun:
            self._break(stream.id, ResetStatus.FLOW_CONTROL_ERROR)
            return False
        return True

    def _on_ping(self, frame: frames.Ping) -> None:
        if not self._streams.is_ours(frame.ping_id):
            self._put(frame)
        elif frame.ping_id == self._probe:
            self._probe = 0
            self._flow.none_kept()
            self._opened(0)
        else:
            self._events.append(events.Pong(frame.ping_id))

    def _opened(self, stream_id: int) -> None:
        event = events.WindowOpened(stream_id)
        if not self._events or self._events[-1] != event:
            self._events.append(event)

    def _on_goaway(self, frame: frames.GoAway) -> None:
        self._got_goaway = True
        for stream in self._streams.all():
            if stream.ours and not stream.replied and stream.id > frame.last_stream_id:
                self._streams.forget(stream)
                self._events.append(events.StreamReset(stream.id, ResetStatus.REFUSED_STREAM, True))
        self._events.append(events.GoneAway(frame.last_stream_id, frame.status))

    # Streams

    def _sending(self, stream_id: int) -> Entry:
        stream = self._streams.get(stream_id)
        if stream is None or stream.sent_fin or self._failed:
            raise FailedPrecondition(f"SPDY: nothing more can be sent on stream {stream_id}")
        return stream

    def _reply_first(self, stream: Entry) -> None:
        if not stream.ours and not stream.replied:
            self.reply(stream.id)

    def _break(self, stream_id: int, status: ResetStatus) -> None:
        """The peer broke a rule on a stream: the stream ends."""
        if (stream := self._streams.get(stream_id)) is not None:
            self._streams.forget(stream)
            self._events.append(events.StreamReset(stream_id, status, False))
        self._tell_reset(stream_id, status)

    def _tell_reset(self, stream_id: int, status: int) -> None:
        """Once a stream: what the peer had sent before it knew wants no answer of its own (draft 2.4.2)."""
        if stream_id in self._resets_told or stream_id == 0 or self._sent_goaway:
            return
        if len(self._resets_told) >= _REMEMBERED_RESETS:
            del self._resets_told[next(iter(self._resets_told))]
        self._resets_told[stream_id] = None
        self._put(frames.RstStream(stream_id, status))

    def _fail(self, error: ProtocolError) -> None:
        self._failed = True
        self._sent_goaway = False
        self.goaway(error.status)
        self._streams.clear()
        self._events.append(events.Failed(error))

    def _put(self, frame: frames.ControlFrame) -> None:
        self._output.append(frames.encode(frame))


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    frames.Data: Connection._on_data,
    frames.SynStream: Connection._on_syn_stream,
    frames.SynReply: Connection._on_syn_reply,
    frames.HeadersFrame: Connection._on_headers,
    frames.RstStream: Connection._on_rst_stream,
    frames.Settings: Connection._on_settings,
    frames.WindowUpdate: Connection._on_window_update,
    frames.Ping: Connection._on_ping,
    frames.GoAway: Connection._on_goaway,
}
