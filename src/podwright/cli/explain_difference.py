"""What a change of a request, a handler or an engine would change in what explain shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from podwright.cli import explain_table as out
from podwright.cli.explain_bench import Explained
from podwright.cli.explain_options import Options
from podwright.cli.explain_showing import CUT, below, warn
from podwright.cli.explain_words import apart, words
from podwright.cli.output import Format
from podwright.cli.output import json as print_json
from podwright.spec.places import changes

COMMON_WORDS = "what the request decides, in the words of an OCI runtime spec"
SAME, DIFFERENT = 0, 1
"""Exit statuses of a comparison, as diff(1) has them; 2 is trouble."""


def show_difference(
    before: Mapping[Any, Explained],
    after: Mapping[Any, Explained],
    options: Options,
    notes: Sequence[str],
) -> int:
    found: list[dict[str, Any]] = []
    pairs = _pairs(before, after)
    unlike = any(_need_common_words(old, new) for old, new in pairs)
    alone: list[str] = []
    for old, new in pairs:
        either = new or old
        assert either is not None
        if unlike and not (old and new):
            alone.append(f"{either.title}; the other engine has none")
            continue
        rows = _changes(old, new, options.path)
        what = COMMON_WORDS if unlike else either.explanation.what
        if rows:
            found.append({"title": either.asked.title, "what": what, "changes": rows})
    if options.json or options.output is Format.JSON:
        print_json(found)
        return DIFFERENT if found else SAME
    cut = False
    for number, one in enumerate(found):
        if number:
            print()
        out.strong(f"{one['title']}: {one['what']}")
        cells = []
        for row in one["changes"]:
            path, pair = row["path"], (row["before"], row["after"])
            in_words = [words(path, each) for each in pair] if options.wide else apart(path, *pair)
            cells.append((path, *in_words, row["because"]))
        cut |= out.table(("PATH", "BEFORE", "AFTER", "BECAUSE"), cells, wide=options.wide)
    if cut:
        out.note(CUT)
    if not found:
        print("nothing would change")
    shown = {text for old, new in pairs if old for text in old.explanation.warnings}
    new_ones = [text for old, new in pairs if new for text in new.explanation.warnings if text not in shown]
    warn([*notes, *alone, *new_ones])
    return DIFFERENT if found else SAME


def _pairs(
    before: Mapping[Any, Explained], after: Mapping[Any, Explained]
) -> list[tuple[Explained | None, Explained | None]]:
    """What has the same name; of two pods that are called differently those in the same place."""
    if not set(before) & set(after) and [key[2] for key in before] == [key[2] for key in after]:
        return list(zip(before.values(), after.values(), strict=True))
    return [(before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))]


def _need_common_words(old: Explained | None, new: Explained | None) -> bool:
    """They are documents of unlike kinds, and of one that is no spec there is one."""
    if old is None or new is None or old.explanation.what == new.explanation.what:
        return False
    return old.explanation.spec is not None or new.explanation.spec is not None


def _in_common_words(old: Explained, new: Explained) -> tuple[Explained, Explained, Sequence[str] | None]:
    """Two documents of unlike kinds as specs, and the places that both speak of; None: all."""
    told = None
    both = []
    for each in (old, new):
        if (spec := each.explanation.spec) is not None:
            told = list(spec.origins)
            each = replace(each, explanation=spec)
        both.append(each)
    return both[0], both[1], told


def _changes(old: Explained | None, new: Explained | None, prefix: str) -> list[dict[str, Any]]:
    rows = []
    told: Sequence[str] | None = None
    if old and new and _need_common_words(old, new):
        old, new, told = _in_common_words(old, new)
    for change in changes(old.explanation.document if old else {}, new.explanation.document if new else {}):
        if not below(change.path, prefix):
            continue
        if told is not None and not any(below(change.path, place) for place in told):
            continue
        gone = change.after is None
        source = old if gone else new
        because = source.because(change.path) if source else ""
        rows.append(
            {
                "path": change.path,
                "before": change.before,
                "after": change.after,
                "because": f"no longer: {because}" if gone else because,
            }
        )
    return rows
