"""A tar archive as a row of entries: POSIX.1-1988 (ustar), pax, GNU and the oldest form.

tarfile can do this, too, in three times the time, which for an image of many small files is most of the pull.
Names stay bytes, as the kernel has them. Standard library only: part of the program that unpacks layers.

As the peers do, a global extended header ('g') is read over: git writes its commit there, and nothing else is
known to come that way. The first block of zeros is the end. What ends after a file's data, without the
padding, is whole: umoci of Debian 12 writes such layers, and Go's archive/tar takes them.
"""

from __future__ import annotations

import os
import zlib

from podwright.images.unpacking import fields, sparse
from podwright.images.unpacking.faults import BadLayer, TooLarge, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podwright.images.unpacking.limits import Limits

HEADER = 512
ZEROS = bytes(HEADER)
MAX_EXTENDED = 1 << 20
"""Bytes of one extended header: more is no archive for this."""
FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, SPARSE = b"01234567"[0], *b"123456S"
PLAIN = (FILE, 0, ord("7"))
KINDS = (LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, SPARSE, *PLAIN)
PAX, PAX_OF_SOLARIS, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"xXgLK"
XATTR = b"SCHILY.xattr."


class Entry:
    """One file of an archive."""

    __slots__ = (
        *("name", "kind", "mode", "uid", "gid", "size", "mtime"),
        *("link", "major", "minor", "xattrs", "pieces"),
    )

    def __init__(self) -> None:
        self.name = b""
        self.kind = FILE
        self.mode = self.uid = self.gid = 0
        self.size = 0
        """Of the file, holes included; 0 for what is not a file with content."""
        self.mtime = 0
        """Nanoseconds; 0 for what no file can have."""
        self.link = b""
        self.major = self.minor = 0
        self.xattrs: list[tuple[bytes, bytes]] = []
        self.pieces: list[tuple[int, int]] | None = None
        """Offset and size of each piece that a sparse file's data has, in the order of the archive."""


class Archive:
    """Reads entries from blocks of bytes. `copy` takes an entry's data; what is not taken is passed over."""

    def __init__(self, next_block: Callable[[], bytes], limits: Limits) -> None:
        self._next_block = next_block
        self._limits = limits
        self._headers = 0
        self._block = b""
        self._at = 0
        self._left = 0
        """Data of the current entry, with its padding, that has not been taken."""
        self._padding = 0
        """The part of it at the end that is no data."""
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        """Mode, uid and gid of header fields that were seen: most headers of an archive have the same."""

    def next(self) -> Entry | None:
        """The next entry; None at the end."""
        extended: dict[bytes, bytes] = {}
        sparse_pax: list[tuple[bytes, bytes]] = []
        long_name = long_link = b""
        while True:
            if self._left:
                self._pass_over()
            header = self._take_header()
            if header is None:
                if extended or long_name or long_link:
                    raise BadLayer("the archive ends after an extended header")
                return None
            kind, size = header[156], fields.number(header[124:136], "size")
            if kind in (PAX, PAX_OF_SOLARIS, PAX_GLOBAL, LONG_NAME, LONG_LINK):
                if size > MAX_EXTENDED:
                    raise BadLayer(f"an extended header has {size} bytes")
                content = self._take(size)
                self._left = self._padding = -size % HEADER
                if kind == LONG_NAME:
                    long_name = content.split(b"\0", 1)[0]
                elif kind == LONG_LINK:
                    long_link = content.split(b"\0", 1)[0]
                elif kind != PAX_GLOBAL:
                    extended.clear()
                    sparse_pax.clear()
                    _read_pax(content, extended, sparse_pax)
                continue
            entry = self._entry(header, kind, size)
            entry.name = long_name or entry.name
            entry.link = long_link or entry.link
            if extended or sparse_pax:
                self._extend(entry, extended, sparse_pax)
            elif kind == SPARSE:
                entry.pieces, entry.size = sparse.old_gnu(header, lambda: self._take(HEADER))
                sparse.check(entry.pieces, entry.size, self._left)
                entry.kind = FILE
                self._padding = -self._left % HEADER
                self._left += self._padding
            if not kind and entry.name.endswith(b"/"):
                entry.kind = DIRECTORY  # as archives from before POSIX have them
            return entry

    def copy(self, fd: int, size: int) -> None:
        """Write the next `size` bytes of the entry's data to `fd` where it stands."""
        self._left -= size
        while size:
            block, at = self._block, self._at
            if at == len(block):
                self._refill("in the middle of a file")
                continue
            data = block[at : at + size]
            self._at = at + len(data)
            size -= len(data)
            written = os.write(fd, data)
            while written < len(data):
                written += os.write(fd, data[written:])

    def _entry(self, header: bytes, kind: int, size: int) -> Entry:
        if kind not in KINDS:
            raise BadLayer(f"an entry has the unknown type {shown(bytes((kind,)))}")
        entry = Entry()
        name = header[: header.find(b"\0", 0, 100)] if not header[99] else fields.text(header[:100])
        # GNU's archives have other things where POSIX's have the beginning of a long name.
        if header[345] and header[257:263] == b"ustar\0":
            name = fields.text(header[345:500]) + b"/" + name
        entry.name = name
        owner = header[100:124]
        known = self._owners.get(owner)
        if known is None:
            known = (
                fields.number(header[100:108], "mode"),
                fields.owner(header[108:116]),
                fields.owner(header[116:124]),
            )
            if len(self._owners) < 1024:
                self._owners[owner] = known
        entry.mode, entry.uid, entry.gid = known
        seconds = fields.number(header[136:148], "time", signed=True)
        entry.mtime = fields.time(seconds * 10**9)
        if kind in PLAIN:
            kind = FILE
            self._holds(entry, size)
        elif kind == SPARSE:
            entry.size, self._left = size, size
        else:
            # These have no data, whatever their size says (hard links in some archives have one).
            if header[157]:
                entry.link = fields.text(header[157:257])
            if kind in (CHARACTER, BLOCK):
                entry.major = fields.number(header[329:337], "device number")
                entry.minor = fields.number(header[337:345], "device number")
        entry.kind = kind
        return entry

    def _holds(self, entry: Entry, size: int) -> None:
        self._padding = -size % HEADER
        entry.size, self._left = size, size + self._padding

    def _extend(self, entry: Entry, pax: dict[bytes, bytes], pieces: list[tuple[bytes, bytes]]) -> None:
        """Let the values of a pax header replace the entry's own."""
        entry.name = pax.get(b"path") or entry.name
        entry.link = pax.get(b"linkpath") or entry.link
        if b"uid" in pax:
            entry.uid = fields.owner_of(fields.decimal(pax[b"uid"], "uid"))
        if b"gid" in pax:
            entry.gid = fields.owner_of(fields.decimal(pax[b"gid"], "gid"))
        if b"mtime" in pax:
            entry.mtime = fields.nanoseconds(pax[b"mtime"])
        if b"size" in pax and entry.kind in (FILE, SPARSE):
            size = fields.decimal(pax[b"size"], "size")
            self._holds(entry, size)
        for key, value in pax.items():
            if key.startswith(XATTR):
                entry.xattrs.append((key[len(XATTR) :], value))
        if entry.kind == SPARSE:
            raise BadLayer(f"entry {shown(entry.name)} mixes two forms of sparse files")
        if entry.kind == FILE and (pieces or b"GNU.sparse.major" in pax):
            self._make_sparse(entry, pax, pieces)

    def _make_sparse(self, entry: Entry, pax: dict[bytes, bytes], pieces: list[tuple[bytes, bytes]]) -> None:
        stored = entry.size
        version = pax.get(b"GNU.sparse.major", b"0"), pax.get(b"GNU.sparse.minor", b"0")
        entry.name = pax.get(b"GNU.sparse.name") or entry.name
        size = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        if size is None:
            raise BadLayer(f"the sparse file {shown(entry.name)} has no size")
        entry.size = fields.decimal(size, "size")
        if version == (b"1", b"0"):
            left = self._left
            entry.pieces, taken = sparse.in_front(lambda: self._take(HEADER))
            self._left = left - taken
            stored -= taken
        elif version[0] == b"0":
            entry.pieces = sparse.in_pax(pieces)
        else:
            raise BadLayer(f"the sparse file {shown(entry.name)} has the unknown form {version!r}")
        sparse.check(entry.pieces, entry.size, stored)

    # Bytes

    def _take_header(self) -> bytes | None:
        """The next block of 512 bytes if it is a header with the right sum; None at the end."""
        at = self._at
        header = self._block[at : at + HEADER]
        if len(header) == HEADER:
            self._at = at + HEADER
        else:
            if not header:
                self._block, self._at = self._next_block(), 0
                if not self._block:
                    return None  # some programs write no end
            header = self._take(HEADER)
        if not header[0] and header == ZEROS:
            return None
        self._headers += 1
        if self._headers > self._limits.entries:
            raise TooLarge(self._limits.entries_words)
        _check_sum(header)
        return header

    def _take(self, size: int) -> bytes:
        at = self._at
        data = self._block[at : at + size]
        self._at = at + len(data)
        if len(data) == size:
            return data
        parts, missing = [data], size - len(data)
        while missing:
            self._refill("in the middle of a header")
            part = self._block[:missing]
            self._at = len(part)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _pass_over(self) -> None:
        left, self._left = self._left, 0
        while left:
            have = len(self._block) - self._at
            if not have:
                self._block, self._at = self._next_block(), 0
                if not self._block:
                    if left > self._padding:
                        raise BadLayer("the archive ends in the middle of a file")
                    return
                continue
            step = left if left < have else have
            self._at += step
            left -= step

    def _refill(self, where: str) -> None:
        self._block, self._at = self._next_block(), 0
        if not self._block:
            raise BadLayer(f"the archive ends {where}")


def _check_sum(header: bytes) -> None:
    field = header[148:156]
    try:
        told = int(field.split(b"\0", 1)[0].strip() or b"x", 8)
    except ValueError:
        raise BadLayer("this is no tar archive, or it is damaged: a header has no sum") from None
    # The sum of all bytes, with spaces for the field itself; adler32 has it in its lower half, modulo a prime
    # and plus one, at a tenth of the time of sum(). Against forgery there is the digest.
    if zlib.adler32(header) & 0xFFFF == (told + sum(field) - 8 * 32 + 1) % 65521:
        return
    # Some old programs added signed bytes.
    others = header[:148] + header[156:]
    if told != sum(others) + 8 * 32 - 256 * sum(byte > 127 for byte in others):
        raise BadLayer("this is no tar archive, or it is damaged: a header's sum is wrong")


def _read_pax(content: bytes, found: dict[bytes, bytes], pieces: list[tuple[bytes, bytes]]) -> None:
    """The records "LENGTH KEY=VALUE\\n" of an extended header; those of sparse maps keep their order."""
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 20)
        digits = content[at:space]
        if space < 0 or not digits.isdigit():
            if not content[at:].strip(b"\0"):
                return  # padding
            raise BadLayer("an extended header has a record without a length")
        end = at + int(digits)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals or not key or end > len(content) or content[end - 1 : end] != b"\n":
            raise BadLayer("an extended header has a record that is none")
        if key in sparse.PIECES:
            pieces.append((key, value))
        elif value:
            found[key] = value
        else:
            found.pop(key, None)
        at = end
