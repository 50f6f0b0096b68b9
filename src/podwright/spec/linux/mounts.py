"""What the container sees mounted: defaults, the request's mounts, system files, image volumes, in order."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from podwright.errors import FailedPrecondition, InvalidArgument, RROUnsupported, Unimplemented
from podwright.spec import allowed
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, HostFacts, ImageConfig, MountSource, Policy, SandboxInput
from podwright.spec.linux.namespaces import id_mappings
from podwright.spec.linux.paths import clean
from podwright.spec.linux.process import runs_systemd
from podwright.wire import cri_pb2 as cri

_PRIVATE = cri.MountPropagation.PROPAGATION_PRIVATE
_HOST_TO_CONTAINER = cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER
_BIDIRECTIONAL = cri.MountPropagation.PROPAGATION_BIDIRECTIONAL

_PROC = ("nosuid", "noexec", "nodev")
_DEFAULT_POLICY = Policy()
_CGROUP_SHARED = ("nsdelegate", "memory_recursiveprot")


class Lookup(NamedTuple):
    """What the engine has to find out about one mount of the request, to make its MountSource."""

    host_path: str
    """Resolve its links; make a directory (0755) of it when it is missing and `make` is set."""
    image: cri.ImageSpec | None
    """Show this image instead (host_path is empty)."""
    image_sub_path: str
    propagated: bool
    """The mount it lies on must be looked up as well."""
    make: bool = True


def lookups(config: cri.ContainerConfig, policy: Policy = _DEFAULT_POLICY) -> list[Lookup]:
    """One for each of config.mounts, in order. Raises InvalidArgument for mounts that cannot be, so that
    nothing is made on the host for them."""
    kept = {clean(path) for path in policy.absent_mount_sources_to_reject}
    return [_lookup(mount, place, kept) for place, mount in enumerate(config.mounts)]


def absent(lookup: Lookup, place: int) -> FailedPrecondition:
    """The error for a source that is missing and must not be made."""
    return FailedPrecondition(
        f"config.mounts[{place}].host_path: {lookup.host_path} is not there, and this node makes no "
        f"directory of it (absent_mount_sources_to_reject)"
    )


def _lookup(mount: cri.Mount, place: int, kept: Container[str]) -> Lookup:
    _check(mount, f"config.mounts[{place}]")
    image = mount.image if shows_image(mount) else None
    make = clean(mount.host_path) not in kept
    return Lookup(mount.host_path, image, mount.image_sub_path, mount.propagation != _PRIVATE, make)


def volumes_needed(config: cri.ContainerConfig, image: ImageConfig, policy: Policy) -> list[str]:
    """Container paths of the image's VOLUMEs that no mount of the request covers: each needs a directory of
    the container's own with the content that the image has there."""
    if not image.volumes or not policy.image_volumes:
        return []
    covered = {clean(mount.container_path) for mount in config.mounts}
    paths = (absolute(volume) for volume in image.volumes)
    return [path for path in paths if clean(path) not in covered]


def mounts(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Defaults first, then everything else by depth, parents before children; equal depth keeps the order
    request, system files, volumes.

    A mount of the request takes the place of whatever else would be at the same path; one at /dev removes
    all defaults below it. Raises InvalidArgument for contradictory mounts, FailedPrecondition for sources
    whose propagation is too weak and for runtimes that cannot do what is asked.
    """
    sysfs_joined = _shares_host_network_in_user_namespace(request)
    own: list[dict[str, Json]] = []
    taken: set[str] = set()
    for place, mount in enumerate(request.config.mounts):
        entry = _bind(draft, mount, place, request)
        own.append(entry)
        taken.add(clean(entry["destination"]))
    for entry, origin in (
        *_system_files(request, host),
        *_volumes(request, host),
        *_temporary(draft, request, host),
    ):
        if clean(entry["destination"]) in taken:
            continue
        taken.add(clean(entry["destination"]))
        own.append(entry)
        draft.note(f"mounts[{entry['destination']}]", origin)
    own.sort(key=depth)
    defaults = _of_base(draft, request) if request.handler.base_spec else _defaults(request)
    if not any(clean(entry["destination"]) == "/sys/fs/cgroup" for entry in defaults):
        defaults.append(_cgroup())
        draft.note("mounts[/sys/fs/cgroup]", _default_origin("/sys/fs/cgroup", request))
    draft.mounts = []
    for entry in defaults:
        destination = clean(entry["destination"])
        if destination in taken or ("/dev" in taken and destination.startswith("/dev/")):
            continue
        if sysfs_joined and destination == "/sys":
            continue
        draft.mounts.append(entry)
        if not request.handler.base_spec:
            draft.note(f"mounts[{entry['destination']}]", _default_origin(destination, request))
        if entry.get("type") == "cgroup":
            _set_cgroup_access(draft, entry, request, host)
    draft.mounts += own
    if sysfs_joined and "/sys" not in taken:
        draft.mounts.append(_host_sysfs())
        draft.note("mounts[/sys]", "rule: a user namespace cannot mount sysfs of the host's network")


def rootfs_propagation(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The rootfs must propagate at least as far as the mounts on it (runtime-spec, rootfsPropagation)."""
    asked = {mount.propagation for mount in request.config.mounts}
    own = draft.linux.get("rootfsPropagation", "")
    if _BIDIRECTIONAL in asked and own not in ("shared", "rshared"):
        draft.linux["rootfsPropagation"] = "rshared"
    elif _HOST_TO_CONTAINER in asked and own not in ("shared", "rshared", "slave", "rslave"):
        draft.linux["rootfsPropagation"] = "rslave"
    else:
        return
    draft.note("linux.rootfsPropagation", "rule: follows from the propagation of config.mounts")


def root(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    draft.root["path"] = request.rootfs_path
    draft.note("root.path", "host: where the image's layers are mounted")
    if request.security.readonly_rootfs:
        draft.root["readonly"] = True
        draft.note("root.readonly", "request: config.linux.security_context.readonly_rootfs")
    elif host.policy.read_only_rootfs and not request.privileged:
        draft.root["readonly"] = True
        draft.note("root.readonly", "node: read_only_rootfs")


def pause_mounts(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    """A read-only root with the two mounts that the runtime itself needs."""
    draft.root["path"] = request.rootfs_path
    draft.root["readonly"] = True
    draft.mounts += [_proc(), _dev()]
    draft.note("root.path", "host: the pause program's directory")
    draft.note("root.readonly", "rule: the pause process writes nothing")
    draft.note("mounts", "rule: the pause process opens nothing")


# The defaults


def _proc() -> dict[str, Json]:
    return {"destination": "/proc", "type": "proc", "source": "proc", "options": list(_PROC)}


def _dev() -> dict[str, Json]:
    options = ["nosuid", "strictatime", "mode=755", "size=65536k"]
    return {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": options}


def _defaults(request: ContainerInput) -> list[dict[str, Json]]:
    access = "rw" if request.privileged else "ro"
    return [
        _proc(),
        _dev(),
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": list(_PROC)},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_PROC, access]},
    ]


def _cgroup() -> dict[str, Json]:
    options = [*_PROC, "relatime", "ro"]
    return {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}


def _of_base(draft: Draft, request: ContainerInput) -> list[dict[str, Json]]:
    """Those of the handler's base spec. A tmpfs on /run hides what images keep there, so it goes."""
    kept = [mount for mount in draft.mounts if clean(mount["destination"]) != "/run"]
    for mount in kept:
        if request.privileged and mount.get("type") == "sysfs":
            mount["options"] = [*(each for each in mount.get("options", ()) if each != "ro"), "rw"]
            draft.note(f"mounts[{mount['destination']}]", _default_origin(mount["destination"], request))
    return kept


def _set_cgroup_access(
    draft: Draft, entry: dict[str, Json], request: ContainerInput, host: HostFacts
) -> None:
    """Read-only, unless the container is privileged or, on v2, the handler, its annotation or the node's way
    with systemd make it writable."""
    writable = ""
    if request.privileged:
        writable = _default_origin("/sys", request)
    elif host.cgroup_version == 2 and runs_systemd(draft, host):
        writable = "node: systemd"
    elif host.cgroup_version == 2 and request.handler.cgroup_writable:
        writable = "node: cgroup_writable"
    elif host.cgroup_version == 2 and request.handler.allowed_annotations:
        asked = allowed.of_container(request, allowed.CGROUP_WRITABLE)
        if asked and asked.value == "true":
            writable = f"request: {asked.field}, allowed by the handler"
    if writable:
        entry["options"] = [*(each for each in entry.get("options", ()) if each not in ("ro", "rw")), "rw"]
        draft.note(f"mounts[{entry['destination']}]", writable)
    if request.privileged and host.cgroup_version == 2:
        # Without a cgroup namespace this is the host's own file system: a mount without these options would
        # take them from the whole host (mount options of cgroup2 belong to the super block).
        shared = (each for each in _CGROUP_SHARED if each in host.cgroup_mount_options)
        entry["options"] += [each for each in shared if each not in entry["options"]]


def _default_origin(destination: str, request: ContainerInput) -> str:
    if destination.startswith("/sys") and request.privileged:
        return "request: config.linux.security_context.privileged makes it writable"
    return "default: what every container has"


def _shares_host_network_in_user_namespace(request: ContainerInput) -> bool:
    options = request.sandbox_security.namespace_options
    return (
        options.network == cri.NamespaceMode.NODE
        and options.HasField("userns_options")
        and options.userns_options.mode == cri.NamespaceMode.POD
    )


def _host_sysfs() -> dict[str, Json]:
    options = ["rbind", "rro", "nosuid", "nodev", "noexec"]
    return {"destination": "/sys", "type": "bind", "source": "/sys", "options": options}


# The request's mounts


def _bind(draft: Draft, mount: cri.Mount, place: int, request: ContainerInput) -> dict[str, Json]:
    field = f"config.mounts[{place}]"
    _check(mount, field)
    source = request.mount_sources[place] if request.mount_sources else None
    if source is None and shows_image(mount):
        raise Unimplemented(f"{field}.image: this engine cannot mount images")
    # The OCI demands absolute paths; runc refuses others soon.
    destination = absolute(mount.container_path)
    entry: dict[str, Json] = {
        "destination": destination,
        "type": "bind",
        "source": source.path if source else mount.host_path,
        "options": ["rbind", propagation(mount, field, source), _access(mount, field, source, request)],
    }
    if mount.uidMappings or mount.gidMappings:
        if not (mount.uidMappings and mount.gidMappings):
            raise InvalidArgument(f"{field}.uidMappings", "and gidMappings must be given together")
        if not request.handler.idmapped_mounts:
            raise FailedPrecondition(f"{field}: the runtime handler has no id-mapped mounts")
        uids = id_mappings(mount.uidMappings, f"{field}.uidMappings")
        gids = id_mappings(mount.gidMappings, f"{field}.gidMappings")
        if not shows_image(mount):
            entry["uidMappings"], entry["gidMappings"] = uids, gids
        # An overlay cannot be id-mapped: the engine shows the image's layers mapped as the pod is.
    draft.note(f"mounts[{destination}]", f"request: {field}")
    return entry


def _check(mount: cri.Mount, field: str) -> None:
    if not mount.container_path:
        raise InvalidArgument(f"{field}.container_path", "is empty")
    if clean(mount.container_path) == "/":
        # crun fails, runc shows the host's files in place of the image's.
        raise InvalidArgument(f"{field}.container_path", "nothing can be mounted over the rootfs itself")
    check_source(mount, field)
    if mount.recursive_read_only:
        if not mount.readonly:
            raise InvalidArgument(
                f"{field}.recursive_read_only", f"needs readonly (host path {mount.host_path})"
            )
        if mount.propagation != _PRIVATE:
            raise InvalidArgument(
                f"{field}.recursive_read_only", f"needs PROPAGATION_PRIVATE (host path {mount.host_path})"
            )


def check_source(mount: cri.Mount, field: str) -> None:
    """A mount shows an image, read-only, or a path of the host: InvalidArgument for neither and for both."""
    if shows_image(mount):
        if mount.host_path:
            raise InvalidArgument(f"{field}.host_path", "must be empty in a mount of an image")
        if not mount.readonly:
            raise InvalidArgument(f"{field}.readonly", "must be true in a mount of an image")
    elif not mount.host_path:
        raise InvalidArgument(f"{field}.host_path", f"is empty (mount at {mount.container_path})")


def shows_image(mount: cri.Mount) -> bool:
    # The kubelet sends an empty ImageSpec with ordinary mounts of some versions.
    return mount.HasField("image") and bool(mount.image.image)


def propagation(mount: cri.Mount, field: str, source: MountSource | None) -> str:
    if mount.propagation == _PRIVATE:
        return "rprivate"
    checked = source if source and source.mountpoint else None
    if mount.propagation == _HOST_TO_CONTAINER:
        if checked and not (checked.shared or checked.slave):
            raise _weak(field, checked, "a shared or slave mount")
        return "rslave"
    if mount.propagation == _BIDIRECTIONAL:
        if checked and not checked.shared:
            raise _weak(field, checked, "a shared mount")
        return "rshared"
    raise InvalidArgument(f"{field}.propagation", f"{mount.propagation} is no MountPropagation")


def _weak(field: str, source: MountSource, needed: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{field}: path {source.path!r} is mounted on {source.mountpoint!r} but it is not {needed}; "
        f"run `mount --make-rshared {source.mountpoint}` on the host"
    )


def _access(mount: cri.Mount, field: str, source: MountSource | None, request: ContainerInput) -> str:
    if not mount.readonly:
        return "rw"
    if not mount.recursive_read_only:
        return "ro"
    if not request.handler.recursive_read_only:
        raise RROUnsupported(
            f"{field}.recursive_read_only: the runtime handler has no recursive read-only mounts"
        )
    # Nothing lies below a file, and crun (1.8) opens what it makes recursively read-only as a directory.
    return "rro" if source is None or source.directory else "ro"


# System files and volumes


def _system_files(request: ContainerInput, host: HostFacts) -> Iterator[tuple[dict[str, Json], str]]:
    files = request.system
    access = "ro" if request.security.readonly_rootfs or host.policy.read_only_rootfs else "rw"
    mapped: dict[str, Json] = {}
    userns = request.sandbox_security.namespace_options.userns_options
    if request.namespaces.user and request.handler.idmapped_mounts and userns.uids:
        mapped = {
            "uidMappings": id_mappings(userns.uids, "userns_options.uids"),
            "gidMappings": id_mappings(userns.gids, "userns_options.gids"),
        }
    for destination, source in (
        ("/etc/hostname", files.hostname),
        ("/etc/hosts", files.hosts),
        ("/etc/resolv.conf", files.resolv_conf),
    ):
        if source:
            yield {**_file(destination, source, access), **mapped}, "host: the sandbox's own file"
    if host.localtime:
        yield _file("/etc/localtime", host.localtime, "ro"), "node: timezone"
    if request.security.namespace_options.ipc == cri.NamespaceMode.NODE:
        origin = "request: config.linux.security_context.namespace_options.ipc is NODE"
        yield _file("/dev/shm", "/dev/shm", "rw"), origin
    elif files.shm:
        shm = _file("/dev/shm", files.shm, "rw")
        # The tmpfs has these flags already, but a runtime that remounts for "rw" (crun) would drop them.
        shm["options"] += ["nosuid", "nodev", "noexec"]
        yield shm, "host: the sandbox's own shared memory"


def _volumes(request: ContainerInput, host: HostFacts) -> Iterator[tuple[dict[str, Json], str]]:
    for path in volumes_needed(request.config, request.image, host.policy):
        if path not in request.volumes:
            raise Unimplemented(f"image Volumes: this engine prepares no directory for the volume {path}")
        yield _file(path, request.volumes[path], "rw"), "image: Volumes"


def _temporary(
    draft: Draft, request: ContainerInput, host: HostFacts
) -> Iterator[tuple[dict[str, Json], str]]:
    """What a program needs to write although its rootfs cannot be written, and what systemd needs."""
    places: dict[str, str] = {}
    if runs_systemd(draft, host):
        places |= dict.fromkeys(("/run", "/run/lock", "/tmp", "/var/log/journal"), "node: systemd")
    if host.policy.read_only_rootfs and not request.privileged and not request.security.readonly_rootfs:
        places |= dict.fromkeys(("/run", "/tmp", "/var/tmp"), "node: read_only_rootfs")
    for destination, origin in places.items():
        mode = "mode=1777" if destination in ("/tmp", "/var/tmp") else "mode=755"
        options = ["rw", "rprivate", "nosuid", "nodev", "tmpcopyup", mode]
        yield {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}, origin


def _file(destination: str, source: str, access: str) -> dict[str, Json]:
    options = ["rbind", "rprivate", access]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def depth(entry: dict[str, Json]) -> int:
    """How many components the place of a mount has, cleaned: the order of mounts."""
    return sum(1 for part in clean(entry["destination"]).split("/") if part)
