"""SELinux on this host: the levels that pods have, and volumes that get a pod's label."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from podwright.engines.base import Container, Sandbox
from podwright.engines.node.places import Places
from podwright.errors import FailedPrecondition
from podwright.spec.draft import Relabel
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.selinux import needs_level
from podwright.spec.selinux import allocate
from podwright.wire import cri_pb2 as cri

ATTRIBUTE = "security.selinux"
_FILE = "selinux-level"


class Levels:
    """Which level each object has, in a file among its own: a pod keeps it across restarts of the server,
    and it is free again when the object is removed."""

    def __init__(self, places: Places, host: HostFacts, categories: int) -> None:
        self._places = places
        self._host = host
        self._categories = categories

    def of_pod(self, id: str, config: cri.PodSandboxConfig) -> str:
        """The level of a pod, drawn at the first call; "" when none is needed. ResourceExhausted when all
        are taken."""
        return self._of(self._places.sandbox_root(id), id, config)

    def of_container(self, id: str, config: cri.ContainerConfig) -> str:
        """The level of a container that has one of its own; otherwise as `of_pod`."""
        return self._of(self._places.container_root(id), id, config)

    def foreseen(self, container: Container) -> tuple[str, str]:
        """What `of_pod` and `of_container` would give now; nothing is drawn."""
        pod = container.sandbox
        return (
            self._now(self._places.sandbox_root(pod.id), pod.id, pod.config),
            self._now(self._places.container_root(container.id), container.id, container.config),
        )

    def foreseen_of_pod(self, sandbox: Sandbox) -> str:
        return self._now(self._places.sandbox_root(sandbox.id), sandbox.id, sandbox.config)

    def _of(self, directory: Path, id: str, config: cri.PodSandboxConfig | cri.ContainerConfig) -> str:
        level = self._now(directory, id, config)
        file = directory / _FILE
        if level and not file.exists():
            directory.mkdir(parents=True, exist_ok=True)
            file.write_text(level)
        return level

    def _now(self, directory: Path, id: str, config: cri.PodSandboxConfig | cri.ContainerConfig) -> str:
        if self._host.selinux is None:
            return ""
        file = directory / _FILE
        if file.exists():
            return file.read_text()
        level: str = config.linux.security_context.selinux_options.level
        if level or not needs_level(config, self._host):
            return level
        return allocate(set(self._taken()), id, self._categories)

    def _taken(self) -> Iterator[str]:
        for kind in ("sandboxes", "containers"):
            for file in (self._places.root / kind).glob(f"*/{_FILE}"):
                yield file.read_text()


def relabel(wanted: Sequence[Relabel]) -> None:
    """Give each tree its label; the top comes last, so that it is a mark that the rest is done.

    File systems that know no labels are left alone. Links are labelled, not followed. FailedPrecondition
    when the kernel refuses.
    """
    for each in wanted:
        label = each.label.encode() + b"\0"
        if each.skip_if_labelled and _label(each.path) == label:
            continue
        try:
            _label_tree(each.path, label)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise FailedPrecondition(
                    f"{each.field}: cannot relabel {error.filename}: {error.strerror}"
                ) from error


def _label(path: str) -> bytes:
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=False)
    except OSError:
        return b""


def _label_tree(top: str, label: bytes) -> None:
    # By descriptors: a container that uses the volume already could swap a directory for a link to the host.
    if Path(top).is_dir():
        for _, directories, files, directory in os.fwalk(top, topdown=False):
            for name in (*files, *directories):
                os.setxattr(f"/proc/self/fd/{directory}/{name}", ATTRIBUTE, label, follow_symlinks=False)
    os.setxattr(top, ATTRIBUTE, label, follow_symlinks=False)
