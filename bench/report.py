"""The rows of the benchmark: collected, printed as a table with ratios, written as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SIDES = ("podwright", "containerd", "floor")
HIGHER_IS_BETTER = ("1/s",)


@dataclass
class Rows:
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    """Of parts whose sides are others, by what their rows' names begin with."""
    _part: str = ""

    def add(self, name: str, unit: str, side: str, value: float) -> None:
        name = f"{self._part}{name}"
        self.units[name] = unit
        self.values.setdefault(name, {})[side] = value

    @contextmanager
    def under(self, part: str, title: str) -> Iterator[None]:
        """The rows that are added meanwhile are named PART/NAME. `title` tells what its sides are."""
        self._part = f"{part}/"
        self.titles[self._part] = title
        try:
            yield
        finally:
            self._part = ""

    def table(self) -> str:
        """One line a row: the three figures, and podwright's as a multiple of each of the others."""
        lines = [
            f"{'':34}{'unit':>6}{'podwright':>12}{'containerd':>12}{'floor':>12}"
            f"{'× containerd':>14}{'× floor':>10}"
        ]
        heading = ""
        for name, row in self.values.items():
            part, slash, short = name.rpartition("/")
            if part != heading:
                heading = part
                lines += ["", f"{part}: {self.titles[part + slash]}"]
            figures = "".join(_figure(row.get(side)) for side in SIDES)
            ours = row.get("podwright")
            lines.append(
                f"{short:34}{self.units[name]:>6}{figures}"
                f"{_times(ours, row.get('containerd')):>14}{_times(ours, row.get('floor')):>10}"
            )
        return "\n".join(lines)

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "name": name,
                "unit": self.units[name],
                **{side: row.get(side) for side in SIDES},
                **{f"ratio_{side}": ratio(row.get("podwright"), row.get(side)) for side in SIDES[1:]},
            }
            for name, row in self.values.items()
        ]
        file.write_text(json.dumps(rows, indent=1) + "\n")


def _figure(value: float | None) -> str:
    return f"{'–':>12}" if value is None else f"{value:12.2f}"


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Ours as a multiple of theirs; None when one of them is not there."""
    return None if ours is None or not theirs else round(ours / theirs, 4)


def _times(ours: float | None, theirs: float | None) -> str:
    found = ratio(ours, theirs)
    return "–" if found is None else f"{found:.2f}"
