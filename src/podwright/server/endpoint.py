"""The Unix socket: how an address is written, and who may listen at it.

gRPC binds the socket itself and unlinks whatever socket it finds there, a live one too. So a lock beside
the socket decides who may listen, held for the server's life.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podwright.errors import FailedPrecondition, InvalidArgument

MODE = 0o660
STARTING = "starting: recovery has not finished"
"""What a server says to every call until it can serve them; it listens before."""
PATH_BYTES = 107
"""sun_path of sockaddr_un without its final NUL (unix(7))."""


def socket_path(address: str) -> Path:
    """The path in `address`: "/run/x.sock", "unix:/run/x.sock" or "unix:///run/x.sock".

    InvalidArgument for another scheme, a relative path or one that does not fit a socket address.
    """
    path = address
    if "://" in address or address.startswith("unix:"):
        scheme, _, path = address.partition(":")
        if scheme != "unix":
            raise InvalidArgument("address", f"{address!r}: podwright speaks over Unix sockets only")
        path = path.removeprefix("//")
    if not path.startswith("/"):
        raise InvalidArgument("address", f"{address!r} is not an absolute path")
    if len(os.fsencode(path)) > PATH_BYTES:
        raise InvalidArgument("address", f"{path} is longer than the {PATH_BYTES} bytes a socket may have")
    return Path(path)


def beside(path: Path) -> Path:
    """The control socket of a fake node, which belongs to a CRI socket: x.sock -> x.control.sock."""
    return path.with_name(f"{path.name.removesuffix('.sock')}.control.sock")


def knock(path: Path) -> OSError | None:
    """Try to connect: None when a server answers at `path`, else what the system says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(os.fspath(path))
        except BlockingIOError:
            return None  # it listens, with a full backlog
        except OSError as error:
            return error
    return None


def silence(error: OSError) -> str:
    """Why nobody answered a `knock`, in words."""
    match error:
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "nobody listens there any more"
        case PermissionError():
            return f"uid {os.geteuid()} may not open it: it takes root or the socket's group"
    return error.strerror or str(error)


@contextmanager
def claimed(path: Path, option: str = "--socket") -> Iterator[None]:
    """Hold the right to listen at `path`; its directory is made, a socket left by a dead server removed.

    FailedPrecondition when a live server listens there, or when something else than a socket lies there.
    The socket is gone afterwards. `option` is where another path could be given.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"another podwright serves at {path}: stop it, or choose another {option}"
            ) from None
        _remove_stale(path, option)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        # The lock file stays: unlinking it would let two servers hold locks on two files of one name.
        os.close(lock)


@contextmanager
def private_umask() -> Iterator[None]:
    """Sockets bound inside get MODE from their first instant: a chmod afterwards would leave a gap."""
    before = os.umask(0o777 & ~MODE)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(path: Path, option: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"{path} exists and is no socket: move it away, or choose another {option}")
    if knock(path) is None:
        raise FailedPrecondition(f"another program listens at {path}: stop it, or choose another {option}")
    path.unlink()
