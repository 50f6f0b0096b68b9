"""Takes away what the layer that is being made has. Who calls is told of each file that went, to count it.

Directories are gone through without recursion and with one of them open at a time: a layer may nest deeper
than either allows. Nobody else moves directories there, so ".." is where a directory was entered from.

Standard library only: part of the program that unpacks layers.
"""

from __future__ import annotations

import os

from podwright.images.unpacking.below import OPEN_DIRECTORY, is_opaque, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Gone = Callable[[os.stat_result], None]


def unlink(directory: int, name: bytes, gone: Gone) -> None:
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    os.unlink(name, dir_fd=directory)
    gone(status)


def remove_directory(parent: int, name: bytes, gone: Gone) -> None:
    """Remove the directory `name` in `parent` with all that is in it."""
    names, todo = [name], []
    at = os.dup(parent)
    try:
        while names:
            at = _step(at, names[-1])
            todo.append(iter(_empty_of_files(at, gone)))
            while (deeper := next(todo[-1], None)) is None:
                status = os.fstat(at)
                at = _step(at, b"..")
                os.rmdir(names.pop(), dir_fd=at)
                gone(status)
                todo.pop()
                if not names:
                    return
            names.append(deeper)
    finally:
        os.close(at)


def remove_whiteouts(top: int, gone: Gone) -> None:
    """Remove the whiteouts in the open directory `top` and below it: where there is nothing to hide overlayfs
    would show the devices themselves."""
    at = os.dup(top)
    try:
        todo = [iter(_empty_of_whiteouts(at, gone))]
        while todo:
            name = next(todo[-1], None)
            if name is not None:
                at = _step(at, name)
                # There are none in one that is opaque.
                todo.append(iter([] if is_opaque(at) else _empty_of_whiteouts(at, gone)))
                continue
            todo.pop()
            if todo:
                at = _step(at, b"..")
    finally:
        os.close(at)


def _step(at: int, name: bytes) -> int:
    """Open `name` in the open directory `at`, which is closed."""
    fd = os.open(name, OPEN_DIRECTORY, dir_fd=at)
    os.close(at)
    return fd


def _empty_of_files(directory: int, gone: Gone) -> list[bytes]:
    """Unlink what is no directory in `directory`; the directories."""
    directories = []
    with os.scandir(directory) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                directories.append(os.fsencode(item.name))
            else:
                unlink(directory, os.fsencode(item.name), gone)
    return directories


def _empty_of_whiteouts(directory: int, gone: Gone) -> list[bytes]:
    """Unlink the whiteouts in `directory`, which keeps its time; the directories in it."""
    time, directories, changed = os.fstat(directory).st_mtime_ns, [], False
    with os.scandir(directory) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                directories.append(os.fsencode(item.name))
            elif not item.is_file(follow_symlinks=False) and is_whiteout(item.stat(follow_symlinks=False)):
                unlink(directory, os.fsencode(item.name), gone)
                changed = True
    if changed:
        os.utime(directory, ns=(time, time))
    return directories
