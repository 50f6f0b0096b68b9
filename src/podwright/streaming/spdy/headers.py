"""SPDY/3's name/value header block and its compression (draft 2.6.10).

Headers are a mapping of lower-case names to values. A name with several values has them joined by NUL, as on
the wire.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from podwright.streaming.spdy.frames import ProtocolError

_WORD = struct.Struct(">I")

# The words of the draft's dictionary (2.6.10.1). The first kind stands there as in a header block, with its
# length.
_NAMES = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|"
    "accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|"
    "content-language|content-length|content-location|content-md5|content-range|content-type|date|"
    "etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|"
    "if-unmodified-since|last-modified|location|max-forwards|pragma|proxy-authenticate|"
    "proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|"
    "public|set-cookie|keep-alive|origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(_WORD.pack(len(name)) + name.encode() for name in _NAMES.split("|")) + _TEXT.encode()


class MalformedHeaders(ValueError):
    """A header block that was decompressed well but is not one: an error of its stream, not of the
    session."""


class Compressor:
    """One direction's compression: its state goes on from block to block, each of them flushed."""

    def __init__(self) -> None:
        # A window of 2 KiB holds the dictionary; zlib's default costs 256 KiB a session and finds no more.
        self._zlib = zlib.compressobj(wbits=11, memLevel=5, zdict=DICTIONARY)

    def block(self, headers: Mapping[str, str]) -> bytes:
        """The compressed block of `headers`. MalformedHeaders for what SPDY does not allow; the state
        stays."""
        return self.compress(encode_block(headers))

    def compress(self, plain: bytes) -> bytes:
        """A plain block, compressed."""
        return self._zlib.compress(plain) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decompressor:
    """The other direction. Every block that comes must pass through here, or the next one cannot be read."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes that a block may have when decompressed."""
        self._limit = limit
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def block(self, data: bytes) -> bytes:
        """The plain block. ProtocolError when it cannot be decompressed or is over the limit."""
        try:
            plain = self._zlib.decompress(data, self._limit + 1)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be decompressed: {error}") from error
        if len(plain) > self._limit or self._zlib.unconsumed_tail:
            raise ProtocolError(f"a header block of more than {self._limit} bytes")
        if self._zlib.eof:
            raise ProtocolError("the compression of header blocks was ended; it lasts as long as the session")
        return plain


def encode_block(headers: Mapping[str, str]) -> bytes:
    """The plain block. MalformedHeaders for what SPDY does not allow."""
    parts = [_WORD.pack(len(headers))]
    for name, value in headers.items():
        _check(name, value)
        for text in (name, value):
            octets = text.encode("utf-8", "surrogateescape")
            parts += (_WORD.pack(len(octets)), octets)
    return b"".join(parts)


def decode_block(plain: bytes) -> dict[str, str]:
    """The headers of a plain block. MalformedHeaders when the draft forbids it."""
    texts: list[str] = []
    try:
        at = 4
        # Each text takes four bytes at least: a count that lies ends at the end of the block.
        for _ in range(2 * _WORD.unpack_from(plain)[0]):
            length = _WORD.unpack_from(plain, at)[0]
            at += 4
            if at + length > len(plain):
                raise MalformedHeaders("a name or value longer than its header block")
            texts.append(plain[at : at + length].decode("utf-8", "surrogateescape"))
            at += length
    except struct.error:
        raise MalformedHeaders("a header block that ends too early") from None
    if at != len(plain):
        raise MalformedHeaders("a header block with more bytes than it counts headers")
    headers = dict(zip(texts[::2], texts[1::2], strict=True))
    if 2 * len(headers) != len(texts):
        raise MalformedHeaders("a name that stands twice in a header block")
    for name, value in headers.items():
        _check(name, value)
    return headers


def _check(name: str, value: str) -> None:
    if not name or name != name.lower() or "\0" in name:
        raise MalformedHeaders(f"header name {name!r} is not of lower-case letters")
    if value and not all(value.split("\0")):
        raise MalformedHeaders(f"header {name} has an empty value among several")
