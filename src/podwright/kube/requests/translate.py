"""Pod → CRI messages: what the kubelet would ask its runtime for the same manifest.

The parts lie in `sandbox`, `container`, `security`, `resources`, `dns` and `env`; this is the way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwright.kube.files import env_file
from podwright.kube.requests import env
from podwright.kube.requests.container import container_config, container_hash
from podwright.kube.requests.resources import container_resources, sandbox_overhead, sandbox_resources
from podwright.kube.requests.sandbox import cgroup_parent, pod_annotations, runtime_handler, sandbox_config

if TYPE_CHECKING:
    from podwright.kube.files.directory import PodDirectory
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer
    from podwright.kube.node import Node, PodFacts

__all__ = [
    "cgroup_parent",
    "container_config",
    "container_hash",
    "container_resources",
    "environment",
    "pod_annotations",
    "runtime_handler",
    "sandbox_config",
    "sandbox_overhead",
    "sandbox_resources",
]


def environment(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory | None = None,
) -> dict[str, str]:
    """The variables of a container. Env files (fileKeyRef) are read below `directory`, which blocks; without
    it placeholders stand for what is in them. Raises ConfigError with the kubelet's words."""

    def read(volume: str, path: str) -> str:
        if directory is None:
            raise env.NotWrittenError(path)
        return env_file.read(directory.volume("empty-dir", volume), path)

    return env.environment(manifest, container, node, facts, read)
