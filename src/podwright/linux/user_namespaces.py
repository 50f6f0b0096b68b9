"""A user namespace with namespaces that belong to it, pinned like those of `namespaces`.

A thread cannot enter a user namespace: the kernel takes processes of one thread only (user_namespaces(7)).
So unshare(1) makes all of them at once, and cat(1) keeps them until they are mapped and pinned from outside.
What is set inside is set by a thread that enters the others as the host's root, who may do anything there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from podwright.linux import namespaces, spawn, syscalls

UNSHARE, NSENTER = "unshare", "nsenter"
TIMEOUT = 10.0
"""Seconds that one of these programs may take: they need two milliseconds."""
_OPTIONS = {"user": "--user", "net": "--net", "ipc": "--ipc", "uts": "--uts"}


@dataclass(frozen=True, slots=True)
class IdMap:
    """One line of uid_map or gid_map: ids from `inside` on are the host's from `outside` on."""

    inside: int
    outside: int
    length: int

    def to_host(self, id: int) -> int:
        """The host's number of the namespace's `id`. ValueError when it has none."""
        if not self.inside <= id < self.inside + self.length:
            raise ValueError(f"id {id} is not mapped")
        return self.outside + id - self.inside


async def create_pinned(
    pins: Mapping[str, Path],
    uids: Sequence[IdMap],
    gids: Sequence[IdMap],
    *,
    hostname: str = "",
    sysctls: Mapping[str, str] | None = None,
) -> None:
    """As `namespaces.create_pinned`, with "user" among `pins`: it has these ids and owns the others.

    Raises FailedPrecondition when this host cannot make user namespaces, ResourceExhausted when it may not
    make any more, InvalidArgument for ids that the kernel does not take; other errors as there.
    """
    wanted = dict(sysctls or {})
    namespaces.check(pins, hostname, wanted)
    # Kernels from 6.11 on let only the namespace's own root write those of its IPC namespace.
    owners: dict[str, str] = {}
    await namespaces.pin_in_thread(pins, lambda: _create(pins, uids, gids, hostname, wanted, owners))
    try:
        for name, value in owners.items():
            await _write_as_owner(pins, name, value)
    except BaseException:
        for pin in pins.values():
            namespaces.unpin(pin)
        raise


def _create(
    pins: Mapping[str, Path],
    uids: Sequence[IdMap],
    gids: Sequence[IdMap],
    hostname: str,
    sysctls: Mapping[str, str],
    owners: dict[str, str],
) -> None:
    """The thread's work; sysctls that only the namespace's own root may write go to `owners`."""
    argv = [_program(UNSHARE), *(_OPTIONS[kind] for kind in pins), "--", _program("cat")]
    with namespaces.touched(pins):
        with spawn.echoing(argv, TIMEOUT) as (pid, complaint):
            if pid == 0:
                raise _refused(complaint)
            for file, maps in (("uid_map", uids), ("gid_map", gids)):
                _map(Path(f"/proc/{pid}/{file}"), maps)
            for kind, pin in pins.items():
                syscalls.mount(f"/proc/{pid}/ns/{kind}", pin, None, syscalls.MS_BIND)
        for kind, pin in pins.items():
            if kind != "user":
                namespaces.enter(pin, kind)
        if hostname and "uts" in pins:
            syscalls.sethostname(hostname)
        for name, value in sysctls.items():
            shown = namespaces.sysctl_file(name)
            if namespaces.sysctl_kind(name) == "ipc" and shown.exists() and not os.access(shown, os.W_OK):
                owners[name] = value
            else:
                namespaces.write_sysctl(name, value)
        if "net" in pins:
            namespaces.raise_loopback()


def _map(file: Path, maps: Sequence[IdMap]) -> None:
    # One write for all lines: the kernel takes no second one.
    text = "".join(f"{each.inside} {each.outside} {each.length}\n" for each in maps)
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        field = f"config.linux.security_context.namespace_options.userns_options.{file.name[0]}ids"
        raise InvalidArgument(
            field, f"the kernel does not take the mapping {text.strip()!r}: {error.strerror}"
        ) from error


def _refused(complaint: str) -> Exception:
    if "No space left" in complaint:
        return ResourceExhausted(
            f"no more user namespaces may be made: raise /proc/sys/user/max_user_namespaces ({complaint})"
        )
    return FailedPrecondition(f"this host makes no user namespaces: {complaint}")


async def _write_as_owner(pins: Mapping[str, Path], name: str, value: str) -> None:
    enter = [_program(NSENTER), f"--user={pins['user']}", f"--ipc={pins['ipc']}", "--"]
    file = namespaces.sysctl_file(name)
    done = await spawn.run(
        [*enter, _program("tee"), str(file)], input=value.encode(), timeout=TIMEOUT, env={"LC_ALL": "C"}
    )
    if done.status != 0:
        why = done.stderr.decode(errors="replace").strip().rpartition(": ")[2]
        raise InvalidArgument("config.linux.sysctls", f"the kernel does not take {name}={value!r}: {why}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FailedPrecondition(f"{name} is not installed: pods cannot have user namespaces without it")
    return found
