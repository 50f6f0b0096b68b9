"""Directories that live as long as their pod: on disk, in memory, on huge pages."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from podwright.kube.files import pod_cgroups
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Volume
from podwright.kube.node import Node
from podwright.kube.requests import resources
from podwright.kube.volumes import fsgroup
from podwright.linux import mounts, syscalls

MODE = 0o777
_HUGE_PAGES = "HugePages"


def make(manifest: Manifest, volume: Volume, path: Path, node: Node, directory: PodDirectory) -> None:
    """Make the volume, once: what the containers have done to it since is left alone. ValueError in the
    kubelet's words where it cannot be; OSError. Blocks."""
    source = volume.emptyDir
    medium = (source.medium if source is not None else None) or ""
    ready = directory.ready(volume.name)
    if ready.is_dir() and path.is_dir() and (not medium or not _can_mount() or mounts.is_mounted(path)):
        return
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(MODE)
    if medium == "Memory":
        limit = source.sizeLimit if source is not None else None
        in_memory(path, memory_size(manifest, node, limit))
    elif medium.startswith(_HUGE_PAGES):
        _on_huge_pages(path, page_size(manifest, medium))
    elif medium:
        raise ValueError(f'unknown storage medium "{medium}"')
    if source is not None and source.mode is not None:
        path.chmod(source.mode)
    context = manifest.spec.securityContext
    fsgroup.apply(path, context.fsGroup if context is not None else None)
    ready.mkdir(parents=True, exist_ok=True)


def in_memory(path: Path, size: int) -> None:
    """A tmpfs of `size` bytes on the directory `path`, if it is none yet; it never goes to swap where the
    kernel can promise that (Linux 6.4). Who is not root cannot mount: the directory stays one on disk."""
    if not _can_mount() or mounts.is_mounted(path):
        return
    try:
        syscalls.mount("tmpfs", path, "tmpfs", 0, f"size={size},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        syscalls.mount("tmpfs", path, "tmpfs", 0, f"size={size}")


def memory_size(manifest: Manifest, node: Node, limit: str | None = None) -> int:
    """Bytes of a volume in memory: its `limit`, within what the pod, or all pods together, may use at all."""
    size = node.allocatable
    for smaller in (
        pod_cgroups.memory_limit(manifest),
        int(resources.parse_quantity(limit)) if limit else None,
    ):
        if smaller is not None and 0 < smaller <= size:
            size = smaller
    return size


def page_size(manifest: Manifest, medium: str) -> str:
    """The size of the huge pages that the medium stands for, "2Mi": the one it names, or that of all requests
    of the pod. ValueError where the pod requests no such pages, or of several sizes."""
    spec = manifest.spec
    lists = [one.resources for one in [*manifest.containers, *manifest.init_containers]]
    sizes: set[str] = {
        name.removeprefix(resources.HUGE_PAGES)
        for one in [spec.resources, *lists] if one is not None
        for name in {**(one.limits or {}), **(one.requests or {})} if name.startswith(resources.HUGE_PAGES)
    }  # fmt: skip
    if match := re.fullmatch(rf"{_HUGE_PAGES}-(.+)", medium):
        wanted = resources.parse_quantity(match[1])
        sizes = {one for one in sizes if resources.parse_quantity(one) == wanted}
    if not sizes:
        raise ValueError(
            f"medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
        )
    if len(sizes) > 1:
        raise ValueError(f"medium: {medium} can't be used if container requests multiple huge page sizes")
    return sizes.pop()


def _on_huge_pages(path: Path, size: str) -> None:
    if _can_mount() and not mounts.is_mounted(path):
        syscalls.mount("nodev", path, "hugetlbfs", 0, f"pagesize={size}")


def _can_mount() -> bool:
    return os.geteuid() == 0
