"""The OCI runtime spec of a container on Darwin: a process, its directory and variables, mounts.

There are no namespaces, limits, users or devices: whatever of them a request asks for is left out, with a
warning. The network is always the host's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace

from podwright.errors import InvalidArgument, Unimplemented
from podwright.spec.beyond_linux import env, pause_image, warn_of_mount
from podwright.spec.draft import Draft, Json
from podwright.spec.inputs import ContainerInput, HostFacts, ImageConfig, Policy, SandboxInput
from podwright.spec.linux.annotations import container_annotations, pause_annotations
from podwright.spec.linux.build import Built
from podwright.spec.linux.mounts import Lookup, check_source
from podwright.spec.linux.process import args, base_origin, terminal
from podwright.spec.linux.user import User
from podwright.wire import cri_pb2 as cri


@dataclass(frozen=True, slots=True, kw_only=True)
class DarwinSandboxInput(SandboxInput):
    """A sandbox has a spec that names the pod, but runs nothing."""

    image_name: str = ""
    """The pause image as the node's configuration names it."""
    cgroups_path: str = ""


class DarwinDraft(Draft):
    __slots__ = ()

    def spec(self) -> dict[str, Json]:
        spec = super().spec()
        spec.pop("linux", None)
        return spec


def lookups(config: cri.ContainerConfig) -> list[Lookup]:
    """One for each of config.mounts, in order. Raises InvalidArgument for mounts that cannot be."""
    found = []
    for place, mount in enumerate(config.mounts):
        _check(mount, f"config.mounts[{place}]")
        image = mount.image if mount.image.image else None
        found.append(Lookup(mount.host_path, image, mount.image_sub_path, propagated=False))
    return found


def volumes_needed(config: cri.ContainerConfig, image: ImageConfig, policy: Policy) -> list[str]:
    """Container paths of the image's VOLUMEs that no mount of the request covers."""
    if not policy.image_volumes:
        return []
    covered = {posixpath.normpath(_absolute(mount.container_path)) for mount in config.mounts}
    return [path for path in image.volumes if posixpath.normpath(_absolute(path)) not in covered]


def build_container(request: ContainerInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a container. Raises InvalidArgument for requests that are wrong in themselves,
    Unimplemented for what the engine prepared nothing for."""
    base = request.handler.base_spec
    draft = DarwinDraft(explain, base.spec, base_origin(request.handler)) if base else DarwinDraft(explain)
    for rule in CONTAINER:
        rule(draft, request, host)
    return _built(draft)


def build_sandbox(request: DarwinSandboxInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a pod: who it is, and no program."""
    draft = DarwinDraft(explain)
    draft.process["cwd"] = "/"
    draft.note("process.cwd", "default: the root")
    _nobody(draft)
    _set_root(draft, request.rootfs_path)
    # Nothing of the request goes along: what reads annotations of pods here knows the fixed ones only.
    plain = replace(request, handler=replace(request.handler, pod_annotations=()))
    pause_annotations(draft, plain, host)
    pause_image(draft, request.image_name)
    return _built(draft)


def _built(draft: DarwinDraft) -> Built:
    return Built(
        spec=draft.spec(),
        user=User(0, 0, ()),
        warnings=tuple(draft.warnings),
        origins=draft.origins or {},
    )


# The rules


def _cwd(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The request's, else the image's, else the base spec's, else "/"; made absolute, as the OCI demands."""
    if request.config.working_dir:
        path, origin = request.config.working_dir, "request: config.working_dir"
    elif request.image.working_dir:
        path, origin = request.image.working_dir, "image: WorkingDir"
    elif draft.process.get("cwd"):
        return
    else:
        path, origin = "/", "default: the root"
    draft.process["cwd"] = _absolute(path)
    draft.note("process.cwd", origin)


def _user(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    _nobody(draft)


def _nobody(draft: Draft) -> None:
    """The OCI demands ids; a shim of Darwin does not change them."""
    draft.process["user"] = {"uid": 0, "gid": 0}
    draft.note("process.user", "rule: the OCI demands ids, nothing changes to them")


def _root(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    _set_root(draft, request.rootfs_path)


def _set_root(draft: Draft, path: str) -> None:
    draft.root["path"] = path
    draft.note("root.path", "host: where the image's layers are mounted")


def _mounts(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """By depth; equal depth keeps the order request, volumes. What a base spec has stays in front, save where
    one of these takes its place."""
    entries = [_bind(draft, mount, place, request) for place, mount in enumerate(request.config.mounts)]
    for path in volumes_needed(request.config, request.image, host.policy):
        if path not in request.volumes:
            raise Unimplemented(f"image Volumes: this engine prepares no directory for the volume {path}")
        entries.append(_entry(request.volumes[path], _absolute(path), "rw"))
        draft.note(f"mounts[{_absolute(path)}]", "image: Volumes")
    entries.sort(key=_depth)
    taken = {posixpath.normpath(entry["destination"]) for entry in entries}
    kept = [entry for entry in draft.mounts if posixpath.normpath(entry["destination"]) not in taken]
    draft.mounts = [*kept, *entries]


def _bind(draft: Draft, mount: cri.Mount, place: int, request: ContainerInput) -> dict[str, Json]:
    field = f"config.mounts[{place}]"
    _check(mount, field)
    source = request.mount_sources[place].path if request.mount_sources else mount.host_path
    if not source:
        raise Unimplemented(f"{field}.image: this engine cannot mount images")
    entry = _entry(source, _absolute(mount.container_path), "ro" if mount.readonly else "rw")
    draft.note(f"mounts[{entry['destination']}]", f"request: {field}")
    warn_of_mount(draft, mount, field, "Darwin")
    return entry


def _entry(source: str, destination: str, access: str) -> dict[str, Json]:
    return {"destination": destination, "type": "bind", "source": source, "options": [access]}


def _depth(entry: dict[str, Json]) -> int:
    return sum(1 for part in posixpath.normpath(entry["destination"]).split("/") if part)


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _check(mount: cri.Mount, field: str) -> None:
    if not mount.container_path:
        raise InvalidArgument(f"{field}.container_path", "is empty")
    check_source(mount, field)


def _left_out(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    config = request.config
    for name, given in (
        ("config.linux", bool(config.linux.ByteSize())),
        ("config.windows", bool(config.windows.ByteSize())),
        ("config.devices", bool(config.devices)),
        ("config.CDI_devices", bool(config.CDI_devices)),
        ("image User", bool(request.image.user)),
    ):
        if given:
            draft.warn(f"{name} means nothing on Darwin")


CONTAINER: tuple[Callable[[Draft, ContainerInput, HostFacts], None], ...] = (
    args,
    env,
    _cwd,
    terminal,
    _user,
    _root,
    _mounts,
    container_annotations,
    _left_out,
)
