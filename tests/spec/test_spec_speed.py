"""An ordinary container's spec takes less than a millisecond."""

from __future__ import annotations

from bench.spec import batches, ordinary


def test_an_ordinary_spec_is_built_in_less_than_a_millisecond() -> None:
    # The best batch: others share the machine with whatever runs beside the tests.
    assert min(batches(*ordinary())) < 0.001
