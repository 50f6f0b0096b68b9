"""What a scenario says of amounts: times fixed or drawn, sizes with units, curves over time.

Each parses what YAML gives (`parse`), and answers by a random source that the scenario seeds.
"""

from __future__ import annotations

import random
import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")


def seconds(value: object) -> float:
    """ "1m30s", "250ms", or a number of seconds. ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and value and not _PART.sub("", value):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    else:
        raise ValueError(f'{value!r} is no time: wanted is a number of seconds or text like "1m30s"')
    if not 0 <= found < float("inf"):
        raise ValueError(f"{value!r} is no time that can pass")
    return found


class Span:
    """A length of time in seconds, fixed or drawn anew each time."""

    def __init__(self, fixed: float = 0.0) -> None:
        self.fixed = fixed

    @classmethod
    def parse(cls, value: object) -> Span:
        return cls(seconds(value))

    def draw(self, chance: random.Random) -> float:
        return self.fixed
