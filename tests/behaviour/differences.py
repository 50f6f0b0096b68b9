"""Where engines differ: the tests that one does not run or must fail, read from differences.toml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("differences.toml")


class Differences(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    groups: dict[str, str] = {}
    """Markers whose tests the engine does not run, with the reason."""
    tests: dict[str, str] = {}
    """Tests that the engine fails, with the reason. One that passes must be taken out."""


@cache
def table() -> dict[str, Differences]:
    return msgspec.toml.decode(FILE.read_bytes(), type=dict[str, Differences])


def of_engine(name: str) -> Differences:
    return table().get(name, Differences())
