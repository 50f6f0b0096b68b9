"""Device nodes of the container, and which devices its cgroup may use: those of the request, of the node's
configuration, and of annotations that the handler allows. CDI devices come later: `linux.cdi`."""

from __future__ import annotations

from typing import NamedTuple

from podwright.errors import InvalidArgument
from podwright.spec import allowed
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import (
    ContainerInput,
    DeviceNode,
    HandlerOptions,
    HostFacts,
    Policy,
    SandboxInput,
)
from podwright.spec.linux.paths import clean
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


class _Asked(NamedTuple):
    host_path: str
    container_path: str
    permissions: str
    field: str
    origin: str


def lookups(
    config: cri.ContainerConfig,
    handler: HandlerOptions,
    sandbox: cri.PodSandboxConfig | None = None,
    policy: Policy | None = None,
) -> Lookups:
    """What the engine has to look up under /dev and elsewhere before it builds the spec."""
    asked = _asked(config, handler, sandbox or cri.PodSandboxConfig(), policy or Policy())
    paths = tuple(dict.fromkeys(device.host_path for device in asked))
    privileged = config.linux.security_context.privileged
    return Lookups(paths, privileged and not handler.privileged_without_host_devices)


def devices(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Deny all, then allow what is listed; runtimes add /dev/null and its like themselves.

    A privileged container gets every node of the host and may use every device. Raises InvalidArgument for
    paths that are no devices and for unknown permissions.
    """
    rules: list[dict[str, Json]] = draft.resources.get("devices") or [{"allow": False, "access": "rwm"}]
    nodes: dict[str, dict[str, Json]] = {node["path"]: node for node in draft.linux.get("devices", ())}
    if request.privileged and not request.handler.privileged_without_host_devices:
        for node in request.host_devices:
            nodes[node.path] = _node(node, node.path, node.uid, node.gid)
        draft.note("linux.devices", "request: config.linux.security_context.privileged")
    for device in _asked(request.config, request.handler, request.sandbox, host.policy):
        _device(draft, device, request, host, nodes, rules)
    if _allows_everything(request):
        rules = [dict(_ALL)]
        draft.note("linux.resources.devices", "request: config.linux.security_context.privileged")
    else:
        draft.note("linux.resources.devices", "default: deny all; then the devices asked for")
    draft.resources["devices"] = rules
    if nodes:
        draft.linux["devices"] = list(nodes.values())


def pause_devices(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    draft.resources["devices"] = [{"allow": False, "access": "rwm"}]
    draft.note("linux.resources.devices", "default: deny all")


def _device(
    draft: Draft,
    device: _Asked,
    request: ContainerInput,
    host: HostFacts,
    nodes: dict[str, dict[str, Json]],
    rules: list[dict[str, Json]],
) -> None:
    field = device.field
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
        nodes[clean(path)] = _node(node, path, uid, gid)
        draft.note(f"linux.devices[{path}]", device.origin)
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


def _asked(
    config: cri.ContainerConfig, handler: HandlerOptions, sandbox: cri.PodSandboxConfig, policy: Policy
) -> list[_Asked]:
    """Devices of the node, of the pod's annotation, of the request, in this order: the last one of a path
    counts."""
    asked = [
        _parse(text, "additional_devices", "node: additional_devices") for text in policy.additional_devices
    ]
    if handler.allowed_annotations:
        given = allowed.find(config.annotations, handler, allowed.DEVICES, "", "config.annotations")
        given = given or allowed.of_pod(sandbox.annotations, handler, allowed.DEVICES)
        for text in given.value.split(",") if given else ():
            assert given is not None
            device = _parse(text, given.field, f"request: {given.field}, allowed by the handler")
            if device.host_path not in policy.allowed_devices:
                raise InvalidArgument(given.field, f"{device.host_path} is not in the node's allowed_devices")
            asked.append(device)
    for place, wanted in enumerate(config.devices):
        field = f"config.devices[{place}]"
        asked.append(
            _Asked(wanted.host_path, wanted.container_path, wanted.permissions, field, f"request: {field}")
        )
    return asked


def _parse(text: str, field: str, origin: str) -> _Asked:
    """HOST_PATH[:CONTAINER_PATH[:PERMISSIONS]]; the second part may be the permissions, too."""
    host_path, _, rest = text.strip().partition(":")
    path, _, permissions = rest.partition(":")
    if path and not permissions and not set(path) - set("rwm"):
        path, permissions = "", path
    if not host_path.startswith("/") or (path and not path.startswith("/")):
        raise InvalidArgument(field, f"{text!r} is not HOST_PATH:CONTAINER_PATH:PERMISSIONS")
    return _Asked(host_path, path, permissions or "rwm", field, origin)


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
