"""The mounts of one container: its volumes in order, the hosts file, the termination message."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from podwright.errors import InvalidArgument
from podwright.kube.failures import ConfigError
from podwright.kube.files import hosts, termination
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, Volume, VolumeMount
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import sandbox, security
from podwright.kube.volumes import kinds, subpath
from podwright.wire import cri_pb2 as cri

HOSTS = "/etc/hosts"

_PROPAGATION = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}


def container_mounts(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    environment: Mapping[str, str],
    *,
    images: Mapping[str, str] | None = None,
    bindings: kinds.Bindings = kinds.NONE,
) -> list[cri.Mount]:
    """Make what this attempt of the container needs (sub-paths, the hosts file, a file for its termination
    message), and say how everything is mounted.

    `images`: by image volume, the reference that the runtime knows the image by. Raises ConfigError in the
    kubelet's words. Blocks.
    """
    found = _mounts(manifest, container, node, facts, directory, environment, images or {}, bindings, _bind)
    if _wants_hosts(manifest, container, facts):
        hosts.write(manifest, node, facts, directory)
        found.append(_own(HOSTS, directory.hosts, facts))
    if container.terminationMessagePath:
        message = directory.new_termination_log(container.name)
        found.append(_own(termination.clean(container.terminationMessagePath), message, facts))
    return found


def planned_mounts(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    environment: Mapping[str, str],
    *,
    images: Mapping[str, str] | None = None,
    bindings: kinds.Bindings = kinds.NONE,
) -> list[cri.Mount]:
    """The mounts of `container_mounts`, whose sources need not be there: nothing is made. The name of the
    termination message's file is another one each time; an image's is the manifest's until it is known."""
    known = {
        volume.name: volume.image.reference or ""
        for volume in manifest.spec.volumes or []
        if volume.image is not None
    } | dict(images or {})
    found = _mounts(manifest, container, node, facts, directory, environment, known, bindings, None)
    if _wants_hosts(manifest, container, facts):
        found.append(_own(HOSTS, directory.hosts, facts))
    if container.terminationMessagePath:
        message = directory.termination_log(container.name)
        found.append(_own(termination.clean(container.terminationMessagePath), message, facts))
    return found


_Bind = Callable[[Path, str, Path, VolumeMount, str], None]


def _bind(source: Path, below: str, target: Path, mount: VolumeMount, container: str) -> None:
    subpath.bind(source, below, target, mount, container)


def _mounts(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    environment: Mapping[str, str],
    images: Mapping[str, str],
    bindings: kinds.Bindings,
    bind: _Bind | None,
) -> list[cri.Mount]:
    volumes = {volume.name: volume for volume in manifest.spec.volumes or []}
    with_images = any(volume.image is not None for volume in volumes.values())
    found = []
    for index, mount in enumerate(container.volumeMounts or []):
        if mount.name not in volumes:
            raise ConfigError(f'cannot find volume "{mount.name}" to mount into container "{container.name}"')
        volume = volumes[mount.name]
        try:
            kind = kinds.kind(volume, bindings)
        except InvalidArgument as error:
            raise ConfigError(str(error)) from error
        below = subpath.below(mount, environment)
        made = cri.Mount(
            container_path=_absolute(mount.mountPath),
            readonly=bool(mount.readOnly) or kind.readonly,
            recursive_read_only=_recursive(mount, manifest, node),
            selinux_relabel=kind.relabel and selinux_enabled(),
            propagation=_PROPAGATION[mount.mountPropagation or "None"],
            uidMappings=security.id_map(facts),
            gidMappings=security.id_map(facts),
            # Where a pod has an image volume, the kubelet says it of all its mounts.
            image_sub_path=below if with_images else "",
        )
        source = kinds.path(volume, directory, bindings)
        if source is None:
            made.image.CopyFrom(_image(volume, images, manifest, facts, container))
        elif kind is kinds.HOST_PATH and volume.hostPath is not None and not below:
            made.host_path = volume.hostPath.path  # as it is written
        elif below:
            target = directory.subpath(mount.name, container.name, index)
            if bind is not None:
                bind(source, below, target, mount, container.name)
            made.host_path = str(target)
        else:
            made.host_path = str(source)
        found.append(made)
    return found


def _image(
    volume: Volume, images: Mapping[str, str], manifest: Manifest, facts: PodFacts, container: AnyContainer
) -> cri.ImageSpec:
    if volume.name not in images:
        raise ConfigError(
            f'cannot find volume "{volume.name}" to mount into container "{container.name}": '
            "its image has not been pulled"
        )
    assert volume.image is not None
    return cri.ImageSpec(
        image=images[volume.name],
        user_specified_image=volume.image.reference or "",
        annotations=sandbox.pod_annotations(manifest, facts),
    )


def _recursive(mount: VolumeMount, manifest: Manifest, node: Node) -> bool:
    """Whether the mount is to be read-only all the way down."""
    asked = mount.recursiveReadOnly or "Disabled"
    if asked == "Disabled":
        return False
    refused = "failed to resolve recursive read-only mode: volume "
    refused += f'"{mount.name}" requested recursive read-only mode, but it is not '
    if not mount.readOnly:
        raise ConfigError(f"{refused}read-only")
    if mount.mountPropagation not in (None, "None"):
        raise ConfigError(f'{refused}compatible with propagation "{mount.mountPropagation}"')
    able = node.recursive_read_only(sandbox.runtime_handler(manifest))
    if asked == "Enabled" and not able:
        raise ConfigError(f"{refused}supported by the runtime")
    return able


def _own(container_path: str, host_path: Path, facts: PodFacts) -> cri.Mount:
    """A file of the pod's own; a pod with users of its own sees it as its root's."""
    return cri.Mount(
        container_path=container_path,
        host_path=str(host_path),
        selinux_relabel=selinux_enabled(),
        uidMappings=security.id_map(facts),
        gidMappings=security.id_map(facts),
    )


def _wants_hosts(manifest: Manifest, container: AnyContainer, facts: PodFacts) -> bool:
    """A container that mounts something there keeps it; before there is an address there is no file."""
    taken = any(mount.mountPath == HOSTS for mount in container.volumeMounts or [])
    return not taken and bool(manifest.spec.hostNetwork or facts.ips)


def _absolute(path: str) -> str:
    """A path that is absolute stays as it is written."""
    return path if path.startswith("/") else termination.clean(path)


@cache
def selinux_enabled() -> bool:
    """Whether labels matter on this host."""
    return os.path.exists("/sys/fs/selinux/enforce")  # noqa: PTH110 - one look
