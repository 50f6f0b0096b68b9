"""Resource limits of processes (ulimits), as the node's configuration and annotations write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument

NAMES = frozenset(
    """
    RLIMIT_AS RLIMIT_CORE RLIMIT_CPU RLIMIT_DATA RLIMIT_FSIZE RLIMIT_LOCKS RLIMIT_MEMLOCK RLIMIT_MSGQUEUE
    RLIMIT_NICE RLIMIT_NOFILE RLIMIT_NPROC RLIMIT_RSS RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING
    RLIMIT_STACK
    """.split()  # noqa: SIM905
)
"""getrlimit(2)."""
UNLIMITED = 2**64 - 1


class Rlimit(NamedTuple):
    type: str
    """ "RLIMIT_NOFILE"."""
    soft: int
    hard: int


class _Entry(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    type: str
    soft: int = 0
    hard: int = 0


def parse_settings(settings: Iterable[str], field: str) -> tuple[Rlimit, ...]:
    """ "NAME=SOFT[:HARD]" each, as in `docker run --ulimit`: "nofile=1024:4096"; -1 is unlimited.

    Raises InvalidArgument (on `field`) for anything else.
    """
    found: dict[str, Rlimit] = {}
    for setting in settings:
        name, _, values = setting.partition("=")
        soft, colon, hard = values.partition(":")
        try:
            limit = _checked(name, int(soft), int(hard if colon else soft), field)
        except ValueError as error:
            raise InvalidArgument(
                field, f"{setting!r} is not NAME=SOFT:HARD, such as nofile=1024:4096"
            ) from error
        found[limit.type] = limit
    return tuple(found.values())


def parse_annotation(text: str, field: str) -> tuple[Rlimit, ...]:
    """A YAML list of {type, soft, hard}, the format of NRI's ulimit adjuster. Errors as above."""
    import yaml  # few pods have such an annotation, and each server would keep it in memory

    try:
        entries = structs.convert(yaml.safe_load(text), list[_Entry])
    except (msgspec.MsgspecError, yaml.YAMLError, RecursionError) as error:
        raise InvalidArgument(field, f"is no list of {{type, soft, hard}}: {error}") from error
    found = {limit.type: limit for limit in (_checked(e.type, e.soft, e.hard, field) for e in entries)}
    return tuple(found.values())


def _checked(name: str, soft: int, hard: int, field: str) -> Rlimit:
    upper = name.strip().upper()
    full = upper if upper.startswith("RLIMIT_") else f"RLIMIT_{upper}"
    if full not in NAMES:
        raise InvalidArgument(field, f"{name!r} is no resource limit, such as nofile or nproc")
    soft, hard = (UNLIMITED if value == -1 else value for value in (soft, hard))
    if not 0 <= soft <= UNLIMITED or not 0 <= hard <= UNLIMITED:
        raise InvalidArgument(field, f"{full}: {soft} and {hard} must be in 0..2^64-1, or -1 for unlimited")
    if soft > hard:
        raise InvalidArgument(field, f"{full}: the soft limit {soft} is above the hard limit {hard}")
    return Rlimit(full, soft, hard)
