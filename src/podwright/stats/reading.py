"""One look at one control group: the figures, the same for cgroup v1 and v2, and how their files are read.

A figure that this kernel or this layout does not have is None, never 0.
"""

from __future__ import annotations

import os
from typing import NamedTuple

UNLIMITED = 1 << 62
"""From here on a limit of cgroup v1 is none: it shows the largest number of whole pages."""
_ROOM = 1 << 16
"""Bytes read of a file at most, in one call: these files are made anew by each read from the start."""


class Memory(NamedTuple):
    usage: int
    """Bytes, page cache included."""
    working_set: int
    """Bytes that cannot be given up at once: usage without inactive files, at least 0."""
    rss: int
    page_faults: int
    major_page_faults: int
    limit: int | None


class Swap(NamedTuple):
    usage: int
    limit: int | None


class Pressure(NamedTuple):
    """One line of a pressure file (the kernel's accounting/psi.rst)."""

    total: int
    """Nanoseconds; the kernel counts microseconds."""
    avg10: float
    avg60: float
    avg300: float


class Stall(NamedTuple):
    some: Pressure
    full: Pressure


class Reading(NamedTuple):
    at: int
    """Nanoseconds since the epoch."""
    cpu: int | None
    """CPU time used, nanoseconds."""
    memory: Memory | None
    swap: Swap | None
    cpu_stall: Stall | None = None
    memory_stall: Stall | None = None
    io_stall: Stall | None = None


class Device(NamedTuple):
    """What a block device has done for a cgroup, by operation as cgroup v1 names it: "Read", "Write", …"""

    major: int
    minor: int
    bytes: dict[str, int]
    operations: dict[str, int]


class HugePages(NamedTuple):
    size: str
    """"2MB"."""
    usage: int
    max_usage: int | None


class Detail(NamedTuple):
    """What only metrics ask for. Times in nanoseconds, sizes in bytes."""

    user: int | None
    system: int | None
    periods: int | None
    throttled_periods: int | None
    throttled: int | None
    cache: int | None
    kernel: int | None
    mapped_file: int | None
    active_file: int | None
    inactive_file: int | None
    max_usage: int | None
    limit_hits: int | None
    """How often the limit was met, whether memory could be freed or not."""
    faults: tuple[int, int] | None
    """Page faults, and those that read, without cgroups below."""
    oom_kills: int | None
    pids: int | None
    """Tasks, that is threads."""
    pids_limit: int | None
    """None: there is none."""
    devices: tuple[Device, ...]
    huge_pages: tuple[HugePages, ...]


def content(path: str) -> bytes | None:
    """What the file has; None when it is not there, or its cgroup is just being removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _ROOM)
    except OSError:
        return None
    finally:
        os.close(fd)


def number(path: str) -> int | None:
    """The one number of a file; None when it is not there or says "max"."""
    text = content(path)
    if not text or not text.strip().lstrip(b"-").isdigit():
        return None
    return int(text)


def table(text: bytes | None) -> dict[bytes, bytes]:
    """The values of a flat keyed file."""
    words = text.split() if text else []
    return dict(zip(words[::2], words[1::2], strict=False))


def stall(path: str) -> Stall | None:
    """A pressure file; None where the kernel keeps none, or was told not to."""
    text = content(path)
    if not text:
        return None
    none = Pressure(0, 0.0, 0.0, 0.0)
    lines = {line[:4]: _pressure(line) for line in text.splitlines()}
    # Before Linux 5.13 nothing is wholly stalled for want of a CPU, and the file has one line.
    return Stall(lines.get(b"some", none), lines.get(b"full", none))


def _pressure(line: bytes) -> Pressure:
    values = dict(word.split(b"=", 1) for word in line.split()[1:])
    return Pressure(
        int(values[b"total"]) * 1000,
        float(values[b"avg10"]),
        float(values[b"avg60"]),
        float(values[b"avg300"]),
    )
