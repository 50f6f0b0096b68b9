"""Writes the table of a Pod's fields into docs/pods.md, from podwright/kube/manifests/fields.py.

Run it after a change there:

    python tools/pod_fields.py

A test fails while the page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from podwright.kube.manifests import fields

PAGE = Path(__file__).resolve().parent.parent / "docs" / "pods.md"
BEGIN, END = "<!-- fields: written by tools/pod_fields.py -->\n", "<!-- end of fields -->\n"


def table() -> str:
    rows = ["| of | works | no effect | refused |", "|---|---|---|---|"]
    rows += [
        f"| {kind} | {_names(works.split())} | {_reasons(fields.NO_EFFECT.get(kind, {}))} "
        f"| {_reasons(fields.REFUSED.get(kind, {}))} |"
        for kind, works in sorted(fields.WORKS.items())
    ]
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """`text` with today's table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _reasons(reasons: dict[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(f"{_names(names)}: {reason}" for reason, names in by_reason.items())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
