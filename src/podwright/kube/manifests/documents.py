"""The text of manifests: YAML or JSON as kubectl takes it → trees, each with the place it stands at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from podwright.errors import InvalidArgument
from podwright.kube.manifests.positions import LinedList, LinedMap

_HALF = re.compile("[\ud800-\udfff]")
"""Halves of characters, as escapes can name them."""
_MAX_PATH = 10_000
"""Characters of the names on the way to a value."""
_MAX_NODES = 200_000
"""How many values a document may have once its aliases are followed: a short text can stand for billions."""


def read_text(path: str | Path) -> str:
    """The text of a file, or ("-") of standard input. InvalidArgument when there is none."""
    try:
        return Path("/dev/stdin" if str(path) == "-" else path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidArgument(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(str(path), f"is no text in UTF-8: {error}") from error


def documents(text: str, source: str) -> list[tuple[Any, str]]:
    """The Kubernetes objects of one or more documents as trees, each with the place it stands at; a List
    counts as its items. InvalidArgument for what is neither YAML nor JSON, or holds none."""
    trees = [tree for tree in _trees(text.removeprefix("\ufeff"), source) if tree is not None]
    found: list[tuple[Any, str]] = []
    for number, tree in enumerate(trees, 1):
        place = f"{source}, document {number}" if len(trees) > 1 else source
        check(tree, place)
        for item in _items(tree, place):
            if isinstance(item[0], LinedMap):
                item[0].source = source
            found.append(item)
    if not found:
        raise InvalidArgument(source, "holds no Pod")
    return found


def check(tree: Any, place: str) -> None:
    """Refuse what is no tree of YAML or JSON, wherever it was read: keys that are no text, halves of
    characters, more values than anybody writes. Aliases make one value stand at many places; it costs each of
    them."""
    left, waiting = _MAX_NODES, [(tree, "")]
    while waiting:
        value, path = waiting.pop()
        left -= 1
        if left < 0:
            raise InvalidArgument(place, f"has more than {_MAX_NODES} values")
        if len(path) > _MAX_PATH:
            raise InvalidArgument(place, "is nested too deeply")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or _HALF.search(key):
                    raise InvalidArgument(place, f"{path or 'a document'}: key {key!r} is no text")
            waiting += [(each, f"{path}.{key}" if path else key) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(each, f"{path}[{index}]") for index, each in enumerate(value)]
        elif isinstance(value, str) and _HALF.search(value):
            raise InvalidArgument(place, f"{path}: {value!r:.60} holds half a character (\\ud800 to \\udfff)")


def _trees(text: str, source: str) -> Iterator[Any]:
    if text.lstrip().startswith("{"):
        # JSON may be indented by tabs, which YAML forbids.
        try:
            yield from list(_json(text))
            return
        except ValueError:
            pass  # a flow mapping of YAML begins with a brace as well
        except RecursionError as error:
            raise InvalidArgument(source, "is nested too deeply") from error
    try:
        yield from list(yaml.load_all(text, _Loader))
    except yaml.YAMLError as error:
        raise InvalidArgument(source, f"is not YAML: {_fault(error)}") from error
    except RecursionError as error:
        raise InvalidArgument(source, "is nested too deeply") from error


def _json(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(object_pairs_hook=_once), 0
    while at < len(text.rstrip()):
        at += len(text[at:]) - len(text[at:].lstrip())
        tree, at = decoder.raw_decode(text, at)
        yield tree


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key comes twice")  # YAML's reader says which one
    return tree


def _items(tree: Any, place: str) -> list[tuple[Any, str]]:
    kind = tree.get("kind") if isinstance(tree, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or "items" not in tree:
        return [(tree, place)]
    items = tree["items"] or []
    if not isinstance(items, list):
        raise InvalidArgument(place, "items: is no list")
    if kind != "List":
        # Items of a PodList need not repeat what they are.
        said = {"apiVersion": tree.get("apiVersion"), "kind": kind.removesuffix("List")}
        for item in items:
            if isinstance(item, dict):
                item.update({key: value for key, value in said.items() if key not in item})
    return [each for item in items for each in _items(item, place)]


def _fault(error: yaml.YAMLError) -> str:
    """What PyYAML complains of and where, on one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    words = ": ".join(filter(None, (error.context, error.problem)))
    if "\\t" in words:
        words += " (a tab indents nothing in YAML: use spaces)"
    return f"line {mark.line + 1}, column {mark.column + 1}: {words}"


_OWN_TAGS = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: dates and 12:30 stay text, 1e3 and 0o440 are numbers, keys are text, a key
    that comes twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OWN_TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = _key(self.construct_object(key_node, deep=True), key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} comes twice", key_node.start_mark
                )
            seen.add(key)
        self.flatten_mapping(node)
        return {
            _key(self.construct_object(key_node, deep=True), key_node): self.construct_object(
                value_node, deep=deep
            )
            for key_node, value_node in node.value
        }

    def mapping(self, node: yaml.MappingNode) -> Iterator[LinedMap]:
        tree = LinedMap()
        yield tree  # what is in it may refer to it
        tree.update(self.construct_mapping(node))
        tree.line = node.start_mark.line + 1
        tree.lines = {
            _key(self.construct_object(key, deep=True), key): key.start_mark.line + 1 for key, _ in node.value
        }

    def sequence(self, node: yaml.SequenceNode) -> Iterator[LinedList]:
        tree = LinedList()
        yield tree
        tree.extend(self.construct_sequence(node))
        tree.lines = [one.start_mark.line + 1 for one in node.value]

    def integer(self, node: yaml.ScalarNode) -> int:
        text = str(node.value).replace("_", "").lower()
        sign = -1 if text.startswith("-") else 1
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
            digits = "0o" + digits[1:]
        try:
            return sign * int(digits, 0)
        except ValueError as error:
            what = f"a number of {len(digits)} digits"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def number(self, node: yaml.ScalarNode) -> float:
        text = str(node.value).replace("_", "").lower()
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(f"^(?:{_INT.pattern})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+0123456789.")
)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.sequence)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def _key(key: Any, node: yaml.Node) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, str | int | float):
        return str(key)
    raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", node.start_mark)
