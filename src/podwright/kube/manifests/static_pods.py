"""Static pods: files of a directory that a kubelet runs without an API server. Pure.

They pass no admission, may refer to nothing that an API server keeps, and carry the node's name.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from podwright.errors import InvalidArgument
from podwright.kube.manifests import kinds
from podwright.kube.manifests.documents import documents
from podwright.kube.manifests.manifest import Manifest, from_dict
from podwright.kube.requests.sandbox import HASH

if TYPE_CHECKING:
    from podwright.kube.manifests.objects import Objects
    from podwright.kube.models import AnyContainer, PodSpec
    from podwright.kube.node import Node


def parse(text: str, source: str, node: Node) -> list[Manifest]:
    """The static pods of a file; those that may not be have `refused` set. InvalidArgument for what is no
    Pod, or none that could run."""
    found = []
    for tree, place in documents(text, source):
        if kinds.role(tree, place) != "pod":
            raise InvalidArgument(
                place, f"kind {tree.get('kind')!r} cannot be static: only Pods are, and refer to nothing else"
            )
        found.append(from_tree(tree, place, node))
    return found


def from_tree(
    tree: dict[str, Any], source: str, node: Node, *, beside: Objects | None = None, place: str = ""
) -> Manifest:
    """The static pod of one document: its name ends in the node's, its uid is a hash of both and of the
    file's name, so a changed file is another pod.

    `beside`: the objects that stand in the same directory, where pods may refer to such. `place`: how errors
    name the document, if not as `source`.
    """
    tree = copy.deepcopy(tree)
    metadata = tree.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise InvalidArgument(place or source, "metadata.name is needed")
    metadata["uid"] = metadata.get("uid") or _uid(tree, source, node.name)
    metadata["name"] = f"{metadata['name']}-{node.name.lower()}"
    metadata["annotations"] = {**(metadata.get("annotations") or {}), HASH: metadata["uid"]}
    manifest = from_dict(tree, place or source, beside, static=True)
    manifest.spec.nodeName = node.name
    if beside is not None:
        return manifest
    resource = next(_references(manifest.spec), "")
    refused = f"static pods may not reference {resource}" if resource else ""
    return replace(manifest, refused=refused)


def _uid(tree: dict[str, Any], source: str, node: str) -> str:
    text = json.dumps(tree, sort_keys=True, default=str)
    digest = hashlib.md5(text.encode(), usedforsecurity=False)
    digest.update(f"host:{node}file:{source}".encode())
    return digest.hexdigest()


def _references(spec: PodSpec) -> Iterator[str]:
    """What an API server would have to be asked for, in the order in which the kubelet looks."""
    if spec.serviceAccountName:
        yield "serviceaccounts"
    every: list[AnyContainer] = [*(spec.initContainers or []), *spec.containers]
    containers = [*every, *(spec.ephemeralContainers or [])]
    sources = [one for each in containers for one in each.envFrom or []]
    values = [one.valueFrom for each in containers for one in each.env or [] if one.valueFrom is not None]
    volumes = spec.volumes or []
    projected = [each.projected for each in volumes if each.projected is not None]
    projections = [one for each in projected for one in each.sources or []]
    if (
        spec.imagePullSecrets
        or any(one.secretRef is not None for one in sources)
        or any(one.secretKeyRef is not None for one in values)
        or any(one.secret is not None for one in volumes)
        or any(one.secret is not None for one in projections)
    ):
        yield "secrets"
    if (
        any(one.configMapRef is not None for one in sources)
        or any(one.configMapKeyRef is not None for one in values)
        or any(one.configMap is not None for one in volumes)
        or any(one.configMap is not None for one in projections)
    ):
        yield "configmaps"
    if any(one.serviceAccountToken is not None for one in projections):
        yield "serviceaccounts (via projected volumes)"
