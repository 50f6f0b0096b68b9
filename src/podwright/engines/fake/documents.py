"""From YAML to a scenario's values and back: typed by msgspec, errors named by their path.

YAML here is that of version 1.2 as far as booleans go: `on` is a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import inspect

from podwright.engines.fake.curves import Curve
from podwright.engines.fake.values import Rate, Size, Span
from podwright.errors import InvalidArgument

_AMOUNTS = (Span, Size, Rate, Curve)
_PLACE = re.compile(
    r"^(?P<words>.*?)(?: - at (?:`(?P<inside>key|value)` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL
)
_UNNAMED = re.compile(r'in "<(?:byte|unicode) string>", ')
"""YAML's words for a document that is no file."""
T = TypeVar("T")


def convert(tree: Any, kind: type[T], where: str) -> T:
    """The `kind` that `tree` (what YAML or JSON gives) says. InvalidArgument with the path to what is
    wrong."""
    try:
        return msgspec.convert(tree, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        assert found is not None
        path = found["path"] or ""
        if "[...]" in path:
            path = _named(tree, kind, path)
        words = f"a {found['inside']} is wrong: {found['words']}" if found["inside"] else found["words"]
        if words.startswith("Invalid enum value") and (choices := _choices(kind, path)):
            words += f"; wanted is one of {', '.join(choices)}"
        key, _, rest = words.partition(": ")
        if rest and key in _keys(tree, path):
            # A part that checks its own keys says which of them is wrong.
            path, words = f"{path}.{key}", rest
        raise InvalidArgument(f"{where}{path}", words.replace("`", "")) from error


def to_tree(value: msgspec.Struct | Mapping[str, Any]) -> Any:
    """What `convert` makes the same value of again: dicts, lists, texts and numbers; defaults are left
    out."""
    return msgspec.to_builtins(value, enc_hook=_encode)


def read_yaml(text: str | bytes, where: str) -> Any:
    """InvalidArgument when `text` is not YAML."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InvalidArgument(where, f"is not YAML: {_UNNAMED.sub('at ', str(error))}") from error


def write_yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False)


def _decode(kind: type, value: Any) -> Any:
    if kind in _AMOUNTS:
        return kind.parse(value)
    raise NotImplementedError(kind)


def _encode(value: Any) -> Any:
    if isinstance(value, _AMOUNTS):
        return value.tree()
    raise NotImplementedError(type(value))


def _named(tree: Any, kind: type, path: str) -> str:
    """`path` with the name of the key for which msgspec writes [...]."""
    before, _, after = path.partition("[...]")
    steps = _steps(before)
    entries = _at(tree, steps)
    for key in entries if isinstance(entries, Mapping) else ():
        try:
            msgspec.convert(_with(tree, steps, {key: entries[key]}), kind, dec_hook=_decode)
        except msgspec.ValidationError as error:
            if path in str(error):
                return f"{before}.{key}{after}"
    return path


def _choices(kind: type, path: str) -> list[str]:
    """The words that may stand at `path` of a `kind`."""
    here = [inspect.type_info(kind)]
    for step in _steps(path):
        here = [inner for each in here for inner in _inner(each, step)]
    return [str(value) for each in here if isinstance(each, inspect.LiteralType) for value in each.values]


def _inner(kind: inspect.Type, step: int | str) -> list[inspect.Type]:
    """What may be one step further in."""
    match kind:
        case inspect.StructType():
            fields = [each.type for each in kind.fields if each.encode_name == step]
            return [inner for each in fields for inner in _alternatives(each)]
        case inspect.ListType():
            return _alternatives(kind.item_type)
        case inspect.DictType():
            return _alternatives(kind.value_type)
    return []


def _alternatives(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def _keys(tree: Any, path: str) -> Mapping[str, Any]:
    """What there is at `path` by its keys, if anything is."""
    try:
        found = _at(tree, _steps(path))
    except (KeyError, IndexError, TypeError):  # handlers may have names with dots in them
        return {}
    return found if isinstance(found, Mapping) else {}


def _steps(path: str) -> list[int | str]:
    return [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path)]


def _at(tree: Any, steps: list[int | str]) -> Any:
    for step in steps:
        tree = tree[step]
    return tree


def _with(tree: Any, steps: list[int | str], leaf: Any) -> Any:
    """A copy of `tree` that has `leaf` at the end of `steps`."""
    if not steps:
        return leaf
    copy: Any = list(tree) if isinstance(tree, list) else dict(tree)
    copy[steps[0]] = _with(tree[steps[0]], steps[1:], leaf)
    return copy


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                # YAML forbids it, and what the first one said would be gone without a word.
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is here twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
