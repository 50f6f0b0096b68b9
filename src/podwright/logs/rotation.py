"""The files of one log: the current one, and those that were renamed away, `NAME.YYYYMMDD-HHMMSS`.

The kubelet names its own so; ours have milliseconds added, so that neither is in the other's way. Old ones
may be compressed (`.gz`). Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

_STAMP = r"\.(\d{8}-\d{6}(?:\.\d{3})?)(\.gz)?"


class Rotated(NamedTuple):
    stamp: str
    path: str
    compressed: bool


def rotated(path: str) -> list[Rotated]:
    """The earlier files of the log `path`, by name, which is by age unless the kubelet and we rotated it in
    one second. One of which there are both kinds is listed as it was."""
    directory, name = os.path.split(path)
    pattern = re.compile(re.escape(name) + _STAMP)
    found: dict[str, Rotated] = {}
    try:
        entries = os.listdir(directory or ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    for entry in sorted(entries):
        if match := pattern.fullmatch(entry):
            stamp, compressed = match[1], match[2] is not None
            found.setdefault(stamp, Rotated(stamp, os.path.join(directory, entry), compressed))
    return sorted(found.values())


def rotate(path: str, now: int) -> str:
    """Rename the log `path` away, `now` being nanoseconds since the epoch; its new name. OSError."""
    taken = {each.stamp for each in rotated(path)}
    milliseconds = now // 1_000_000
    while (stamp := _stamp(milliseconds)) in taken:
        milliseconds += 1
    os.rename(path, f"{path}.{stamp}")
    return f"{path}.{stamp}"


def prune(path: str, keep: int) -> None:
    """Remove the oldest files of the log but for `keep` that were rotated."""
    old = rotated(path)
    for each in old[: max(0, len(old) - keep)]:
        _unlink(each.path)


def to_compress(path: str, written: int = -1) -> list[str]:
    """Rotated files of the log that are not compressed, without the latest: it may still be read. Nor is the
    one that is open as `written`: the kubelet renames first and tells the writer then."""
    plain = [each.path for each in rotated(path)[:-1] if not each.compressed]
    return [each for each in plain if written < 0 or not is_open_as(each, written)]


def is_open_as(path: str, fd: int) -> bool:
    """Whether that file is at `path`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def compress(file: str) -> None:
    """Replace `file` by `file.gz`. Fine when somebody else does the same, or removes it. OSError."""
    import gzip
    import shutil

    directory, name = os.path.split(file)
    # Its beginning keeps it apart from what the kubelet takes for its own unfinished work.
    draft = os.path.join(directory, f".{name}.gz.podwright")
    try:
        with open(file, "rb") as plain, open(draft, "wb") as made:
            status = os.fstat(plain.fileno())
            os.fchmod(made.fileno(), status.st_mode & 0o777)
            os.fchown(made.fileno(), status.st_uid, status.st_gid)
            with gzip.GzipFile(name, "wb", 6, made, mtime=status.st_mtime) as packed:
                shutil.copyfileobj(plain, packed, 1 << 18)
        os.rename(draft, f"{file}.gz")
        _unlink(file)
    except FileNotFoundError:
        pass
    finally:
        _unlink(draft)


def _stamp(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(seconds))}.{rest:03d}"


def _unlink(file: str) -> None:
    try:
        os.unlink(file)
    except FileNotFoundError:
        pass
