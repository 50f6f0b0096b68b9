"""What can be wrong with a layer. Standard library only: part of the program that unpacks layers."""

from __future__ import annotations


class BadLayer(Exception):
    """The layer is not what it should be."""


class TooLarge(Exception):
    """The layer passes a limit that was set for it."""


class NoProgram(Exception):
    """A program that is needed for this layer is not installed."""


def shown(name: bytes) -> str:
    """A name of a layer for a message: printable, and not longer than a line."""
    text = repr(name.decode("utf-8", "backslashreplace"))
    return text if len(text) <= 160 else f"{text[:100]}…{text[-50:]}"
