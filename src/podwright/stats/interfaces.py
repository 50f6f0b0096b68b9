"""Counters of the network interfaces in a pod's namespace (proc_pid_net(5), net/dev)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from podwright.linux import syscalls
from podwright.linux.threads import in_fresh_thread
from podwright.stats.reading import content

FIRST = "eth0"


class Traffic(NamedTuple):
    bytes: int
    packets: int
    errors: int
    dropped: int


class Interface(NamedTuple):
    name: str
    received: Traffic
    sent: Traffic


async def of_namespaces(pins: Mapping[str, str]) -> dict[str, tuple[Interface, ...]]:
    """Of each namespace, by the keys of `pins`, which says where they are pinned; those that are gone are
    left out. One thread goes through all of them: no descriptor is kept that would hold a namespace."""
    return await in_fresh_thread(lambda: _visited(pins)) if pins else {}


def parse(text: bytes) -> tuple[Interface, ...]:
    """All but the loopback; eth0, which the CNI gives every pod, is the first, the others follow by name."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(b":")
        values = [int(word) for word in rest.split()]
        interface = Interface(name.strip().decode(), Traffic(*values[:4]), Traffic(*values[8:12]))
        if interface.name != "lo":
            found.append(interface)
    return tuple(sorted(found, key=lambda each: (each.name != FIRST, each.name)))


def _visited(pins: Mapping[str, str]) -> dict[str, tuple[Interface, ...]]:
    """The work of a thread that ends afterwards."""
    return {key: parse(text) for key, text in _texts(pins.items())}


def _texts(pins: Iterable[tuple[str, str]]) -> Iterable[tuple[str, bytes]]:
    for key, pin in pins:
        try:
            fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the pod has been stopped meanwhile
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWNET)
        except OSError:
            continue  # no namespace is pinned there any more
        finally:
            os.close(fd)
        # /proc/self would show the namespace of the process's first thread.
        if text := content("/proc/thread-self/net/dev"):
            yield key, text
