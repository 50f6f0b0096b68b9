"""The sizes of a client's terminal, out of the JSON that its resize stream carries."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import msgspec

from podwright.engines.streams import Size

LONGEST = 1024
"""Bytes of one size. What is longer is none."""

LARGEST = 0xFFFF
"""Rows and columns are 16 bits wide in the kernel (struct winsize, ioctl_tty(2))."""

_OBJECT = re.compile(rb"\{[^{}]*\}")


class Sizes(AsyncIterator[Size]):
    """Whoever iterates gets the newest size, not those between. What is no size is passed over: a command
    must not end because its terminal could not be resized."""

    def __init__(self) -> None:
        self._rest = b""
        self._newest: Size | None = None
        self._ended = False
        self._changed = asyncio.Event()

    def feed(self, data: bytes | bytearray) -> None:
        """The next bytes of the stream: {"Width": 80, "Height": 24}, one after the other."""
        text = self._rest + data
        end = 0
        for found in _OBJECT.finditer(text):
            end = found.end()
            if (size := _size(found.group())) is not None:
                self._newest = size
                self._changed.set()
        self._rest = text[end:][-LONGEST:]

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def __anext__(self) -> Size:
        await self._changed.wait()
        if self._newest is None:
            raise StopAsyncIteration
        size, self._newest = self._newest, None
        if not self._ended:
            self._changed.clear()
        return size


def _size(text: bytes) -> Size | None:
    try:
        values = {
            key.lower(): value for key, value in msgspec.json.decode(text, type=dict[str, object]).items()
        }
    except (msgspec.DecodeError, ValueError):
        return None
    width, height = values.get("width"), values.get("height")
    for value in (width, height):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
            return None
    assert isinstance(width, int) and isinstance(height, int)
    return Size(width, height)
