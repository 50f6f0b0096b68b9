"""The files a pod needs on the host: volumes, sub-paths, termination messages, logs; made and removed.

Everything here blocks (directories, mounts) and is called through a thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from podwright.errors import FailedPrecondition
from podwright.kube import old_env as env
from podwright.kube import old_hosts as hosts
from podwright.kube import old_resources as resources
from podwright.kube import old_translate as translate
from podwright.kube.manifest import Manifest
from podwright.kube.models import Container, HostPathVolumeSource, Volume, VolumeMount
from podwright.kube.old_directory import PodDirectory
from podwright.kube.old_translate import Host
from podwright.linux import mounts, syscalls, trees
from podwright.wire import cri_pb2 as cri

EMPTY_DIR_MODE = 0o777
MEMORY_DIR_MODE = 0o1777
SUBPATH_MODE = 0o750
TERMINATION_LOG_MODE = 0o666
TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes of a container's termination message that are kept."""

_HOST_PATH_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def make(manifest: Manifest, directory: PodDirectory, host: Host) -> None:
    """Make the pod's directory and its volumes.

    Raises FailedPrecondition where a hostPath is not what its type says. What was made before an error is
    there: `remove` takes it away.
    """
    directory.own.mkdir(parents=True, exist_ok=True)
    for container in [*manifest.init_containers, *manifest.containers]:
        directory.logs(container.name).mkdir(exist_ok=True)
    for volume in manifest.spec.volumes or []:
        if volume.hostPath is not None:
            _check_host_path(volume.name, volume.hostPath)
        else:
            _make_empty_dir(manifest, volume, directory, host)


def container_mounts(
    manifest: Manifest,
    container: Container,
    directory: PodDirectory,
    host: Host,
    variables: Mapping[str, str],
    attempt: int,
) -> list[cri.Mount]:
    """Make what this attempt of the container needs, and say how it is mounted: volumes in the manifest's
    order, then the hosts file where the pod has one of its own, then the termination message.

    Raises FailedPrecondition for a sub-path that leads out of its volume.
    """
    for index, mount in enumerate(container.volumeMounts or []):
        if below := _below(mount, variables):
            source = source_path(manifest.volume(mount.name), directory)
            _bind_subpath(source, below, directory.subpath(mount.name, container.name, index), mount)
    found = planned_mounts(manifest, container, directory, host, variables, attempt)
    message = directory.termination_log(container.name, attempt)
    if any(mount.host_path == str(message) for mount in found):
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch()
        message.chmod(TERMINATION_LOG_MODE)
    return found


def planned_mounts(
    manifest: Manifest,
    container: Container,
    directory: PodDirectory,
    host: Host,
    variables: Mapping[str, str],
    attempt: int,
) -> list[cri.Mount]:
    """The mounts of `container_mounts`, whose sources need not be there yet. Pure."""
    found = []
    for index, mount in enumerate(container.volumeMounts or []):
        source = source_path(manifest.volume(mount.name), directory)
        if _below(mount, variables):
            source = directory.subpath(mount.name, container.name, index)
        found.append(translate.volume_mount(mount, str(source), host))
    taken = {mount.container_path for mount in found}
    if hosts.needed(manifest) and "/etc/hosts" not in taken:
        found.append(translate.own_mount("/etc/hosts", str(directory.hosts), host))
    message = container.terminationMessagePath or ""
    if message and message not in taken:
        path = directory.termination_log(container.name, attempt)
        found.append(translate.own_mount(message, str(path), host))
    return found


def _below(mount: VolumeMount, variables: Mapping[str, str]) -> str:
    """The part of the volume that is mounted; "" is all of it."""
    return mount.subPath or env.expand(mount.subPathExpr or "", variables)


def source_path(volume: Volume, directory: PodDirectory) -> Path:
    """Where the volume lies on the host."""
    return Path(volume.hostPath.path) if volume.hostPath is not None else directory.empty_dir(volume.name)


def termination_message(directory: PodDirectory, container: str, attempt: int) -> str:
    """What the container left in its termination message file, at most 4096 bytes; "" when nothing."""
    try:
        # It is the container's file: it may be made a link, a pipe or a directory only inside the container.
        with directory.termination_log(container, attempt).open("rb") as file:
            return file.read(TERMINATION_MESSAGE_LIMIT).decode(errors="replace")
    except OSError:
        return ""


def remove(directory: PodDirectory) -> None:
    """Unmount and remove all of it; fine when there is nothing, or only part of it."""
    if not directory.path.exists():
        return
    mounts.unmount_below(directory.path)
    if left := mounts.mounts_below(directory.path):
        # Removing through a mount would delete what is not the pod's.
        raise FailedPrecondition(f"{left[0].target} is still mounted; {directory.path} was left as it is")
    trees.remove(directory.path)
    try:
        directory.path.parent.rmdir()
    except OSError:
        pass  # other pods live there


def discard(root: Path, metadata: cri.PodSandboxMetadata) -> None:
    """Remove the files below `root` of the pod whose sandbox had `metadata`; fine when there are none."""
    names = (metadata.namespace, metadata.name, metadata.uid)
    # Any client may have made the sandbox: such names are no pod's of ours, and could lead elsewhere.
    if all(names) and not any("/" in name for name in names):
        remove(PodDirectory.of(root, *names))


def _make_empty_dir(manifest: Manifest, volume: Volume, directory: PodDirectory, host: Host) -> None:
    path = directory.empty_dir(volume.name)
    path.mkdir(parents=True, exist_ok=True)
    source, context = volume.emptyDir, manifest.spec.securityContext
    mode = EMPTY_DIR_MODE
    if source is not None and source.medium == "Memory":
        mode = MEMORY_DIR_MODE
        if not mounts.is_mounted(path):
            mounts.tmpfs(path, size=memory_size(manifest, volume, host), mode=mode, flags=0)
    if source is not None and source.mode is not None:
        mode = source.mode
    if context is not None and context.fsGroup is not None:
        # Files made in it get the group as well, and the group may do what the owner may.
        os.chown(path, -1, context.fsGroup)
        mode |= stat.S_ISGID | stat.S_IRWXG
    path.chmod(mode)


def memory_size(manifest: Manifest, volume: Volume, host: Host) -> int:
    """Bytes of an emptyDir in memory: its size limit, within what the pod or the host may use at all."""
    whole = min(resources.memory_limit(manifest.containers) or host.memory, host.memory)
    limit = volume.emptyDir.sizeLimit if volume.emptyDir is not None else None
    return min(int(resources.parse_quantity(limit)), whole) if limit else whole


def _check_host_path(name: str, source: HostPathVolumeSource) -> None:
    path, kind = Path(source.path), source.type or ""
    if kind == "DirectoryOrCreate":
        if not path.exists():
            path.mkdir(mode=0o755, parents=True)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not path.exists():
            path.touch(mode=0o644)
        kind = "File"
    if kind:
        test, what = _HOST_PATH_CHECKS[kind]
        try:
            fits = test(path.stat().st_mode)
        except OSError:
            fits = False
        if not fits:
            raise FailedPrecondition(f"volume {name!r}: hostPath type check failed: {path} is not {what}")


def _bind_subpath(volume: Path, below: str, target: Path, mount: VolumeMount) -> None:
    """Bind the file or directory `below` the volume to `target`.

    A container may have put links into its volume, and may change them at any moment: the path is resolved
    first, checked, and then opened component by component without following a link. What was opened is what
    is mounted.
    """
    base = volume.resolve(strict=True)
    wanted = (base / below).resolve()
    if not wanted.is_relative_to(base):
        raise FailedPrecondition(f"volume mount {mount.mountPath}: subPath {below!r} leads out of its volume")
    fd = os.open(base, os.O_PATH | os.O_CLOEXEC)
    try:
        for part in wanted.relative_to(base).parts:
            try:
                os.mkdir(part, SUBPATH_MODE, dir_fd=fd)
            except FileExistsError:
                pass
            below_fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below_fd
        kind = os.fstat(fd).st_mode
        if stat.S_ISLNK(kind):
            raise FailedPrecondition(
                f"volume mount {mount.mountPath}: subPath {below!r} was changed to a link meanwhile"
            )
        mounts.unmount(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(kind):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        syscalls.mount(f"/proc/self/fd/{fd}", target, None, syscalls.MS_BIND | syscalls.MS_REC)
    finally:
        os.close(fd)
