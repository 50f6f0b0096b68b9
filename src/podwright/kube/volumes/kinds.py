"""The kinds of volumes: which one a volume is, where it lies, what a mount of it must be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import InvalidArgument
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Volume

Bindings = Mapping[str, Path]
"""Directories or files of the host for volumes that a cluster would find elsewhere (claims, network file
systems), by the volume's name in the pod."""
NONE: Bindings = {}


@dataclass(frozen=True, slots=True)
class Kind:
    field: str
    """The volume's field, "configMap"."""
    plugin: str
    """The kubelet's name of it, that of its directory; "" where it has none in the pod's directory."""
    readonly: bool
    """Containers may never write to it."""
    relabel: bool
    """It is the pod's own, so SELinux labels may be changed."""
    memory: bool = False
    """It lies on a tmpfs."""


EMPTY_DIR = Kind("emptyDir", "empty-dir", readonly=False, relabel=True)
HOST_PATH = Kind("hostPath", "", readonly=False, relabel=False)
CONFIG_MAP = Kind("configMap", "configmap", readonly=True, relabel=True)
SECRET = Kind("secret", "secret", readonly=True, relabel=True, memory=True)
DOWNWARD = Kind("downwardAPI", "downward-api", readonly=True, relabel=True, memory=True)
PROJECTED = Kind("projected", "projected", readonly=True, relabel=True, memory=True)
IMAGE = Kind("image", "", readonly=True, relabel=True)
BOUND = Kind("", "", readonly=False, relabel=False)

_KINDS = (EMPTY_DIR, HOST_PATH, CONFIG_MAP, SECRET, DOWNWARD, PROJECTED, IMAGE)
WITH_FILES = (CONFIG_MAP, SECRET, DOWNWARD, PROJECTED)
"""Those whose content is written here and kept up to date."""


def kind(volume: Volume, bindings: Bindings = NONE) -> Kind:
    """InvalidArgument for one that nothing here can provide."""
    if volume.name in bindings:
        return BOUND
    for one in _KINDS:
        if getattr(volume, one.field) is not None:
            return one
    named = [
        name for name in volume.__struct_fields__ if name != "name" and getattr(volume, name) is not None
    ]
    if not named:
        return EMPTY_DIR
    raise InvalidArgument(
        f"spec.volumes[{volume.name}].{named[0]}",
        "nothing here provides such volumes; bind a directory of this host to it instead",
    )


def path(volume: Volume, directory: PodDirectory, bindings: Bindings = NONE) -> Path | None:
    """Where the volume lies on the host; None for an image, which only the runtime can mount."""
    what = kind(volume, bindings)
    if what is BOUND:
        return bindings[volume.name]
    if what is IMAGE:
        return None
    if volume.hostPath is not None:
        return Path(volume.hostPath.path)
    return directory.volume(what.plugin, volume.name)


def has_files(volume: Volume) -> bool:
    """Whether its content is written here."""
    return any(getattr(volume, one.field) is not None for one in WITH_FILES)


def used(manifest: Manifest) -> list[Volume]:
    """The volumes that some container mounts, in the manifest's order: others a kubelet does not touch."""
    names = {mount.name for container in manifest.all_containers() for mount in container.volumeMounts or []}
    return [volume for volume in manifest.spec.volumes or [] if volume.name in names]
