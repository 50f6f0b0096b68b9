"""The rules of a SPDY connection, each against a peer that says exactly what the test wants."""

from __future__ import annotations

import pytest

from podwright.errors import FailedPrecondition, ResourceExhausted, Unavailable
from podwright.streaming.spdy import events, frames
from podwright.streaming.spdy.connection import Connection
from podwright.streaming.spdy.frames import (
    Data,
    GoAway,
    GoAwayStatus,
    HeadersFrame,
    Ping,
    ResetStatus,
    RstStream,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)
from podwright.streaming.spdy.headers import encode_block
from podwright.streaming.spdy.limits import Limits
from tests.streaming.spdy_peers import Raw, exchange, pair


@pytest.fixture
def server() -> Connection:
    return Connection(False)


@pytest.fixture
def peer(server: Connection) -> Raw:
    """A client of `server` whose first frame has been answered with the server's settings."""
    raw = Raw(server)
    raw.say(Ping(1))
    raw.heard()
    return raw


def opened(stream_id: int, headers: dict[str, str], fin: bool = False) -> events.StreamOpened:
    return events.StreamOpened(stream_id, headers, fin, False, 0)


def failure(told: list[events.Event]) -> str:
    assert isinstance(told[-1], events.Failed), told
    return str(told[-1].error)


def test_a_server_says_nothing_before_its_first_input_and_then_its_settings(server: Connection) -> None:
    # Go's client loses what comes in the same segment as the HTTP response.
    assert server.output() == []
    assert Raw(server).say(Ping(1)) == []
    decoder = frames.Decoder(1000)
    assert list(decoder.feed(b"".join(server.output()))) == [
        Settings(((4, 1000), (7, 1 << 19))),
        WindowUpdate(0, (1 << 21) - (1 << 16)),
        Ping(1),
    ]


def test_a_client_begins_with_its_settings() -> None:
    decoder = frames.Decoder(1000)
    first = list(decoder.feed(b"".join(Connection(True, Limits(streams=7)).output())))
    assert first[0] == Settings(((4, 7), (7, 1 << 19)))


def test_a_stream_from_open_to_end() -> None:
    client, server = pair()
    number = client.open_stream({"streamtype": "stdin"})
    assert number == 1
    assert exchange(client, server)[1] == [opened(1, {"streamtype": "stdin"})]
    server.reply(1, {"x": "y"})
    assert exchange(client, server)[0] == [events.StreamReplied(1, {"x": "y"}, False)]
    assert client.send(1, b"abc") == 3
    client.send_headers(1, {"more": "1"})
    assert client.send(1, b"def", fin=True) == 3
    assert exchange(client, server)[1] == [
        events.DataReceived(1, b"abc", False),
        events.HeadersReceived(1, {"more": "1"}, False),
        events.DataReceived(1, b"def", True),
    ]
    with pytest.raises(FailedPrecondition, match="stream 1"):
        client.send(1, b"")
    # The other direction is open until it is closed as well.
    assert (client.open_streams, server.open_streams) == (1, 1)
    server.send(1, b"", fin=True)
    assert exchange(client, server)[0] == [events.DataReceived(1, b"", True)]
    assert (client.open_streams, server.open_streams) == (0, 0)


def test_clients_use_odd_numbers_and_servers_even_ones() -> None:
    client, server = pair()
    assert [client.open_stream({}) for _ in range(3)] == [1, 3, 5]
    assert [server.open_stream({}) for _ in range(2)] == [2, 4]
    told = exchange(client, server)
    assert told == ([opened(2, {}), opened(4, {})], [opened(1, {}), opened(3, {}), opened(5, {})])
    client.reply(2)
    assert exchange(client, server)[1] == [events.StreamReplied(2, {}, False)]


@pytest.mark.parametrize("number", [0, 2])
def test_a_stream_of_a_number_that_is_not_the_peers_ends_the_session(peer: Raw, number: int) -> None:
    assert f"stream {number}" in failure(peer.say(SynStream(number, peer.block())))
    assert peer.heard() == [GoAway(0, GoAwayStatus.PROTOCOL_ERROR)]
    assert peer.say(Ping(3)) == []
    assert peer.heard() == []


def test_data_of_an_unreplied_stream_replies_first(server: Connection, peer: Raw) -> None:
    peer.say(SynStream(1, peer.block()))
    server.send(1, b"x")
    reply, data = peer.heard()
    assert isinstance(reply, SynReply)
    assert peer.headers(reply.block) == {}
    assert data == Data(1, b"x")
    with pytest.raises(FailedPrecondition):
        server.reply(1)


def test_fin_may_be_on_any_frame(server: Connection, peer: Raw) -> None:
    block = peer.block()
    assert peer.say(SynStream(1, block, fin=True)) == [opened(1, {}, fin=True)]
    server.reply(1, fin=True)
    assert server.open_streams == 0
    peer.say(SynStream(3, peer.block()))
    assert peer.say(HeadersFrame(3, peer.block(a="b"), fin=True)) == [
        events.HeadersReceived(3, {"a": "b"}, True)
    ]
    server.send_headers(3, {}, fin=True)
    assert server.open_streams == 0
    number = server.open_stream({}, fin=True)
    assert peer.say(SynReply(number, peer.block(), fin=True)) == [events.StreamReplied(number, {}, True)]
    assert server.open_streams == 0


def test_a_unidirectional_stream_is_half_closed_at_once(server: Connection, peer: Raw) -> None:
    told = peer.say(SynStream(1, peer.block(), unidirectional=True, priority=3))
    assert told == [events.StreamOpened(1, {}, False, True, 3)]
    with pytest.raises(FailedPrecondition):
        server.reply(1)
    assert peer.say(Data(1, b"x", True)) == [events.DataReceived(1, b"x", True)]
    assert server.open_streams == 0
    number = server.open_stream({}, unidirectional=True)
    assert server.send(number, b"x") == 1
    assert peer.say(Data(number, b"y"))[0] == events.StreamReset(
        number, ResetStatus.STREAM_ALREADY_CLOSED, False
    )


def test_data_for_a_stream_that_never_was_is_answered_once(peer: Raw) -> None:
    assert peer.say(Data(7, b"x"), Data(7, b"y"), Data(8, b"z")) == []
    assert peer.heard() == [
        RstStream(7, ResetStatus.INVALID_STREAM),
        RstStream(8, ResetStatus.INVALID_STREAM),
    ]


def test_data_after_the_end_resets_the_stream(server: Connection, peer: Raw) -> None:
    peer.say(SynStream(1, peer.block(), fin=True))
    told = peer.say(Data(1, b"x"))
    assert told == [events.StreamReset(1, ResetStatus.STREAM_ALREADY_CLOSED, False)]
    assert peer.heard() == [RstStream(1, ResetStatus.STREAM_ALREADY_CLOSED)]
    peer.say(SynStream(3, peer.block(), fin=True))
    server.send(3, b"", fin=True)
    peer.heard()
    assert peer.say(Data(3, b"x")) == []
    assert peer.heard() == [RstStream(3, ResetStatus.PROTOCOL_ERROR)]


def test_data_before_the_reply_resets_the_stream() -> None:
    client = Connection(True)
    raw = Raw(client)
    number = client.open_stream({})
    raw.heard()
    assert raw.say(Data(number, b"x")) == [events.StreamReset(number, ResetStatus.PROTOCOL_ERROR, False)]
    assert raw.heard() == [RstStream(number, ResetStatus.PROTOCOL_ERROR)]


def test_a_second_reply_resets_the_stream() -> None:
    client = Connection(True)
    raw = Raw(client)
    number = client.open_stream({})
    raw.heard()
    first, second = SynReply(number, raw.block()), SynReply(number, raw.block())
    assert raw.say(first, second) == [
        events.StreamReplied(number, {}, False),
        events.StreamReset(number, ResetStatus.STREAM_IN_USE, False),
    ]
    assert raw.heard() == [RstStream(number, ResetStatus.STREAM_IN_USE)]


def test_a_stream_that_comes_late_is_reset_and_the_session_goes_on(peer: Raw) -> None:
    peer.say(SynStream(5, peer.block()))
    assert peer.say(SynStream(3, peer.block(a="b"))) == []
    assert peer.heard() == [RstStream(3, ResetStatus.PROTOCOL_ERROR)]
    assert peer.say(SynStream(5, peer.block())) == [events.StreamReset(5, ResetStatus.PROTOCOL_ERROR, False)]
    assert peer.say(SynStream(7, peer.block(a="b"))) == [opened(7, {"a": "b"})]


def test_streams_beyond_the_limit_are_refused_and_the_compression_survives() -> None:
    server = Connection(False, Limits(streams=1))
    raw = Raw(server)
    assert raw.say(SynStream(1, raw.block(first="1")), SynStream(3, raw.block(second="2"))) == [
        opened(1, {"first": "1"})
    ]
    assert raw.heard()[-1] == RstStream(3, ResetStatus.REFUSED_STREAM)
    server.reset(1)
    assert raw.say(SynStream(5, raw.block(second="2"))) == [opened(5, {"second": "2"})]


def test_malformed_headers_reset_their_stream_only(server: Connection, peer: Raw) -> None:
    bad = encode_block({"xx": "y"}).replace(b"xx", b"XX")
    assert peer.say(SynStream(1, peer.plain_block(bad))) == []
    assert peer.heard() == [RstStream(1, ResetStatus.PROTOCOL_ERROR)]
    assert peer.say(SynStream(3, peer.block())) == [opened(3, {})]
    assert peer.say(HeadersFrame(3, peer.plain_block(bad))) == [
        events.StreamReset(3, ResetStatus.PROTOCOL_ERROR, False)
    ]
    # A block for a stream that is gone goes through the compression all the same.
    assert peer.say(HeadersFrame(3, peer.block(a="b"))) == []
    assert peer.say(SynStream(5, peer.block(a="b"))) == [opened(5, {"a": "b"})]


def test_a_block_that_cannot_be_decompressed_ends_the_session(peer: Raw) -> None:
    assert "decompressed" in failure(peer.say(SynStream(1, b"\0\0\0")))
    assert peer.heard() == [GoAway(0, GoAwayStatus.PROTOCOL_ERROR)]


def test_a_header_bomb_ends_the_session(peer: Raw) -> None:
    block = peer.plain_block(bytes(40 << 20))
    assert len(block) < 1 << 16
    assert "more than 131072 bytes" in failure(peer.say(SynStream(1, block)))


def test_a_reset_ends_both_directions_and_is_not_answered(server: Connection, peer: Raw) -> None:
    peer.say(SynStream(1, peer.block()))
    assert peer.say(RstStream(1, ResetStatus.CANCEL)) == [events.StreamReset(1, ResetStatus.CANCEL, True)]
    assert peer.say(RstStream(1, ResetStatus.CANCEL), RstStream(9, ResetStatus.CANCEL)) == []
    assert peer.heard() == []
    with pytest.raises(FailedPrecondition):
        server.send(1, b"x")
    server.reset(1)
    assert peer.heard() == []


def test_what_was_under_way_to_a_stream_that_was_reset_is_dropped_without_answer(
    server: Connection, peer: Raw
) -> None:
    peer.say(SynStream(1, peer.block()))
    server.reset(1, ResetStatus.REFUSED_STREAM)
    assert peer.heard() == [RstStream(1, ResetStatus.REFUSED_STREAM)]
    assert peer.say(Data(1, b"x"), HeadersFrame(1, peer.block()), Data(1, b"y", True)) == []
    assert peer.heard() == []


def test_pings_of_the_peer_come_back_and_ones_nobody_sent_are_ignored(server: Connection, peer: Raw) -> None:
    assert peer.say(Ping(7), Ping(0xFFFFFFFF)) == []
    assert peer.heard() == [Ping(7), Ping(0xFFFFFFFF)]
    number = server.ping()
    assert number % 2 == 0
    assert peer.heard() == [Ping(number)]
    assert peer.say(Ping(number)) == [events.Pong(number)]
    assert peer.heard() == []


def test_after_goaway_no_stream_is_opened_by_either_side() -> None:
    client, server = pair()
    client.open_stream({})
    exchange(client, server)
    server.goaway()
    late = client.open_stream({"late": "1"})
    told = exchange(client, server)
    assert told[1] == []
    assert told[0] == [
        events.StreamReset(late, ResetStatus.REFUSED_STREAM, True),
        events.GoneAway(1, GoAwayStatus.OK),
    ]
    with pytest.raises(Unavailable):
        client.open_stream({})
    with pytest.raises(Unavailable):
        server.open_stream({})
    # The stream from before goes on.
    server.send(1, b"rest", fin=True)
    assert exchange(client, server)[0][-1] == events.DataReceived(1, b"rest", True)


def test_after_goaway_streams_that_come_late_are_not_answered(server: Connection, peer: Raw) -> None:
    server.goaway()
    peer.heard()
    assert peer.say(SynStream(1, peer.block(a="b")), Data(1, b"x", True)) == []
    assert peer.heard() == []


def test_the_peers_limit_of_streams_is_kept() -> None:
    client, server = pair(server=Limits(streams=2))
    numbers = [client.open_stream({}) for _ in range(2)]
    with pytest.raises(ResourceExhausted, match="allows 2 streams"):
        client.open_stream({})
    client.reset(numbers[0])
    exchange(client, server)
    assert client.open_stream({}) == 5


def test_numbers_end() -> None:
    client = Connection(True)
    client._streams._next_id = frames.MAX_STREAM_ID
    assert client.open_stream({}) == frames.MAX_STREAM_ID
    with pytest.raises(ResourceExhausted):
        client.open_stream({})


def test_headers_that_cannot_be_sent_open_no_stream() -> None:
    client, server = pair()
    with pytest.raises(ValueError, match="Port"):
        client.open_stream({"Port": "80"})
    assert client.open_streams == 0
    assert client.open_stream({"port": "80"}) == 1
    assert exchange(client, server)[1] == [opened(1, {"port": "80"})]


def test_long_data_is_sent_in_frames_of_the_limit() -> None:
    client, server = pair(client=Limits(data_frame=1000))
    number = client.open_stream({})
    exchange(client, server)
    client.send(number, bytes(2500), fin=True)
    assert [len(frame) - 8 for frame in client._output] == [1000, 1000, 500]
    told = exchange(client, server)[1]
    assert [event.fin for event in told if isinstance(event, events.DataReceived)][-1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream_window": 65535},
        {"stream_window": 1 << 20, "session_window": 1 << 19},
        {"session_window": 1 << 31},
        {"data_frame": 0},
        {"data_frame": 1 << 24},
    ],
)
def test_limits_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"window|data_frame"):
        Limits(**wrong)
