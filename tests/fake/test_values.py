"""Amounts of a scenario: what can be written, what is drawn, what a curve is worth."""

from __future__ import annotations

import math
import random
import re
import statistics
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.engines.fake.curves import Curve, amount
from podwright.engines.fake.values import Rate, Size, Span, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("10us", 1e-5),
        ("1e-09s", 1e-9),
        (3, 3.0),
        (0.5, 0.5),
        ("0s", 0.0),
    ],
)
def test_times_have_units(text: object, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("bad", ["", "5", "1x", "-1s", -1, True, None, [], math.inf, math.nan, "s"])
def test_what_is_no_time_is_named(bad: object) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(bad))):
        seconds(bad)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70MB", 70_000_000),
        ("1GiB", 1 << 30),
        ("1.5KiB", 1536),
        ("3k", 3000),
        ("2Mi", 2 << 20),
        ("17", 17),
        ("5B", 5),
        (4096, 4096),
    ],
)
def test_sizes_have_units(text: object, value: int) -> None:
    assert Size.parse(text) == value


@pytest.mark.parametrize("bad", ["", "MB", "-1", "1 zebra", -5, True, None])
def test_what_is_no_size_is_named(bad: object) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(bad))):
        Size.parse(bad)


def test_rates_are_sizes_in_a_second() -> None:
    assert Rate.parse("50MB/s") == Rate.parse("50MB") == Rate.parse(50_000_000) == 5e7
    for bad in ("0", 0, "5s", None, "1MB/m"):
        with pytest.raises(ValueError, match=r"no rate: wanted is .* above 0"):
            Rate.parse(bad)


LAWS: list[tuple[Any, float, float]] = [
    # What is written, mean, standard deviation.
    ("1s", 1.0, 0.0),
    ({"uniform": ["1s", "5s"]}, 3.0, 4 / math.sqrt(12)),
    ({"normal": ["10s", "500ms"]}, 10.0, 0.5),
    ({"lognormal": ["1s", 0.5]}, math.exp(0.125), math.sqrt((math.exp(0.25) - 1) * math.exp(0.25))),
    ({"exponential": "10s"}, 10.0, 10.0),
    ({"choice": {"50ms": 9, "2s": 1}}, 0.245, 1.95 * 0.3),
]


@pytest.mark.parametrize(("law", "mean", "deviation"), LAWS, ids=lambda each: str(each)[:20])
def test_draws_follow_their_law(law: Any, mean: float, deviation: float) -> None:
    chance, span = random.Random(7), Span.parse(law)
    draws = [span.draw(chance) for _ in range(20_000)]
    assert statistics.fmean(draws) == pytest.approx(mean, rel=0.03)
    assert statistics.pstdev(draws) == pytest.approx(deviation, rel=0.06)
    assert [span.draw(random.Random(7)) for _ in range(3)] == [draws[0]] * 3, "not settled by the seed"


def test_a_normal_time_is_never_negative() -> None:
    span, chance = Span.parse({"normal": ["1s", "10s"]}), random.Random(1)
    draws = [span.draw(chance) for _ in range(1000)]
    assert min(draws) == 0 < max(draws)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"unifrom": [1, 2]}, "wanted is one of uniform, normal"),
        ({"uniform": [1, 2], "normal": [1, 2]}, "wanted is one of"),
        ({}, "wanted is one of"),
        ({"uniform": [5, 1]}, "must be the shorter"),
        ({"uniform": 3}, r"\[shortest, longest\], not 3"),
        ({"normal": ["1s"]}, r"\[mean, standard deviation\]"),
        ({"lognormal": ["1s", -1]}, "sigma is a number from 0 to 10, not -1"),
        ({"lognormal": ["1s", "2s"]}, "not '2s'"),
        ({"exponential": "-1s"}, "'-1s' is no time"),
        ({"choice": {}}, "times with their weights"),
        ({"choice": {"1s": 0}}, "weight of '1s' is a number above 0, not 0"),
        ({"choice": {"soon": 1}}, "'soon' is no time"),
        ({"choice": [1, 2]}, r"not \[1, 2\]"),
    ],
)
def test_what_is_no_distribution_says_what_is_wanted(bad: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Span.parse(bad)


@pytest.mark.parametrize(
    ("text", "value"), [("250m", 0.25), ("10MiB", 10 << 20), ("2MB/s", 2e6), (0.5, 0.5), ("7", 7.0)]
)
def test_amounts_are_sizes_rates_or_thousandths(text: object, value: float) -> None:
    assert amount(text) == value


CURVES: list[tuple[Any, list[tuple[float, float]]]] = [
    # What is written, and its value at some times.
    (5, [(0, 5), (1000, 5)]),
    ("250m", [(3, 0.25)]),
    ([["10s", 1], ["20s", 3]], [(0, 1), (10, 1), (15, 2), (20, 3), (99, 3)]),
    ([[0, 1], [10, 1], [10, 5], [20, 5]], [(9.99, 1), (10, 5), (15, 5)]),
    ({"points": [[0, 0], [10, 10]], "repeat": True}, [(0, 0), (9, 9), (10, 0), (25, 5)]),
    ({"points": [[4, 2], [10, 8]], "repeat": True}, [(0, 2), (4, 2), (7, 5), (12, 2)]),
    ({"sine": {"base": 2, "amplitude": 1, "period": "4s"}}, [(0, 2), (1, 3), (2, 2), (3, 1)]),
    ({"ramp": {"from": "10MiB", "per_second": "1MiB"}}, [(0, 10 << 20), (5, 15 << 20)]),
    ({"ramp": {"from": 0, "per_second": 2, "max": 10}}, [(4, 8), (5, 10), (50, 10)]),
    ({"ramp": {"from": 10, "per_second": -2}}, [(0, 10), (4, 2), (5, 0), (60, 0)]),
    ({"ramp": {"from": 10, "per_second": "-2", "min": 4}}, [(2, 6), (3, 4), (9, 4)]),
    ({"ramp": {"from": 10, "per_second": 0, "max": 20}}, [(0, 10), (90, 10)]),
]


@pytest.mark.parametrize(("tree", "values"), CURVES, ids=lambda each: str(each)[:30])
def test_a_curve_has_its_values(tree: Any, values: list[tuple[float, float]]) -> None:
    curve = Curve.parse(tree)
    assert [curve.at(time) for time, _ in values] == pytest.approx([value for _, value in values], abs=1e-9)


NOISY: Any = {"noise": [[[0, 1], [10, 5]], 0.3]}


@pytest.mark.parametrize("tree", [each for each, _ in CURVES] + [NOISY], ids=lambda each: str(each)[:30])
def test_the_area_below_a_curve_is_exact(tree: Any) -> None:
    curve, step = Curve.parse(tree), 0.005
    summed = 0.0
    for number in range(6000):
        time = number * step
        if number and not number % 500:
            assert curve.integral(time, "id") == pytest.approx(summed, rel=2e-3, abs=1e-2)
        summed += step * curve.at(time + step / 2, "id")


def test_noise_has_its_deviation_and_differs_between_containers() -> None:
    curve = Curve.parse({"noise": [100, 0.2]})
    values = [curve.at(second / 7, "one") for second in range(20_000)]
    assert statistics.fmean(values) == pytest.approx(100, rel=0.01)
    assert statistics.pstdev(values) == pytest.approx(20, rel=0.02)
    assert min(values) >= 0
    assert curve.at(50, "one") != curve.at(50, "two")
    assert curve.at(50, "one") == Curve.parse({"noise": [100, 0.2]}).at(50, "one")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("much", "'much' is no amount: wanted is a number"),
        (-1, "-1 is no amount"),
        (True, "True is no amount"),
        (None, "None is no curve: wanted is a number, a list of points"),
        ({"cosine": 1}, "no curve: wanted is"),
        ([], "pairs of a time and an amount"),
        ([[0, 1, 2]], r"\[0, 1, 2\] is no pair"),
        ([[5, 1], [4, 1]], "4 comes after a later time"),
        ([[0, "x"]], "'x' is no amount"),
        ({"points": [[0, 1]], "repeat": True}, "last point must be after 0s"),
        ({"points": [[0, 1]], "repeat": "often"}, "true or false, not 'often'"),
        ({"points": [[0, 1]], "loop": True}, "unknown key 'loop'; known are points, repeat"),
        ({"sine": {"base": 1, "amplitude": 2, "period": 1}}, "falls below 0"),
        ({"sine": {"base": 1, "amplitude": 1}}, "sine: period is missing"),
        ({"sine": {"base": 1, "amplitude": 1, "period": 0}}, "period must be above 0"),
        ({"sine": 3}, "sine: wanted is {base: …, amplitude: …, period: …}, not 3"),
        ({"ramp": {"from": 1, "per_second": 1, "min": 0}}, "min does not go with per_second 1"),
        ({"ramp": {"from": 5, "per_second": 1, "max": 1}}, "max 1 is on the wrong side of from 5"),
        ({"ramp": {"from": 5, "per_second": -1, "max": 1}}, "max does not go with"),
        ({"noise": [1, 0.5]}, "from 0 to 0.4, not 0.5"),
        ({"noise": 1}, r"wanted is \[curve, relative deviation\]"),
    ],
)
def test_what_is_no_curve_says_what_is_wanted(bad: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Curve.parse(bad)


# Trees of everything that can be written, for the properties here and of whole scenarios.
times = st.floats(0, 1e6).map(lambda number: round(number, 6))
amounts = st.floats(0, 1e12)
spans = st.one_of(
    times,
    st.integers(0, 10_000).map(lambda number: f"{number}ms"),
    st.lists(times, min_size=2, max_size=2).map(lambda pair: {"uniform": sorted(pair)}),
    st.tuples(times, times).map(lambda pair: {"normal": list(pair)}),
    st.tuples(times, st.floats(0, 10)).map(lambda pair: {"lognormal": list(pair)}),
    times.map(lambda mean: {"exponential": mean}),
    st.dictionaries(
        st.integers(0, 10**6).map(lambda n: f"{n}us"), st.floats(0.001, 1e3), min_size=1, max_size=3
    ).map(lambda weights: {"choice": weights}),
)
points = st.lists(st.tuples(times, amounts), min_size=1, max_size=5).map(
    lambda pairs: [list(pair) for pair in sorted(pairs, key=lambda pair: pair[0])]
)
smooth_curves = st.one_of(
    amounts,
    points,
    points.filter(lambda each: each[-1][0] > 0).map(lambda each: {"points": each, "repeat": True}),
    st.tuples(amounts, st.floats(0, 1), st.floats(0.01, 1e6)).map(
        lambda each: {"sine": {"base": each[0], "amplitude": each[0] * each[1], "period": each[2]}}
    ),
    st.tuples(amounts, amounts, amounts).map(
        lambda each: {"ramp": {"from": each[0], "per_second": each[1], "max": each[0] + each[2]}}
    ),
    st.tuples(amounts, amounts.filter(bool), st.floats(0, 1)).map(
        lambda each: {"ramp": {"from": each[0], "per_second": -each[1], "min": each[0] * each[2]}}
    ),
)
trees_of_curves = smooth_curves | st.tuples(smooth_curves, st.floats(0, 0.4)).map(
    lambda each: {"noise": list(each)}
)


@given(spans, st.integers())
def test_every_time_is_finite_not_negative_and_written_back(tree: Any, seed: int) -> None:
    span = Span.parse(tree)
    again = Span.parse(span.tree())
    assert again == span and hash(again) == hash(span)
    drawn = span.draw(random.Random(seed))
    assert 0 <= drawn < math.inf
    assert again.draw(random.Random(seed)) == drawn


@given(trees_of_curves, st.lists(st.floats(0, 1e5), min_size=2, max_size=8))
def test_every_curve_is_not_negative_its_area_never_falls_and_it_is_written_back(
    tree: Any, moments: list[float]
) -> None:
    curve = Curve.parse(tree)
    assert Curve.parse(curve.tree()) == curve
    moments.sort()
    scale = max(curve.at(each, "key") for each in moments)
    assert min(curve.at(each, "key") for each in moments) >= -1e-9 * scale
    areas = [curve.integral(each, "key") for each in moments]
    assert areas[0] >= 0
    for before, after in pairwise(areas):
        assert after >= before - 1e-9 * abs(before)
