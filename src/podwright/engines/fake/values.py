"""What a scenario says of amounts: times fixed or drawn, sizes and rates with units.

Each is made of what YAML gives (`parse`; ValueError says what is wanted) and gives it back (`tree`); what is
drawn comes from a random source that the scenario seeds. Curves over time are in `curves`.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"
_PART = re.compile(rf"({_NUMBER})(ns|us|ms|s|m|h|d)")
_AMOUNT = re.compile(rf"({_NUMBER})\s*(B|[kKMGTP]i?B?)?")
_POWERS = "kMGTP"
MOST_SIGMA = 10.0
"""Beyond it a lognormal time would leave the range of numbers."""
_LAWS = "uniform, normal, lognormal, exponential or choice"


def seconds(value: object) -> float:
    """ "1m30s", "250ms", or a number of seconds. ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and value and not _PART.sub("", value):
        found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    else:
        raise ValueError(f'{value!r} is no time: wanted is a number of seconds or text like "1m30s"')
    if not 0 <= found < math.inf:
        raise ValueError(f"{value!r} is no time that can pass")
    return found


def size(value: object) -> float:
    """ "70MB", "1.5GiB", or a number of bytes. ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and (match := _AMOUNT.fullmatch(value)):
        number, unit = match.groups()
        unit = (unit or "B").removesuffix("B")
        base = 1024 if unit.endswith("i") else 1000
        power = _POWERS.index(unit[0].replace("K", "k")) + 1 if unit else 0
        found = float(number) * base**power
    else:
        raise ValueError(f'{value!r} is no size: wanted is a number of bytes or text like "70MB" or "1GiB"')
    if not 0 <= found < math.inf:
        raise ValueError(f"{value!r} is no size: it must not be negative or endless")
    return found


class Size(int):
    """A number of bytes: `70MB`, `1.5GiB`, `4096`. Units with an i are powers of 1024, the others of 1000."""

    @classmethod
    def parse(cls, value: object) -> Size:
        return cls(round(size(value)))

    def tree(self) -> int:
        return int(self)


class Rate(float):
    """Bytes in a second: `50MB/s`, or a number."""

    @classmethod
    def parse(cls, value: object) -> Rate:
        try:
            found = size(value.removesuffix("/s") if isinstance(value, str) else value)
        except ValueError:
            found = 0.0
        if not found:
            raise ValueError(
                f'{value!r} is no rate: wanted is a number of bytes in a second, above 0, or "50MB/s"'
            )
        return cls(found)

    def tree(self) -> float:
        return float(self)


class Span:
    """A length of time, fixed or drawn anew each time; never negative.

    - fixed: `1m30s`, `250ms`, or a number of seconds
    - `{uniform: [1s, 5s]}`: anything between the two
    - `{normal: [2s, 500ms]}`: mean and standard deviation; what would be negative is 0
    - `{lognormal: [1s, 0.5]}`: median, and the standard deviation of its logarithm
    - `{exponential: 10s}`: the mean
    - `{choice: {50ms: 9, 2s: 1}}`: one of these, by weight
    """

    __slots__ = ("_law", "_numbers", "_weights")

    def __init__(self, fixed: float = 0.0) -> None:
        """Fixed, in seconds; `parse` makes the others."""
        self._law = ""
        self._numbers: tuple[float, ...] = (fixed,)
        self._weights: tuple[float, ...] = ()

    @classmethod
    def parse(cls, value: object) -> Span:
        if not isinstance(value, Mapping):
            return cls(seconds(value))
        law = next(iter(value), None)
        if len(value) != 1 or law not in _LAW_PARSERS:
            raise ValueError(f"{value!r} is no time: wanted is one of {_LAWS}, or a fixed time")
        span = cls()
        span._law = str(law)
        span._numbers, span._weights = _LAW_PARSERS[law](value[law])
        return span

    def draw(self, chance: random.Random) -> float:
        """Seconds."""
        numbers = self._numbers
        match self._law:
            case "":
                return numbers[0]
            case "uniform":
                return chance.uniform(*numbers)
            case "normal":
                return max(0.0, chance.gauss(*numbers))
            case "lognormal":
                return numbers[0] * math.exp(chance.gauss(0.0, numbers[1]))
            case "exponential":
                return chance.expovariate(1 / numbers[0]) if numbers[0] else 0.0
            case _:
                return chance.choices(numbers, self._weights)[0]

    def tree(self) -> Any:
        match self._law:
            case "":
                return self._numbers[0]
            case "exponential":
                return {self._law: self._numbers[0]}
            case "choice":
                texts = [f"{number!r}s" for number in self._numbers]
                return {self._law: dict(zip(texts, self._weights, strict=True))}
            case _:
                return {self._law: list(self._numbers)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Span.parse({self.tree()!r})"

    def _key(self) -> object:
        return (self._law, self._numbers, self._weights)


_Numbers = tuple[tuple[float, ...], tuple[float, ...]]


def _uniform(value: object) -> _Numbers:
    low, high = _pair(value, "uniform", "[shortest, longest]")
    if seconds(low) > seconds(high):
        raise ValueError(f"uniform: {value!r}: the first of the two must be the shorter one")
    return (seconds(low), seconds(high)), ()


def _normal(value: object) -> _Numbers:
    mean, deviation = _pair(value, "normal", "[mean, standard deviation]")
    return (seconds(mean), seconds(deviation)), ()


def _lognormal(value: object) -> _Numbers:
    median, sigma = _pair(value, "lognormal", "[median, sigma]")
    if not _is_number(sigma) or not 0 <= sigma <= MOST_SIGMA:
        raise ValueError(f"lognormal: sigma is a number from 0 to {MOST_SIGMA:g}, not {sigma!r}")
    return (seconds(median), float(sigma)), ()


def _exponential(value: object) -> _Numbers:
    return (seconds(value),), ()


def _choice(value: object) -> _Numbers:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"choice: wanted are times with their weights, {{50ms: 9, 2s: 1}}, not {value!r}")
    for time, weight in value.items():
        if not _is_number(weight) or not 0 < weight < math.inf:
            raise ValueError(f"choice: the weight of {time!r} is a number above 0, not {weight!r}")
    return tuple(seconds(time) for time in value), tuple(float(weight) for weight in value.values())


def _pair(value: object, law: str, wanted: str) -> tuple[Any, Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{law}: wanted is {wanted}, not {value!r}")
    return value[0], value[1]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_LAW_PARSERS: Mapping[object, Callable[[object], _Numbers]] = {
    "uniform": _uniform,
    "normal": _normal,
    "lognormal": _lognormal,
    "exponential": _exponential,
    "choice": _choice,
}
