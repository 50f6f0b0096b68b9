"""Pods with volumes for tests, and the recordings of the kubelet's volumes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from podwright.kube.manifests import manifest as manifests
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import ConfigMap, Objects, Secret
from podwright.kube.models import Pod
from podwright.kube.node import Node, PodFacts
from podwright.wire import cri_pb2 as cri

GOLDEN = Path(__file__).parent.parent / "golden" / "kubelet"
UID = "11111111-2222-4333-8444-555555555555"
FACTS = PodFacts(ips=("10.1.2.3",), seen_at="${TIME}")
RECORDED_MEMORY = 24667712 << 10
"""Bytes that pods could use on the node of the recordings."""


def node(root: Path, **facts: Any) -> Node:
    """One like that of the recordings."""
    able = cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)
    facts.setdefault("allocatable_memory", RECORDED_MEMORY)
    return Node(
        name="node-1",
        cpus=2,
        memory=24684096 << 10,
        cluster_dns=("10.96.0.10",),
        cluster_domain="cluster.local",
        root=root,
        handlers={"": able, "runc": able, "secondary": able},
        **facts,
    )


def parse(text: str, **changes: Any) -> Manifest:
    """The Pod of a stream, with the ConfigMaps and Secrets beside it."""
    config_maps, secrets, found = {}, {}, None
    for tree in yaml.safe_load_all(text):
        name, namespace = tree["metadata"]["name"], tree["metadata"].get("namespace", "default")
        binary = {key: base64.b64decode(value) for key, value in (tree.get("binaryData") or {}).items()}
        if tree["kind"] == "ConfigMap":
            config_maps[namespace, name] = ConfigMap(namespace, name, tree.get("data") or {}, binary)
        elif tree["kind"] == "Secret":
            data = {key: value.encode() for key, value in (tree.get("stringData") or {}).items()}
            secrets[namespace, name] = Secret(namespace, name, data, tree.get("type", "Opaque"))
        elif tree["kind"] == "Pod":
            found = tree
    assert found is not None
    for container in [*found["spec"].get("initContainers", []), *found["spec"]["containers"]]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
    pod = msgspec.convert(found, Pod, strict=False)
    assert pod.metadata is not None
    pod.metadata.namespace = pod.metadata.namespace or "default"
    pod.metadata.uid = UID
    return Manifest(pod, "test", objects=Objects(config_maps=config_maps, secrets=secrets), **changes)


def pod(volumes: list[dict[str, Any]], mounts: list[dict[str, Any]] | None = None, **spec: Any) -> Manifest:
    """A Pod of one container that mounts all its volumes, in order, or as `mounts` says."""
    if mounts is None:
        mounts = [{"name": one["name"], "mountPath": f"/{one['name']}"} for one in volumes]
    container = {"name": "c", "image": "x:1", "volumeMounts": mounts}
    tree = {
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"volumes": volumes, "containers": [container], **spec},
    }  # fmt: skip
    return parse(json.dumps(tree))


def with_data(manifest: Manifest, **config_maps: dict[str, str]) -> Manifest:
    """The Pod beside other ConfigMaps."""
    found = {("default", name): ConfigMap("default", name, data) for name, data in config_maps.items()}
    return replace(manifest, objects=replace(manifest.objects, config_maps=found))


@dataclass(frozen=True)
class Recording:
    name: str

    @property
    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((GOLDEN / f"{self.name}.calls.json").read_text())["calls"]
        return found

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((GOLDEN / f"{self.name}.status.yaml").read_text())
        return found

    @property
    def static(self) -> bool:
        return self.name.startswith("static-") or self.name == "seccomp-default-node"

    @property
    def facts(self) -> PodFacts:
        return replace(FACTS, source="file" if self.static else "api")

    def manifest(self, srv: Path = Path("/srv/golden")) -> Manifest:
        """The Pod; what the recordings have below /srv/golden lies in `srv`."""
        text = (GOLDEN / f"{self.name}.yaml").read_text().replace("/srv/golden", str(srv))
        (found,) = manifests.parse(text, self.name)
        metadata = found.pod.metadata
        assert metadata is not None
        metadata.uid = UID
        if self.static:
            # The name that a kubelet gives it.
            metadata.name = f"{metadata.name}-node-1"
        for step in self.calls:
            verb, _, change = step.get("step", "").partition(" ")
            if verb == "debug":
                spec = msgspec.to_builtins(found.pod)["spec"]
                added = [
                    {"terminationMessagePath": "/dev/termination-log", **one} for one in json.loads(change)
                ]
                spec["ephemeralContainers"] = [*spec.get("ephemeralContainers", []), *added]
                found = replace(found, pod=msgspec.convert({"metadata": metadata, "spec": spec}, Pod))
        return found


def recordings() -> list[Recording]:
    return [Recording(path.name.removesuffix(".calls.json")) for path in sorted(GOLDEN.glob("*.calls.json"))]
