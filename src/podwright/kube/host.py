"""The facts of this machine that a pod's configuration depends on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from podwright.api import Cri
from podwright.kube import id_ranges
from podwright.kube.dns import parse_resolver
from podwright.kube.manifest import Manifest
from podwright.kube.old_directory import PodDirectory
from podwright.kube.old_translate import Host
from podwright.wire import cri_pb2 as cri


async def observe(runtime: Cri, manifest: Manifest, root: Path) -> Host:
    """Facts for `manifest`, whose pod gets ids of its own when it wants them; the runtime is asked only for
    what the manifest needs."""
    user_ids = None
    if manifest.spec.hostUsers is False:
        directory = PodDirectory.of(root, manifest.namespace, manifest.name, manifest.uid)
        user_ids = await asyncio.to_thread(id_ranges.claim, root, directory)
    recursive = asks_recursive_read_only(manifest) and await _recursive_read_only(
        runtime, manifest.spec.runtimeClassName or ""
    )
    return look(root, recursive_read_only=recursive, user_ids=user_ids)


def asks_recursive_read_only(manifest: Manifest) -> bool:
    """Whether it matters to `manifest` that the handler can make mounts read-only all the way down."""
    mounts = [
        mount
        for container in [*manifest.init_containers, *manifest.containers]
        for mount in container.volumeMounts or []
    ]
    return any(mount.recursiveReadOnly in ("IfPossible", "Enabled") for mount in mounts)


def look(root: Path, *, recursive_read_only: bool = False, user_ids: int | None = None) -> Host:
    """The facts that no runtime has to be asked for."""
    return Host(
        node_name=socket.gethostname(),
        ips=addresses(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        resolver=parse_resolver(text(Path("/etc/resolv.conf"))),
        recursive_read_only=recursive_read_only,
        seccomp_root=str(root / "seccomp"),
        user_ids=user_ids,
    )


def addresses() -> tuple[str, ...]:
    """The addresses that the host would speak from, IPv4 first; the loopback's where it has no other.

    Connecting a datagram socket sends nothing: the kernel only chooses a route.
    """
    found = []
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                found.append(probe.getsockname()[0])
        except OSError:
            pass  # no route in this family
    return tuple(found) or ("127.0.0.1",)


async def _recursive_read_only(runtime: Cri, handler: str) -> bool:
    status = await runtime.status(cri.StatusRequest())
    return any(
        one.features.recursive_read_only_mounts for one in status.runtime_handlers if one.name == handler
    )


def text(path: Path) -> str:
    """The text of a file of the host, "" when it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
