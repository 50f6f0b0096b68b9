"""What explain found out about requests, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podwright.cli import explain_table as out
from podwright.cli.explain_bench import Explained
from podwright.cli.explain_options import Options
from podwright.cli.explain_words import words
from podwright.cli.output import Format
from podwright.cli.output import json as print_json
from podwright.errors import InvalidArgument, NotFound
from podwright.spec.places import places

CUT = "… cut to the terminal's width: --wide shows all, --path PREFIX a part of it in full"


def show(found: Mapping[Any, Explained], options: Options, notes: Sequence[str]) -> None:
    if options.json:
        containers = [each for each in found.values() if each.asked.container is not None]
        if len(containers) != 1:
            names = ", ".join(each.asked.name for each in containers) or "none"
            raise InvalidArgument("--json", f"is for one container: choose it by --container ({names})")
        print_json(containers[0].explanation.document)
        return
    if options.output is Format.JSON:
        print_json([_as_json(each, options.path, notes) for each in found.values()])
        return
    cut = False
    shown = [(each, rows) for each in found.values() if (rows := _rows(each, options.path))]
    if not shown:
        raise NotFound(f"--path: there is nothing at {options.path!r}")
    for number, (each, rows) in enumerate(shown):
        if number:
            print()
        out.strong(each.title)
        if options.path:
            _show_closely(each, [path for path, _ in rows])
        else:
            cut |= out.table(
                ("PATH", "VALUE", "BECAUSE"),
                [(path, words(path, value), each.because(path)) for path, value in rows],
                wide=options.wide,
            )
    if cut:
        out.note(CUT)
    warn([*notes, *(text for each in found.values() for text in _warnings(each, len(found)))])


def _rows(one: Explained, prefix: str) -> list[tuple[str, Any]]:
    return [(path, value) for path, value in places(one.explanation.document).items() if below(path, prefix)]


def below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or inside of it; "linux.res" is no place around "linux.resources"."""
    rest = path.removeprefix(prefix)
    return not prefix or (path.startswith(prefix) and (not rest or rest[0] in ".[" or prefix[-1] in ".["))


def _show_closely(one: Explained, paths: Sequence[str]) -> None:
    found = places(one.explanation.document)
    for path in paths:
        value = found[path]
        shown = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else value
        out.strong(path)
        out.note(f"  {one.because(path)}")
        for line in str(shown).splitlines() or [""]:
            print(f"  {line}")


def _as_json(one: Explained, prefix: str, notes: Sequence[str]) -> dict[str, Any]:
    pod = one.asked.sandbox.config.metadata
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": one.asked.name,
        "what": one.explanation.what,
        "rows": [
            {"path": path, "value": value, "because": one.because(path)} for path, value in _rows(one, prefix)
        ],
        "warnings": [*notes, *one.explanation.warnings],
    }


def _warnings(one: Explained, of: int) -> Iterator[str]:
    for text in one.explanation.warnings:
        yield f"{one.asked.title}: {text}" if of > 1 else text


def warn(texts: Sequence[str]) -> None:
    if texts:
        print()
    for text in dict.fromkeys(texts):
        out.warning(text)
