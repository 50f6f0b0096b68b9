"""Makes a small root directory from this machine's static busybox: the image that needs no registry.

Usage: python tools/busybox_rootfs.py DIR

The result is an ordinary root directory: hard links in /bin for the applets this busybox really has
(Debian's lacks some), users root and nobody plus a few for tests of user rules, and empty mount points.
Nothing in it depends on the time or on the caller's umask, so that the same busybox gives the same image.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/app": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "app:x:1000:1000:app:/home/app:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    "etc/group": "root:x:0:\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:app\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
PT_INTERP = 3
NOT_APPLETS = {"busybox", "linuxrc"}


def make(target: Path, busybox: Path | None = None) -> Path:
    """Make the root directory `target` (it must not exist, or be empty) and return it.

    Raises FileNotFoundError when the machine has no busybox, ValueError when it is not a static one.
    """
    program = busybox or find_busybox()
    if not is_static(program):
        raise ValueError(f"{program} is not static: install busybox-static")
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o755)
    for name, mode in DIRECTORIES.items():
        (target / name).mkdir()
        (target / name).chmod(mode)
    for name, text in FILES.items():
        (target / name).write_text(text)
        (target / name).chmod(0o644)
    inside = target / "bin/busybox"
    shutil.copyfile(program, inside)
    inside.chmod(0o755)
    for applet in applets(program):
        (target / "bin" / applet).hardlink_to(inside)
    (target / "usr/bin/env").symlink_to("/bin/env")
    for path in sorted(target.rglob("*"), reverse=True):
        os.utime(path, (0, 0), follow_symlinks=False)
    os.utime(target, (0, 0))
    return target


def find_busybox() -> Path:
    for candidate in (os.environ.get("BUSYBOX"), "/bin/busybox", shutil.which("busybox")):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise FileNotFoundError("no busybox on this machine: install busybox-static (or set BUSYBOX)")


def is_static(program: Path) -> bool:
    """Whether a 64-bit little-endian ELF program asks for no interpreter (elf(5): no PT_INTERP header)."""
    elf = program.read_bytes()
    if elf[:6] != b"\x7fELF\x02\x01":
        return False
    (start,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    kinds = (struct.unpack_from("<I", elf, start + index * size)[0] for index in range(count))
    return PT_INTERP not in kinds


def applets(program: Path) -> list[str]:
    """The names this busybox answers to, "[" and the like included."""
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split() if "/" not in name and name not in NOT_APPLETS]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: busybox_rootfs.py DIR", file=sys.stderr)
        return 2
    try:
        make(Path(sys.argv[1]))
    except (OSError, ValueError) as error:
        print(f"busybox_rootfs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
