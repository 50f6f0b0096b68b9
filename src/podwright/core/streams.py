"""The lists of the CRI as streams: the same entries in several messages, none of them large.

A stream shows what there was when it was asked for, however slowly it is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from podwright.core.roll import Entered, Roll, entry

CHUNK = 1 << 20
"""Bytes after which a message takes no more entries. gRPC's clients take 4 MiB unless they were told
otherwise, and an entry has a few KiB."""

M = TypeVar("M", bound=Message)


def entries(roll: Roll, items: Iterable[Entered] | None = None) -> list[bytes]:
    """All that the roll has, or those of `items`, as pieces that may be joined."""
    if items is None:
        return [bytes(page.encoded) for page in roll.pages]
    return [bytes(entry(each)) for each in items if each.page is not None]


async def in_chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """`pieces`, encoded entries of a repeated field, joined to messages of little more than CHUNK."""
    message: list[bytes] = []
    size = 0
    for piece in pieces:
        message.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(message)
            message, size = [], 0
    if message:
        yield b"".join(message)


async def read(kind: type[M], messages: AsyncIterator[bytes]) -> AsyncIterator[M]:
    """The messages, decoded."""
    async for message in messages:
        yield kind.FromString(message)
