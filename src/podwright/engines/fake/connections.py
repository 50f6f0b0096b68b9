"""Connections of clients with what is inside a fake world, all of which can be cut at one instruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Connections:
    def __init__(self) -> None:
        self._cuts: set[Callable[[], None]] = set()
        self.are_cut = False

    @contextmanager
    def join(self, cut: Callable[[], None]) -> Iterator[None]:
        """Inside the context `cut` is called when they are cut."""
        self._cuts.add(cut)
        try:
            yield
        finally:
            self._cuts.discard(cut)

    def cut(self) -> None:
        self.are_cut = True
        for each in list(self._cuts):
            each()
