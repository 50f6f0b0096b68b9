"""Opening paths in directories that somebody else may be changing: openat2(2), Linux 5.6.

The kernel itself keeps the resolution inside, so no link that is put in the way meanwhile leads out of it.
"""

from __future__ import annotations

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open `path`, relative to `directory` and without one symbolic link or ".." that leads above it.

    ELOOP for a link, EXDEV for a path that leads out.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    return _openat2(directory, path, flags, resolve)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` as a process would whose root directory is `root`: links are followed inside it."""
    return _openat2(root, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, resolve)
    while True:
        fd = int(
            _libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(os.fsencode(path)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether it was ours.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
