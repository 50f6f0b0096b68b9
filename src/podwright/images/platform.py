"""Which of several platforms' images is taken: pure rules over os/architecture/variant (Go's names).

What runs on a variant runs on the later ones of its architecture; the best that runs is taken, and among
equals the first. The rules are those of the image specification's index and of what the field made of them:
a missing variant is the oldest that there is, except that 64-bit ARM is always v8 and 32-bit ARM is v7.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from podwright.errors import InvalidArgument

_NAMES = {
    "x86_64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "armv5tel": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
    "mips64": "mips64le",
}
ARCHITECTURE = _NAMES.get(os.uname().machine, os.uname().machine)
"""This host's."""

_ASSUMED = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_RANKED = {
    "arm": ("v5", "v6", "v7", "v8"),
    "arm64": ("v8", "v8.1", "v8.2", "v8.3", "v8.4", "v8.5", "v8.6", "v9"),
    "amd64": ("v1", "v2", "v3", "v4"),
}
_FLAGS = (
    # x86-64 psABI, section 3.1.1: what each level needs beyond the one below, as /proc/cpuinfo calls it.
    ("v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def parse_platform(text: str, field: str = "images.platform") -> Platform:
    """The platform "os/arch[/variant]"; InvalidArgument, naming `field`, for what is none."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"[a-z0-9_.-]+", part) for part in parts):
        raise InvalidArgument(field, f"{text!r} is not os/arch or os/arch/variant, such as linux/arm64")
    return Platform(*parts)


def wanted_platform(configured: str) -> Platform:
    """What is taken of images made for several: images.platform, "" for this host's."""
    return parse_platform(configured) if configured else host_platform()


def host_platform(machine: str | None = None, cpuinfo: str | None = None) -> Platform:
    """What this host runs best; `machine` (uname -m) and `cpuinfo` (/proc/cpuinfo) may stand in for it."""
    machine = machine or os.uname().machine
    architecture = _NAMES.get(machine, machine)
    variant = ""
    if architecture == "amd64":
        if cpuinfo is None:
            with open("/proc/cpuinfo") as file:
                cpuinfo = file.read(1 << 16)
        found = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
        flags, variant = set(found[1].split()) if found else set(), "v1"
        for level, needed in _FLAGS:
            if not needed <= flags:
                break
            variant = level
    elif architecture == "arm64":
        variant = "v8"
    elif architecture == "arm" and (found := re.match(r"armv(\d)", machine)):
        variant = f"v{found[1]}"
    return Platform("linux", architecture, variant)


def best(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """Which of the `offered` platforms is taken for `wanted`; None when none of them runs there.

    None among the offered is one that says nothing: it is taken when it is alone, for then it is no choice.
    """
    if len(offered) == 1 and offered[0] is None:
        return 0
    ranks = [(rank, place) for place, each in enumerate(offered) if (rank := _rank(wanted, each)) is not None]
    return min(ranks)[1] if ranks else None


def _rank(wanted: Platform, offered: Platform | None) -> int | None:
    """How far behind `wanted` the offered platform is; None when it does not run there."""
    if offered is None or offered.os != wanted.os:
        return None
    have, need = _normal(offered), _normal(wanted)
    if have.architecture != need.architecture:
        # 64-bit ARM and x86 also run the older programs, far behind their own.
        older = {"arm64": ("arm", "v8"), "amd64": ("386", "")}.get(need.architecture)
        if older is None or have.architecture != older[0]:
            return None
        behind = _rank(Platform(wanted.os, *older), offered)
        return None if behind is None else behind + 100
    if have.variant == need.variant:
        return 0
    order = _RANKED.get(need.architecture, ())
    if have.variant not in order or need.variant not in order:
        return None
    behind = order.index(need.variant) - order.index(have.variant)
    return behind if behind >= 0 else None


def _normal(platform: Platform) -> Platform:
    architecture = {
        "x86_64": "amd64",
        "x86-64": "amd64",
        "aarch64": "arm64",
        "armhf": "arm",
        "i386": "386",
    }.get(platform.architecture.lower(), platform.architecture.lower())
    variant = platform.variant.lower()
    if variant[:1].isdigit():
        variant = f"v{variant}"
    return Platform(platform.os.lower(), architecture, variant or _ASSUMED.get(architecture, ""))
