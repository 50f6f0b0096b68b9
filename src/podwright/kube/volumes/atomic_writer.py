"""Files that change together: a volume's directory shows one version of all its files, never parts of two.

The files lie in a directory with a time for a name; "..data" is a link to it, and what a container sees are
links through "..data". One rename of that link changes all of them. The names are the kubelet's: programs
watch for "..data".
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from podwright.linux import trees

DATA, NEW_DATA = "..data", "..data_tmp"
MAX_NAME, MAX_PATH = 255, 4096
"""Bytes."""
DIRECTORY_MODE = 0o755


@dataclass(frozen=True, slots=True)
class File:
    data: bytes = field(repr=False)
    mode: int = 0o644
    owner: int | None = None
    """A uid; None: whoever writes it, as it is when that is not root."""


def write(volume: Path, files: Mapping[str, File], finish: Callable[[], None] = lambda: None) -> bool:
    """Make `files` (by their path in the volume) the whole content of the directory `volume`; returns whether
    anything had to be changed.

    `finish` is called when the new files are there and nobody sees them yet (for owners and modes). A writer
    that is killed at any point leaves the old or the new version, and the next call clears up after it.
    Raises ValueError for a path that cannot be one, OSError. One writer at a time. Blocks.
    """
    wanted = {check_path(path): file for path, file in files.items()}
    current = _current(volume)
    _clear_away(volume, current)
    if current is not None and _same(volume / current, wanted):
        _forget(volume, wanted)
        return False
    fresh = _new_directory(volume)
    for path, file in wanted.items():
        _write_file(fresh / path, file)
    for name in _visible(wanted):
        try:
            (volume / name).symlink_to(f"{DATA}/{name}")
        except FileExistsError:
            pass
    finish()
    (volume / NEW_DATA).symlink_to(fresh.name)
    (volume / NEW_DATA).rename(volume / DATA)
    _forget(volume, wanted)
    if current is not None:
        trees.remove(volume / current)
    return True


def check_path(path: str) -> str:
    """`path` without "." and doubled slashes; ValueError in the kubelet's words where it may not be a path of
    a file in a volume."""
    if not path:
        raise ValueError('invalid path: must not be empty: ""')
    if path.startswith("/"):
        raise ValueError(f"invalid path: must be relative path: {path}")
    if len(os.fsencode(path)) > MAX_PATH:
        raise ValueError(f"invalid path: must be less than or equal to {MAX_PATH} characters")
    parts = path.split("/")
    if ".." in parts:
        raise ValueError(f"invalid path: must not contain '..': {path}")
    if any(len(os.fsencode(part)) > MAX_NAME for part in parts):
        raise ValueError(f"invalid path: filenames must be less than or equal to {MAX_NAME} characters")
    if parts[0].startswith(".."):
        raise ValueError(f"invalid path: must not start with '..': {path}")
    return str(PurePosixPath(path))


def _current(volume: Path) -> str | None:
    """The name of the directory that is shown; None before the first version."""
    try:
        name = os.readlink(volume / DATA)  # noqa: PTH115 - as text
    except FileNotFoundError:
        return None
    return name if "/" not in name and (volume / name).is_dir() else None


def _clear_away(volume: Path, current: str | None) -> None:
    """What a writer that did not come to its end has left, and versions that nobody sees any more."""
    for entry in list(volume.iterdir()):
        if entry.name == NEW_DATA:
            entry.unlink()
        elif entry.name.startswith("..") and entry.name not in (DATA, current) and not entry.is_symlink():
            trees.remove(entry)


def _same(directory: Path, wanted: Mapping[str, File]) -> bool:
    found = {
        str(path.relative_to(directory)): path for path in directory.rglob("*") if not path.is_dir()
    }  # fmt: skip
    return found.keys() == wanted.keys() and all(
        path.read_bytes() == wanted[name].data for name, path in found.items()
    )


def _new_directory(volume: Path) -> Path:
    moment = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    while True:
        path = volume / f"{moment}{secrets.randbelow(10**10)}"
        try:
            path.mkdir(mode=DIRECTORY_MODE)
        except FileExistsError:
            continue
        path.chmod(DIRECTORY_MODE)
        return path


def _write_file(path: Path, file: File) -> None:
    # Whatever the umask is: a group or a stranger must be able to come to the file.
    missing = [one for one in path.parents if not one.exists()]
    for directory in reversed(missing):
        directory.mkdir()
        directory.chmod(DIRECTORY_MODE)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as stream:
        stream.write(file.data)
        if file.owner is not None and os.geteuid() == 0:
            os.fchown(fd, file.owner, -1)
        os.fchmod(fd, file.mode)


def _visible(wanted: Mapping[str, File]) -> set[str]:
    return {path.partition("/")[0] for path in wanted}


def _forget(volume: Path, wanted: Mapping[str, File]) -> None:
    """Take away the links to files that are no more. Only such links: anything else in the directory is not
    ours."""
    visible = _visible(wanted)
    for entry in list(volume.iterdir()):
        if entry.name.startswith("..") or entry.name in visible:
            continue
        if stat.S_ISLNK(entry.lstat().st_mode) and os.readlink(entry) == f"{DATA}/{entry.name}":  # noqa: PTH115
            entry.unlink()
