"""Where the pieces of a sparse file lie: GNU tar's four ways to say it.

The manual of GNU tar has them under "Storing Sparse Files"; libarchive and Go read the same. Standard library
only: part of the program that unpacks layers.
"""

from __future__ import annotations

from podwright.images.unpacking.faults import BadLayer
from podwright.images.unpacking.fields import decimal, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

Pieces = list[tuple[int, int]]

HEADER = 512
MAX_PIECES = 1 << 17
"""Of one file. Each takes some hundred bytes of memory."""
PIECES = (b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.map")
IN_HEADER, IN_EXTENSION = 4, 21


def old_gnu(header: bytes, next_block: Callable[[], bytes]) -> tuple[Pieces, int]:
    """The map in a header of type S and in the blocks that follow it; the file's real size."""
    pieces: Pieces = []
    block, at, count, more = header, 386, IN_HEADER, header[482]
    while True:
        for position in range(count):
            field = block[at + 24 * position : at + 24 * (position + 1)]
            if not field[0]:
                break
            pieces.append((number(field[:12], "offset"), number(field[12:], "size")))
        if len(pieces) > MAX_PIECES:
            raise BadLayer(f"a sparse file has more than {MAX_PIECES} pieces")
        if not more:
            return pieces, number(header[483:495], "size")
        block = next_block()
        at, count, more = 0, IN_EXTENSION, block[504]


def in_pax(records: list[tuple[bytes, bytes]]) -> Pieces:
    """Forms 0.0 (a record for each number) and 0.1 (one record of all)."""
    numbers: list[bytes] = []
    for position, (key, value) in enumerate(records):
        if key == b"GNU.sparse.map":
            numbers = value.split(b",") if value else []
        elif key != PIECES[position % 2]:
            raise BadLayer("a sparse file's map is out of order")
        else:
            numbers.append(value)
    return _paired(numbers)


def in_front(take_block: Callable[[], bytes]) -> tuple[Pieces, int]:
    """Form 1.0: decimal numbers, a line each, in front of the data; the bytes that they take."""
    numbers: list[bytes] = []
    wanted, rest, taken = 1, b"", 0
    while len(numbers) < wanted:
        rest += take_block()
        taken += HEADER
        *lines, rest = rest.split(b"\n")
        if len(rest) > HEADER:
            raise BadLayer("a sparse file's map is no list of numbers")
        numbers += lines
        if wanted == 1 and numbers:
            count = decimal(numbers[0], "number of pieces")
            if count > MAX_PIECES:
                raise BadLayer(f"a sparse file has {count} pieces, more than {MAX_PIECES}")
            wanted += 2 * count
    return _paired(numbers[1:wanted]), taken


def check(pieces: Pieces, size: int, stored: int) -> None:
    """Raise BadLayer unless the pieces follow each other in the file's size and have `stored` bytes."""
    end = 0
    for offset, length in pieces:
        if offset < end:
            raise BadLayer("a sparse file's pieces overlap")
        end = offset + length
    if end > size:
        raise BadLayer(f"a sparse file's pieces reach beyond its size of {size} bytes")
    if sum(length for _, length in pieces) != stored:
        raise BadLayer("a sparse file's pieces are not as many bytes as it has")


def _paired(numbers: list[bytes]) -> Pieces:
    if len(numbers) % 2 or len(numbers) > 2 * MAX_PIECES:
        raise BadLayer("a sparse file's map has an odd number of numbers, or too many")
    values = [decimal(text, "piece") for text in numbers]
    return list(zip(values[::2], values[1::2], strict=True))
