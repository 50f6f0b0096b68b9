"""Files that tell a pod about itself: its names, labels, annotations, and amounts of its containers. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import DownwardAPIVolumeFile
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import env, sandbox
from podwright.kube.volumes.atomic_writer import File


def files(
    items: Iterable[DownwardAPIVolumeFile], mode: int, manifest: Manifest, node: Node, facts: PodFacts
) -> dict[str, File]:
    """By path. InvalidArgument for a reference that leads nowhere."""
    told = _annotated(manifest, facts)
    found = {}
    for item in items:
        text = ""
        if item.fieldRef is not None:
            text = env.pod_field(told, item.fieldRef.fieldPath, node, facts)
        elif item.resourceFieldRef is not None:
            text = env.resource_field(told, None, item.resourceFieldRef, node)
        found[item.path] = File(text.encode(), mode if item.mode is None else item.mode)
    return found


def _annotated(manifest: Manifest, facts: PodFacts) -> Manifest:
    """With the annotations that say where and when the pod came to be known: files have them, too."""
    metadata = manifest.pod.metadata
    assert metadata is not None
    metadata = msgspec.structs.replace(metadata, annotations=sandbox.pod_annotations(manifest, facts))
    return replace(manifest, pod=msgspec.structs.replace(manifest.pod, metadata=metadata))
