"""How fast counters grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwright.stats.rates import SHORTEST, Rates

SECOND = 1_000_000_000


def test_two_samples_make_a_rate() -> None:
    rates = Rates()
    assert rates.rate("a", SECOND, 10) is None, "there is none yet"
    rates.note("a", SECOND, 10)
    assert rates.rate("a", SECOND, 10) is None, "of the same moment"
    assert rates.rate("a", SECOND + SHORTEST - 1, 999) is None, "too soon"
    assert rates.rate("a", 3 * SECOND, 30) == 10
    assert rates.rate("b", 3 * SECOND, 30) is None


def test_the_newest_sample_that_is_old_enough_counts() -> None:
    rates = Rates()
    for second, value in ((1, 0), (2, 100), (3, 400)):
        rates.note("a", second * SECOND, value)
    assert rates.rate("a", 4 * SECOND, 1000) == 600, "since the newest"
    assert rates.rate("a", 3 * SECOND + 100, 410) == 309, "since the one before: the newest is too near"


def test_samples_that_come_too_soon_or_twice_are_not_taken() -> None:
    rates = Rates()
    rates.note("a", SECOND, 10)
    for at in (SECOND, SECOND + 1, SECOND + SHORTEST - 1, SECOND - 5):
        rates.note("a", at, 500)
    assert rates.rate("a", 2 * SECOND, 110) == 100


def test_what_is_dropped_is_forgotten() -> None:
    rates = Rates()
    rates.note("a", SECOND, 10)
    rates.note("b", SECOND, 10)
    rates.drop("a")
    rates.drop("unknown")
    assert list(rates.keys()) == ["b"] and rates.rate("a", 3 * SECOND, 20) is None
    rates.clear()
    assert list(rates.keys()) == []


@given(st.lists(st.tuples(st.integers(1, 3 * SECOND), st.integers(0, 10 * SECOND)), min_size=2, max_size=20))
def test_a_rate_lies_between_the_slowest_and_the_fastest_growth(steps: list[tuple[int, int]]) -> None:
    rates, at, value = Rates(), 0, 0
    samples = [(0, 0)]
    rates.note("a", 0, 0)
    for passed, grown in steps:
        at, value = at + passed, value + grown
        found = rates.rate("a", at, value)
        possible = [
            (value - before) * SECOND // (at - then) for then, before in samples if at - then >= SHORTEST
        ]
        assert (found is None) == (not possible)
        assert found is None or found in possible
        rates.note("a", at, value)
        samples.append((at, value))


def test_a_counter_that_falls_does_not_grow() -> None:
    rates = Rates()
    rates.note("a", SECOND, 10)
    assert rates.rate("a", 2 * SECOND, 5) == 0
