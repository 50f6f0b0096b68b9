"""Device nodes of the container, and which devices its cgroup may use."""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from podwright.errors import InvalidArgument, Unimplemented
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, DeviceNode, HandlerOptions, HostFacts, SandboxInput
from podwright.wire import cri_pb2 as cri

SKIPPED_DIRECTORIES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
"""Not entered when a directory of devices is expanded."""
SKIPPED_NODES = frozenset({"console"})
"""Left out when a directory is expanded, as are files that are neither character nor block devices."""

_ALL = {"allow": True, "access": "rwm"}


class Lookups(NamedTuple):
    paths: tuple[str, ...]
    """Host paths to look up: resolve links of the path itself, expand directories recursively."""
    all_host_devices: bool
    """Everything below /dev as well."""


def lookups(config: cri.ContainerConfig, handler: HandlerOptions) -> Lookups:
    """What the engine has to look up under /dev and elsewhere before it builds the spec."""
    paths = tuple(dict.fromkeys(device.host_path for device in config.devices))
    privileged = config.linux.security_context.privileged
    return Lookups(paths, privileged and not handler.privileged_without_host_devices)


def devices(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Deny all, then allow what is listed; runtimes add /dev/null and its like themselves.

    A privileged container gets every node of the host and may use every device. Raises InvalidArgument for
    paths that are no devices and for unknown permissions, Unimplemented for CDI devices.
    """
    _refuse_cdi(request.config)
    rules: list[dict[str, Json]] = [{"allow": False, "access": "rwm"}]
    nodes: dict[str, dict[str, Json]] = {}
    if request.privileged and not request.handler.privileged_without_host_devices:
        for node in request.host_devices:
            nodes[node.path] = _node(node, node.path, node.uid, node.gid)
        draft.note("linux.devices", "request: config.linux.security_context.privileged")
    for place, device in enumerate(request.config.devices):
        _device(draft, device, place, request, host, nodes, rules)
    if _allows_everything(request):
        rules = [dict(_ALL)]
        draft.note("linux.resources.devices", "request: config.linux.security_context.privileged")
    else:
        draft.note("linux.resources.devices", "default: deny all; then request: config.devices")
    draft.resources["devices"] = rules
    if nodes:
        draft.linux["devices"] = list(nodes.values())


def _refuse_cdi(config: cri.ContainerConfig) -> None:
    for device in config.CDI_devices:
        raise Unimplemented(f"config.CDI_devices: {device.name}: podwright cannot resolve CDI devices")
    for key in config.annotations:
        if key.startswith("cdi.k8s.io/"):
            raise Unimplemented(f"config.annotations[{key}]: podwright cannot resolve CDI devices")


def pause_devices(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    draft.resources["devices"] = [{"allow": False, "access": "rwm"}]
    draft.note("linux.resources.devices", "default: deny all")


def _device(
    draft: Draft,
    device: cri.Device,
    place: int,
    request: ContainerInput,
    host: HostFacts,
    nodes: dict[str, dict[str, Json]],
    rules: list[dict[str, Json]],
) -> None:
    field = f"config.devices[{place}]"
    found = request.devices.get(device.host_path)
    if found is None:
        raise InvalidArgument(f"{field}.host_path", f"{device.host_path}: no such file or directory")
    if not found:
        raise InvalidArgument(f"{field}.host_path", f"{device.host_path}: not a device node")
    if set(device.permissions) - set("rwm"):
        raise InvalidArgument(f"{field}.permissions", f"{device.permissions!r} has more than r, w and m")
    base = device.container_path or device.host_path
    for node in found:
        path = base + node.path[len(device.host_path) :]
        uid, gid = _owner(node, request, host)
        nodes[posixpath.normpath(path)] = _node(node, path, uid, gid)
        draft.note(f"linux.devices[{path}]", f"request: {field}")
        # A rule without any access allows nothing, and some runtimes stumble over it.
        if device.permissions:
            rules.append(
                {
                    "allow": True,
                    "type": node.type,
                    "major": node.major,
                    "minor": node.minor,
                    "access": device.permissions,
                }
            )


def _owner(node: DeviceNode, request: ContainerInput, host: HostFacts) -> tuple[int, int]:
    uid, gid = node.uid, node.gid
    if host.policy.device_ownership_from_security_context:
        security = request.security
        uid = security.run_as_user.value if security.HasField("run_as_user") else uid
        gid = security.run_as_group.value if security.HasField("run_as_group") else gid
    return uid, gid


def _node(node: DeviceNode, path: str, uid: int, gid: int) -> dict[str, Json]:
    return {
        "path": path,
        "type": node.type,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": uid,
        "gid": gid,
    }


def _allows_everything(request: ContainerInput) -> bool:
    handler = request.handler
    return request.privileged and (
        not handler.privileged_without_host_devices
        or handler.privileged_without_host_devices_all_devices_allowed
    )
