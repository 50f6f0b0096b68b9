"""SPDY's flow control: towards peers that keep windows, peers that do not, and any two of ours."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.streaming.spdy import events
from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.frames import (
    Data,
    Frame,
    GoAway,
    Ping,
    ResetStatus,
    RstStream,
    Setting,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)
from podwright.streaming.spdy.limits import Limits
from tests.streaming.spdy_peers import Raw, exchange

KIB = 1 << 10
SMALL = Limits(stream_window=64 * KIB, session_window=128 * KIB, data_frame=10 * KIB)


def streams(limits: Limits, number: int) -> tuple[Connection, Raw, list[int]]:
    """A client with open streams, and its peer, which has said nothing of windows."""
    client = Connection(True, limits)
    raw = Raw(client)
    opened = [client.open_stream({}) for _ in range(number)]
    raw.say(*(SynReply(one, raw.block()) for one in opened))
    raw.heard()
    return client, raw, opened


def data_length(heard: list[Frame]) -> int:
    return sum(len(frame.payload) for frame in heard if isinstance(frame, Data))


def pings(heard: list[Frame]) -> list[Ping]:
    return [frame for frame in heard if isinstance(frame, Ping)]


def test_a_peer_that_keeps_windows_is_sent_no_more_than_it_grants() -> None:
    client, raw, (one, two) = streams(SMALL, 2)
    raw.say(Settings(((Setting.INITIAL_WINDOW_SIZE, 30 * KIB),)), WindowUpdate(0, 1))
    assert client.send(one, bytes(100 * KIB), fin=True) == 30 * KIB
    assert client.send(one, b"x") == 0
    assert raw.say(WindowUpdate(one, 5)) == [events.WindowOpened(one)]
    assert client.send(one, b"0123456789") == 5
    # The session's window holds the other stream back.
    assert raw.say(WindowUpdate(two, 1000 * KIB)) == [events.WindowOpened(two)]
    assert client.send(two, bytes(100 * KIB)) == 34 * KIB + 1 - 5
    assert raw.say(WindowUpdate(0, 7)) == [events.WindowOpened(0)]
    assert client.send(two, bytes(100)) == 7
    heard = raw.heard()
    assert data_length(heard) == 64 * KIB + 8
    assert pings(heard) == [], "nothing was in doubt"


def test_fin_needs_no_window() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    raw.say(Settings(((Setting.INITIAL_WINDOW_SIZE, 0),)))
    assert client.send(one, b"x", fin=True) == 0
    assert raw.heard() == []
    assert client.send(one, b"", fin=True) == 0
    assert raw.heard() == [Data(one, b"", True)]


def test_an_initial_window_that_shrinks_may_make_a_window_negative() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    raw.say(WindowUpdate(0, 1000 * KIB))
    assert client.send(one, bytes(60 * KIB)) == 60 * KIB
    raw.say(Settings(((Setting.INITIAL_WINDOW_SIZE, 16 * KIB), (Setting.INITIAL_WINDOW_SIZE, 1 << 20))))
    raw.say(WindowUpdate(one, 44 * KIB))
    assert client.send(one, b"x") == 0
    raw.say(WindowUpdate(one, 1))
    assert client.send(one, b"xy") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_window_beyond_its_limit_is_an_error(stream: bool) -> None:
    _, raw, (one,) = streams(SMALL, 1)
    told = raw.say(WindowUpdate(one if stream else 0, 0x7FFFFFFF))
    if stream:
        assert told == [events.StreamReset(one, ResetStatus.FLOW_CONTROL_ERROR, False)]
        assert raw.heard() == [RstStream(one, ResetStatus.FLOW_CONTROL_ERROR)]
    else:
        assert isinstance(told[-1], events.Failed)
        assert isinstance(raw.heard()[-1], GoAway)


def test_an_initial_window_beyond_the_limit_ends_the_session() -> None:
    _, raw, _ = streams(SMALL, 1)
    assert isinstance(raw.say(Settings(((Setting.INITIAL_WINDOW_SIZE, 1 << 31),)))[-1], events.Failed)


def test_a_peer_that_answers_a_ping_and_grants_nothing_keeps_no_windows() -> None:
    client, raw, (one, two) = streams(SMALL, 2)
    assert client.send(one, bytes(100 * KIB)) == 64 * KIB
    assert client.send(two, b"x") == 0
    heard = raw.heard()
    assert data_length(heard) == 64 * KIB
    (ping,) = pings(heard)
    assert heard[-1] == ping, "the question must come after the data that it is about"
    assert raw.say(ping) == [events.WindowOpened(0)]
    assert client.send(one, bytes(1 << 20)) == 1 << 20
    assert client.send(two, bytes(1 << 20)) == 1 << 20
    assert pings(raw.heard()) == []


def test_a_peer_that_keeps_no_windows_is_granted_nothing_until_it_shows_that_it_does() -> None:
    client, raw, (one, two) = streams(SMALL, 2)
    client.send(one, bytes(65 * KIB))
    raw.say(*pings(raw.heard()))
    for stream in (one, two):
        raw.say(Data(stream, bytes(64 * KIB)))
        client.consumed(stream, 64 * KIB)
    assert raw.heard() == []
    raw.say(WindowUpdate(two, 1))
    assert raw.heard() == [WindowUpdate(one, 64 * KIB), WindowUpdate(two, 64 * KIB)]
    raw.say(WindowUpdate(0, 1))
    assert raw.heard() == [WindowUpdate(0, 128 * KIB)]


def test_a_peer_that_keeps_only_the_windows_of_streams_is_granted_theirs() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    raw.say(WindowUpdate(one, 1 << 20))
    client.send(one, bytes(65 * KIB))
    raw.say(*pings(raw.heard()))
    for _ in range(5):
        raw.say(Data(one, bytes(64 * KIB)))
        client.consumed(one, 64 * KIB)
        assert raw.heard() == [WindowUpdate(one, 64 * KIB)]


def test_a_peer_that_grants_before_it_answers_keeps_windows() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    client.send(one, bytes(65 * KIB))
    (ping,) = pings(raw.heard())
    raw.say(WindowUpdate(one, 10), WindowUpdate(0, 20), ping)
    assert client.send(one, bytes(100)) == 10
    assert client.send(one, bytes(100)) == 0
    assert pings(raw.heard()) == []


def test_a_peer_may_keep_only_the_windows_of_streams() -> None:
    # SPDY/3 had no window of the session.
    client, raw, (one,) = streams(SMALL, 1)
    raw.say(WindowUpdate(one, 1 << 20))
    assert client.send(one, bytes(100 * KIB)) == 64 * KIB
    (ping,) = pings(raw.heard())
    raw.say(ping)
    assert client.send(one, bytes(2 << 20)) == 1 << 20
    assert client.send(one, b"x") == 0


def test_a_peer_that_overruns_windows_it_never_spoke_of_keeps_none() -> None:
    client, raw, (one, two) = streams(SMALL, 2)
    assert client.send(two, bytes(100 * KIB)) == 64 * KIB
    raw.heard()
    told = raw.say(Data(one, bytes(64 * KIB)))
    assert told == [events.DataReceived(one, bytes(64 * KIB), False)]
    told = raw.say(Data(one, b"x"))
    assert told == [events.WindowOpened(0), events.DataReceived(one, b"x", False)]
    # It waits for no windows, and none are granted any more.
    assert client.send(two, bytes(1 << 20)) == 1 << 20
    client.consumed(one, 64 * KIB + 1)
    assert not [frame for frame in raw.heard() if isinstance(frame, WindowUpdate)]


def test_a_peer_that_keeps_windows_may_not_overrun_them() -> None:
    _, raw, (one, two) = streams(SMALL, 2)
    raw.say(WindowUpdate(0, 1), WindowUpdate(one, 1))
    raw.say(Data(one, bytes(64 * KIB)))
    assert raw.say(Data(one, b"x")) == [events.StreamReset(one, ResetStatus.FLOW_CONTROL_ERROR, False)]
    assert raw.heard() == [RstStream(one, ResetStatus.FLOW_CONTROL_ERROR)]
    raw.say(Data(two, bytes(63 * KIB)))
    told = raw.say(Data(two, bytes(KIB)))
    assert isinstance(told[-1], events.Failed), "the byte too many counted in the session's window as well"


def test_what_is_used_is_granted_again_by_halves() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    raw.say(Data(one, bytes(60 * KIB)))
    client.consumed(one, 30 * KIB)
    assert raw.heard() == []
    client.consumed(one, 2 * KIB)
    assert raw.heard() == [WindowUpdate(one, 32 * KIB)]
    raw.say(Data(one, bytes(36 * KIB)))
    client.consumed(one, 64 * KIB)
    assert raw.heard() == [WindowUpdate(one, 64 * KIB), WindowUpdate(0, 96 * KIB)]


def test_data_of_streams_that_are_gone_is_granted_again_to_the_session() -> None:
    client, raw, (one,) = streams(SMALL, 1)
    client.reset(one)
    raw.heard()
    raw.say(Data(one, bytes(64 * KIB)))
    assert raw.heard() == [WindowUpdate(0, 64 * KIB)]
    raw.say(Data(99, bytes(64 * KIB)))
    assert WindowUpdate(0, 64 * KIB) in raw.heard()


class Talk:
    """Two of our connections, streams in both directions, and a schedule of chance. Every step checks that
    what is on its way fits the windows."""

    def __init__(self, chance: random.Random, limits: tuple[Limits, Limits]) -> None:
        self.chance = chance
        self.limits = limits
        self.ends = (Connection(True, limits[0]), Connection(False, limits[1]))
        self.wire = (bytearray(), bytearray())  # from each end
        self.to_send: tuple[dict[int, bytearray], ...] = ({}, {})
        self.wanted: tuple[dict[int, bytes], ...] = ({}, {})  # what the other end must get
        self.got: tuple[dict[int, bytearray], ...] = (defaultdict(bytearray), defaultdict(bytearray))
        self.ended: tuple[set[int], ...] = (set(), set())
        self.unused: tuple[dict[int, int], ...] = (defaultdict(int), defaultdict(int))
        for end in (0, 1):
            for _ in range(chance.randrange(5)):
                self._load(end, self.ends[end].open_stream({"n": str(end)}))

    def _load(self, end: int, stream_id: int) -> None:
        data = self.chance.randbytes(self.chance.choice([0, 1, 5000, 70_000, 300_000, 1_000_000]))
        self.to_send[end][stream_id] = bytearray(data)
        self.wanted[end][stream_id] = data

    def run(self) -> None:
        steps = (self.deliver, self.send, self.use)
        for _ in range(20_000):
            end = self.chance.randrange(2)
            self.chance.choice(steps)(end)
            if self.done():
                return
        # Chance may have been slow: from here each step is taken in turn until nothing moves any more.
        while True:
            before = self.position()
            for step in steps:
                step(0)
                step(1)
            if self.done():
                return
            assert self.position() != before, "a deadlock"

    def position(self) -> tuple[int, ...]:
        sizes = [len(rest) for end in self.to_send for rest in end.values()]
        return (*map(len, self.wire), *sizes, *(sum(end.values()) for end in self.unused))

    def done(self) -> bool:
        return all(self.ended[1 - end] == set(self.wanted[end]) for end in (0, 1)) and not any(
            end.open_streams for end in self.ends
        )

    def deliver(self, end: int) -> None:
        """Some of what this end has written arrives at the other."""
        wire = self.wire[end]
        wire += b"".join(self.ends[end].output())
        cut = self.chance.randint(0, len(wire)) if self.chance.random() < 0.7 else len(wire)
        data = bytes(wire[:cut])
        del wire[:cut]
        for event in self.ends[1 - end].receive(data):
            self.happened(1 - end, event)

    def happened(self, end: int, event: events.Event) -> None:
        match event:
            case events.StreamOpened(stream_id, _, fin):
                assert not fin
                self.ends[end].reply(stream_id)
                self._load(end, stream_id)
            case events.DataReceived(stream_id, data, fin):
                self.got[end][stream_id] += data
                self.unused[end][stream_id] += len(data)
                assert stream_id not in self.ended[end]
                if fin:
                    self.ended[end].add(stream_id)
                assert self.unused[end][stream_id] <= self.limits[end].stream_window
                assert sum(self.unused[end].values()) <= self.limits[end].session_window
            case events.StreamReset() | events.Failed() | events.GoneAway():
                raise AssertionError(event)

    def send(self, end: int) -> None:
        if not self.to_send[end]:
            return
        stream_id = self.chance.choice(list(self.to_send[end]))
        rest = self.to_send[end][stream_id]
        piece = bytes(rest[: self.chance.choice([1, 1000, 100_000])])
        fin = len(piece) == len(rest)
        taken = self.ends[end].send(stream_id, piece, fin)
        del rest[:taken]
        if fin and taken == len(piece):
            del self.to_send[end][stream_id]

    def use(self, end: int) -> None:
        waiting = [stream_id for stream_id, length in self.unused[end].items() if length]
        if waiting:
            stream_id = self.chance.choice(waiting)
            length = self.chance.choice([1, self.unused[end][stream_id]])
            self.unused[end][stream_id] -= length
            self.ends[end].consumed(stream_id, length)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 64), st.sampled_from([64, 65, 100]), st.sampled_from([100, 128, 1000]))
def test_two_connections_deliver_everything_in_order_and_never_exceed_a_window(
    seed: int, stream_window: int, session_window: int
) -> None:
    limits = Limits(stream_window=stream_window * KIB, session_window=session_window * KIB, data_frame=9000)
    talk = Talk(random.Random(seed), (limits, Limits()))
    talk.run()
    for end in (0, 1):
        for stream_id, data in talk.wanted[end].items():
            assert bytes(talk.got[1 - end][stream_id]) == data


def test_pausing_the_peers_streams_leaves_nothing_behind() -> None:
    """A thousand streams, one after another, and neither side remembers them."""
    client, server = Connection(True, SMALL), Connection(False, SMALL)
    exchange(client, server)
    for _ in range(1000):
        number = client.open_stream({"requestid": "1"})
        client.send(number, b"question", fin=True)
        exchange(client, server)
        server.consumed(number, 8)
        server.send(number, b"answer", fin=True)
        told = exchange(client, server)[0]
        client.consumed(number, 6)
        assert events.DataReceived(number, b"answer", True) in told
    assert client.open_streams == server.open_streams == 0
    assert len(client._streams._entries) == len(server._streams._entries) == 0
    assert not client._resets_told and not server._resets_told


def test_a_stream_the_peer_opens_has_the_peers_initial_window() -> None:
    server = Connection(False)
    raw = Raw(server)
    raw.say(Settings(((Setting.INITIAL_WINDOW_SIZE, 5),)), SynStream(1, raw.block()))
    assert server.send(1, b"0123456789") == 5
