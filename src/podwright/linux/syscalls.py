"""System calls that Python's standard library does not offer: one thin wrapper each, no policy.

Each raises an OSError that carries errno, the call with what it was asked, and the path it was about.
The calls release the interpreter lock while the kernel works.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# mount(2)
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000

# umount2(2)
MNT_FORCE = 0x1
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# unshare(2), setns(2)
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# open_tree(2), move_mount(2), mount_setattr(2); the numbers are the same on every architecture.
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x100000
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 0x1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4

# fallocate(2)
_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2

_PathLike = str | os.PathLike[str]


def mount(
    source: _PathLike | None, target: _PathLike, fstype: str | None = None, flags: int = 0, data: str = ""
) -> None:
    """mount(2). The kernel takes at most a page of `data` (4095 bytes)."""
    result = _libc.mount(
        os.fsencode(source) if source is not None else None,
        os.fsencode(target),
        fstype.encode() if fstype is not None else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    if result != 0:
        what = f"mount {fstype or 'bind'}" if not flags & MS_REMOUNT else "remount"
        raise _error(f"{what} of {source} (flags {flags:#x}{', ' + data if data else ''})", target)


def umount2(target: _PathLike, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _error("umount", target)


def mount_setattr(target: _PathLike, flags: int, *, set: int = 0, clear: int = 0) -> None:
    """mount_setattr(2), Linux 5.12: change attributes of a mount, with AT_RECURSIVE of all below it."""
    _mount_setattr(_AT_FDCWD, target, flags, set, clear, 0)


def map_ids(tree: int, user_namespace: int) -> None:
    """mount_setattr(2) with MOUNT_ATTR_IDMAP, on what `open_tree` gave: id 0 on the disk is seen as the
    namespace's id 0, and so on. EINVAL from a file system that cannot be mapped."""
    _mount_setattr(tree, "", _AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, 0, user_namespace)


def open_tree(path: _PathLike, flags: int = 0) -> int:
    """open_tree(2), Linux 5.2: a copy of the mount that `path` lies on, from there down, attached nowhere; of
    those below it too with AT_RECURSIVE. It goes with its descriptor."""
    fd = int(
        _libc.syscall(
            ctypes.c_long(_SYS_OPEN_TREE),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC | flags),
        )
    )
    if fd < 0:
        raise _error("open_tree", path)
    return fd


def move_mount(tree: int, target: _PathLike) -> None:
    """move_mount(2), Linux 5.2: attach what `open_tree` gave at `target`."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    if result != 0:
        raise _error("move_mount", target)


def unshare(flags: int) -> None:
    """unshare(2): for the calling thread only. Never call it on a thread that others will use."""
    if _libc.unshare(flags) != 0:
        raise _error(f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """setns(2): moves the calling thread only. Never call it on a thread that others will use."""
    if _libc.setns(fd, kind) != 0:
        raise _error(f"setns {kind:#x}", f"/proc/self/fd/{fd}")


def sethostname(name: str) -> None:
    """sethostname(2) in the calling thread's UTS namespace; at most 64 bytes."""
    raw = name.encode()
    if _libc.sethostname(raw, ctypes.c_size_t(len(raw))) != 0:
        raise _error(f"sethostname {name!r}")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """fallocate(2), FALLOC_FL_PUNCH_HOLE: the blocks are freed, the size stays, zeros are read there."""
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        raise _error(f"fallocate: punch {length} bytes at {offset}")


def inotify_init1(flags: int) -> int:
    """inotify_init1(2)."""
    fd = int(_libc.inotify_init1(flags))
    if fd < 0:
        raise _error("inotify_init1 (fs.inotify.max_user_instances may be too low)")
    return fd


def inotify_add_watch(fd: int, path: _PathLike, mask: int) -> int:
    """inotify_add_watch(2)."""
    watch = int(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)))
    if watch < 0:
        raise _error("inotify_add_watch", path)
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """inotify_rm_watch(2)."""
    if _libc.inotify_rm_watch(fd, watch) != 0:
        raise _error(f"inotify_rm_watch {watch}")


def _mount_setattr(fd: int, path: _PathLike, flags: int, set: int, clear: int, namespace: int) -> None:
    attributes = (ctypes.c_uint64 * 4)(set, clear, 0, namespace)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(flags),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result != 0:
        raise _error(f"mount_setattr (flags {flags:#x}, set {set:#x}, clear {clear:#x})", path)


def _error(what: str, path: _PathLike | None = None) -> OSError:
    number = ctypes.get_errno()
    text = f"{what}: {os.strerror(number)}"
    return OSError(number, text) if path is None else OSError(number, text, str(Path(path)))
