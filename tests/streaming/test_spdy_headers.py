"""SPDY's header blocks: layout, the shared compression state, and what a hostile block can do."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.streaming.spdy.frames import ProtocolError
from podwright.streaming.spdy.headers import (
    DICTIONARY,
    Compressor,
    Decompressor,
    MalformedHeaders,
    decode_block,
    encode_block,
)

NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HEADERS = st.dictionaries(NAMES, VALUES, max_size=8)


def test_the_dictionary_is_the_drafts() -> None:
    # A compressed block names its dictionary by this checksum; every SPDY/3 block begins with these bytes.
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    block = Compressor().block({"streamtype": "stdin"})
    assert block[2:6] == bytes.fromhex("e3c6a7c2")
    assert block[1] & 0x20
    assert block.endswith(bytes.fromhex("0000ffff")), "not flushed"


def test_a_block_is_laid_out_as_in_the_draft() -> None:
    plain = bytes.fromhex("00000002 00000004") + b"port" + bytes.fromhex("00000002") + b"80"
    plain += bytes.fromhex("00000001") + b"x" + bytes.fromhex("00000003") + b"1\x002"
    assert encode_block({"port": "80", "x": "1\0002"}) == plain
    assert decode_block(plain) == {"port": "80", "x": "1\0002"}


def test_octets_that_are_not_utf8_survive() -> None:
    plain = bytes.fromhex("00000001 00000001") + b"x" + bytes.fromhex("00000002 fffe")
    assert encode_block(decode_block(plain)) == plain


@pytest.mark.parametrize(
    "plain",
    [
        "",
        "0000",
        "00000001",
        "00000001 00000001 78",
        "00000001 00000009 78 00000000",
        "ffffffff 00000001 78 00000000",
        "00000001 00000001 78 ffffffff",
        "00000000 00",
        "00000001 00000000 00000000",  # no name
        "00000001 00000001 58 00000000",  # upper case
        "00000002 00000001 78 00000000 00000001 78 00000000",  # twice
        "00000001 00000001 78 00000002 7800",  # ends with NUL
        "00000001 00000001 78 00000002 0078",  # begins with NUL
        "00000001 00000001 78 00000004 78000078",  # an empty value between
    ],
)
def test_a_block_that_the_draft_forbids_is_malformed(plain: str) -> None:
    with pytest.raises(MalformedHeaders):
        decode_block(bytes.fromhex(plain))


@pytest.mark.parametrize("headers", [{"": "x"}, {"Port": "80"}, {"a\0b": ""}, {"x": "\0"}, {"x": "a\0\0b"}])
def test_headers_that_the_draft_forbids_are_not_sent(headers: dict[str, str]) -> None:
    compressor, decompressor = Compressor(), Decompressor(1000)
    with pytest.raises(MalformedHeaders):
        compressor.block(headers)
    # The state of the compression is as before.
    assert decode_block(decompressor.block(compressor.block({"port": "80"}))) == {"port": "80"}


@settings(deadline=None)
@given(st.lists(HEADERS, max_size=10))
def test_blocks_come_out_as_they_went_in_one_after_another(blocks: list[dict[str, str]]) -> None:
    compressor, decompressor = Compressor(), Decompressor(1 << 20)
    assert [decode_block(decompressor.block(compressor.block(headers))) for headers in blocks] == blocks


def test_the_state_goes_on_from_block_to_block() -> None:
    compressor, decompressor = Compressor(), Decompressor(1000)
    first, second = (compressor.block({"requestid": "17", "streamtype": "data"}) for _ in range(2))
    assert len(second) < len(first) / 2
    with pytest.raises(ProtocolError):
        Decompressor(1000).block(second)
    decompressor.block(first)
    assert decode_block(decompressor.block(second)) == {"requestid": "17", "streamtype": "data"}


def test_blocks_of_zlibs_default_window_are_read() -> None:
    # Go and others use the largest window; matches may lie 32 KiB back.
    peer = zlib.compressobj(zdict=DICTIONARY)
    decompressor = Decompressor(1 << 20)
    for number in range(40):
        plain = encode_block({"x": f"{number:04}" * 500})
        assert decompressor.block(peer.compress(plain) + peer.flush(zlib.Z_SYNC_FLUSH)) == plain


def test_a_block_may_not_grow_beyond_its_limit() -> None:
    limit = 10_000
    fits = Decompressor(limit).block(Compressor().compress(bytes(limit)))
    assert fits == bytes(limit)
    with pytest.raises(ProtocolError, match="more than 10000 bytes"):
        Decompressor(limit).block(Compressor().compress(bytes(limit + 1)))
    with pytest.raises(ProtocolError, match="more than 10000 bytes"):
        Decompressor(limit).block(Compressor().compress(bytes(1 << 24)))


def test_a_bomb_is_not_unpacked_before_it_is_refused() -> None:
    bomb = Compressor().compress(bytes(1 << 26))
    decompressor = Decompressor(10_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decompressor.block(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_compression_that_ends_or_has_another_dictionary_is_an_error() -> None:
    plain = encode_block({"x": "y"})
    for peer in (zlib.compressobj(zdict=DICTIONARY), zlib.compressobj(), zlib.compressobj(zdict=b"other")):
        with pytest.raises(ProtocolError):
            Decompressor(1000).block(peer.compress(plain) + peer.flush(zlib.Z_FINISH))
    # A first block without a dictionary is none that the draft knows, yet harmless, and read.
    bare = zlib.compressobj()
    assert Decompressor(1000).block(bare.compress(plain) + bare.flush(zlib.Z_SYNC_FLUSH)) == plain
