"""The numbers and texts of tar headers. Standard library only: part of the program that unpacks layers."""

from __future__ import annotations

from podwright.images.unpacking.faults import BadLayer, shown

LAST_TIME = 2**63 - 1
NOBODY = 2**32 - 1
"""As an owner it means "as before" to chown(2): no file can have it."""


def text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def number(field: bytes, what: str, signed: bool = False) -> int:
    """A number of a header: octal digits, or GNU's base 256."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] & 0x40:
            value -= 1 << 8 * len(field) - 1
        if value < 0 and not signed:
            raise BadLayer(f"an entry has the negative {what} {value}")
        return value
    text = field.strip(b" \0")
    if b"\0" in text:
        text = text.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise BadLayer(f"an entry has the {what} {shown(field)}, which is no number") from None


def owner(field: bytes) -> int:
    return owner_of(number(field, "owner"))


def owner_of(value: int) -> int:
    if not 0 <= value < NOBODY:
        raise BadLayer(f"an entry has the owner {value}, which is none")
    return value


def decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BadLayer(f"an extended header has the {what} {shown(text)}, which is no number")
    return int(text)


def nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    if whole.startswith(b"-"):
        return 0
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        raise BadLayer(f"an extended header has the time {shown(text)}, which is none")
    return time(int(whole[:30]) * 10**9 + int(fraction[:9].ljust(9, b"0")))


def time(nanoseconds: int) -> int:
    return nanoseconds if 0 <= nanoseconds <= LAST_TIME else 0
