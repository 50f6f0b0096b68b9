"""How much of something there is over time: the curves that statistics follow.

Each can be asked for its value (`at`) and for the area below it since the start (`integral`), exactly:
counters such as CPU time are areas, so they never fall and fit the values between them. Time is in seconds
since the container's program started, `key` is the container's id: it makes the noise of each a different
one."""

from __future__ import annotations

import math
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from podwright.engines.fake.values import seconds, size

MOST_NOISE = 0.4
"""Above it a noisy curve would fall below 0."""
_NOISE_PERIODS = (3.1, 5.3, 8.9)
"""Seconds; none is a multiple of another, so that samples taken at any interval differ."""
_NOISE_SCALE = math.sqrt(2 / len(_NOISE_PERIODS))
"""Makes the variance of the sum 1."""
_MILLI = re.compile(r"\d+(\.\d+)?m")
_FORMS = "a number, a list of points, or one of points, sine, ramp and noise"


def amount(value: object) -> float:
    """ "10MiB", "2MB/s", "250m" (thousandths, as CPUs are counted), or a number. ValueError."""
    if isinstance(value, str):
        if _MILLI.fullmatch(value):
            return float(value[:-1]) / 1000
        try:
            return size(value.removesuffix("/s"))
        except ValueError:
            raise ValueError(
                f'{value!r} is no amount: wanted is a number, "10MiB", "2MB/s" or "250m"'
            ) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no amount: wanted is a number that is not negative")
    return float(value)


class Curve:
    """An amount over time; never negative. Amounts are numbers, `10MiB`, `2MB/s` or `250m` (thousandths).

    - `10MiB`: always the same
    - `[[0s, 10MiB], [60s, 200MiB]]`: from point to point in straight lines, level before the first and after
      the last; two points at one time are a jump
    - `{points: [[0s, 1], [60s, 2]], repeat: true}`: the same, again and again from 0s to the last point
    - `{sine: {base: 100m, amplitude: 50m, period: 10m}}`: up and down again, from the base upwards
    - `{ramp: {from: 10MiB, per_second: 1MiB, max: 1GiB}}`: a steady rise, or a fall (`per_second: -1MiB`,
      with `min`)
    - `{noise: [CURVE, 0.1]}`: another curve with a noise of this relative standard deviation, 0.4 at most
    """

    @staticmethod
    def parse(value: object) -> Curve:
        if isinstance(value, (int, float, str)):
            return Constant(amount(value))
        if isinstance(value, list):
            return Points(_points(value))
        if isinstance(value, Mapping):
            for form, make in _FORM_PARSERS.items():
                if form in value:
                    return make(value)
        raise ValueError(f"{value!r} is no curve: wanted is {_FORMS}")

    def at(self, time: float, key: str = "") -> float:
        raise NotImplementedError

    def integral(self, time: float, key: str = "") -> float:
        """From 0 to `time`."""
        raise NotImplementedError

    @property
    def peak(self) -> float:
        """What it never exceeds, noise left aside."""
        raise NotImplementedError

    def tree(self) -> Any:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Curve) and self.tree() == other.tree()

    def __hash__(self) -> int:
        return hash(repr(self.tree()))

    def __repr__(self) -> str:
        return f"Curve.parse({self.tree()!r})"


class Constant(Curve):
    def __init__(self, value: float) -> None:
        self._value = value

    def at(self, time: float, key: str = "") -> float:
        return self._value

    def integral(self, time: float, key: str = "") -> float:
        return self._value * time

    @property
    def peak(self) -> float:
        return self._value

    def tree(self) -> Any:
        return self._value


class Points(Curve):
    def __init__(self, points: list[tuple[float, float]], *, repeat: bool = False) -> None:
        self._times = [time for time, _ in points]
        self._values = [value for _, value in points]
        self._repeat = repeat
        self._areas = [self._values[0] * self._times[0]]
        """From 0 to each point."""
        for (time, value), (end, to) in pairwise(points):
            self._areas.append(self._areas[-1] + (end - time) * (value + to) / 2)

    def at(self, time: float, key: str = "") -> float:
        if self._repeat:
            time %= self._times[-1]
        return self._within(time)

    def integral(self, time: float, key: str = "") -> float:
        rounds = 0.0
        if self._repeat:
            rounds, time = divmod(time, self._times[-1])
        before = bisect_right(self._times, time) - 1
        area = rounds * self._areas[-1]
        if before < 0:
            return area + self._values[0] * time
        passed = time - self._times[before]
        return area + self._areas[before] + passed * (self._values[before] + self._within(time)) / 2

    @property
    def peak(self) -> float:
        return max(self._values)

    def tree(self) -> Any:
        points = [list(each) for each in zip(self._times, self._values, strict=True)]
        return {"points": points, "repeat": True} if self._repeat else points

    def _within(self, time: float) -> float:
        before = bisect_right(self._times, time) - 1
        if before < 0:
            return self._values[0]
        if before == len(self._times) - 1:
            return self._values[-1]
        start, end = self._times[before], self._times[before + 1]
        share = (time - start) / (end - start)
        return self._values[before] * (1 - share) + self._values[before + 1] * share


class Sine(Curve):
    def __init__(self, base: float, amplitude: float, period: float) -> None:
        self._base, self._amplitude, self._period = base, amplitude, period

    def at(self, time: float, key: str = "") -> float:
        return self._base + self._amplitude * math.sin(math.tau * time / self._period)

    def integral(self, time: float, key: str = "") -> float:
        wave = self._amplitude * self._period / math.tau * (1 - math.cos(math.tau * time / self._period))
        return self._base * time + wave

    @property
    def peak(self) -> float:
        return self._base + self._amplitude

    def tree(self) -> Any:
        return {"sine": {"base": self._base, "amplitude": self._amplitude, "period": self._period}}


class Ramp(Curve):
    def __init__(self, start: float, per_second: float, limit: float | None) -> None:
        self._start, self._per_second, self._limit = start, per_second, limit
        self._end = math.inf if limit is None or not per_second else (limit - start) / per_second
        """When it has reached its limit."""

    def at(self, time: float, key: str = "") -> float:
        if time >= self._end and self._limit is not None:
            return self._limit
        return self._start + self._per_second * time

    def integral(self, time: float, key: str = "") -> float:
        rising = min(time, self._end)
        area = rising * (self._start + self.at(rising)) / 2
        return area if time <= self._end else area + (time - self._end) * self.at(time)

    @property
    def peak(self) -> float:
        if self._per_second <= 0:
            return self._start
        return math.inf if self._limit is None else self._limit

    def tree(self) -> Any:
        tree = {"from": self._start, "per_second": self._per_second}
        if self._limit is not None:
            tree["max" if self._per_second >= 0 else "min"] = self._limit
        return {"ramp": tree}


class Noise(Curve):
    """Time runs unevenly: the curve is passed through faster and slower, and is so much higher and lower.
    That keeps value and area in step, and shifts the curve by less than two seconds."""

    def __init__(self, curve: Curve, deviation: float) -> None:
        self._curve, self._deviation = curve, deviation

    def at(self, time: float, key: str = "") -> float:
        phases = _phases(key)
        wave = sum(
            math.sin(math.tau * time / period + phase)
            for period, phase in zip(_NOISE_PERIODS, phases, strict=True)
        )
        speed = max(0.0, 1 + self._deviation * _NOISE_SCALE * wave)
        return self._curve.at(self._warped(time, phases), key) * speed

    def integral(self, time: float, key: str = "") -> float:
        return self._curve.integral(self._warped(time, _phases(key)), key)

    @property
    def peak(self) -> float:
        return self._curve.peak

    def tree(self) -> Any:
        return {"noise": [self._curve.tree(), self._deviation]}

    def _warped(self, time: float, phases: tuple[float, ...]) -> float:
        shift = sum(
            period / math.tau * (math.cos(phase) - math.cos(math.tau * time / period + phase))
            for period, phase in zip(_NOISE_PERIODS, phases, strict=True)
        )
        return max(0.0, time + self._deviation * _NOISE_SCALE * shift)


def _phases(key: str) -> tuple[float, ...]:
    seed = zlib.crc32(key.encode())
    return tuple((seed >> shift & 0x3FF) / 0x400 * math.tau for shift in (0, 10, 20))


def _points(value: object) -> list[tuple[float, float]]:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"points: wanted are pairs of a time and an amount, [[0s, 1], [60s, 2]], not {value!r}"
        )
    points: list[tuple[float, float]] = []
    for pair in value:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"points: {pair!r} is no pair of a time and an amount")
        time = seconds(pair[0])
        if points and time < points[-1][0]:
            raise ValueError(f"points: {pair[0]!r} comes after a later time; they must ascend")
        points.append((time, amount(pair[1])))
    return points


def _parse_points(value: Mapping[str, Any]) -> Curve:
    _only("", value, "points", "repeat")
    repeat = value.get("repeat", False)
    if not isinstance(repeat, bool):
        raise ValueError(f"repeat: wanted is true or false, not {repeat!r}")
    points = _points(value["points"])
    if repeat and not points[-1][0]:
        raise ValueError("repeat: the last point must be after 0s")
    return Points(points, repeat=repeat)


def _parse_sine(value: Mapping[str, Any]) -> Curve:
    _only("", value, "sine")
    sine = _only("sine", value["sine"], "base", "amplitude", "period", required=3)
    base, amplitude, period = amount(sine["base"]), amount(sine["amplitude"]), seconds(sine["period"])
    if amplitude > base:
        raise ValueError(f"sine: amplitude {sine['amplitude']!r} above base {sine['base']!r} falls below 0")
    if not period:
        raise ValueError("sine: period must be above 0")
    return Sine(base, amplitude, period)


def _parse_ramp(value: Mapping[str, Any]) -> Curve:
    _only("", value, "ramp")
    ramp = _only("ramp", value["ramp"], "from", "per_second", "max", "min", required=2)
    start, slope = amount(ramp["from"]), ramp["per_second"]
    if isinstance(slope, str) and slope.startswith("-"):
        per_second = -amount(slope[1:])
    elif isinstance(slope, (int, float)) and slope < 0:
        per_second = -amount(-slope)
    else:
        per_second = amount(slope)
    wrong, right = ("max", "min") if per_second < 0 else ("min", "max")
    if wrong in ramp:
        raise ValueError(f"ramp: {wrong} does not go with per_second {slope!r}, which needs {right}")
    limit = amount(ramp[right]) if right in ramp else None
    if per_second < 0:
        limit = limit or 0.0
    if limit is not None and (limit - start) * per_second < 0:
        raise ValueError(
            f"ramp: {right} {ramp.get(right, 0)!r} is on the wrong side of from {ramp['from']!r}"
        )
    return Ramp(start, per_second, limit)


def _parse_noise(value: Mapping[str, Any]) -> Curve:
    _only("", value, "noise")
    noise = value["noise"]
    if not isinstance(noise, (list, tuple)) or len(noise) != 2:
        raise ValueError(f"noise: wanted is [curve, relative deviation], not {noise!r}")
    deviation = noise[1]
    number = isinstance(deviation, (int, float)) and not isinstance(deviation, bool)
    if not number or not 0 <= deviation <= MOST_NOISE:
        raise ValueError(
            f"noise: the relative deviation is a number from 0 to {MOST_NOISE}, not {deviation!r}"
        )
    return Noise(Curve.parse(noise[0]), float(deviation))


def _only(where: str, value: object, *names: str, required: int = 0) -> Mapping[str, Any]:
    """`value`, when its keys are among `names` and the first `required` of them are there."""
    before = f"{where}: " if where else ""
    if not isinstance(value, Mapping):
        raise ValueError(f"{before}wanted is {{{', '.join(f'{name}: …' for name in names)}}}, not {value!r}")
    for name in value:
        if name not in names:
            raise ValueError(f"{before}unknown key {name!r}; known are {', '.join(names)}")
    for name in names[:required]:
        if name not in value:
            raise ValueError(f"{before}{name} is missing")
    return value


_FORM_PARSERS: Mapping[str, Callable[[Mapping[str, Any]], Curve]] = {
    "points": _parse_points,
    "sine": _parse_sine,
    "ramp": _parse_ramp,
    "noise": _parse_noise,
}
