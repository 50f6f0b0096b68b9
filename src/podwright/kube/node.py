"""The node that pods run on: facts of the machine, and what a kubelet's configuration would say of it.

`Node` is shared by all pods; `PodFacts` is what is known of one pod beside its manifest.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from podwright.api import Cri
from podwright.config import Config
from podwright.errors import Unimplemented
from podwright.kube.requests.dns import parse_resolver
from podwright.kube.requests.resources import page_size
from podwright.wire import cri_pb2 as cri

CGROUP_ROOT = "/podwright"
"""Not a kubelet's own: it would take pods that it does not know for orphans, and end them."""
KUBELET_LOGS = Path("/var/log/containers")
"""Where log shippers look for the symlinks to containers' logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The defaults are a machine without a cluster around it."""

    name: str = "localhost"
    ips: tuple[str, ...] = ("127.0.0.1",)
    cpus: int = 1
    memory: int = 1 << 30
    """Bytes of RAM."""
    allocatable_memory: int | None = None
    """Bytes that pods may use together; None: all of it."""
    storage: int = 0
    """Bytes of disk that pods may use together."""
    huge_pages: tuple[str, ...] = ()
    """Sizes of huge pages that the kernel has, in the CRI's spelling: "2MB", "1GB"."""
    resolver: cri.DNSConfig = field(default_factory=cri.DNSConfig)
    """The node's resolv.conf."""
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = ""
    root: Path = Path("/var/lib/podwright")
    pod_logs: Path | None = None
    """None: ROOT/logs."""
    seccomp_root: str = "/var/lib/podwright/seccomp"
    """Where relative names of Localhost seccomp profiles begin."""
    seccomp_default: bool = False
    """Containers that say nothing of seccomp get RuntimeDefault instead of Unconfined."""
    allowed_unsafe_sysctls: tuple[str, ...] = ()
    cgroup_root: str = CGROUP_ROOT
    """The cgroup below which the pods' are; "" is the root of the hierarchy."""
    cgroup_driver: Literal["cgroupfs", "systemd"] = "cgroupfs"
    cgroup_v2: bool = False
    make_cgroups: bool = False
    """Pods have cgroups of their own, made before the sandbox; without, the runtime chooses a parent."""
    runtime_name: str = "podwright"
    """What the runtime calls itself: it stands before container ids ("containerd://…")."""
    handlers: Mapping[str, cri.RuntimeHandlerFeatures] = field(default_factory=dict)
    """By the name of the runtime handler; "" is the default one."""
    legacy_logs: Path | None = None
    max_backoff: float = 300.0
    """Seconds, the longest time between two starts of a container that keeps failing."""
    container_log_max_size: int = 10 << 20
    """Bytes."""
    container_log_max_files: int = 5
    log_rotation: bool = True
    apparmor: bool = False
    """Whether the kernel can keep AppArmor profiles."""

    @property
    def logs(self) -> Path:
        """The directory of the pods' log directories."""
        return self.pod_logs or self.root / "logs"

    @property
    def allocatable(self) -> int:
        """Bytes that pods may use together."""
        return self.memory if self.allocatable_memory is None else self.allocatable_memory

    def recursive_read_only(self, handler: str) -> bool:
        """Whether the runtime handler can make mounts read-only all the way down."""
        features = self.handlers.get(handler)
        return features is not None and features.recursive_read_only_mounts

    def user_namespaces(self, handler: str) -> bool:
        """Whether the runtime handler can give a pod users of its own."""
        features = self.handlers.get(handler)
        return features is not None and features.user_namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What is known of one pod's life that its manifest does not say."""

    ips: tuple[str, ...] = ()
    """The sandbox's addresses; the node's where the pod is on its network."""
    user_ids: int | None = None
    """The first of the host's ids that the pod's users have; None: they are the host's."""
    source: Literal["api", "file"] = "api"
    """Where the pod came from."""
    seen_at: str = ""
    """When it was first seen, RFC 3339."""


async def observe(runtime: Cri, config: Config) -> Node:
    """The node as it is now: the machine is looked at, the runtime asked what it can do, and `[node]` of the
    configuration has the last word."""
    status = await runtime.status(cri.StatusRequest(verbose=True))
    version = await runtime.version(cri.VersionRequest())
    try:
        answer = await runtime.runtime_config(cri.RuntimeConfigRequest())
        systemd = answer.linux.cgroup_driver == cri.SYSTEMD
    except Unimplemented:
        systemd = config.cgroup_driver == "systemd"
    handlers = {one.name: one.features for one in status.runtime_handlers}
    node = await asyncio.to_thread(
        look, config, handlers=handlers, driver="systemd" if systemd else "cgroupfs"
    )
    node = replace(node, runtime_name=version.runtime_name)
    if _is_fake(status) and config.node.pod_cgroups is None:
        return replace(node, make_cgroups=False)
    return node


def _is_fake(status: cri.StatusResponse) -> bool:
    """Whether the runtime is a podwright whose containers are only in memory: cgroups would stay empty."""
    try:
        told = json.loads(status.info.get("config", ""))
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("engine") == "fake"


def look(
    config: Config,
    *,
    handlers: Mapping[str, cri.RuntimeHandlerFeatures] | None = None,
    driver: Literal["cgroupfs", "systemd"] = "cgroupfs",
) -> Node:
    """The facts that no runtime has to be asked for. Blocks."""
    said, real = config.node, config.engine != "fake"
    root = config.root_path
    return Node(
        name=said.name or socket.gethostname().lower(),
        ips=tuple(said.ips) or addresses(),
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        storage=storage(root),
        huge_pages=huge_pages(),
        resolver=parse_resolver(text(Path(said.resolv_conf))) if said.resolv_conf else cri.DNSConfig(),
        cluster_dns=tuple(said.cluster_dns),
        cluster_domain=said.cluster_domain,
        root=root,
        pod_logs=Path(said.pod_logs) if said.pod_logs else None,
        seccomp_root=said.seccomp_root or str(root / "seccomp"),
        seccomp_default=said.seccomp_default,
        allowed_unsafe_sysctls=tuple(said.allowed_unsafe_sysctls),
        cgroup_root=said.cgroup_root,
        cgroup_driver=driver,
        cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        make_cgroups=os.geteuid() == 0 and real if said.pod_cgroups is None else said.pod_cgroups,
        handlers=handlers or {},
        legacy_logs=Path(said.legacy_logs) if said.legacy_logs else None,
        max_backoff=said.max_backoff,
        container_log_max_size=said.container_log_max_size,
        container_log_max_files=said.container_log_max_files,
        apparmor=text(Path("/sys/module/apparmor/parameters/enabled")).startswith("Y"),
        log_rotation=said.container_log_max_size > 0,
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


def huge_pages(below: Path = Path("/sys/kernel/mm/hugepages")) -> tuple[str, ...]:
    """The sizes that the kernel has pages of, smallest first, in the CRI's spelling."""
    found = []
    try:
        for path in below.iterdir():
            if match := re.fullmatch(r"hugepages-(\d+)kB", path.name):
                found.append(int(match[1]) << 10)
    except OSError:
        return ()  # a kernel without them
    return tuple(page_size(size) for size in sorted(found))


def storage(root: Path) -> int:
    """Bytes that a kubelet would leave to pods of the file system that `root` is on, or will be: it keeps a
    tenth free by default."""
    there = next((one for one in (root, *root.parents) if one.exists()), Path("/"))
    disk = os.statvfs(there)
    return disk.f_frsize * disk.f_blocks * 9 // 10


def text(path: Path) -> str:
    """The text of a file of the host, "" when it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
