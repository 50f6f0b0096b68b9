"""Resource limits on Windows: what a request means for the OCI, and how an update changes it.

In a CRI message zero means "not set".
"""

from __future__ import annotations

from podwright.errors import InvalidArgument
from podwright.spec.draft import Json
from podwright.spec.inputs import HostFacts
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.wire import cri_pb2 as cri

PAUSE_SHARES = 2
ROOTFS_SIZE_LABEL = "containerd.io/snapshot/windows/rootfs.sizebytes"
"""What snapshotters of Windows read the size of a container's writable layer from."""

_FIELD = "config.windows.resources"
_MOST = {"cpu_shares": 10_000, "cpu_maximum": 10_000}
"""HCS: a weight, and hundredths of a percent of the host's processors."""
_SIZES = ("cpu_shares", "cpu_count", "cpu_maximum", "memory_limit_in_bytes")


def resources(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    asked = request.config.windows.resources
    limits = to_oci(asked)
    for section, values in limits.items():
        draft.windows.setdefault("resources", {}).setdefault(section, {}).update(values)
    for member in limits.get("cpu", {}):
        field = "affinity_cpus" if member == "affinity" else f"cpu_{member}"
        draft.note(f"windows.resources.cpu.{member}", f"request: {_FIELD}.{field}")
    if "memory" in limits:
        draft.note("windows.resources.memory", f"request: {_FIELD}.memory_limit_in_bytes")
    given = [name for name in ("cpu_count", "cpu_maximum", "cpu_shares") if getattr(asked, name)]
    if len(given) > 1 and not request.windows.hyperv:
        draft.warn(f"{', '.join(given)} exclude each other: HCS refuses more than one of them")


def pause_resources(draft: WindowsDraft, request: WindowsSandboxInput, host: HostFacts) -> None:
    draft.windows["resources"] = {"cpu": {"shares": PAUSE_SHARES}}
    draft.note("windows.resources.cpu", "default: the smallest share, the pause process only waits")


def to_oci(resources: cri.WindowsContainerResources, field: str = _FIELD) -> dict[str, Json]:
    """`windows.resources` of the OCI for `resources`: for a new spec and for a runtime's update alike.

    The size of the rootfs is not in it: see `rootfs_labels`. Raises InvalidArgument for what HCS cannot hold.
    """
    for name in (*_SIZES, "rootfs_size_in_bytes"):
        value, most = getattr(resources, name), _MOST.get(name)
        if value < 0 or (most is not None and value > most):
            raise InvalidArgument(
                f"{field}.{name}", f"{value} is not in 0..{most}" if most else f"{value} is below 0"
            )
    cpu: dict[str, Json] = {
        name: value
        for name, value in (
            ("count", resources.cpu_count),
            ("shares", resources.cpu_shares),
            ("maximum", resources.cpu_maximum),
        )
        if value
    }
    if resources.affinity_cpus:
        cpu["affinity"] = [
            _group(entry, f"{field}.affinity_cpus[{place}]")
            for place, entry in enumerate(resources.affinity_cpus)
        ]
    result: dict[str, Json] = {"cpu": cpu} if cpu else {}
    if resources.memory_limit_in_bytes:
        result["memory"] = {"limit": resources.memory_limit_in_bytes}
    return result


def _group(entry: cri.WindowsCpuGroupAffinity, field: str) -> dict[str, Json]:
    if not entry.cpu_mask:
        raise InvalidArgument(f"{field}.cpu_mask", "is 0: it leaves no processor of the group")
    group: dict[str, Json] = {"mask": entry.cpu_mask}
    if entry.cpu_group:
        group["group"] = entry.cpu_group
    return group


def merge(
    old: cri.WindowsContainerResources, new: cri.WindowsContainerResources
) -> cri.WindowsContainerResources:
    """What holds after an update: every value that `new` sets, `old` for the rest. Neither is changed.

    A list of processors replaces the former one as a whole. The rootfs keeps its size: the layer is made
    with the container.
    """
    merged = cri.WindowsContainerResources()
    merged.CopyFrom(old)
    for name in _SIZES:
        if getattr(new, name):
            setattr(merged, name, getattr(new, name))
    if new.affinity_cpus:
        del merged.affinity_cpus[:]
        merged.affinity_cpus.extend(new.affinity_cpus)
    return merged


def rootfs_labels(config: cri.ContainerConfig) -> dict[str, str]:
    """Labels of the snapshot that becomes the container's writable layer."""
    size = config.windows.resources.rootfs_size_in_bytes
    return {ROOTFS_SIZE_LABEL: str(size)} if size else {}
