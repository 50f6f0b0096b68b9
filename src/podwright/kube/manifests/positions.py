"""Where in its file a field of a manifest stands: trees that know the lines they were read from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class LinedMap(dict[Any, Any]):
    """A mapping of YAML."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.lines: dict[str, int] = {}
        """Of each key, from 1."""
        self.line = 0
        self.source = ""
        """The file, where the mapping is a whole document."""


class LinedList(list[Any]):
    """A sequence of YAML."""

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        self.lines: list[int] = []


def where(document: Any, path: str) -> str:
    """ "pod.yaml:17", where the field at `path` ("spec.containers[0].image") of the document's Pod stands, or
    the nearest thing around it. "" when nobody noted the lines, as in JSON."""
    if not isinstance(document, LinedMap) or not document.source:
        return ""
    prefix = "" if document.get("kind") == "Pod" else "spec.template."
    line = document.line
    for found in _lines(document, prefix + path):
        line = found
    return f"{document.source}:{line}"


def _lines(tree: Any, path: str) -> Iterator[int]:
    """From the outermost to the field itself, as far as they are known."""
    for index, name in _STEP.findall(path):
        key = name or index
        if isinstance(tree, LinedMap) and key in tree.lines and key in tree:
            yield tree.lines[key]
            tree = tree[key]
        elif isinstance(tree, LinedList) and index.isdecimal() and int(index) < len(tree.lines):
            yield tree.lines[int(index)]
            tree = tree[int(index)]
        else:
            return
