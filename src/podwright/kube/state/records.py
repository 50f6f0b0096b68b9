"""What podwright itself notes of a pod, beside what the runtime has: its manifest, its last status, its
events. Any process may read them. All blocking.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from podwright import structs
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life.events import Event
from podwright.kube.models import Pod, PodStatus

T = TypeVar("T")

EVENTS_SIZE = 1 << 20
"""Bytes of the file of events, about: a pod may live for years."""

MODE = 0o600
"""A manifest may hold secrets of variables."""


def write_manifest(directory: PodDirectory, pod: Pod) -> None:
    """Raises OSError."""
    _replace(directory.manifest, msgspec.json.encode(pod))


def read_manifest(directory: PodDirectory) -> Pod | None:
    """None when there is none that can be read."""
    return _read(directory.manifest, Pod)


def write_status(directory: PodDirectory, status: PodStatus) -> None:
    """Raises OSError."""
    _replace(directory.status, msgspec.json.encode(status))


def read_status(directory: PodDirectory) -> PodStatus | None:
    """None when there is none that can be read."""
    return _read(directory.status, PodStatus)


def append_events(directory: PodDirectory, events: Iterable[Event]) -> None:
    """Raises OSError. A line each; of equal events the last one counts. A file that has grown large is
    written anew, without what does not count and with the newest of the rest."""
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in events)
    if lines:
        fd = os.open(directory.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        with os.fdopen(fd, "ab") as file:
            file.write(lines)
            size = file.tell()
        if size > EVENTS_SIZE:
            _shorten(directory)


def read_events(directory: PodDirectory) -> list[Event]:
    """By their first appearance; a line that was cut off by a crash is left out."""
    known: dict[tuple[str, str, str, str], Event] = {}
    try:
        lines = directory.events.read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        with suppress(msgspec.DecodeError):
            event = structs.decode(line, Event)
            known[event.type, event.reason, event.object, event.message] = event
    return list(known.values())


def _shorten(directory: PodDirectory) -> None:
    kept: list[bytes] = []
    left = EVENTS_SIZE // 2
    for event in sorted(read_events(directory), key=lambda one: one.last, reverse=True):
        line = msgspec.json.encode(event) + b"\n"
        left -= len(line)
        if left < 0:
            break
        kept.append(line)
    _replace(directory.events, b"".join(reversed(kept)))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return structs.decode(path.read_bytes(), kind)
    except (OSError, msgspec.DecodeError):
        return None


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    new.replace(path)
