"""HostConfig.Mounts and Binds of a create request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from podwright.engines.base import Json
from podwright.engines.docker.features import CREATE_MOUNTPOINT, Features
from podwright.errors import InvalidArgument
from podwright.spec.inputs import MountSource
from podwright.spec.linux.mounts import absolute, propagation
from podwright.spec.linux.paths import clean
from podwright.wire import cri_pb2 as cri

_PRIVATE = cri.MountPropagation.PROPAGATION_PRIVATE


class Made(NamedTuple):
    mounts: list[dict[str, Json]]
    binds: list[str]
    """The older form: it alone can have a volume relabelled for SELinux."""


def made(config: cri.ContainerConfig, sources: Sequence[MountSource | None], features: Features) -> Made:
    """`sources` are what is at the host paths, one for each mount; an empty list when nobody has looked.

    InvalidArgument and FailedPrecondition as `spec.linux.mounts` has them.
    """
    result = Made([], [])
    last = {clean(mount.container_path): place for place, mount in enumerate(config.mounts)}
    for place, mount in enumerate(config.mounts):
        if last[clean(mount.container_path)] != place:
            continue  # Docker refuses two mounts at one place; the later one covers the other anyway
        field = f"config.mounts[{place}]"
        source = sources[place] if sources else None
        spread = propagation(mount, field, source)
        path = source.path if source else mount.host_path
        if _relabelled(config, mount, features):
            result.binds.append(_bind(mount, path, spread, field))
        else:
            result.mounts.append(_mount(mount, path, spread, features))
    return result


def _mount(mount: cri.Mount, path: str, spread: str, features: Features) -> dict[str, Json]:
    entry: dict[str, Json] = {"Type": "bind", "Source": path, "Target": absolute(mount.container_path)}
    options: dict[str, Json] = {}
    if mount.propagation != _PRIVATE:
        options["Propagation"] = spread
    if features.api >= CREATE_MOUNTPOINT:
        options["CreateMountpoint"] = True
    if mount.readonly:
        entry["ReadOnly"] = True
        if features.recursive_read_only:
            options["ReadOnlyForceRecursive" if mount.recursive_read_only else "ReadOnlyNonRecursive"] = True
    if options:
        entry["BindOptions"] = options
    return entry


def _relabelled(config: cri.ContainerConfig, mount: cri.Mount, features: Features) -> bool:
    return bool(
        features.selinux
        and mount.selinux_relabel
        and config.linux.security_context.HasField("selinux_options")
        and not mount.recursive_read_only
    )


def _bind(mount: cri.Mount, path: str, spread: str, field: str) -> str:
    target = absolute(mount.container_path)
    for each, member in ((path, "host_path"), (target, "container_path")):
        if ":" in each:
            raise InvalidArgument(f"{field}.{member}", f"{each}: Docker cannot relabel a path with a colon")
    options = [*(["ro"] if mount.readonly else []), "Z"]
    if mount.propagation != _PRIVATE:
        options.append(spread)
    return f"{path}:{target}:{','.join(options)}"
