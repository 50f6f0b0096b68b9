"""The registries.conf(5) of a pull: where it is, and which of its entries speaks of an image.

skopeo reads and obeys it. It is read here for one purpose: to put something between skopeo and a registry
(`gate.py`) without losing what the administrator said of that registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podwright.errors import FailedPrecondition

HOSTS = Path("/etc/containers/registries.conf")


@dataclass(frozen=True, slots=True)
class Registry:
    """An entry [[registry]]."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mapping[str, Any], ...] = ()


def files(configured: str) -> list[Path]:
    """The file `configured`, or the host's, and its drop-ins in the order in which they count; those that are
    there. FailedPrecondition when a configured one is not."""
    main = Path(configured) if configured else HOSTS
    if configured and not main.is_file():
        raise FailedPrecondition(f"images.registries_conf: there is no file {main}")
    drop_ins = sorted(Path(f"{main}.d").glob("*.conf"))
    return [file for file in (main, *drop_ins) if file.is_file()]


def entry_for(name: str, sources: Sequence[Path]) -> Registry:
    """What `sources` say of the repository `name`; what holds for one that they do not mention, otherwise.

    Of entries with the same prefix the last file's counts, of prefixes that fit the longest. Raises
    FailedPrecondition for a file that cannot be read.
    """
    entries: dict[str, Registry] = {}
    for source in sources:
        try:
            tree = msgspec.toml.decode(source.read_bytes(), type=dict[str, Any])
            for each in reversed(tree.get("registry") or []):
                entry = _entry(each)
                entries[entry.prefix] = entry
        except (OSError, msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
            raise FailedPrecondition(f"{source}: registries cannot be read: {error}") from error
    fitting = [entry for entry in entries.values() if _fits(entry.prefix, name)]
    if not fitting:
        domain = name.partition("/")[0]
        return Registry(domain, domain)
    return max(fitting, key=lambda entry: len(entry.prefix))


def replaced(entry: Registry, location: str) -> str:
    """A registries.conf with `entry` alone, at the plain HTTP `location` instead of its own."""
    lines = [
        "[[registry]]",
        f"prefix = {json.dumps(entry.prefix)}",
        f"location = {json.dumps(location)}",
        "insecure = true",
        f"blocked = {json.dumps(entry.blocked)}",
    ]
    for mirror in entry.mirrors:
        lines.append("[[registry.mirror]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in mirror.items()]
    return "\n".join(lines) + "\n"


def _entry(tree: Mapping[str, Any]) -> Registry:
    location, prefix = str(tree.get("location") or ""), str(tree.get("prefix") or "")
    return Registry(
        prefix or location,
        location,
        bool(tree.get("insecure")),
        bool(tree.get("blocked")),
        tuple(dict(mirror) for mirror in tree.get("mirror") or ()),
    )


def _fits(prefix: str, name: str) -> bool:
    if prefix.startswith("*."):
        return name.partition("/")[0].partition(":")[0].endswith(prefix[1:])
    return name == prefix or (name.startswith(prefix) and name[len(prefix)] in "/:@")
