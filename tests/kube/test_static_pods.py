"""Static pods: names, identities, and what they may not refer to."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from podwright.errors import InvalidArgument
from podwright.kube.manifests import admission, static_pods
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node

NODE = Node(name="Node-1")


def static(container: dict[str, Any] | None = None, source: str = "/m/web.yaml", **spec: Any) -> Manifest:
    tree = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"a": "b"}},
        "spec": {"containers": [{"name": "main", "image": "x:1", **(container or {})}], **spec},
    }
    (pod,) = static_pods.parse(yaml.safe_dump(tree), source, NODE)
    return pod


def test_a_static_pod_carries_the_nodes_name_and_a_hash() -> None:
    pod = static()
    assert (pod.name, pod.namespace, pod.spec.nodeName) == ("web-node-1", "default", "Node-1")
    assert len(pod.uid) == 32 and pod.static
    assert pod.pod.metadata is not None
    assert pod.pod.metadata.annotations == {"a": "b", "kubernetes.io/config.hash": pod.uid}
    assert pod.spec.serviceAccountName is None
    assert admission.refusal(pod, NODE) is None


def test_another_text_or_file_is_another_pod() -> None:
    uids = {static().uid, static(hostNetwork=True).uid, static(source="/m/other.yaml").uid}
    assert len(uids) == 3 and static().uid in uids


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


@pytest.mark.parametrize(
    ("container", "spec", "resource"),
    [
        ({}, {"serviceAccountName": "bot"}, "serviceaccounts"),
        ({}, {"imagePullSecrets": [{"name": "s"}]}, "secrets"),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, {}, "secrets"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, {}, "secrets"),
        ({}, volume(secret={"secretName": "s"}), "secrets"),
        ({"envFrom": [{"configMapRef": {"name": "c"}}]}, {}, "configmaps"),
        ({}, volume(configMap={"name": "c"}), "configmaps"),
        ({}, volume(projected={"sources": [{"configMap": {"name": "c"}}]}), "configmaps"),
        (
            {},
            volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
            "serviceaccounts (via projected volumes)",
        ),
    ],
)
def test_what_an_api_server_keeps_is_refused(
    container: dict[str, Any], spec: dict[str, Any], resource: str
) -> None:
    pod = static(container, **spec)
    assert pod.refused == f"static pods may not reference {resource}"
    refusal = admission.refusal(pod, NODE)
    assert refusal is not None and refusal.message == pod.refused


def test_only_pods_are_static() -> None:
    with pytest.raises(InvalidArgument, match="kind 'ConfigMap' cannot be static"):
        static_pods.parse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}", "x", NODE)
    with pytest.raises(InvalidArgument, match=r"metadata.name is needed"):
        static_pods.parse("apiVersion: v1\nkind: Pod\nspec: {}", "x", NODE)


@pytest.mark.parametrize(
    ("spec", "node", "refusal"),
    [
        ({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}, NODE, None),
        ({"sysctls": [{"name": "net/ipv4/ping_group_range", "value": "0 1"}]}, NODE, None),
        (
            {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
            NODE,
            ("SysctlForbidden", 'forbidden sysctl: "kernel.msgmax" not allowlisted'),
        ),
        (
            {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]},
            Node(allowed_unsafe_sysctls=("kernel.msg*",)),
            None,
        ),
        (
            {"appArmorProfile": {"type": "RuntimeDefault"}},
            NODE,
            ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"),
        ),
        ({"appArmorProfile": {"type": "RuntimeDefault"}}, Node(apparmor=True), None),
        ({"appArmorProfile": {"type": "Unconfined"}}, NODE, None),
    ],
)
def test_what_the_node_refuses(spec: dict[str, Any], node: Node, refusal: tuple[str, str] | None) -> None:
    found = admission.refusal(static(securityContext=spec), node)
    assert (found and (found.reason, found.message)) == refusal


def test_sysctls_of_namespaces_that_are_the_hosts_are_refused() -> None:
    """A file with them is no Pod to a kubelet; one that has come by another way is not taken."""
    found = static(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]})
    found.spec.hostNetwork = True
    refused = admission.refusal(found, NODE)
    assert refused is not None and "not allowed with host net enabled" in refused.message
