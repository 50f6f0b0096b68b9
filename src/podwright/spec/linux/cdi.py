"""What CDI devices do to a spec: the edits of their files, after every other rule has had its say."""

from __future__ import annotations

from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.spec import cdi
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, DeviceNode, HostFacts
from podwright.spec.linux.mounts import depth
from podwright.spec.linux.paths import clean
from podwright.spec.linux.process import override
from podwright.wire import cri_pb2 as cri


def lookups(config: cri.ContainerConfig, host: HostFacts) -> list[str]:
    """Device nodes of the host that have to be looked up for the CDI devices of a request.

    Raises InvalidArgument for devices that no file defines, so that nothing is made for them.
    """
    return cdi.host_paths(_found(config, host))


def cdi_devices(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The edits of a file's head come before those of its first device (CDI specification, containerEdits).

    Raises InvalidArgument for devices that cannot be resolved, FailedPrecondition when CDI is switched off.
    """
    asked = cdi.requested(request.config)
    if not asked:
        return
    seen: set[str] = set()
    remount = False
    for found in _found(request.config, host):
        origin = f"cdi: {found.name} ({found.path})"
        for edits in (found.edits,) if found.path in seen else (found.common, found.edits):
            _apply(draft, edits, request, origin)
            remount = remount or bool(edits.mounts)
        seen.add(found.path)
    if remount:
        draft.mounts.sort(key=depth)


def _found(config: cri.ContainerConfig, host: HostFacts) -> list[cdi.Found]:
    asked = cdi.requested(config)
    if not asked:
        return []
    if host.cdi is None:
        names = ", ".join(name for name, _ in asked)
        raise FailedPrecondition(f"config.CDI_devices: {names}: CDI is switched off on this node")
    return host.cdi.resolve(name for name, _ in asked)


def _apply(draft: Draft, edits: cdi.Edits, request: ContainerInput, origin: str) -> None:
    if edits.net_devices:
        raise Unimplemented(f"{origin}: moves network devices, which podwright cannot")
    override(draft.process["env"], edits.env)
    for variable in edits.env:
        draft.note(f"process.env[{variable.partition('=')[0]}]", origin)
    for node in edits.device_nodes:
        _add_device(draft, node, request, origin)
    for mount in edits.mounts:
        _add_mount(draft, mount, origin)
    for hook in edits.hooks:
        entry: dict[str, Json] = {"path": hook.path}
        entry |= {"args": hook.args} if hook.args else {}
        entry |= {"env": hook.env} if hook.env else {}
        entry |= {"timeout": hook.timeout} if hook.timeout is not None else {}
        draft.hooks.setdefault(hook.hook_name, []).append(entry)
        draft.note(f"hooks.{hook.hook_name}", origin)
    if edits.intel_rdt:
        draft.linux["intelRdt"] = _intel_rdt(edits.intel_rdt)
        draft.note("linux.intelRdt", origin)
    added = set(edits.additional_gids) - {0, *draft.additional_gids}
    if added:
        draft.additional_gids = sorted({*draft.additional_gids, *added})
        draft.process["user"]["additionalGids"] = draft.additional_gids
        draft.note("process.user.additionalGids", origin)


def _add_device(draft: Draft, node: cdi.DeviceNode, request: ContainerInput, origin: str) -> None:
    host_path = node.host_path or node.path
    real = _host_node(host_path, node, request, origin) if cdi.needs_host(node) else None
    kind = node.type or (real.type if real else "")
    entry: dict[str, Json] = {"path": node.path, "type": kind}
    if kind != "p":
        entry["major"] = node.major or (real.major if real else 0)
        entry["minor"] = node.minor or (real.minor if real else 0)
    mode = node.file_mode if node.file_mode is not None or real is None else real.mode
    if mode is not None:
        entry["fileMode"] = mode
    # Root's are as the runtime makes them; another user must own what was injected for it.
    for name, given, own in (("uid", node.uid, draft.uid), ("gid", node.gid, draft.gid)):
        if given is not None or own:
            entry[name] = own if given is None else given
    nodes: list[dict[str, Json]] = draft.linux.get("devices", [])
    path = clean(node.path)
    draft.linux["devices"] = [each for each in nodes if clean(each["path"]) != path] + [entry]
    draft.note(f"linux.devices[{node.path}]", origin)
    if kind in ("b", "c") and node.permissions != "none":
        rule = {"allow": True, "type": kind, "major": entry["major"], "minor": entry["minor"]}
        draft.resources["devices"].append({**rule, "access": node.permissions or "rwm"})


def _host_node(path: str, node: cdi.DeviceNode, request: ContainerInput, origin: str) -> DeviceNode:
    found = request.devices.get(path)
    if not found or len(found) > 1 or found[0].path != path:
        raise InvalidArgument("config.CDI_devices", f"{origin}: {path} is no device node of this host")
    if node.type and node.type != found[0].type:
        raise InvalidArgument(
            "config.CDI_devices", f"{origin}: {path} is of type {found[0].type}, not {node.type}"
        )
    return found[0]


def _add_mount(draft: Draft, mount: cdi.Mount, origin: str) -> None:
    options = list(mount.options)
    if "uidMappings" in draft.linux:
        # The files belong to the host's users; the container's own see them as theirs.
        for bind, mapped in (("rbind", "ridmap"), ("bind", "idmap")):
            if bind in options and not {"idmap", "ridmap"} & set(options):
                options.append(mapped)
    entry: dict[str, Json] = {"destination": mount.container_path, "source": mount.host_path}
    entry |= {"type": mount.type} if mount.type else {}
    entry |= {"options": options} if options else {}
    path = clean(mount.container_path)
    draft.mounts = [each for each in draft.mounts if clean(each["destination"]) != path]
    draft.mounts.append(entry)
    draft.note(f"mounts[{mount.container_path}]", origin)


def _intel_rdt(given: cdi.IntelRdt) -> dict[str, Json]:
    members: dict[str, Json] = {
        "closID": given.clos_id,
        "l3CacheSchema": given.l3_cache_schema,
        "memBwSchema": given.mem_bw_schema,
        "schemata": given.schemata,
        "enableCMT": given.enable_cmt,
        "enableMBM": given.enable_mbm,
        "enableMonitoring": given.enable_monitoring,
    }
    return {name: value for name, value in members.items() if value}
