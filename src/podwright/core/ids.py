"""Ids: how a client's id or unique prefix finds its object."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

from podwright.errors import InvalidArgument, NotFound

DIGITS = 64
"""Of a whole id; a prefix has fewer."""


class Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


class Index(Generic[T]):
    """Objects by id; a unique prefix is as good as the whole id."""

    def __init__(self, kind: str, field: str) -> None:
        self._kind = kind
        self._field = field
        self._objects: dict[str, T] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, id: str) -> bool:
        return id in self._objects

    def add(self, item: T) -> None:
        self._objects[item.id] = item

    def discard(self, id: str) -> None:
        self._objects.pop(id, None)

    def find(self, id: str) -> T | None:
        """The object whose id is, or uniquely starts with, `id`; None when there is none.

        Raises InvalidArgument when `id` is empty or starts several ids: nothing is chosen silently.
        """
        exact = self._objects.get(id)
        if exact is not None:
            return exact
        if not id:
            raise InvalidArgument(self._field, f"the {self._kind} id is empty")
        if len(id) >= DIGITS:
            return None
        # Only people type prefixes: reading all ids for them is cheaper than keeping all ids in order.
        matches = list(islice((each for each in self._objects if each.startswith(id)), 2))
        if len(matches) > 1:
            raise InvalidArgument(
                self._field,
                f"{id!r} is ambiguous: several {self._kind} ids start with it, {matches[0][:16]}… "
                f"and {matches[1][:16]}… among them",
            )
        return self._objects[matches[0]] if matches else None

    def get(self, id: str) -> T:
        """As `find`; NotFound when there is none."""
        found = self.find(id)
        if found is None:
            raise NotFound(f"no {self._kind} has the id {id!r}")
        return found
