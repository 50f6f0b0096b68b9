"""Templates of network configurations: the part of Go's text/template (pkg.go.dev/text/template) that those
in use are written in. Pure: text and values in, text out.

Known are `{{.PodCIDR}}`, `{{range $i, $each := .Routes}}…{{end}}`, `{{if …}}…{{else if …}}…{{else}}…{{end}}`,
`{{len …}}`, `{{index … 0}}`, `{{not …}}`, `{{eq … …}}`, `{{ne … …}}`, comments, and `{{-` and `-}}`, which
take the white space beside them along. Everything else is refused, with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from podwright.errors import FailedPrecondition

Value: TypeAlias = str | int | bool | Sequence[str]

_ACTION = re.compile(r"\{\{(-\s)?((?:[^}\"]|\"(?:[^\"\\]|\\.)*\"|\}(?!\}))*?)(\s-)?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|:=|,|[^\s,:"]+')


class BadTemplate(FailedPrecondition):
    """The template cannot be rendered; the message says where and why."""


@dataclass
class _Text:
    text: str


@dataclass
class _Print:
    words: list[str]
    line: int


@dataclass
class _Branch:
    """An `if` or a `range`."""

    kind: str
    names: list[str]
    words: list[str]
    line: int
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


_Node: TypeAlias = _Text | _Print | _Branch


def render(template: str, values: Mapping[str, Value]) -> str:
    """`template` with `values` for its fields: {"PodCIDR": …} for `{{.PodCIDR}}`. Raises BadTemplate."""
    return "".join(_rendered(_parse(template), values, {}, values))


def check(template: str) -> None:
    """Raises BadTemplate when `template` cannot be rendered, whatever the values."""
    _parse(template)


def _parse(template: str) -> list[_Node]:
    top: list[_Node] = []
    into = top
    open: list[tuple[_Branch, list[_Node], bool]] = []
    """Blocks not ended: the block, what is around it, and whether one `end` ends it and the one around."""
    for kind, text, line in _tokens(template):
        if kind == "text":
            into.append(_Text(text))
            continue
        words = _WORD.findall(text)
        verb = words[0] if words else ""
        if verb in ("if", "range"):
            branch = _branch(words, line)
            into.append(branch)
            open.append((branch, into, False))
            into = branch.body
        elif verb == "else":
            if not open or into is not open[-1][0].body:
                raise _bad(line, "an {{else}} belongs to no {{if}} or {{range}}")
            branch = open[-1][0]
            into = branch.otherwise
            if words[1:]:
                inner = _branch(words[1:], line)
                if inner.kind != "if":
                    raise _bad(line, f"{{{{{text}}}}} is not known")
                into.append(inner)
                open.append((inner, into, True))
                into = inner.body
        elif words == ["end"]:
            joined = True
            while joined:
                if not open:
                    raise _bad(line, "an {{end}} ends nothing")
                _, into, joined = open.pop()
        elif verb:
            into.append(_Print(words, line))
        else:
            raise _bad(line, "an action is empty")
    if open:
        raise _bad(open[-1][0].line, f"{{{{{open[-1][0].kind}}}}} has no {{{{end}}}}")
    return top


def _tokens(template: str) -> Iterator[tuple[str, str, int]]:
    at, trim = 0, False
    for match in _ACTION.finditer(template):
        text = template[at : match.start()]
        if "{{" in text:
            break
        text = text.lstrip() if trim else text
        yield "text", text.rstrip() if match[1] else text, 0
        at, trim = match.end(), bool(match[3])
        body = match[2].strip()
        if not (body.startswith("/*") and body.endswith("*/")):
            yield "action", body, template.count("\n", 0, match.start()) + 1
    rest = template[at:]
    if "{{" in rest:
        raise _bad(template.count("\n", 0, at + rest.index("{{")) + 1, "a {{ has no }}")
    yield "text", rest.lstrip() if trim else rest, 0


def _branch(words: list[str], line: int) -> _Branch:
    kind, rest = words[0], words[1:]
    names: list[str] = []
    if ":=" in rest:
        at = rest.index(":=")
        names = [word for word in rest[:at] if word != ","]
        if kind != "range" or len(names) > 2 or not all(re.fullmatch(r"\$\w+", name) for name in names):
            raise _bad(line, f"{' '.join(words)!r} is not known")
        rest = rest[at + 1 :]
    if not rest:
        raise _bad(line, f"{{{{{kind}}}}} of nothing")
    return _Branch(kind, names, rest, line)


def _rendered(
    nodes: Sequence[_Node], dot: object, names: Mapping[str, Value], root: Mapping[str, Value]
) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _Text):
            yield node.text
        elif isinstance(node, _Print):
            yield _shown(_value(node.words, node.line, dot, names, root))
        elif node.kind == "if":
            value = _value(node.words, node.line, dot, names, root)
            yield from _rendered(node.body if value else node.otherwise, dot, names, root)
        else:
            items = _value(node.words, node.line, dot, names, root)
            if isinstance(items, str | int):
                raise _bad(node.line, f"{' '.join(node.words)} is no list")
            for at, item in enumerate(items):
                bound: dict[str, Value] = dict(zip(node.names[-2:-1], (at,), strict=False))
                bound.update(zip(node.names[-1:], (item,), strict=False))
                yield from _rendered(node.body, item, {**names, **bound}, root)
            if not items:
                yield from _rendered(node.otherwise, dot, names, root)


def _value(
    words: list[str], line: int, dot: object, names: Mapping[str, Value], root: Mapping[str, Value]
) -> Value:
    operands = [_operand(word, line, dot, names, root) for word in words if word not in _FUNCTIONS]
    if words[0] not in _FUNCTIONS:
        if len(words) != 1:
            raise _bad(line, f"{' '.join(words)!r} is not known")
        return operands[0]
    count, function = _FUNCTIONS[words[0]]
    if len(operands) != count or len(words) != count + 1:
        raise _bad(line, f"{words[0]} takes {count} operands: {' '.join(words)!r}")
    try:
        return function(*operands)
    except (IndexError, TypeError) as error:
        raise _bad(line, f"{' '.join(words)!r}: {error}") from error


_FUNCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "len": (1, len),
    "index": (2, lambda items, at: items[at]),
    "not": (1, lambda value: not value),
    "eq": (2, lambda one, other: one == other),
    "ne": (2, lambda one, other: one != other),
}


def _operand(
    word: str, line: int, dot: object, names: Mapping[str, Value], root: Mapping[str, Value]
) -> Value:
    if word.startswith('"'):
        return word[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if word.isdecimal():
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    if word in names:
        return names[word]
    if word == "." and isinstance(dot, str):
        return dot
    place, field_name = (root, word[2:]) if word.startswith("$.") else (dot, word[1:])
    if word.startswith((".", "$.")) and isinstance(place, Mapping) and field_name in place:
        value: Value = place[field_name]
        return value
    known = ", ".join(f".{name}" for name in root)
    raise _bad(line, f"{word!r} is not known here; there are {known}")


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    return f"[{' '.join(value)}]"


def _bad(line: int, why: str) -> BadTemplate:
    return BadTemplate(f"line {line}: {why}")
