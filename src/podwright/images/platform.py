"""What this host is called in images (Go's names for machines)."""

from __future__ import annotations

import os

_NAMES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}

ARCHITECTURE = _NAMES.get(os.uname().machine, os.uname().machine)
