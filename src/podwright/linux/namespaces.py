"""Namespaces without a process: made by one thread, kept alive by bind mounts, entered by another.

The mounts ("pins") survive this process; `unpin` ends the namespace once nothing else is in it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from podwright.errors import AlreadyExists, InvalidArgument
from podwright.linux import mounts, syscalls
from podwright.linux.threads import in_fresh_thread

T = TypeVar("T")

KINDS: Mapping[str, int] = {
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "mnt": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "user": syscalls.CLONE_NEWUSER,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}
PINNABLE = ("net", "ipc", "uts", "user")
"""The first three by `create_pinned`, with a user namespace by `user_namespaces.create_pinned`."""
MAX_HOSTNAME = 64


async def create_pinned(
    pins: Mapping[str, Path],
    *,
    hostname: str = "",
    sysctls: Mapping[str, str] | None = None,
    loopback: bool = True,
) -> None:
    """Make a new namespace of each kind in `pins` ("net", "ipc", "uts") and pin it on the named file.

    The files must not exist, their directories must. `hostname` is set with "uts", `lo` is brought up with
    "net" (when `loopback`), `sysctls` are written inside. On failure or cancellation nothing is left.

    Raises InvalidArgument for a sysctl that is not part of these namespaces or that the kernel rejects and
    for a hostname it does not take, AlreadyExists for a pin that is there, OSError for the rest.
    """
    wanted = dict(sysctls or {})
    check(pins, hostname, wanted)
    if pins:
        await pin_in_thread(pins, lambda: _create(pins, hostname, wanted, loopback))


def check(pins: Mapping[str, Path], hostname: str, sysctls: Mapping[str, str]) -> None:
    """InvalidArgument as `create_pinned`, before anything is made."""
    for name in sysctls:
        check_sysctl(name, pins)
    if len(hostname.encode()) > MAX_HOSTNAME:
        raise InvalidArgument("config.hostname", f"{hostname!r} is longer than {MAX_HOSTNAME} bytes")


async def pin_in_thread(pins: Mapping[str, Path], create: Callable[[], None]) -> None:
    """Run `create`, which makes `pins` or leaves none, in a thread of its own; a cancellation undoes it."""
    job = in_fresh_thread(create)
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        # It takes a millisecond and cannot be stopped halfway: let it end, then undo.
        await asyncio.wait([job])
        if job.exception() is None:
            for pin in pins.values():
                unpin(pin)
        raise


def unpin(path: Path) -> None:
    """Unmount and remove a pin; fine when it is not mounted or absent. Raises OSError."""
    mounts.unmount(path)
    path.unlink(missing_ok=True)


async def inside(pin: Path, kind: str, function: Callable[[], T]) -> T:
    """Run the blocking `function` in a thread of its own that has entered the namespace `pin`.

    `pin` is a pin or /proc/PID/ns/KIND. Raises OSError when it cannot be entered, else what `function`
    raises. When cancelled, the function still runs to its end.
    """

    def body() -> T:
        enter(pin, kind)
        return function()

    return await in_fresh_thread(body)


def enter(pin: Path, kind: str) -> None:
    """Move the calling thread into the namespace `pin`; the thread must not be used for anything else."""
    fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, KINDS[kind])
    finally:
        os.close(fd)


def check_sysctl(name: str, kinds: Mapping[str, object]) -> None:
    """Refuse a sysctl that would change the host instead of a namespace in `kinds`: InvalidArgument."""
    path = _sysctl_path(name)
    if ".." in path.split("/") or path.startswith("/"):
        raise InvalidArgument("config.linux.sysctls", f"{name!r} is not the name of a sysctl")
    kind = _sysctl_kind(path)
    if kind is None:
        raise InvalidArgument(
            "config.linux.sysctls", f"{name} belongs to the whole host: a pod cannot have a value of its own"
        )
    if kind not in kinds:
        raise InvalidArgument(
            "config.linux.sysctls",
            f"{name} belongs to the {kind} namespace, which this pod shares with the host",
        )


def sysctl_file(name: str) -> Path:
    """Where the calling thread's value is read and written."""
    return Path("/proc/sys", _sysctl_path(name))


def sysctl_kind(name: str) -> str | None:
    """The kind of the namespace that the sysctl belongs to; None for one of the whole host."""
    return _sysctl_kind(_sysctl_path(name))


_IPC_SYSCTLS = frozenset(
    f"kernel/{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def _sysctl_kind(path: str) -> str | None:
    if path.startswith("net/"):
        return "net"
    if path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        return "ipc"
    if path == "kernel/domainname":
        return "uts"
    return None


def _sysctl_path(name: str) -> str:
    """ "net.ipv4.conf.eth0/1.forwarding" and "net/ipv4/conf/eth0.1/forwarding" are the same (sysctl(8))."""
    dot, slash = name.find("."), name.find("/")
    if dot != -1 and (slash == -1 or dot < slash):
        return name.translate(str.maketrans("./", "/."))
    return name


def _create(pins: Mapping[str, Path], hostname: str, sysctls: Mapping[str, str], loopback: bool) -> None:
    """The thread's work: it becomes the first and only member, and leaves by ending."""
    flags = 0
    for kind in pins:
        if kind not in PINNABLE or kind == "user":
            raise ValueError(f"a namespace of kind {kind!r} cannot be pinned by a thread")
        flags |= KINDS[kind]
    with touched(pins):
        syscalls.unshare(flags)
        if hostname and "uts" in pins:
            syscalls.sethostname(hostname)
        for name, value in sysctls.items():
            write_sysctl(name, value)
        if loopback and "net" in pins:
            raise_loopback()
        for kind, pin in pins.items():
            syscalls.mount(f"/proc/thread-self/ns/{kind}", pin, None, syscalls.MS_BIND)


@contextmanager
def touched(pins: Mapping[str, Path]) -> Iterator[None]:
    """Make the empty files; when what happens inside fails, they and what is mounted on them go again."""
    made: list[Path] = []
    try:
        for pin in pins.values():
            _touch(pin)
            made.append(pin)
        yield
    except BaseException:
        for pin in made:
            unpin(pin)
        raise


def _touch(pin: Path) -> None:
    try:
        os.close(os.open(pin, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise AlreadyExists(
            f"{pin} is there already: the namespace of an earlier pod was not closed"
        ) from None


def write_sysctl(name: str, value: str) -> None:
    """In the calling thread's namespaces. InvalidArgument when the kernel does not take it."""
    path = sysctl_file(name)
    try:
        # /proc/sys shows the namespaces of the thread that opens the file.
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ERANGE, errno.EACCES, errno.EPERM):
            raise InvalidArgument(
                "config.linux.sysctls",
                f"the kernel does not take {name}={value!r}: {os.strerror(error.errno)}",
            ) from error
        raise OSError(error.errno, f"writing {value!r}: {error.strerror}", str(path)) from error


_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ_FLAGS = struct.Struct("16sh14x")  # struct ifreq as the flags calls use it (netdevice(7))


def raise_loopback() -> None:
    """In the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = _IFREQ_FLAGS.pack(b"lo", 0)
        _, flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, request)[: _IFREQ_FLAGS.size])
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", flags | _IFF_UP))
