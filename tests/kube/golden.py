"""The recordings of a kubelet: cases, the node they come from, and what was asked for in them."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from podwright.kube.manifests import manifest as manifests
from podwright.kube.manifests import static_pods
from podwright.kube.manifests.documents import documents
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import TOKEN_SECRET, Objects, Secret, Service, ServicePort
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests.dns import parse_resolver
from podwright.wire import cri_pb2 as cri

GOLDEN = Path(__file__).parent.parent / "golden" / "kubelet"
CASES = sorted(path.name.removesuffix(".calls.json") for path in GOLDEN.glob("*.calls.json"))
USER_IDS = 65536
"""Stands for ${USERNS_HOST_ID}: a number, as the protocol wants one."""
TIME = "${TIME}"

_STATIC = ("static-pod", "static-critical", "static-volumes", "static-in-cluster", "seccomp-default-node")
_USERS: Mapping[str, int | str] = {"app": 1234, "nameduser": "appuser"}


def node(case: str) -> Node:
    return Node(
        name="node-1",
        ips=("${NODE_IP}",),
        cpus=2,
        memory=25276514304,
        allocatable_memory=24667712 << 10,
        huge_pages=("2MB", "1GB"),
        resolver=parse_resolver("nameserver 192.0.2.53\nsearch host.test\noptions ndots:1 timeout:2\n"),
        cluster_dns=("10.96.0.10",),
        cluster_domain="cluster.local",
        root=Path("${KUBELET_ROOT}"),
        pod_logs=Path("${POD_LOG_DIR}"),
        seccomp_root="${KUBELET_ROOT}/seccomp",
        seccomp_default=case == "seccomp-default-node",
        allowed_unsafe_sysctls=("kernel.msg*", "net.core.somaxconn"),
        cgroup_root="",
        make_cgroups=True,
        handlers={"": cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)},
        container_log_max_size=64 << 10,
        container_log_max_files=3,
    )


def facts(case: str, manifest: Manifest) -> PodFacts:
    return PodFacts(
        ips=("${POD_IP}",),
        user_ids=USER_IDS if manifest.spec.hostUsers is False else None,
        source="file" if manifest.static else "api",
        seen_at=TIME,
    )


def beside(case: str) -> Objects:
    """What the cluster of the recordings had and the file of the case does not say."""
    found = Objects()
    if case.startswith("env-service-links"):
        port = ServicePort(443, "https")
        found = found.adding(Service("default", "kubernetes", "10.96.0.1", (port,)))
    if case == "service-account-token":
        files = {"token": b"generated", "ca.crt": b"generated"}
        found = found.adding(Secret("default", "token", files, TOKEN_SECRET, "default"))
    return found


def read(case: str, *steps: str) -> Manifest:
    """The Pod of the case, after those of the steps that change it."""
    trees = documents((GOLDEN / f"{case}.yaml").read_text(), case)
    namespace = json.loads((GOLDEN / f"{case}.calls.json").read_text())["pod"].partition("/")[0]
    for tree, _ in trees:
        tree["metadata"].setdefault("namespace", namespace)
        if tree["kind"] == "Pod":
            for step in steps:
                _change(tree, step)
    if case in _STATIC:
        ((tree, place),) = trees
        made = static_pods.from_tree(tree, place, node(case))
        assert made.pod.metadata is not None
        annotations = made.pod.metadata.annotations or {}
        annotations["kubernetes.io/config.hash"] = "${POD_UID}"
    else:
        (made,) = manifests.from_trees(trees, case, beside(case))
    assert made.pod.metadata is not None
    made.pod.metadata.uid = "${POD_UID}"
    return made


def calls(case: str) -> list[dict[str, Any]]:
    """Calls and steps, in order."""
    text = (GOLDEN / f"{case}.calls.json").read_text().replace('"${USERNS_HOST_ID}"', str(USER_IDS))
    found: list[dict[str, Any]] = json.loads(text)["calls"]
    return found


def status(case: str) -> dict[str, Any]:
    """What became of the case: `status`, `afterDeletion`, `events`, `hostsFile`, `volumes`."""
    found: dict[str, Any] = yaml.safe_load((GOLDEN / f"{case}.status.yaml").read_text())
    return found


def events(case: str) -> list[tuple[str, str]]:
    """Reasons and messages."""
    return [(one["reason"], one["message"]) for one in status(case)["events"]]


def image(reference: str) -> cri.Image:
    """The image of the recordings, by its id "${IMAGE_ID:NAME:TAG}"."""
    found = cri.Image(id=reference)
    user = _USERS.get(reference.removeprefix("${IMAGE_ID:").partition(":")[0], 0)
    if isinstance(user, str):
        found.username = user
    else:
        found.uid.value = user
    return found


def container_config(request: Mapping[str, Any]) -> cri.ContainerConfig:
    """A recorded configuration; values of variables are plain text there."""
    tree = copy.deepcopy(dict(request))
    for variable in tree.get("envs", []):
        text = variable.get("value", "")
        if not text.startswith("base64:"):
            variable["value"] = base64.b64encode(text.encode()).decode()
    return ParseDict(tree, cri.ContainerConfig())


def plain(message: Message) -> dict[str, Any]:
    """The message as JSON, in the order of the recordings where a kubelet has none."""
    if isinstance(message, cri.ContainerConfig):
        message.envs.sort(key=lambda one: one.key)
    if isinstance(message, cri.PodSandboxConfig):
        message.dns_config.options.sort()
    tree: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return tree


def _change(tree: dict[str, Any], step: str) -> None:
    verb, _, text = step.partition(" ")
    spec = tree["spec"]
    if verb in ("resize", "patch"):
        for wanted in json.loads(text)["spec"]["containers"]:
            container = next(one for one in spec["containers"] if one["name"] == wanted["name"])
            _merge(container, wanted)
    elif verb == "debug":
        spec["ephemeralContainers"] = [*spec.get("ephemeralContainers", []), *json.loads(text)]


def _merge(tree: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            _merge(tree.setdefault(key, {}), value)
        else:
            tree[key] = value
