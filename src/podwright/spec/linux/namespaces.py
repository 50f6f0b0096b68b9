"""Which namespaces a container joins, which are its own, and the mappings of user namespaces."""

from __future__ import annotations

from collections.abc import Iterable

from podwright.errors import InvalidArgument, Unimplemented
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.wire import cri_pb2 as cri

_OPTIONS = "linux.security_context.namespace_options"
_IDS = 2**32 - 1
"""user_namespaces(7): -1 is no id."""


_KINDS = frozenset({"pid", "ipc", "uts", "mount", "network", "cgroup", "user"})


def namespaces(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Network, IPC and UTS are always the sandbox's, whatever the container asks; PID is its own (CONTAINER),
    the sandbox's, or another container's (TARGET); mount is its own; cgroup on v2 unless privileged."""
    paths = request.namespaces
    of_base = draft.linux.get("namespaces", ())
    entries = draft.linux["namespaces"] = []
    _pid(draft, entries, request)
    for kind, path in (("ipc", paths.ipc), ("uts", paths.uts)):
        if path:
            entries.append({"type": kind, "path": path})
    entries.append({"type": "mount"})
    draft.note("linux.namespaces[mount]", "rule: every container has its own")
    if paths.net:
        entries.append({"type": "network", "path": paths.net})
    if host.cgroup_version == 2 and not request.privileged:
        entries.append({"type": "cgroup"})
        draft.note("linux.namespaces[cgroup]", "rule: its own on cgroup v2, unless it is privileged")
    # The base spec of a handler may add kinds that pods know nothing of, such as "time".
    entries += [entry for entry in of_base if entry["type"] not in _KINDS]
    draft.note("linux.namespaces", "host: the sandbox's namespaces are joined")


def _pid(draft: Draft, entries: list[dict[str, Json]], request: ContainerInput) -> None:
    mode = request.security.namespace_options.pid
    where = f"request: config.{_OPTIONS}.pid"
    if mode == cri.NamespaceMode.TARGET:
        if not request.namespaces.target_pid:
            raise InvalidArgument(
                f"config.{_OPTIONS}.target_id", "TARGET needs a running container of the same pod"
            )
        entries.append({"type": "pid", "path": request.namespaces.target_pid})
        draft.note("linux.namespaces[pid]", where)
    elif mode == cri.NamespaceMode.CONTAINER:
        entries.append({"type": "pid"})
        draft.note("linux.namespaces[pid]", where)
    elif request.namespaces.pid:
        entries.append({"type": "pid", "path": request.namespaces.pid})
        draft.note("linux.namespaces[pid]", "host: the sandbox's, held by its pause process")
    elif request.sandbox_security.namespace_options.pid == cri.NamespaceMode.NODE:
        draft.note("linux.namespaces[pid]", f"request: sandbox {_OPTIONS}.pid is NODE: the host's is shared")
    else:
        # The pod was made with CONTAINER and has no process to share a PID namespace with.
        entries.append({"type": "pid"})
        draft.warn("the container shares no PID namespace: its sandbox was not made with PID mode POD")
        draft.note("linux.namespaces[pid]", "rule: the sandbox has none to share")


def user_namespace(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Joined when the sandbox has one. Raises InvalidArgument when the request's mappings are unsound or
    differ from the sandbox's, Unimplemented when the engine made no user namespace for the sandbox."""
    wanted = mappings(request.security.namespace_options, f"config.{_OPTIONS}")
    own = mappings(request.sandbox_security.namespace_options, f"sandbox_config.{_OPTIONS}")
    if wanted != own:
        raise InvalidArgument(
            f"config.{_OPTIONS}.userns_options", "differs from the user namespace of the container's sandbox"
        )
    _map(draft, own, request.namespaces.user)


def pause_namespaces(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    """A new PID namespace around the pause process; the pinned ones are joined."""
    paths = request.namespaces
    options = request.security.namespace_options
    entries = draft.linux["namespaces"] = []
    if options.pid != cri.NamespaceMode.NODE:
        entries.append({"type": "pid"})
    for kind, path in (("ipc", paths.ipc), ("uts", paths.uts)):
        if path:
            entries.append({"type": kind, "path": path})
    entries.append({"type": "mount"})
    if paths.net:
        entries.append({"type": "network", "path": paths.net})
    _map(draft, mappings(options, f"config.{_OPTIONS}"), paths.user)
    draft.note("linux.namespaces", f"request: config.{_OPTIONS}")


Mappings = tuple[list[dict[str, int]], list[dict[str, int]]]


def mappings(options: cri.NamespaceOption, field: str) -> Mappings | None:
    """uidMappings and gidMappings of a POD user namespace, None for NODE and when none is asked for.
    InvalidArgument for one that cannot be."""
    if not options.HasField("userns_options"):
        return None
    userns = options.userns_options
    where = f"{field}.userns_options"
    if userns.mode == cri.NamespaceMode.NODE:
        if userns.uids or userns.gids:
            raise InvalidArgument(where, "mode NODE has no mappings")
        return None
    if userns.mode != cri.NamespaceMode.POD:
        raise InvalidArgument(
            f"{where}.mode", f"user namespaces are per POD or NODE, not {_mode_name(userns.mode)}"
        )
    for name, given in (("uids", userns.uids), ("gids", userns.gids)):
        if len(given) != 1:
            raise InvalidArgument(f"{where}.{name}", f"exactly one mapping is needed, not {len(given)}")
        if given[0].length < 1:
            raise InvalidArgument(f"{where}.{name}", "the mapping's length must be at least 1")
        if given[0].container_id != 0:
            raise InvalidArgument(
                f"{where}.{name}",
                f"container_id is {given[0].container_id}, but without an id 0 nobody can set the pod up",
            )
    for kind in ("pid", "ipc"):
        if getattr(options, kind) == cri.NamespaceMode.NODE:
            # /proc and /dev/mqueue are mounted by the pod's root: the host's are not for it.
            raise InvalidArgument(
                f"{field}.{kind}", "NODE is not possible in a pod with a user namespace of its own"
            )
    return id_mappings(userns.uids, f"{where}.uids"), id_mappings(userns.gids, f"{where}.gids")


def id_mappings(given: Iterable[cri.IDMapping], field: str) -> list[dict[str, int]]:
    """In the OCI's form. Raises InvalidArgument (on `field`) for ids that the kernel does not have."""
    for item in given:
        if max(item.container_id, item.host_id) + item.length > _IDS:
            raise InvalidArgument(field, f"the mapping goes beyond the last id, {_IDS - 1}")
    return [{"containerID": item.container_id, "hostID": item.host_id, "size": item.length} for item in given]


def _mode_name(mode: int) -> str:
    known = mode in cri.NamespaceMode.values()
    return cri.NamespaceMode.Name(cri.NamespaceMode.ValueType(mode)) if known else str(mode)


def _map(draft: Draft, own: Mappings | None, path: str) -> None:
    if own is None:
        return
    if not path:
        raise Unimplemented(
            f"{_OPTIONS}.userns_options: this engine makes no user namespaces for pods; use mode NODE"
        )
    draft.linux["uidMappings"], draft.linux["gidMappings"] = own
    draft.linux["namespaces"].append({"type": "user", "path": path})
    draft.note("linux.uidMappings", f"request: sandbox {_OPTIONS}.userns_options.uids")
    draft.note("linux.gidMappings", f"request: sandbox {_OPTIONS}.userns_options.gids")
