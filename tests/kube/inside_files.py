"""The files of a running container seen from inside, beside what was asked of the runtime for it and what a
kubelet's volumes had. Every check yields what is wrong.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from podwright.linux import mounts
from podwright.linux.mounts import Mount
from podwright.wire import cri_pb2 as cri
from tests.kube.inside import Inside

NULL = os.makedev(1, 3)
DATA = "d/hello.txt"
"""The file of the image that is mounted as a volume."""


def root_of(one: Inside, path: str) -> Path:
    """Where it is seen from outside; not to be resolved, which would lose the way in."""
    return one.proc("root") / path.lstrip("/")


def mounted(one: Inside) -> Iterator[str]:
    table = mounts.read_table(one.pid)
    for asked in one.asked.mounts:
        path = os.path.normpath(asked.container_path)
        found = [row for row in table if row.target == path]
        if not found:
            yield f"nothing is mounted at {path}"
            continue
        row, below = found[-1], [each for each in table if each.target.startswith(path + "/")]
        read_only = asked.readonly or asked.recursive_read_only or asked.HasField("image")
        if row.readonly != read_only:
            yield f"{path} is {'read-only' if row.readonly else 'writable'}"
        yield from _beneath(asked, path, below)
        yield from _propagation(asked, row)
        if asked.host_path and not _same(Path(asked.host_path), root_of(one, path)):
            yield f"{path} is not {asked.host_path}"
        if asked.HasField("image"):
            text = (root_of(one, path) / os.path.relpath(DATA, asked.image_sub_path or ".")).read_text()
            if text != "image-volume\n":
                yield f"{path} has {text!r}"


def _beneath(asked: cri.Mount, path: str, below: list[Mount]) -> Iterator[str]:
    """Mounts that came with it."""
    for each in below:
        if asked.recursive_read_only and not each.readonly:
            yield f"{each.target} below {path} is writable"
        if asked.readonly and not asked.recursive_read_only and each.readonly:
            yield f"{each.target} below {path} is read-only, too"


def _propagation(asked: cri.Mount, row: Mount) -> Iterator[str]:
    """A group that the host is not in may be shared: crun makes all mounts of a container shared where one
    is, and nothing goes in or out by that."""
    groups = {each.shared for each in mounts.read_table("self")} - {None}
    found = (row.shared in groups, row.master in groups)
    wanted = {
        cri.PROPAGATION_PRIVATE: (False, False),
        cri.PROPAGATION_HOST_TO_CONTAINER: (False, True),
        cri.PROPAGATION_BIDIRECTIONAL: (True, False),
    }[asked.propagation]
    if found != wanted:
        yield f"{row.target}: goes out, comes in: {found}, not {wanted}"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def hidden(one: Inside) -> Iterator[str]:
    """Paths of /proc and /sys that are masked or read-only, and the root directory."""
    table = {row.target: row for row in mounts.read_table(one.pid)}
    security = one.security
    for path in () if security.privileged else security.masked_paths:
        try:
            found = root_of(one, path).lstat()
        except OSError:
            continue  # this kernel has no such file
        empty = stat.S_ISDIR(found.st_mode) and not any(root_of(one, path).iterdir())
        null = stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL
        if path not in table or not (null or (empty and table[path].readonly)):
            yield f"{path} is not masked"
    for path in () if security.privileged else security.readonly_paths:
        if os.path.lexists(root_of(one, path)) and not (path in table and table[path].readonly):
            yield f"{path} is not read-only"
    if security.privileged or not (security.masked_paths or security.readonly_paths):
        tops = [path for path in table if path.startswith(("/proc/", "/sys/firmware"))]
        if tops:
            yield f"{tops} are mounted over"
    if table["/"].readonly != security.readonly_rootfs:
        yield f"its root is {'read-only' if table['/'].readonly else 'writable'}"


def devices(one: Inside) -> Iterator[str]:
    """A privileged container has the host's devices, others have none of them."""
    names = [entry.name for entry in Path("/dev").iterdir() if _is_device(entry)]
    usual = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
    there = {name for name in names if _is_device(root_of(one, f"/dev/{name}"))}
    if one.security.privileged:
        # Some go away while we look.
        missing = {name for name in set(names) - there - usual if Path("/dev", name).exists()}
        if missing:
            yield f"it lacks the host's devices {sorted(missing)}"
    elif there - usual - {Path(each.container_path).name for each in one.asked.mounts}:
        yield f"it has the host's devices {sorted(there - usual)}"


def _is_device(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def volumes(one: Inside, recorded: Mapping[str, Any], words: Callable[[str], str]) -> Iterator[str]:
    """What is in the volumes that it sees whole, beside what was in those of a kubelet."""
    table = {row.target: row for row in mounts.read_table(one.pid)}
    for asked in one.asked.mounts:
        match = re.search(r"/volumes/(kubernetes\.io~[^/]+/[^/]+)$", words(asked.host_path))
        if match is None:
            continue
        wanted = recorded[match[1]]
        found = described(one, asked.container_path, table[os.path.normpath(asked.container_path)], words)
        for key in {*wanted, "files"}:
            if found.get(key) != wanted.get(key, {}):
                yield f"{key} of {match[1]} is {found.get(key)}, not {wanted.get(key)}"


def described(one: Inside, path: str, row: Mount, words: Callable[[str], str]) -> dict[str, Any]:
    """As the recordings describe a volume."""
    top = root_of(one, path)
    options = sorted(row.super_options - {"rw", "ro", "relatime"}, key=_order)
    found: dict[str, Any] = {
        **_owned(one, top),
        "mount": f"{row.fstype} {','.join(['rw', *options])}",
        "files": {},
    }
    for folder, _, names in os.walk(top / "..data"):
        for name in names:
            place = Path(folder, name).relative_to(top / "..data")
            text = words(_text((top / place).read_bytes()))
            found["files"][str(place)] = {**_owned(one, top / place), "text": text}
    return found


def _owned(one: Inside, path: Path) -> dict[str, Any]:
    found = path.stat()
    return {
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "uid": found.st_uid - one.ids,
        "gid": found.st_gid - one.ids,
    }


def _order(option: str) -> int:
    known = ["size", "noswap", "pagesize"]
    return known.index(name) if (name := option.partition("=")[0]) in known else len(known)


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    return "base64:" + base64.b64encode(data).decode() if "\0" in text else text


CHECKS = (mounted, hidden, devices)
