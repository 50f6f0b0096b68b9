"""The cgroup of a pod, below that of its quality of service, as a kubelet makes it: the runtime puts the
pod's sandbox and containers into it, so that the pod as a whole has a share and limits.

    CGROUP_ROOT/kubepods/podUID                Guaranteed
    CGROUP_ROOT/kubepods/burstable/podUID      shares: what its pods ask for together
    CGROUP_ROOT/kubepods/besteffort/podUID     shares: the least there is

Everything here blocks, but for `parent`, `limits` and `memory_limit`, which are pure.
"""

from __future__ import annotations

import bisect
import math
import os
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath

from podwright.errors import PodwrightError
from podwright.kube.failures import Failure
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import CGROUP_ROOT, Node
from podwright.kube.requests import resources
from podwright.kube.requests.sandbox import cgroup_parent as parent
from podwright.kube.requests.sandbox import cgroup_path
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri

__all__ = ["PodLimits", "discard", "limits", "make", "memory_limit", "parent", "remove", "update", "weight"]

QUALITIES = ("Guaranteed", "Burstable", "BestEffort")
LEFT_SECONDS = 10
"""How long killed processes of a pod that goes may take to end."""
UNLIMITED = 1 << 62
"""Bytes of huge pages that are no limit."""
_RACES = 8


@dataclass(frozen=True, slots=True)
class PodLimits:
    """What the pod's cgroup is given; None takes a limit away."""

    shares: int
    """cpu.shares."""
    quota: int | None = None
    """Microseconds of CPU each `resources.CPU_PERIOD`."""
    memory: int | None = None
    """Bytes."""
    huge_pages: Mapping[str, int] = field(default_factory=dict)
    """Bytes by the size of the pages ("2MB"); of others the pod may have none."""


def limits(manifest: Manifest) -> PodLimits:
    """A limit holds for the pod only where all its containers have one, or the pod as a whole has; what its
    runtime class costs comes on top."""
    spec = manifest.spec
    quality = resources.qos_class(spec)
    pages: dict[str, int] = {}
    given = [spec.resources, *(one.resources for one in [*manifest.init_containers, *manifest.containers])]
    for name in {name for one in given for name in _said(one)}:
        if (size := resources.page_bytes(name)) is not None:
            pages[resources.page_size(size)] = math.ceil(_whole(manifest, "requests", name))
    if quality == "BestEffort":
        return PodLimits(resources.MIN_SHARES, huge_pages=pages)
    quota = resources.quota(resources.milli_cpu(_whole(manifest, "limits", "cpu")))
    memory = math.ceil(_whole(manifest, "limits", "memory"))
    return PodLimits(
        resources.shares(resources.milli_cpu(_whole(manifest, "requests", "cpu"))),
        (quota or None) if _declared(manifest, "cpu") else None,
        (memory or None) if _declared(manifest, "memory") else None,
        pages,
    )


def memory_limit(manifest: Manifest) -> int | None:
    """Bytes that the pod may use; None: as many as there are."""
    return limits(manifest).memory


def make(manifest: Manifest, node: Node) -> None:
    """Make the pod's cgroup, with those above it, and give it its limits; fine when it is there, and nothing
    where pods have none of their own. Raises Failure with the kubelet's reason."""
    path = parent(manifest, node)
    if not path:
        return
    try:
        _create(path)
        _give(path, limits(manifest), node)
        _weigh(path, resources.qos_class(manifest.spec))
    except (OSError, PodwrightError) as error:
        raise Failure(
            "FailedToCreatePodContainer",
            f"unable to ensure pod container exists: failed to create container for {path} : {error}",
        ) from error


def update(manifest: Manifest, node: Node, given: cri.LinuxContainerResources | None = None) -> None:
    """Give the pod's cgroup the limits that the manifest now says; `given` are the amounts in force on the
    way there, one of them changing at a time. Raises OSError, with EBUSY where the pod uses more memory than
    it may have from now on (cgroup v1)."""
    path = parent(manifest, node)
    if not path:
        return
    wanted = limits(manifest)
    if given is not None:
        wanted = replace(
            wanted,
            shares=given.cpu_shares or wanted.shares,
            quota=None if wanted.quota is None else given.cpu_quota or None,
            memory=None if wanted.memory is None else given.memory_limit_in_bytes or None,
        )
    _give(path, wanted, node)
    _weigh(path, resources.qos_class(manifest.spec))


def remove(manifest: Manifest, node: Node) -> None:
    """Kill what is still in the pod's cgroup and remove it; those above it go when no pod is left. Fine when
    it is not there. Raises FailedPrecondition for a process that does not end, OSError."""
    if path := parent(manifest, node):
        _remove(path, resources.qos_class(manifest.spec), node)


def discard(node: Node, uid: str) -> None:
    """The same for a pod of which only the uid is known, whatever cgroup driver it was made with."""
    if not node.make_cgroups or not uid or "/" in uid or uid in (".", ".."):
        return
    by_driver = [replace(node, cgroup_driver="cgroupfs"), replace(node, cgroup_driver="systemd")]
    for quality in QUALITIES:
        for one in by_driver:
            path = cgroup_path(one, quality, uid)
            if cgroups.directories(path):
                _remove(path, quality, node)


def weight(shares: int) -> int:
    """cpu.weight (v2) for cpu.shares (v1): least, default and most of the one are those of the other, and
    between them runs runc's and crun's curve."""
    if shares <= resources.MIN_SHARES:
        return 1
    if shares >= resources.MAX_SHARES:
        return 10_000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def _said(given: object) -> set[str]:
    sides = (getattr(given, side, None) or {} for side in ("limits", "requests"))
    return {name for side in sides for name in side}


def _whole(manifest: Manifest, side: str, resource: str) -> Fraction:
    found = resources.pod_amount(manifest.spec, side, resource)
    overhead = (manifest.spec.overhead or {}).get(resource)
    if overhead is not None and (found or side == "requests"):
        found += resources.parse_quantity(overhead)
    return found


def _declared(manifest: Manifest, resource: str) -> bool:
    spec = manifest.spec
    if resources.has_pod_level(spec) and resources.amount(spec, "limits", resource):
        return True
    every = [*manifest.init_containers, *manifest.containers]
    return all(resources.amount(one, "limits", resource) for one in every)


def _remove(path: str, quality: str, node: Node) -> None:
    _wait_for_end(cgroups.kill_all(path) if cgroups.pids(path) else set())
    cgroups.remove(path)
    _weigh(path, quality)
    # A root that the configuration names is somebody else's; the one that is made here goes as well.
    foreign = "" if node.cgroup_root == CGROUP_ROOT else node.cgroup_root.strip("/")
    levels = PurePosixPath(path.strip("/")).parents
    for level in range(len(levels) - 1 - len(PurePosixPath(foreign).parts)):
        cgroups.prune(f"/{levels[level]}")


def _create(path: str) -> None:
    for left in reversed(range(_RACES)):
        try:
            cgroups.create(path)
            return
        except FileNotFoundError:
            # Another pod went, and took the last empty directory above ours away.
            if not left:
                raise


def _give(path: str, given: PodLimits, node: Node) -> None:
    host = cgroups.layout()
    pages = {size: given.huge_pages.get(size, 0) for size in node.huge_pages}
    if host.version == 2:
        quota = "max" if given.quota is None else str(given.quota)
        _set(path, "cpu", "cpu.weight", weight(given.shares))
        _set(path, "cpu", "cpu.max", f"{quota} {resources.CPU_PERIOD}")
        _set(path, "memory", "memory.max", "max" if given.memory is None else given.memory)
        for size, limit in pages.items():
            _set(path, "hugetlb", f"hugetlb.{size}.max", limit)
        return
    _set(path, "cpu", "cpu.shares", given.shares)
    if given.quota is not None:
        _set(path, "cpu", "cpu.cfs_period_us", resources.CPU_PERIOD)
    _set(path, "cpu", "cpu.cfs_quota_us", -1 if given.quota is None else given.quota)
    _set(path, "memory", "memory.limit_in_bytes", -1 if given.memory is None else given.memory)
    for size, limit in pages.items():
        _set(path, "hugetlb", f"hugetlb.{size}.limit_in_bytes", limit)


def _weigh(path: str, quality: str) -> None:
    """Let the cgroup above weigh what its pods ask for together: they stand against the Guaranteed pods as
    one. The pods' cgroups themselves are the account, so all processes agree."""
    if quality == "Guaranteed":
        return
    above = str(PurePosixPath(path).parent)
    version = cgroups.layout().version
    file = "cpu.weight" if version == 2 else "cpu.shares"
    total = resources.MIN_SHARES
    if quality == "Burstable":
        directory = cgroups.directory(above, "cpu") if cgroups.layout().has("cpu") else None
        pods = directory.iterdir() if directory is not None and directory.is_dir() else ()
        found = [_read(pod / file) for pod in pods if pod.is_dir()]
        shares = [_shares(one) if version == 2 else one for one in found if one is not None]
        total = max(resources.MIN_SHARES, min(resources.MAX_SHARES, sum(shares)))
    _set(above, "cpu", file, weight(total) if version == 2 else total)


def _shares(of_weight: int) -> int:
    """The least cpu.shares that have this weight."""
    possible = range(resources.MIN_SHARES, resources.MAX_SHARES + 1)
    return possible[min(bisect.bisect_left(possible, of_weight, key=weight), len(possible) - 1)]


def _set(path: str, controller: str, name: str, value: int | str) -> None:
    """One write(2); nothing where the kernel has no such controller or file."""
    if not cgroups.layout().has(controller):
        return
    file = cgroups.directory(path, controller) / name
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        raise OSError(error.errno, f"writing {value!r}: {error.strerror}", str(file)) from error
    finally:
        os.close(fd)


def _read(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _wait_for_end(victims: set[int]) -> None:
    deadline = time.monotonic() + LEFT_SECONDS
    for pid in victims:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue  # it has ended
        try:
            watch = select.poll()
            watch.register(fd, select.POLLIN)
            watch.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(fd)
