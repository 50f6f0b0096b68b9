"""The streams that are open on a SPDY connection, and the numbers that streams get (draft 2.3)."""

from __future__ import annotations

from podwright.streaming.spdy.frames import MAX_STREAM_ID
from podwright.streaming.spdy.windows import Incoming, Outgoing


class Entry:
    """A stream as the protocol sees it."""

    __slots__ = ("id", "incoming", "ours", "outgoing", "received_fin", "replied", "sent_fin")

    def __init__(self, stream_id: int, ours: bool, credit: int, room: int) -> None:
        self.id = stream_id
        self.ours = ours
        self.replied = False
        self.sent_fin = False
        self.received_fin = False
        self.outgoing = Outgoing(credit)
        self.incoming = Incoming(room)


class Table:
    """A stream is in it until both sides have sent FIN, or it is reset."""

    def __init__(self, client: bool) -> None:
        self._client = client
        self._entries: dict[int, Entry] = {}
        self._next_id = 1 if client else 2
        self.last_peer_id = 0
        """The highest number that the peer has opened a stream with."""
        self.ours = 0
        self.theirs = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, stream_id: int) -> Entry | None:
        return self._entries.get(stream_id)

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def is_ours(self, number: int) -> bool:
        """Whether a stream or PING of this number would be from this side: clients use odd ones."""
        return (number % 2 == 1) == self._client

    def ever_opened(self, stream_id: int) -> bool:
        return stream_id <= (self._next_id - 2 if self.is_ours(stream_id) else self.last_peer_id)

    @property
    def exhausted(self) -> bool:
        """No number is left: they do not start again."""
        return self._next_id > MAX_STREAM_ID

    def open(self, credit: int, room: int) -> Entry:
        """A stream of this side."""
        entry = Entry(self._next_id, True, credit, room)
        self._next_id += 2
        self.ours += 1
        self._entries[entry.id] = entry
        return entry

    def opened(self, stream_id: int, credit: int, room: int) -> Entry:
        """A stream of the peer's."""
        entry = Entry(stream_id, False, credit, room)
        self.theirs += 1
        self._entries[stream_id] = entry
        return entry

    def sent_fin(self, entry: Entry) -> None:
        entry.sent_fin = True
        if entry.received_fin:
            self.forget(entry)

    def received_fin(self, entry: Entry) -> None:
        entry.received_fin = True
        if entry.sent_fin:
            self.forget(entry)

    def forget(self, entry: Entry) -> None:
        del self._entries[entry.id]
        if entry.ours:
            self.ours -= 1
        else:
            self.theirs -= 1

    def clear(self) -> None:
        self._entries.clear()
        self.ours = self.theirs = 0
