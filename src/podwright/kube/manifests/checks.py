"""The small rules that validation is made of: names, numbers, quantities, choices. Pure.

Each yields (path, text) for what it finds, so that all faults are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from podwright.errors import InvalidArgument
from podwright.kube.requests import resources

Faults = Iterator[tuple[str, str]]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_NAME_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
MAX_INT32 = (1 << 31) - 1
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


def port(path: str, value: object, *, named: bool = False) -> Faults:
    """A number, or where it may be `named` what could be a name: that the container has such a port nobody
    asks before it is looked for."""
    if isinstance(value, str):
        if not named or not PORT_NAME.fullmatch(value):
            yield path, f"{value!r} is neither a port nor the name of one"
    elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        yield path, f"{value} is not a port"


def between(path: str, value: int | None, least: int, most: int) -> Faults:
    if value is not None and not least <= value <= most:
        yield path, f"{value} is not between {least} and {most}"


def ids(place: str, context: object, *names: str) -> Faults:
    """Users and groups of a security context, by the names of their fields; one may be a list."""
    for name in names:
        said = getattr(context, name)
        several = isinstance(said, list)
        for index, number in enumerate(said if several else [said]):
            if number is not None and not 0 <= number < 1 << 31:
                path = f"{place}.{name}[{index}]" if several else f"{place}.{name}"
                yield path, f"{number} is not a user or group id"


def qualified(path: str, value: str) -> Faults:
    """A key of labels, or what is written like one."""
    prefix, slash, name = value.rpartition("/")
    if not _NAME_PART.fullmatch(name) or (slash and not SUBDOMAIN.fullmatch(prefix)):
        yield path, f"{value!r} is no key: a name, or a domain, / and a name"


def mode(path: str, value: int | None) -> Faults:
    if value is not None and not 0 <= value <= 0o777:
        yield path, f"{value} is no file mode between 0 and 0777 (in YAML, 0644 is octal and 644 is not)"


def key(path: str, value: str) -> Faults:
    """A key of a ConfigMap or Secret."""
    if not _KEY.fullmatch(value) or value == "." or value.startswith(".."):
        yield path, f"{value!r} is no key: letters, digits, -, _ and . are allowed"


def relative(path: str, value: str) -> Faults:
    """A path in a volume."""
    if not value or value.startswith("/") or ".." in value.split("/"):
        yield path, f"{value!r} must be relative and without .."


def amounts(place: str, sides: dict[str, dict[str, object] | None], allowed: Sequence[str]) -> Faults:
    """`limits` and `requests`; a name in `allowed` that ends in - stands for all that begin with it."""
    found: dict[tuple[str, str], Fraction] = {}
    for side in ("limits", "requests"):
        for name, value in (sides.get(side) or {}).items():
            if side == "requests" and (sides.get("limits") or {}).get(name) == value:
                continue  # it was taken from the limit, or might have been
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
            if huge and (size := resources.page_bytes(name)) and amount % size:
                yield where, f"{value} is no multiple of the pages' size"


def strings(path: str, tree: dict[str, object] | None, *, labels: bool) -> Faults:
    """Labels or annotations."""
    size = 0
    for key, value in (tree or {}).items():
        # The API server looks at an annotation's key in small letters.
        yield from qualified(f"{path}[{key}]", key if labels else key.lower())
        if not isinstance(value, str):
            yield f"{path}[{key}]", f"{value!r} is not a string: put it in quotes"
        elif labels and not _LABEL_VALUE.fullmatch(value):
            yield f"{path}[{key}]", f"{value!r} is no label's value: 63 letters, digits, -, _ and . at most"
        size += len(key) + len(str(value))
    if not labels and size > MAX_ANNOTATIONS:
        yield path, f"are {size} bytes together, more than {MAX_ANNOTATIONS}"
