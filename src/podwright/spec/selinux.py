"""SELinux contexts: their parts, the levels that keep pods apart, and what a host gives its containers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import NamedTuple

from podwright.errors import InvalidArgument, ResourceExhausted
from podwright.spec.linux.paths import clean
from podwright.wire import cri_pb2 as cri

CATEGORIES = 1024
"""c0 to c1023: what the targeted policy defines."""

_LEVEL = re.compile(r"s\d{1,2}(-s\d{1,2})?(:c\d{1,4}(\.c\d{1,4})?(,c\d{1,4}(\.c\d{1,4})?)*)?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_SETTING = re.compile(r'^\s*(\w+)\s*=\s*"?([^"\s#]+)"?', re.MULTILINE)

# A relabelled system directory locks out the host's own services.
_SYSTEM = frozenset(
    """
    / /bin /boot /dev /etc /home /lib /lib32 /lib64 /libx32 /media /mnt /opt /proc /root /run /sbin /srv /sys
    /tmp /usr /usr/bin /usr/lib /usr/lib64 /usr/local /usr/sbin /usr/share /var /var/lib /var/log /var/run
    /var/spool /var/tmp /etc/passwd /etc/shadow /etc/group /etc/pki /etc/ssl /etc/selinux /etc/systemd
    """.split()  # noqa: SIM905
)


class Context(NamedTuple):
    """ "USER:ROLE:TYPE:LEVEL"; a level may have colons of its own."""

    user: str
    role: str
    type: str
    level: str

    @classmethod
    def parse(cls, text: str, field: str) -> Context:
        parts = text.split(":", 3)
        if len(parts) < 3 or not all(parts):
            raise InvalidArgument(field, f"{text!r} is no SELinux context: it must be USER:ROLE:TYPE:LEVEL")
        return cls(parts[0], parts[1], parts[2], parts[3] if len(parts) == 4 else "s0")

    def __str__(self) -> str:
        return ":".join(self)


class SELinux(NamedTuple):
    """What the host's policy gives to containers (contexts/lxc_contexts of the policy)."""

    process: Context
    file: Context
    kvm_process: Context | None = None
    """For runtimes that run a virtual machine."""


class Labels(NamedTuple):
    process: Context
    mount: Context


def parse_contexts(text: str, path: str) -> SELinux:
    """The policy's lxc_contexts file. InvalidArgument when it lacks a process or file context."""
    found = {name: Context.parse(value, f"{path}: {name}") for name, value in _SETTING.findall(text)}
    if "process" not in found or "file" not in found:
        raise InvalidArgument(path, "needs the contexts `process` and `file`")
    return SELinux(found["process"], found["file"], found.get("sandbox_kvm_process"))


def check(options: cri.SELinuxOption, field: str) -> None:
    """Raises InvalidArgument for what no context can hold."""
    for name in ("user", "role", "type"):
        value = getattr(options, name)
        if value and not _WORD.fullmatch(value):
            raise InvalidArgument(f"{field}.{name}", f"{value!r} is no part of an SELinux context")
    if options.level:
        check_level(options.level, f"{field}.level")


def check_level(level: str, field: str) -> None:
    """Raises InvalidArgument for what is no level: sN[-sN][:CATEGORIES], such as s0:c1,c2 or s0:c0.c5."""
    if not _LEVEL.fullmatch(level):
        raise InvalidArgument(field, f"{level!r} is no SELinux level, such as s0 or s0:c1,c2")
    for first, last in re.findall(r"c(\d+)(?:\.c(\d+))?", level):
        if int(last or first) >= CATEGORIES or int(first) > int(last or first):
            raise InvalidArgument(field, f"{level!r}: categories go from c0 to c{CATEGORIES - 1}, upwards")


def is_set(options: cri.SELinuxOption) -> bool:
    return bool(options.user or options.role or options.type or options.level)


def labels(base: SELinux, options: cri.SELinuxOption, level: str) -> Labels:
    """The contexts of a process and of its files: the host's, with `level`, with what `options` says.

    The type of files is always the host's; their user follows that of the process.
    """
    level = options.level or level
    process = Context(
        options.user or base.process.user,
        options.role or base.process.role,
        options.type or base.process.type,
        level,
    )
    return Labels(process, base.file._replace(user=options.user or base.file.user, level=level))


def allocate(taken: Collection[str], seed: str, categories: int = CATEGORIES) -> str:
    """A level of two categories that is not in `taken`; the same for the same arguments.

    `seed` is the id of the object; `categories` (at least 2) is how many may be used. ResourceExhausted
    when all pairs are taken.
    """
    pairs = categories * (categories - 1) // 2
    place = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % pairs
    for step in range(pairs):
        low, high = _pair((place + step) % pairs)
        if (level := f"s0:c{low},c{high}") not in taken:
            return level
    raise ResourceExhausted(f"all {pairs} SELinux levels of {categories} categories are taken")


def _pair(number: int) -> tuple[int, int]:
    """The pair low < high at a place in the order 0,1  0,2 1,2  0,3 …"""
    high = int((1 + (1 + 8 * number) ** 0.5) / 2)
    while high * (high - 1) // 2 > number:
        high -= 1
    while high * (high + 1) // 2 <= number:
        high += 1
    return number - high * (high - 1) // 2, high


def is_system(path: str) -> bool:
    """Whether `path` belongs to the host itself, so that no container may have it relabelled."""
    return clean(path) in _SYSTEM
