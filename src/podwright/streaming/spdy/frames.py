"""SPDY/3.1's frames as bytes (draft 2.2 and 2.6): written by `encode`, read from any chunking by `Decoder`.

A header block is opaque here; `headers.py` knows it. Nothing is known of streams and their states.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from podwright.errors import PodwrightError

VERSION = 3
MAX_STREAM_ID = 0x7FFFFFFF
MAX_LENGTH = 0xFFFFFF
"""Of a frame's payload, in bytes: its field has 24 bits."""

_HEAD = struct.Struct(">II")
_CONTROL = 0x80000000
_FIN = 0x01
_UNIDIRECTIONAL = 0x02
_PAIR = struct.Struct(">II")
_WORD = struct.Struct(">I")
_SYN = struct.Struct(">IIBB")


class FrameType(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(IntEnum):
    """Why a stream was reset (draft 2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    FRAME_TOO_LARGE = 11


class GoAwayStatus(IntEnum):
    """Why a session ends (draft 2.6.6)."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class Setting(IntEnum):
    """The settings that matter here (draft 2.6.4); the others are estimates about the network."""

    MAX_CONCURRENT_STREAMS = 4
    INITIAL_WINDOW_SIZE = 7


class ProtocolError(PodwrightError):
    """The peer broke SPDY so that the session cannot go on."""

    def __init__(self, message: str, status: GoAwayStatus = GoAwayStatus.PROTOCOL_ERROR) -> None:
        super().__init__(f"SPDY: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class SynStream:
    stream_id: int
    block: bytes
    fin: bool = False
    unidirectional: bool = False
    priority: int = 0
    """0 (highest) to 7."""
    associated: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    stream_id: int
    block: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    values: tuple[tuple[int, int], ...]
    """Pairs of a setting and its value, as they were sent; of a repeated setting the first counts."""


@dataclass(frozen=True, slots=True)
class Ping:
    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    last_stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class HeadersFrame:
    stream_id: int
    block: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    stream_id: int
    """0 is the session's window."""
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """As the decoder gives it: a piece of a frame, as soon as it is there; `fin` is on the last piece."""

    stream_id: int
    payload: bytes
    fin: bool = False


ControlFrame = SynStream | SynReply | RstStream | Settings | Ping | GoAway | HeadersFrame | WindowUpdate
Frame = ControlFrame | Data

# A frame type's smallest body, and whether that is the only length it may have.
_BODIES = {
    FrameType.SYN_STREAM: (10, False),
    FrameType.SYN_REPLY: (4, False),
    FrameType.RST_STREAM: (8, True),
    FrameType.SETTINGS: (4, False),
    FrameType.PING: (4, True),
    FrameType.GOAWAY: (8, True),
    FrameType.HEADERS: (4, False),
    FrameType.WINDOW_UPDATE: (8, True),
}


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Its fields must fit theirs; ValueError for a payload over `MAX_LENGTH`."""
    match frame:
        case Data():
            _check_length("DATA", len(frame.payload))
            return data_head(frame.stream_id, len(frame.payload), frame.fin) + frame.payload
        case SynStream():
            flags = _FIN * frame.fin | _UNIDIRECTIONAL * frame.unidirectional
            body = _SYN.pack(frame.stream_id, frame.associated, frame.priority << 5, 0) + frame.block
            return _control(FrameType.SYN_STREAM, flags, body)
        case SynReply():
            body = _WORD.pack(frame.stream_id) + frame.block
            return _control(FrameType.SYN_REPLY, _FIN * frame.fin, body)
        case HeadersFrame():
            body = _WORD.pack(frame.stream_id) + frame.block
            return _control(FrameType.HEADERS, _FIN * frame.fin, body)
        case RstStream():
            return _control(FrameType.RST_STREAM, 0, _PAIR.pack(frame.stream_id, frame.status))
        case Settings():
            entries = b"".join(_PAIR.pack(key, value) for key, value in frame.values)
            return _control(FrameType.SETTINGS, 0, _WORD.pack(len(frame.values)) + entries)
        case Ping():
            return _control(FrameType.PING, 0, _WORD.pack(frame.ping_id))
        case GoAway():
            return _control(FrameType.GOAWAY, 0, _PAIR.pack(frame.last_stream_id, frame.status))
        case WindowUpdate():
            return _control(FrameType.WINDOW_UPDATE, 0, _PAIR.pack(frame.stream_id, frame.delta))


def data_head(stream_id: int, length: int, fin: bool) -> bytes:
    """The eight bytes before a DATA frame's payload."""
    return _HEAD.pack(stream_id, _FIN << 24 | length if fin else length)


def _control(kind: FrameType, flags: int, body: bytes) -> bytes:
    _check_length(kind.name, len(body))
    return _HEAD.pack(_CONTROL | VERSION << 16 | kind, flags << 24 | len(body)) + body


def _check_length(name: str, length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError(f"a {name} frame cannot have {length} bytes; 16 MiB less one is the most")


class Decoder:
    """Frames from bytes that come in any chunks. It keeps at most one control frame, of at most `limit`
    bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()  # of a head or a control frame's body that has not come whole
        self._kind: FrameType | None = None  # of the control frame whose body is awaited
        self._flags = 0
        self._length = 0
        self._skip = 0  # bytes left of a control frame that nobody knows
        self._left = 0  # bytes left of a DATA frame
        self._stream_id = 0
        self._fin = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Each frame as it becomes whole, and each piece of DATA. ProtocolError after the frames before it;
        the decoder is of no use then."""
        at, end = 0, len(data)
        while True:
            if self._left:
                if at == end:
                    return
                take = min(self._left, end - at)
                self._left -= take
                yield Data(self._stream_id, data[at : at + take], self._fin and not self._left)
                at += take
            elif self._skip:
                if at == end:
                    return
                take = min(self._skip, end - at)
                self._skip -= take
                at += take
            else:
                need = 8 if self._kind is None else self._length
                if self._kept or end - at < need:
                    take = min(need - len(self._kept), end - at)
                    self._kept += data[at : at + take]
                    at += take
                    if len(self._kept) < need:
                        return
                    whole = bytes(self._kept)
                    self._kept.clear()
                else:
                    whole = data[at : at + need]
                    at += need
                if self._kind is not None:
                    kind, self._kind = self._kind, None
                    yield _parse(kind, self._flags, whole)
                elif (frame := self._begin(*_HEAD.unpack(whole))) is not None:
                    yield frame

    def _begin(self, word: int, size: int) -> Data | None:
        """Take a frame's head; an empty DATA frame is whole with it."""
        flags, length = size >> 24, size & MAX_LENGTH
        if not word & _CONTROL:
            if word == 0:
                raise ProtocolError("DATA for stream 0, which does not exist")
            fin = bool(flags & _FIN)
            self._stream_id, self._left, self._fin = word, length, fin
            return None if length else Data(word, b"", fin)
        version, number = word >> 16 & 0x7FFF, word & 0xFFFF
        if version != VERSION:
            raise ProtocolError(
                f"a control frame of version {version}; only version {VERSION} is spoken here"
            )
        try:
            kind = FrameType(number)
        except ValueError:
            self._skip = length
            return None
        least, exact = _BODIES[kind]
        if length < least or (exact and length != least):
            raise ProtocolError(f"a {kind.name} frame of {length} bytes; it has {least}")
        if length > self._limit:
            raise ProtocolError(f"a {kind.name} frame of {length} bytes; the limit is {self._limit}")
        self._kind, self._flags, self._length = kind, flags, length
        return None


def _parse(kind: FrameType, flags: int, body: bytes) -> ControlFrame:
    word = _WORD.unpack_from(body)[0]
    stream_id = word & MAX_STREAM_ID
    fin = bool(flags & _FIN)
    match kind:
        case FrameType.SYN_STREAM:
            _, associated, priority, _ = _SYN.unpack_from(body)
            unidirectional = bool(flags & _UNIDIRECTIONAL)
            return SynStream(
                stream_id, body[10:], fin, unidirectional, priority >> 5, associated & MAX_STREAM_ID
            )
        case FrameType.SYN_REPLY:
            return SynReply(stream_id, body[4:], fin)
        case FrameType.HEADERS:
            return HeadersFrame(stream_id, body[4:], fin)
        case FrameType.PING:
            return Ping(word)
        case FrameType.SETTINGS:
            if len(body) != 4 + 8 * word:
                raise ProtocolError(f"SETTINGS of {len(body)} bytes that claim {word} entries")
            # The upper eight bits of a key are flags about keeping values beyond the session: not done here.
            pairs = (_PAIR.unpack_from(body, at) for at in range(4, len(body), 8))
            return Settings(tuple((key & MAX_LENGTH, value) for key, value in pairs))
        case FrameType.RST_STREAM:
            return RstStream(stream_id, _PAIR.unpack(body)[1])
        case FrameType.GOAWAY:
            return GoAway(stream_id, _PAIR.unpack(body)[1])
        case FrameType.WINDOW_UPDATE:
            return WindowUpdate(stream_id, _PAIR.unpack(body)[1] & MAX_STREAM_ID)
