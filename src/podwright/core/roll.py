"""Encoded list entries side by side in memory, so that a list of all is a copy of a few hundred pages.

Tens of thousands of entries, each in a place of its own, would keep the event loop for thirty milliseconds:
the time is spent on waiting for memory, and other calls wait for the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

PAGE = 64 << 10
"""Bytes after which a page takes no more entries. Removing one moves what follows it on its page."""


class Entered(Protocol):
    """What has an entry; the roll alone sets these."""

    page: Page | None
    at: int
    """Offset on the page."""
    size: int
    """Bytes."""


class Page:
    __slots__ = ("encoded", "entries")

    def __init__(self) -> None:
        self.encoded = bytearray()
        self.entries: list[Entered] = []


def entry(item: Entered) -> bytearray:
    """The entry of `item`, which must have one."""
    assert item.page is not None
    return item.page.encoded[item.at : item.at + item.size]


class Roll:
    """Entries in the order in which they were added."""

    def __init__(self) -> None:
        self.pages: dict[Page, None] = {}
        self._last = Page()

    def add(self, item: Entered, entry: bytes) -> None:
        if len(self._last.encoded) >= PAGE:
            self._last = Page()
        page = self._last
        item.page, item.at, item.size = page, len(page.encoded), len(entry)
        page.entries.append(item)
        page.encoded += entry
        self.pages[page] = None

    def change_end(self, item: Entered, last: int) -> None:
        """Set the last byte of the entry."""
        assert item.page is not None
        item.page.encoded[item.at + item.size - 1] = last

    def remove(self, item: Entered) -> None:
        """Fine when it has no entry."""
        page = item.page
        if page is None:
            return
        at = page.entries.index(item)
        del page.encoded[item.at : item.at + item.size], page.entries[at]
        for follower in page.entries[at:]:
            follower.at -= item.size
        item.page = None
        if not page.entries:
            del self.pages[page]

    def some(self, items: Iterable[Entered]) -> bytes:
        """The entries of those `items` that have one."""
        return b"".join(
            [each.page.encoded[each.at : each.at + each.size] for each in items if each.page is not None]
        )

    def all(self) -> bytes:
        return b"".join([page.encoded for page in self.pages])
