"""Reading manifests: what is refused, by name, and what is filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: main, image: example.test/web}
"""


def tree(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main", "image": "x:1", **(container or {})}], **spec},
    }


def fault(document: dict[str, Any]) -> str:
    with pytest.raises(InvalidArgument) as caught:
        manifest.from_dict(document, "pod.yaml")
    return str(caught.value)


def test_defaults_are_the_api_servers() -> None:
    (pod,) = manifest.parse(POD)
    assert (pod.namespace, pod.name, pod.grace) == ("default", "web", 30)
    assert len(pod.uid) == 36
    assert (pod.spec.restartPolicy, pod.spec.dnsPolicy) == ("Always", "ClusterFirst")
    assert pod.containers[0].imagePullPolicy == "Always"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("host:5000/busybox", "Always"),
        ("host:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
        ("busybox:latest@sha256:" + "0" * 64, "Always"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert manifest.from_dict(tree({"image": image})).containers[0].imagePullPolicy == policy


def test_requests_are_the_limits_unless_said() -> None:
    pod = manifest.from_dict(
        tree({"resources": {"limits": {"cpu": 2, "memory": "1Gi"}, "requests": {"cpu": 1}}})
    )
    assert pod.containers[0].resources is not None
    assert pod.containers[0].resources.requests == {"cpu": 1, "memory": "1Gi"}


def test_several_documents_and_lists_are_several_pods() -> None:
    other = POD.replace("web", "other")
    listed = "apiVersion: v1\nkind: List\nitems:\n- " + POD.replace("web", "third").strip().replace(
        "\n", "\n  "
    )
    assert [one.name for one in manifest.parse(f"---\n{POD}\n---\n{other}\n---\n---\n{listed}")] == [
        "web",
        "other",
        "third",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML: line 1, column 5: while parsing a flow node: expected the node content"),
        ("", "holds no Pod"),
        ("just text", "is not a Kubernetes object"),
        ("kind: Pod\napiVersion: v2", "kind 'Pod' of apiVersion 'v2' is not supported: v1 is"),
        ("kind: Deployment\napiVersion: extensions/v1beta1", "is not supported: apps/v1 is"),
        ("kind: Deploymnt\napiVersion: apps/v1", "is it Deployment?"),
        ("kind: CronJob\napiVersion: batch/v1", "run what is below spec.jobTemplate as a Job"),
        ("kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: i}", "Ingress i has no effect"),
        (POD + "---\nkind: ConfigMap\napiVersion: v1", "document 2: ConfigMap: metadata.name is needed"),
        ("a:\n\tb: 1", "use spaces"),
        (POD + "\n---" + POD, "holds Pod default/web more than once"),
        (POD + "  containers: []", "'containers' comes twice"),
    ],
)
def test_files_that_cannot_be_run_say_why(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        manifest.parse(text, "pod.yaml")
    assert words in str(caught.value) and "pod.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no\.yaml: cannot be read"):
        manifest.read(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (tree({"imag": "x"}), "spec.containers[0].imag: no such field; is it image?"),
        (tree(conteiners=[]), "spec.conteiners: no such field; is it containers?"),
        (tree(zzz=1), "spec.zzz: no such field"),
        (
            tree(volumes=[{"name": "c", "nfs": {"server": "s", "path": "/"}}]),
            "spec.volumes[0].nfs: is not supported",
        ),
        (tree(volumes=[{"name": "c", "gitRepo": {"repository": "r"}}]), "spec.volumes[0].gitRepo: is not"),
        (tree(hostUsers=False, hostNetwork=True), "spec.hostNetwork: cannot be combined with hostUsers"),
        (tree(hostUsers=False, hostPID=True), "spec.hostPID: cannot be combined with hostUsers"),
        (tree(hostUsers=False, hostIPC=True), "spec.hostIPC: cannot be combined with hostUsers"),
        (tree(resourceClaims=[{"name": "gpu"}]), "spec.resourceClaims: is not supported"),
        (tree({"resources": {"limits": {"nvidia.com/gpu": 1}}}), "limits[nvidia.com/gpu]: is not supported"),
        (
            tree({"securityContext": {"windowsOptions": {"hostProcess": True}}}),
            "securityContext.windowsOptions",
        ),
        (tree({"args": [8080]}), "Expected `str`, got `int` - at `spec.containers[0].args[0]`"),
        (tree({"name": "Main"}), "spec.containers[0].name: 'Main' is not a DNS label"),
        (tree({"image": ""}), "spec.containers[0].image"),
        (
            tree({"imagePullPolicy": "always"}),
            "imagePullPolicy: 'always' is none of Always, IfNotPresent, Never",
        ),
        (tree(restartPolicy="Sometimes"), "spec.restartPolicy"),
        (tree(dnsPolicy="None"), "spec.dnsConfig.nameservers"),
        (tree(os={"name": "windows"}), "spec.os.name"),
        (tree({"ports": [{"containerPort": 0}]}), "ports[0].containerPort: 0 is not a port"),
        (tree({"resources": {"limits": {"cpu": "1 core"}}}), "limits[cpu]: '1 core' is not a quantity"),
        (
            tree({"resources": {"limits": {"cpu": 1}, "requests": {"cpu": 2}}}),
            "requests[cpu]: 2 is more than",
        ),
        (
            tree({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            "volumeMounts[0].name: there is no volume 'v'",
        ),
        (
            tree({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}),
            "allowPrivilegeEsc",
        ),
        (
            tree({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
            "seccompProfile.localhostProfile",
        ),
        (tree(volumes=[{"name": "h", "hostPath": {"path": "/a/../b"}}]), "hostPath.path"),
        (tree(volumes=[{"name": "h", "hostPath": {"path": "/", "type": "Dir"}}]), "hostPath.type"),
        (tree(hostPID=True, shareProcessNamespace=True), "spec.shareProcessNamespace"),
        (
            {**tree(), "metadata": {"name": "web", "labels": {"a": 1}}},
            "metadata.labels[a]: 1 is not a string",
        ),
        ({**tree(), "metadata": {"name": "../x"}}, "metadata.name"),
        ({**tree(), "metadata": {"name": "x", "namespace": "a/b"}}, "metadata.namespace"),
    ],
)
def test_what_cannot_be_run_is_named(document: dict[str, Any], path: str) -> None:
    assert path in fault(document)


@pytest.mark.parametrize(
    ("mount", "path"),
    [
        ({"subPath": "../x"}, "subPath"),
        ({"subPath": "/x"}, "subPath"),
        ({"subPathExpr": "a/../../b"}, "subPathExpr"),
        ({"subPath": "a", "subPathExpr": "b"}, "subPathExpr"),
        ({"mountPropagation": "Bidirectional"}, "privileged"),
        ({"recursiveReadOnly": "Enabled"}, "readOnly: true"),
        ({"mountPath": ""}, "mountPath"),
    ],
)
def test_volume_mounts_that_cannot_be(mount: dict[str, Any], path: str) -> None:
    made = {"name": "v", "mountPath": "/v", **mount}
    assert path in fault(tree({"volumeMounts": [made]}, volumes=[{"name": "v", "emptyDir": {}}]))


def test_all_faults_come_at_once() -> None:
    text = fault(
        tree({"imag": "x", "livenessProbe": {"tcpSocket": {"port": 0}}}, resourceClaims=[{"name": "s"}])
    )
    assert text.count("\n") == 3


def test_what_has_no_effect_is_noted() -> None:
    pod = manifest.from_dict(
        {
            **tree(
                {"resources": {"limits": {"ephemeral-storage": "1Gi"}}},
                nodeSelector={"disk": "ssd"},
                hostUsers=True,
                volumes=[{"name": "v", "emptyDir": {"sizeLimit": 1048576}}],
            ),
            "status": {"phase": "Running"},
        }
    )
    assert sorted(note.split()[0] for note in pod.notes) == [
        "spec.containers[0].resources.limits[ephemeral-storage]",
        "spec.nodeSelector",
        "spec.volumes[0].emptyDir.sizeLimit",
    ]


def test_dates_stay_text() -> None:
    (pod,) = manifest.parse(POD.replace("{name: web}", "{name: web, annotations: {day: 2026-01-02}}"))
    assert pod.pod.metadata is not None and pod.pod.metadata.annotations == {"day": "2026-01-02"}


@pytest.mark.parametrize(
    ("said", "kind", "name"),
    [
        ("runtime/default", "RuntimeDefault", None),
        ("unconfined", "Unconfined", None),
        ("localhost/web", "Localhost", "web"),
    ],
)
def test_apparmor_annotations_are_fields(said: str, kind: str, name: str | None) -> None:
    key = "container.apparmor.security.beta.kubernetes.io/main"
    pod = manifest.from_dict({**tree(), "metadata": {"name": "web", "annotations": {key: said}}})
    context = pod.containers[0].securityContext
    assert context is not None and context.appArmorProfile is not None
    assert (context.appArmorProfile.type, context.appArmorProfile.localhostProfile) == (kind, name)


def test_a_field_wins_over_an_apparmor_annotation() -> None:
    document = tree({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})
    key = "container.apparmor.security.beta.kubernetes.io/main"
    document["metadata"]["annotations"] = {key: "runtime/default"}
    context = manifest.from_dict(document).containers[0].securityContext
    assert context is not None and context.appArmorProfile is not None
    assert context.appArmorProfile.type == "Unconfined"


def test_probes_and_volumes_have_the_api_servers_defaults() -> None:
    pod = manifest.from_dict(
        tree(
            {"livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0}},
            volumes=[{"name": "c", "configMap": {"name": "c"}}, {"name": "i", "image": {"reference": "x"}}],
        )
    )
    probe = pod.containers[0].livenessProbe
    assert probe is not None and probe.httpGet is not None
    assert (probe.httpGet.path, probe.httpGet.scheme) == ("/", "HTTP")
    assert (probe.timeoutSeconds, probe.periodSeconds) == (1, 10)
    assert (probe.successThreshold, probe.failureThreshold) == (1, 3)
    first, second = pod.volume("c").configMap, pod.volume("i").image
    assert first is not None and first.defaultMode == 0o644
    assert second is not None and second.pullPolicy == "Always"


def test_a_pod_may_leave_its_name_to_be_made() -> None:
    document = {**tree(), "metadata": {"generateName": "web-"}}
    name = manifest.from_dict(document).name
    assert name.startswith("web-") and len(name) == 9 and manifest.from_dict(document).name == name
