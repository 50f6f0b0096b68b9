"""Workloads as Pods: what their controllers would make of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest


def workload(kind: str, version: str = "apps/v1", template: dict[str, Any] | None = None, **spec: Any) -> str:
    pod = {"containers": [{"name": "main", "image": "x:1"}], **(template or {})}
    tree = {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": None},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}}, "spec": pod},
            **spec,
        },
        "status": {},
    }
    return yaml.safe_dump(tree)


def pods(text: str) -> list[Manifest]:
    return manifest.parse(text, "x.yaml")


def labels(pod: Manifest) -> dict[str, str]:
    assert pod.pod.metadata is not None
    return dict(pod.pod.metadata.labels or {})


def owner(pod: Manifest) -> tuple[str, str, bool]:
    assert pod.pod.metadata is not None
    ((one),) = pod.pod.metadata.ownerReferences or []
    return one.kind, one.name, bool(one.controller)


def test_a_deployment_is_the_pods_of_its_replica_set() -> None:
    made = pods(workload("Deployment", replicas=3, strategy={"type": "Recreate"}, revisionHistoryLimit=2))
    digest = labels(made[0])["pod-template-hash"]
    assert len({one.name for one in made}) == len({one.uid for one in made}) == 3
    for one in made:
        assert re.fullmatch(rf"web-{digest}-[a-z0-9]{{5}}", one.name)
        assert one.namespace == "shop" and labels(one)["app"] == "web"
        assert owner(one) == ("ReplicaSet", f"web-{digest}", True)
    assert made[0].notes == ("Deployment web: no effect here: spec.revisionHistoryLimit, spec.strategy",)


def test_names_are_the_same_until_the_template_changes() -> None:
    first, again = (pods(workload("Deployment"))[0].name for _ in range(2))
    other = pods(workload("Deployment", template={"hostNetwork": True}))[0].name
    assert first == again != other


def test_replica_sets_and_replication_controllers() -> None:
    (one, two) = pods(workload("ReplicaSet", replicas=2))
    assert owner(one) == ("ReplicaSet", "web", True)
    assert re.fullmatch(r"web-[a-z0-9]{5}", one.name) and one.name != two.name
    (one,) = pods(workload("ReplicationController", "v1", selector={"app": "web"}))
    assert owner(one) == ("ReplicationController", "web", True)


def test_a_daemon_set_is_one_pod() -> None:
    (one,) = pods(workload("DaemonSet", updateStrategy={"type": "OnDelete"}))
    assert owner(one) == ("DaemonSet", "web", True)
    assert labels(one)["pod-template-generation"] == "1"


def test_the_pods_of_a_stateful_set_have_names_and_numbers() -> None:
    made = pods(workload("StatefulSet", replicas=2, serviceName="peers", ordinals={"start": 4}))
    assert [(one.name, one.spec.hostname, one.spec.subdomain) for one in made] == [
        ("web-4", "web-4", "peers"),
        ("web-5", "web-5", "peers"),
    ]
    assert [labels(one)["apps.kubernetes.io/pod-index"] for one in made] == ["4", "5"]
    assert labels(made[1])["statefulset.kubernetes.io/pod-name"] == "web-5"


def test_claims_of_a_stateful_set_are_named_where_nothing_provides_them() -> None:
    claims = [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]
    with pytest.raises(InvalidArgument, match=r"spec.volumes\[0\].persistentVolumeClaim: is not supported"):
        pods(workload("StatefulSet", serviceName="peers", volumeClaimTemplates=claims))


@pytest.mark.parametrize(
    ("spec", "count"),
    [({}, 1), ({"parallelism": 3}, 3), ({"completions": 4, "parallelism": 2}, 4), ({"completions": 2}, 2)],
)
def test_a_job_is_as_many_pods_as_have_to_end_well(spec: dict[str, int], count: int) -> None:
    made = pods(workload("Job", "batch/v1", {"restartPolicy": "Never"}, selector=None, **spec))
    assert len(made) == count
    assert labels(made[0])["job-name"] == labels(made[0])["batch.kubernetes.io/job-name"] == "web"


def test_an_indexed_job_gives_its_pods_their_index() -> None:
    made = pods(
        workload(
            "Job", "batch/v1", {"restartPolicy": "OnFailure"}, selector=None, completions=2,
            completionMode="Indexed", backoffLimit=3,
        )
    )  # fmt: skip
    assert [one.spec.hostname for one in made] == ["web-0", "web-1"]
    assert re.fullmatch(r"web-1-[a-z0-9]{5}", made[1].name)
    (variable,) = made[1].containers[0].env or []
    assert variable.name == "JOB_COMPLETION_INDEX"
    assert variable.valueFrom is not None and variable.valueFrom.fieldRef is not None
    assert labels(made[1])["batch.kubernetes.io/job-completion-index"] == "1"
    assert "spec.backoffLimit" in made[0].notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (workload("Deployment", replicas=0), "Deployment web asks for no Pods"),
        (workload("Job", "batch/v1", {"restartPolicy": "Never"}, suspend=True), "Job web asks for no Pods"),
        (workload("Job", "batch/v1"), "restartPolicy: 'Always' is none of OnFailure, Never"),
        (workload("Deployment", replicas=-1), "spec.replicas: -1 is not between 0 and 110"),
        (workload("Deployment", replicas=5000), "spec.replicas: 5000 is not between 0 and 110"),
        (
            workload("Deployment", selector={"matchLabels": {"app": "x"}}),
            "app=x is no label of spec.template",
        ),
        (workload("Deployment", selector={}), "spec.selector: is needed"),
        (workload("Deployment", replica=2), "spec.replica: no such field; is it replicas?"),
        (
            workload("Deployment", template={"hostNetwrk": True}),
            "hostNetwrk: no such field; is it hostNetwork?",
        ),
        (workload("Deployment", replicas="two"), "Expected `int | null`, got `str` - at `spec.replicas`"),
    ],
)
def test_what_cannot_be_made_into_pods(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        pods(text)
    assert words in str(caught.value)


def test_a_chart_runs_with_what_stands_around_it() -> None:
    others = "\n---\n".join(
        f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}"
        for version, kind in (
            ("networking.k8s.io/v1", "Ingress"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("autoscaling/v2", "HorizontalPodAutoscaler"),
            ("policy/v1", "PodDisruptionBudget"),
            ("monitoring.coreos.com/v1", "ServiceMonitor"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("v1", "PersistentVolumeClaim"),
            ("v1", "Namespace"),
        )
    )
    (one,) = pods(f"# Source: chart\n{others}\n---\n{workload('Deployment')}")
    assert one.namespace == "shop"
    assert [note.split()[0] for note in one.notes[:3]] == ["Ingress", "Role", "HorizontalPodAutoscaler"]
    assert len(one.notes) == 8
