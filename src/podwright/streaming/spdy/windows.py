"""Flow control (draft 2.6.8): what may be sent, what the peer may send, and whether the peer plays along.

The windows of the draft are kept towards every peer. Go's spdystream, which nearly every peer of a container
runtime is, never sends a WINDOW_UPDATE and never waits for one. So it is found out, for the windows of
streams and for the session's alone:

- A peer that has sent WINDOW_UPDATE (or SETTINGS with an initial window) keeps windows. It is never sent more
  than it granted, and when it sends more than it was granted that is an error.
- A peer that sends more than it was granted before it has granted anything keeps none.
- Who keeps none is granted nothing, either. A Go server that closes a connection while a WINDOW_UPDATE waits
  to be read, or before one comes, has its kernel throw away whatever of the output is still to be sent.
- As long as neither has happened, the initial 64 KiB are respected. When they are used up, a PING goes after
  them: a peer that answers it and has granted nothing keeps no windows. (One that does keep them, says
  nothing of them at the start and reads slowly would be overrun. Implementations that keep windows begin with
  SETTINGS.)

A peer without windows is held back by not reading from it at all, see `session.py`.
"""

from __future__ import annotations

from enum import Enum

DEFAULT = 1 << 16
"""Every window's size at the start, in bytes."""
LARGEST = (1 << 31) - 1


class Overrun(Exception):
    """The peer sent more than it was granted although it keeps windows, or granted more than can be."""


class Kept(Enum):
    """Does the peer keep this kind of window?"""

    UNKNOWN = 0
    YES = 1
    NO = 2


class Outgoing:
    """What may be sent through one window, in bytes. Negative after the peer has made its windows smaller."""

    __slots__ = ("credit",)

    def __init__(self, credit: int = DEFAULT) -> None:
        self.credit = credit

    def grant(self, delta: int) -> None:
        """Raises Overrun when the window would be larger than 2 GiB less one byte."""
        self.credit += delta
        if self.credit > LARGEST:
            raise Overrun("a window of more than 2^31-1 bytes was granted")


class Incoming:
    """What the peer may still send through one window."""

    __slots__ = ("_consumed", "_room", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = size
        self._consumed = 0

    def take(self, length: int) -> bool:
        """`length` bytes have come; False when that was more than the window had."""
        self._room -= length
        return self._room >= 0

    def consumed(self, length: int) -> None:
        """`length` bytes have been used."""
        self._consumed += length

    def grant(self) -> int:
        """What to grant the peer now: nothing until half a window has gathered."""
        if 2 * self._consumed < self._size:
            return 0
        delta, self._consumed = self._consumed, 0
        self._room += delta
        return delta


class Flow:
    """The session's windows, and what is known of the peer's habits."""

    def __init__(self, session_window: int) -> None:
        self.outgoing = Outgoing()
        self.incoming = Incoming(session_window)
        self.initial = DEFAULT
        """What the peer lets us send on a new stream."""
        self.streams_kept = Kept.UNKNOWN
        self.session_kept = Kept.UNKNOWN
        self.overrun = False
        """The peer has sent more than it was granted, and may go on."""

    def allowance(self, stream: Outgoing) -> int:
        """Bytes that may be sent on a stream now."""
        allowed = LARGEST
        if self.streams_kept is not Kept.NO:
            allowed = stream.credit
        if self.session_kept is not Kept.NO:
            allowed = min(allowed, self.outgoing.credit)
        return max(allowed, 0)

    def doubtful(self, stream: Outgoing) -> bool:
        """Is it a window that holds the stream back of which nobody knows whether the peer keeps it?"""
        return (self.streams_kept is Kept.UNKNOWN and stream.credit <= 0) or (
            self.session_kept is Kept.UNKNOWN and self.outgoing.credit <= 0
        )

    def sent(self, stream: Outgoing, length: int) -> None:
        stream.credit -= length
        self.outgoing.credit -= length

    def none_kept(self) -> None:
        """The peer keeps no windows, except those of which it has shown that it does."""
        if self.streams_kept is Kept.UNKNOWN:
            self.streams_kept = Kept.NO
        if self.session_kept is Kept.UNKNOWN:
            self.session_kept = Kept.NO

    def take(self, window: Incoming, length: int) -> None:
        """`length` bytes have come through a stream's window or the session's. Raises Overrun when the peer
        knows better than to send so much."""
        if window.take(length) or self.overrun:
            return
        kept = self.session_kept if window is self.incoming else self.streams_kept
        if kept is Kept.YES:
            raise Overrun("more was sent than the window had")
        self.overrun = True
        self.none_kept()
