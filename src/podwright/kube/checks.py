"""The small rules that validation is made of: names, numbers, quantities, choices. Pure.

Each yields (path, text) for what it finds, so that all faults are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from podwright.errors import InvalidArgument
from podwright.kube import resources

Faults = Iterator[tuple[str, str]]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAME_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
MAX_ANNOTATIONS = 256 << 10
"""Bytes of all annotations together."""


def one_of(path: str, value: str | None, allowed: Sequence[str | None]) -> Faults:
    if value not in allowed:
        yield path, f"{value!r} is none of {', '.join(one for one in allowed if one)}"


def at_least(path: str, value: int | None, least: int) -> Faults:
    if value is not None and value < least:
        yield path, f"{value} is less than {least}"


def label(path: str, value: str) -> Faults:
    if not LABEL.fullmatch(value):
        yield path, f"{value!r} is not a DNS label (up to 63 lower-case letters, digits and -)"


def port(path: str, value: object, names: Sequence[str] | None = None) -> Faults:
    """A number, or where `names` are given one of these."""
    if isinstance(value, str):
        if names is None or not PORT_NAME.fullmatch(value):
            yield path, f"{value!r} is neither a port nor the name of one"
        elif value not in names:
            yield path, f"no port of the container is named {value!r}"
    elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        yield path, f"{value} is not a port"


def ids(path: str, *numbers: int | None) -> Faults:
    for number in numbers:
        if number is not None and not 0 <= number < 1 << 31:
            yield path, f"{number} is not a user or group id"


def mode(path: str, value: int | None) -> Faults:
    if value is not None and not 0 <= value <= 0o777:
        yield path, f"{value} is no file mode between 0 and 0777 (in YAML, 0644 is octal and 644 is not)"


def relative(path: str, value: str) -> Faults:
    """A path in a volume."""
    if not value or value.startswith("/") or ".." in value.split("/"):
        yield path, f"{value!r} must be relative and without .."


def amounts(place: str, sides: dict[str, dict[str, object] | None], allowed: Sequence[str]) -> Faults:
    """`limits` and `requests`; a name in `allowed` that ends in - stands for all that begin with it."""
    found: dict[tuple[str, str], Fraction] = {}
    for side in ("limits", "requests"):
        for name, value in (sides.get(side) or {}).items():
            where = f"{place}.{side}[{name}]"
            huge = name.startswith(resources.HUGE_PAGES)
            if not any(name == one or (one.endswith("-") and name.startswith(one)) for one in allowed):
                yield where, "is not supported: nothing here provides it"
            elif huge and resources.page_bytes(name) is None:
                yield where, "names no size of huge pages, as hugepages-2Mi does"
            try:
                amount = found[side, name] = resources.parse_quantity(value)
            except InvalidArgument as error:
                yield where, str(error)
                continue
            limit = found.get(("limits", name))
            if amount < 0:
                yield where, f"{value} is negative"
            if side == "requests" and limit is not None and amount > limit:
                yield where, f"{value} is more than the limit"
            if huge and side == "requests" and limit != amount:
                yield where, "huge pages are not shared out: the limit must be the same"


def strings(path: str, tree: dict[str, object] | None, *, labels: bool) -> Faults:
    """Labels or annotations."""
    size = 0
    for key, value in (tree or {}).items():
        prefix, slash, name = key.rpartition("/")
        if not _NAME_PART.fullmatch(name) or (slash and not SUBDOMAIN.fullmatch(prefix)):
            yield f"{path}[{key}]", "is no key: a name, or a domain, / and a name"
        if not isinstance(value, str):
            yield f"{path}[{key}]", f"{value!r} is not a string: put it in quotes"
        elif labels and not _LABEL_VALUE.fullmatch(value):
            yield f"{path}[{key}]", f"{value!r} is no label's value: 63 letters, digits, -, _ and . at most"
        size += len(key) + len(str(value))
    if not labels and size > MAX_ANNOTATIONS:
        yield path, f"are {size} bytes together, more than {MAX_ANNOTATIONS}"
