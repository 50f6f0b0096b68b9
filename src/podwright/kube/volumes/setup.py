"""Making the volumes of a pod, and bringing those with files up to date."""

from __future__ import annotations

from pathlib import Path

from podwright.errors import PodwrightError
from podwright.kube.failures import MountError
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Volume
from podwright.kube.node import Node, PodFacts
from podwright.kube.volumes import atomic_writer, content, empty_dir, fsgroup, host_path, kinds
from podwright.steps import step

PRIVATE = 0o750
"""Of the directories above the volumes: those modes in them that let everybody write are for the pod."""


def make(
    manifest: Manifest,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    *,
    bindings: kinds.Bindings = kinds.NONE,
) -> None:
    """Make the pod's directory and the volumes that its containers use; what is there stays.

    Raises MountError for the first volume, in the manifest's order, that cannot be made; the others are made
    all the same. What was made before an error is there: `remove` takes it away. Blocks.
    """
    for place in (directory.path, directory.volumes):
        place.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    directory.logs_root.mkdir(mode=0o755, parents=True, exist_ok=True)
    _each(manifest, node, facts, directory, bindings, kinds.used(manifest))


def refresh(manifest: Manifest, node: Node, facts: PodFacts, directory: PodDirectory) -> None:
    """Let volumes of ConfigMaps, Secrets and of the pod's own fields show what those say now, each volume all
    at once. Containers that mount one by a subPath keep what they have.

    Raises MountError like `make`; the volume keeps its files then. Blocks.
    """
    volumes = [one for one in kinds.used(manifest) if kinds.has_files(one)]
    _each(manifest, node, facts, directory, kinds.NONE, volumes)


def _each(
    manifest: Manifest,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    bindings: kinds.Bindings,
    volumes: list[Volume],
) -> None:
    failed: MountError | None = None
    for volume in volumes:
        try:
            with step("make volume", f"{manifest.name}/{volume.name}"):
                _make(manifest, volume, node, facts, directory, bindings)
        except (ValueError, OSError, PodwrightError) as error:
            failed = failed or MountError(volume.name, str(error))
            failed.__cause__ = failed.__cause__ or error
    if failed is not None:
        raise failed


def _make(
    manifest: Manifest,
    volume: Volume,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    bindings: kinds.Bindings,
) -> None:
    kind = kinds.kind(volume, bindings)
    path = kinds.path(volume, directory, bindings)
    if kind is kinds.BOUND:
        assert path is not None
        _give_to_group(manifest, path)
    elif kind is kinds.HOST_PATH:
        assert volume.hostPath is not None
        host_path.check(volume.hostPath)
    elif kind is kinds.EMPTY_DIR:
        assert path is not None
        empty_dir.make(manifest, volume, path, node, directory)
    elif kind in kinds.WITH_FILES:
        assert path is not None
        _write(manifest, volume, path, node, facts, kind)


def _write(
    manifest: Manifest, volume: Volume, path: Path, node: Node, facts: PodFacts, kind: kinds.Kind
) -> None:
    # Before anything is made: a volume without its objects is no empty directory but none at all.
    files = content.files(volume, manifest, node, facts)
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(empty_dir.MODE)
    if kind.memory:
        empty_dir.in_memory(path, empty_dir.memory_size(manifest, node))
    context = manifest.spec.securityContext
    group = context.fsGroup if context is not None else None
    atomic_writer.write(path, files, lambda: fsgroup.apply(path, group, readonly=True))
    if not files:
        fsgroup.apply(path, group, readonly=True)


def _give_to_group(manifest: Manifest, path: Path) -> None:
    """A bound directory is a cluster's volume to the pod: fsGroup owns it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}, which is bound to it, does not exist")
    context = manifest.spec.securityContext
    if context is not None and context.fsGroup is not None and path.is_dir():
        mismatch = context.fsGroupChangePolicy == "OnRootMismatch"
        fsgroup.apply(path, context.fsGroup, only_on_mismatch=mismatch)
