"""Tables and times for people."""

from __future__ import annotations

import time

import pytest

from podwright.cli.output import age, fitted


@pytest.mark.parametrize(
    ("widths", "room", "fit"),
    [
        ([12, 5], 80, ([12, 5], 3)),
        ([12, 40, 5], 60, ([12, 39, 5], 2)),
        ([12, 8, 10, 34, 12, 5, 7], 80, ([12, 8, 10, 14, 12, 5, 7], 2)),
        ([60, 60], 80, ([39, 39], 2)),
        ([12, 40], 10, ([10, 10], 2)),  # no narrower
    ],
)
def test_the_widest_columns_give_way(widths: list[int], room: int, fit: tuple[list[int], int]) -> None:
    assert fitted(widths, room) == fit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (3000, "50m"), (11000, "3h"), (400_000, "4d")],
)
def test_ages_are_written_as_kubectl_writes_them(
    monkeypatch: pytest.MonkeyPatch, seconds: int, text: str
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert age((int(now) - seconds) * 1_000_000_000) == text
