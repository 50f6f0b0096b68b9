"""SPDY's frames: the draft's layouts byte by byte, any frames in any chunking, and what is refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.streaming.spdy import frames
from podwright.streaming.spdy.frames import (
    Data,
    Decoder,
    Frame,
    GoAway,
    HeadersFrame,
    Ping,
    ProtocolError,
    RstStream,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

LIMIT = 1 << 16

# Laid out by hand from the figures of draft 2.2 and 2.6.
VECTORS: list[tuple[str, Frame]] = [
    ("00000005 00000003 616263", Data(5, b"abc")),
    ("00000005 01000003 616263", Data(5, b"abc", True)),
    ("7fffffff 01000000", Data(0x7FFFFFFF, b"", True)),
    ("80030001 0000000d 00000001 00000000 00 00 78bbe3", SynStream(1, b"\x78\xbb\xe3")),
    ("80030001 0300000a 00000003 00000001 e0 00", SynStream(3, b"", True, True, 7, 1)),
    ("80030002 00000006 00000001 78bb", SynReply(1, b"\x78\xbb")),
    ("80030002 01000004 00000001", SynReply(1, b"", True)),
    ("80030003 00000008 00000007 00000005", RstStream(7, 5)),
    ("80030004 00000004 00000000", Settings(())),
    (
        "80030004 00000014 00000002 00000004 00000064 00000007 00010000",
        Settings(((4, 100), (7, 65536))),
    ),
    ("80030006 00000004 80000001", Ping(0x80000001)),
    ("80030007 00000008 00000009 00000001", GoAway(9, 1)),
    ("80030008 01000005 00000003 ff", HeadersFrame(3, b"\xff", True)),
    ("80030009 00000008 00000000 7fffffff", WindowUpdate(0, 0x7FFFFFFF)),
]


def decode(chunks: Iterable[bytes], limit: int = LIMIT) -> list[Frame]:
    decoder = Decoder(limit)
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


def joined(found: Iterable[Frame]) -> list[Frame]:
    """The pieces of DATA put together again where they must have been one frame or may as well have been."""
    whole: list[Frame] = []
    for frame in found:
        last = whole[-1] if whole else None
        match last, frame:
            case Data(before, payload, False), Data(now, more, fin) if before == now:
                whole[-1] = Data(now, payload + more, fin)
            case _:
                whole.append(frame)
    return whole


@pytest.mark.parametrize(("octets", "frame"), VECTORS, ids=lambda value: type(value).__name__)
def test_a_frame_is_laid_out_as_in_the_draft(octets: str, frame: Frame) -> None:
    assert frames.encode(frame) == bytes.fromhex(octets)
    assert decode([bytes.fromhex(octets)]) == [frame]


def test_reserved_bits_and_flags_of_settings_are_not_read() -> None:
    assert decode([bytes.fromhex("80030003 00000008 80000007 00000005")]) == [RstStream(7, 5)]
    assert decode([bytes.fromhex("80030009 00000008 80000007 80000005")]) == [WindowUpdate(7, 5)]
    assert decode([bytes.fromhex("80030004 0100000c 00000001 03000004 00000064")]) == [Settings(((4, 100),))]


def test_control_frames_of_unknown_types_are_skipped() -> None:
    unknown = bytes.fromhex("8003000a 00000003 616263") + bytes.fromhex("80030005 00000000")
    ping = frames.encode(Ping(1))
    assert decode([unknown + ping]) == [Ping(1)]
    assert decode(bytes([octet]) for octet in unknown + ping) == [Ping(1)]


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("80020006 00000004 00000001", "version 2"),
        ("00000000 00000001 00", "stream 0"),
        ("80030006 00000005", "PING frame of 5 bytes"),
        ("80030003 00000007", "RST_STREAM frame of 7 bytes"),
        ("80030007 00000004", "GOAWAY frame of 4 bytes"),
        ("80030009 00ffffff", "WINDOW_UPDATE frame of 16777215 bytes"),
        ("80030001 00000009", "SYN_STREAM frame of 9 bytes"),
        ("80030002 00000003", "SYN_REPLY frame of 3 bytes"),
        ("80030008 00010001", "HEADERS frame of 65537 bytes; the limit"),
        ("80030004 00000004 00000001", "claim 1 entries"),
        ("80030004 0000000c ffffffff 00000004 00000001", "claim 4294967295 entries"),
    ],
)
def test_what_cannot_be_read_is_an_error(octets: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode([bytes.fromhex(octets)])


def test_frames_before_a_broken_one_are_read() -> None:
    decoder = Decoder(LIMIT)
    found = decoder.feed(frames.encode(Ping(3)) + bytes.fromhex("80020006 00000004"))
    assert next(found) == Ping(3)
    with pytest.raises(ProtocolError):
        next(found)


def test_a_frame_that_does_not_fit_its_length_is_not_written() -> None:
    with pytest.raises(ValueError, match="16 MiB"):
        frames.encode(SynReply(1, bytes(frames.MAX_LENGTH)))
    with pytest.raises(ValueError, match="16 MiB"):
        frames.encode(Data(1, bytes(frames.MAX_LENGTH + 1)))


IDS = st.integers(1, frames.MAX_STREAM_ID)
WORDS = st.integers(0, 0xFFFFFFFF)
BLOCKS = st.binary(max_size=300)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Data, IDS, st.binary(max_size=2000), st.booleans()),
    st.builds(SynStream, IDS, BLOCKS, st.booleans(), st.booleans(), st.integers(0, 7), IDS),
    st.builds(SynReply, IDS, BLOCKS, st.booleans()),
    st.builds(RstStream, IDS, WORDS),
    st.builds(Settings, st.lists(st.tuples(st.integers(0, 0xFFFFFF), WORDS), max_size=9).map(tuple)),
    st.builds(Ping, WORDS),
    st.builds(GoAway, IDS, WORDS),
    st.builds(HeadersFrame, IDS, BLOCKS, st.booleans()),
    st.builds(WindowUpdate, st.integers(0, frames.MAX_STREAM_ID), st.integers(0, frames.MAX_STREAM_ID)),
)


@settings(deadline=None)
@given(st.lists(FRAMES, max_size=12), st.data())
def test_any_frames_come_out_as_they_went_in_however_they_are_cut(
    said: list[Frame], data: st.DataObject
) -> None:
    octets = b"".join(map(frames.encode, said))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=20)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert joined(decode(chunks)) == joined(said)


def test_the_decoder_keeps_no_data_of_long_frames() -> None:
    decoder = Decoder(LIMIT)
    chunk = bytes(1 << 16)
    received = 0
    list(decoder.feed(frames.data_head(1, frames.MAX_LENGTH, False)))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            for piece in decoder.feed(chunk):
                assert isinstance(piece, Data)
                received += len(piece.payload)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert received == 200 * len(chunk)
    assert kept < 3 * len(chunk)
