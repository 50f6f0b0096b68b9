"""JSON documents and trees into structs, from any thread.

msgspec looks at a type's fields when it meets the type for the first time. Two threads that do so at once
crash the interpreter (seen with 0.22), so here that happens under a lock.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_looking = threading.Lock()


def decode(content: bytes | str, kind: type[T]) -> T:
    """The JSON text `content` as a `kind`. Raises what `msgspec.json.decode` raises."""
    decoded: T = _decoder(kind).decode(content)
    return decoded


def convert(tree: object, kind: type[T]) -> T:
    """The JSON value `tree` as a `kind`. Raises what `msgspec.convert` raises."""
    _decoder(kind)
    return msgspec.convert(tree, kind)


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    found = _decoders.get(kind)
    if found is None:
        with _looking:
            found = _decoders.get(kind)
            if found is None:
                found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found
