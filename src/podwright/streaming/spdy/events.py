"""What a SPDY connection tells whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass

from podwright.streaming.spdy.frames import ProtocolError


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """By the peer. It wants `reply`, or `reset` with REFUSED_STREAM."""

    stream_id: int
    headers: dict[str, str]
    fin: bool
    """The peer sends nothing on it."""
    unidirectional: bool
    """The peer takes nothing on it."""
    priority: int


@dataclass(frozen=True, slots=True)
class StreamReplied:
    """The peer has taken a stream that was opened here."""

    stream_id: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    stream_id: int
    headers: dict[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Tell `consumed` when the data has been used. With `fin` the peer sends no more; the data may be
    empty."""

    stream_id: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class StreamReset:
    stream_id: int
    status: int
    by_peer: bool
    """Otherwise by this side, because the peer broke a rule on this stream."""


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """More may be sent on this stream; with 0, on any."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to `ping`."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer takes no new streams; those opened here after `last_stream_id` it has never seen, and they
    have been told as reset."""

    last_stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The session is over: send what `output` has, and close. Always the last event."""

    error: ProtocolError


Event = (
    StreamOpened
    | StreamReplied
    | HeadersReceived
    | DataReceived
    | StreamReset
    | WindowOpened
    | Pong
    | GoneAway
    | Failed
)
