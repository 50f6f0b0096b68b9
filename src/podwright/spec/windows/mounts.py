"""What a Windows container sees mounted: the request's mounts and image volumes, parents before children."""

from __future__ import annotations

from podwright.errors import InvalidArgument, Unimplemented
from podwright.spec.beyond_linux import warn_of_mount
from podwright.spec.draft import Json
from podwright.spec.inputs import HostFacts, ImageConfig, Policy
from podwright.spec.linux.mounts import Lookup, check_source
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput
from podwright.spec.windows.paths import clean, depth, destination, is_pipe
from podwright.wire import cri_pb2 as cri


def lookups(config: cri.ContainerConfig) -> list[Lookup]:
    """One for each of config.mounts, in order; `host_path` "" without an image: nothing may be looked up,
    for opening a pipe disturbs whoever listens. Raises InvalidArgument for mounts that cannot be."""
    found = []
    for place, mount in enumerate(config.mounts):
        _check(mount, f"config.mounts[{place}]")
        image = mount.image if mount.image.image else None
        path = "" if is_pipe(mount.host_path) else mount.host_path
        found.append(Lookup(path, image, mount.image_sub_path, propagated=False))
    return found


def volumes_needed(config: cri.ContainerConfig, image: ImageConfig, policy: Policy) -> list[str]:
    """Container paths of the image's VOLUMEs that no mount of the request covers, in any case of letters
    and with or without C: (to Windows these are one path)."""
    if not policy.image_volumes:
        return []
    covered = {_key(mount.container_path) for mount in config.mounts}
    return [volume for volume in image.volumes if _key(volume) not in covered]


def _key(path: str) -> str:
    cleaned = clean(path).lower()
    return f"c:{cleaned}" if cleaned.startswith("\\") and not cleaned.startswith("\\\\") else cleaned


def mounts(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    """By depth; equal depth keeps the order request, volumes. What a base spec has stays in front, save where
    one of these takes its place.

    Raises InvalidArgument for contradictory mounts, Unimplemented for what the engine prepared nothing for.
    """
    entries: list[tuple[int, dict[str, Json]]] = []
    for place, mount in enumerate(request.config.mounts):
        entries.append((depth(mount.container_path), _bind(draft, mount, place, request)))
    for path in volumes_needed(request.config, request.image, host.policy):
        if path not in request.volumes:
            raise Unimplemented(f"image Volumes: this engine prepares no directory for the volume {path}")
        place_in = destination(path, "image Volumes")
        entries.append((depth(path), _entry(request.volumes[path], place_in, "rw")))
        draft.note(f"mounts[{place_in}]", "image: Volumes")
    entries.sort(key=lambda entry: entry[0])
    taken = {_key(entry["destination"]) for _, entry in entries}
    kept = [entry for entry in draft.mounts if _key(entry["destination"]) not in taken]
    draft.mounts = [*kept, *(entry for _, entry in entries)]


def _bind(
    draft: WindowsDraft, mount: cri.Mount, place: int, request: WindowsContainerInput
) -> dict[str, Json]:
    field = f"config.mounts[{place}]"
    _check(mount, field)
    access = "ro" if mount.readonly else "rw"
    if is_pipe(mount.host_path):
        # Both ends are names of pipes, not paths: HCS maps one to the other.
        entry = _entry(mount.host_path, mount.container_path, access)
    else:
        source = request.mount_sources[place].path if request.mount_sources else mount.host_path
        if not source:
            raise Unimplemented(f"{field}.image: this engine cannot mount images")
        entry = _entry(clean(source), destination(mount.container_path, f"{field}.container_path"), access)
    draft.note(f"mounts[{entry['destination']}]", f"request: {field}")
    warn_of_mount(draft, mount, field, "Windows")
    return entry


def _entry(source: str, destination: str, access: str) -> dict[str, Json]:
    return {"destination": destination, "source": source, "options": [access]}


def _check(mount: cri.Mount, field: str) -> None:
    if not mount.container_path:
        raise InvalidArgument(f"{field}.container_path", "is empty")
    check_source(mount, field)
    if not is_pipe(mount.host_path):
        destination(mount.container_path, f"{field}.container_path")
