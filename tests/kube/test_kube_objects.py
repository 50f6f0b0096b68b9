"""The objects beside Pods: what they hold, and what the API server would refuse in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest, objects
from podwright.kube.manifests.objects import ConfigMap, Objects, Secret, ServicePort

POD = """
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  runtimeClassName: slow
  containers: [{name: main, image: "x:1"}]
"""


def beside(text: str) -> Objects:
    (pod,) = manifest.parse(text + POD, "x")
    return pod.objects


def test_a_stream_is_read_as_a_whole() -> None:
    found = beside(
        """
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: shop}
data: {a: "1"}
binaryData: {b: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
data: {a: MQ==, b: "Mg=="}
stringData: {b: plain}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 5432, targetPort: pg}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
"""
    )
    config_map, secret = found.config_map("shop", "c"), found.secret("shop", "s")
    assert config_map is not None and secret is not None
    assert config_map.files == {"a": b"1", "b": b"\x00\x01\x02"}
    assert secret.files == {"a": b"1", "b": b"plain"}
    assert [one.ports for one in found.services_of("shop")] == [(ServicePort(5432),)]
    assert found.config_map("default", "c") is None


def test_what_comes_later_in_the_stream_is_found_too() -> None:
    text = POD + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: shop}\n"
    (pod,) = manifest.parse(text, "x")
    assert pod.objects.config_map("shop", "c") == ConfigMap("shop", "c")


def test_secrets_do_not_show_in_words() -> None:
    assert "hidden" not in repr(Objects().adding(Secret("n", "s", {"k": b"hidden"})))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: ConfigMap\ndata: {a: 1}", "data[a]: 1 is not a string: put it in quotes"),
        ("kind: ConfigMap\ndata: {a b: x}", "'a b' is no key"),
        ("kind: ConfigMap\ndata: {..x: x}", "'..x' is no key"),
        ("kind: ConfigMap\ndata: {a: x}\nbinaryData: {a: eA==}", "binaryData[a]: is in data, too"),
        ("kind: ConfigMap\ndta: {a: x}", "dta: no such field; is it data?"),
        ("kind: ConfigMap\ndata: [a]", "Expected `object | null`, got `array` - at `data`"),
        ("kind: Secret\ndata: {a: plain text}", "data[a]: is not base64"),
        (
            "kind: Secret\ntype: kubernetes.io/tls\nstringData: {tls.crt: x}",
            "data[tls.key]: a Secret of type",
        ),
        (f"kind: ConfigMap\ndata: {{a: {'x' * (1 << 20)}, b: x}}", "more than 1048576"),
    ],
)
def test_what_the_api_server_would_refuse(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        beside(f"apiVersion: v1\nmetadata: {{name: c}}\n{text}\n")
    assert words in str(caught.value)


def test_files_are_data(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("t")
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "below").mkdir()
    made = objects.config_map_of("c", tmp_path)
    assert (made.data, made.binary) == ({"text": "t"}, {"bytes": b"\xff"})
    assert objects.secret_of("s", tmp_path / "bytes").data == {"bytes": b"\xff"}
    with pytest.raises(InvalidArgument, match="cannot be read"):
        objects.config_map_of("c", tmp_path / "none")
    (tmp_path / "no key").touch()
    with pytest.raises(InvalidArgument, match="is no key"):
        objects.config_map_of("c", tmp_path)


def test_one_of_the_same_name_takes_the_place_of_its_predecessor() -> None:
    first, second = ConfigMap("n", "c", {"a": "1"}), ConfigMap("n", "c", {"a": "2"})
    both = Objects().adding(first).merged(Objects().adding(second))
    assert both.config_map("n", "c") is second
    assert first in both and ConfigMap("n", "d") not in both


def admitted(documents: str, **spec: Any) -> manifest.Manifest:
    import json

    tree = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "uid": "u"},
        "spec": {"containers": [{"name": "main", "image": "x:1"}], **spec},
    }
    (pod,) = manifest.parse(f"{documents}\n---\n{json.dumps(tree)}", "x")
    return pod


SLOW = """
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: slow}
handler: gvisor
overhead: {podFixed: {cpu: 50m}}
"""
HIGH = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
globalDefault: %s
"""
ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: bot}
imagePullSecrets: [{name: registry}]
"""
TOKEN = """
---
apiVersion: v1
kind: Secret
metadata: {name: t, annotations: {kubernetes.io/service-account.name: bot}}
type: kubernetes.io/service-account-token
stringData: {token: t, ca.crt: c}
"""


def test_a_runtime_class_names_the_handler_and_charges_for_it() -> None:
    from podwright.kube.requests import translate

    pod = admitted(SLOW, runtimeClassName="slow")
    assert translate.runtime_handler(pod) == "gvisor"
    assert pod.spec.overhead == {"cpu": "50m"}
    assert translate.runtime_handler(admitted(SLOW, runtimeClassName="other")) == "other"
    with pytest.raises(InvalidArgument, match="is not that of RuntimeClass 'slow'"):
        admitted(SLOW, runtimeClassName="slow", overhead={"cpu": "1"})


def test_priorities() -> None:
    assert admitted(HIGH % "false", priorityClassName="high").spec.priority == 1000
    assert admitted(HIGH % "true").spec.priorityClassName == "high"
    assert admitted(HIGH % "false").spec.priority == 0
    assert admitted("", priorityClassName="system-node-critical").spec.priority == 2_000_001_000
    unknown = admitted("", priorityClassName="none")
    assert unknown.spec.priority == 0 and "no PriorityClass 'none'" in unknown.notes[0]
    with pytest.raises(InvalidArgument, match="5 is not the value of PriorityClass 'high', 1000"):
        admitted(HIGH % "false", priorityClassName="high", priority=5)


def test_service_accounts() -> None:
    pod = admitted(ACCOUNT, serviceAccountName="bot")
    assert [one.name for one in pod.spec.imagePullSecrets or []] == ["registry"]
    assert not pod.spec.volumes
    assert admitted(ACCOUNT).spec.serviceAccountName == "default"
    note = admitted("", automountServiceAccountToken=True).notes[0]
    assert note.startswith("spec.automountServiceAccountToken has no effect here")


def test_a_token_that_somebody_gave_is_mounted() -> None:
    pod = admitted(ACCOUNT + TOKEN, serviceAccountName="bot")
    (volume,) = pod.spec.volumes or []
    assert volume.name.startswith("kube-api-access-") and len(volume.name) == 21
    assert [one.mountPath for one in pod.containers[0].volumeMounts or []] == [
        "/var/run/secrets/kubernetes.io/serviceaccount"
    ]
    root = pod.objects.config_map("default", "kube-root-ca.crt")
    assert root is not None and root.data == {"ca.crt": "c"}
    assert not admitted(
        ACCOUNT + TOKEN, serviceAccountName="bot", automountServiceAccountToken=False
    ).spec.volumes


def test_the_token_of_a_pod_that_came_out_of_a_cluster_is_left_out() -> None:
    mount = {"name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    sources = [{"serviceAccountToken": {"path": "token"}}]
    pod = admitted(
        "",
        containers=[{"name": "main", "image": "x:1", "volumeMounts": [mount]}],
        volumes=[{"name": mount["name"], "projected": {"sources": sources}}],
    )
    assert not pod.spec.volumes and not pod.containers[0].volumeMounts
    assert "a cluster's volume" in pod.notes[0]
