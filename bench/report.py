"""The rows of the benchmark: collected, printed as a table with ratios, written as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

SIDES = ("podwright", "containerd", "floor")
HIGHER_IS_BETTER = ("1/s",)


@dataclass
class Rows:
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, unit: str, side: str, value: float) -> None:
        self.units[name] = unit
        self.values.setdefault(name, {})[side] = value

    def table(self) -> str:
        """One line a row: the three figures, and podwright's as a multiple of each of the others."""
        lines = [
            f"{'':34}{'unit':>6}{'podwright':>12}{'containerd':>12}{'floor':>12}"
            f"{'× containerd':>14}{'× floor':>10}"
        ]
        for name, row in self.values.items():
            figures = "".join(_figure(row.get(side)) for side in SIDES)
            ours = row.get("podwright")
            lines.append(
                f"{name:34}{self.units[name]:>6}{figures}"
                f"{_ratio(ours, row.get('containerd')):>14}{_ratio(ours, row.get('floor')):>10}"
            )
        return "\n".join(lines)

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"name": name, "unit": self.units[name], **{side: row.get(side) for side in SIDES}}
            for name, row in self.values.items()
        ]
        file.write_text(json.dumps(rows, indent=1) + "\n")


def _figure(value: float | None) -> str:
    return f"{'–':>12}" if value is None else f"{value:12.2f}"


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "–" if ours is None or not theirs else f"{ours / theirs:.2f}"
