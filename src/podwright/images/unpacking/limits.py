"""How much a layer may be. Standard library only: part of the program that unpacks layers."""

from __future__ import annotations

import os

NO_LIMIT = 2**62


class Limits:
    __slots__ = ("block_size", "bytes", "bytes_words", "entries", "entries_words")

    def __init__(self, size: int, size_words: str, entries: int, entries_words: str, block_size: int) -> None:
        self.bytes = size
        """Of the archive without its compression, and on disk."""
        self.bytes_words = size_words
        self.entries = entries
        """Headers of the archive."""
        self.entries_words = entries_words
        self.block_size = block_size
        """What the disk gives a file at a time."""


def limits_of(target: str, size: int, entries: int) -> Limits:
    """The configured limits, or, for those that are 0, nine tenths of what is free where `target` is."""
    disk = os.statvfs(target)
    size_words = f"the layer has more than {size} bytes (images.max_layer_bytes)"
    entries_words = f"the layer has more than {entries} entries (images.max_layer_entries)"
    if not size:
        size = disk.f_bavail * disk.f_frsize // 10 * 9
        size_words = (
            f"the layer has more than {size} bytes, nine tenths of what is free on its disk "
            "(images.max_layer_bytes can set another limit)"
        )
    if not entries:
        # Some file systems make inodes as they need them, and say that they have none.
        entries = disk.f_favail // 10 * 9 if disk.f_files else NO_LIMIT
        entries_words = (
            f"the layer has more than {entries} entries, nine tenths of the inodes that are free on its disk "
            "(images.max_layer_entries can set another limit)"
        )
    return Limits(size, size_words, entries, entries_words, disk.f_frsize)
