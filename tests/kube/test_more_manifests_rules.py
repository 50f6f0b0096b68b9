"""Rules of a kubelet and its API server that only show in odd manifests: what is said with 0, said of the pod
as a whole, or said in a place where few look for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.kube import volumes
from podwright.kube.failures import ConfigError
from podwright.kube.files import termination
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests import defaults, manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ResourceFieldSelector
from podwright.kube.node import Node
from podwright.kube.requests import dns, env, quantities, resources, security, signals
from podwright.kube.requests.container import container_config
from podwright.kube.state import actual_resources
from podwright.wire import cri_pb2 as cri
from tests.kube.volume_pods import FACTS

NODE = Node(cpus=2, memory=1 << 30, allocatable_memory=1 << 29)


def container(name: str, requests: Any = None, limits: Any = None, **more: Any) -> dict[str, Any]:
    said = {"requests": requests or {}, "limits": limits or {}}
    return {"name": name, "image": "x:1", "resources": said, **more}


def pod(*containers: dict[str, Any], **spec: Any) -> Manifest:
    spec = {"containers": list(containers) or [container("main")], **spec}
    return manifest.from_dict({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})


def test_a_request_of_0_is_not_the_limit() -> None:
    made = pod(container("main", {"cpu": 0}, {"cpu": "500m"}))
    told = resources.container_resources(made, made.containers[0], NODE)
    assert (told.cpu_shares, told.cpu_quota) == (2, 50_000)
    assert resources.sandbox_resources(made).cpu_shares == 2
    without = pod(container("main", limits={"cpu": "500m"}))
    assert resources.container_resources(without, without.containers[0], NODE).cpu_shares == 512
    assert resources.sandbox_resources(without).cpu_shares == 512


SIDECAR = container("proxy", restartPolicy="Always")
EARLY = container("early")


@pytest.mark.parametrize(
    ("init", "main", "of_init"),
    # 256 MiB that nobody asks for, in as many parts as there are containers of any kind, of 1024 MiB.
    [([], 750, []), ([EARLY], 875, [875]), ([SIDECAR], 875, [875]), ([EARLY, SIDECAR], 917, [917, 917])],
)
def test_what_of_the_pods_memory_nobody_asks_for_is_everybodys(
    init: list[dict[str, Any]], main: int, of_init: list[int]
) -> None:
    made = pod(container("main"), initContainers=init, resources={"requests": {"memory": "256Mi"}})
    assert resources.oom_score_adj(made.spec, made.containers[0], NODE.memory) == main
    scores = [resources.oom_score_adj(made.spec, one, NODE.memory) for one in made.init_containers]
    assert scores == of_init


def test_a_sidecar_is_killed_no_sooner_than_the_least_of_the_others() -> None:
    made = pod(
        container("big", {"memory": "512Mi"}),
        container("small", {"memory": "128Mi"}),
        initContainers=[SIDECAR],
        resources={"requests": {"memory": "832Mi"}},
    )
    # 192 MiB are left: 64 for each.
    (sidecar,) = made.init_containers
    assert resources.oom_score_adj(made.spec, sidecar, NODE.memory) == 1000 - 1000 * 192 // 1024


def test_a_pod_with_a_limit_requests_what_its_containers_do() -> None:
    made = pod(container("main", {"cpu": "100m"}), resources={"limits": {"memory": "64Mi"}})
    assert made.spec.resources is not None
    assert made.spec.resources.requests == {"cpu": "100m", "memory": "64Mi"}
    only_requests = pod(container("main", {"cpu": "100m"}), resources={"requests": {"memory": "64Mi"}})
    assert only_requests.spec.resources is not None
    assert only_requests.spec.resources.requests == {"memory": "64Mi"}


def test_a_pod_has_room_for_the_huge_pages_of_its_containers() -> None:
    pages = {"memory": "16Mi", "hugepages-2Mi": "4Mi"}
    made = pod(
        container("a", pages, pages), container("b", pages, pages), resources={"limits": {"memory": "64Mi"}}
    )
    assert made.spec.resources is not None
    assert made.spec.resources.limits == {"memory": "64Mi", "hugepages-2Mi": "8Mi"}
    assert made.spec.resources.requests == {"memory": "32Mi", "hugepages-2Mi": "8Mi"}


def test_resources_without_a_word_still_decide_the_quality_of_service() -> None:
    assert resources.qos_class(pod(container("main", {"cpu": 1}), resources={}).spec) == "BestEffort"
    assert resources.qos_class(pod(container("main", {"cpu": 1})).spec) == "Burstable"


@pytest.mark.parametrize(
    ("asks", "names", "volume", "answer"),
    [
        ("main", "", False, "3"),  # the pod's limit
        ("main", "main", False, "3"),
        ("main", "early", False, "0"),  # nobody fills in what an init container does not say
        ("early", "", False, "3"),
        ("", "main", True, "2"),  # a volume knows the node only
        ("", "early", True, "2"),
        ("main", "zero", False, "3"),
    ],
)
def test_limits_that_are_not_said(asks: str, names: str, volume: bool, answer: str) -> None:
    made = pod(
        container("main"),
        container("zero", limits={"cpu": 0}),
        initContainers=[EARLY],
        resources={"limits": {"cpu": 3}},
    )
    selector = ResourceFieldSelector(resource="limits.cpu", containerName=names)
    whose = None if volume else made.container(asks)
    assert env.resource_field(made, whose, selector, NODE) == answer


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web:latest@sha256:" + "0" * 64, "Always"),
        ("web:1@sha256:" + "0" * 64, "IfNotPresent"),
        ("Web", "IfNotPresent"),
    ],
)
def test_pull_policies_that_are_not_said(image: str, policy: str) -> None:
    assert defaults.pull_policy(image) == policy


def test_a_group_without_a_user_is_the_sandboxes_too() -> None:
    told = security.of_sandbox(pod(securityContext={"runAsGroup": 0}), FACTS)
    assert (told.HasField("run_as_user"), told.HasField("run_as_group")) == (False, True)


def test_a_resolver_as_a_kubelet_reads_it() -> None:
    text = "search . a.test. b.test\noptions ndots:1 rotate\n# nameserver 9.9.9.9\noptions ndots:3\nsearch ."
    read = dns.parse_resolver(text)
    assert (list(read.servers), list(read.searches)) == ([], [])
    assert sorted(read.options) == ["ndots:3", "rotate"]
    assert list(dns.parse_resolver("search . a.test. b.test").searches) == ["a.test", "b.test"]


def test_no_host_name_is_longer_than_a_label() -> None:
    made = pod(hostnameOverride="a" * 62 + ".b")
    assert dns.hostname(made, NODE) == "a" * 62


def test_the_old_name_of_a_field() -> None:
    assert env.pod_field(pod(nodeName="n1"), "spec.host", NODE, FACTS) == "n1"


def test_a_file_that_is_still_to_be_written_has_a_placeholder() -> None:
    source = {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "A"}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    main = container("main", env=[{"name": "V", "valueFrom": source}], volumeMounts=mounts)
    made = pod(main, volumes=[{"name": "v"}])

    def read(*_: str) -> str:
        raise env.NotWrittenError

    assert env.environment(made, made.containers[0], NODE, FACTS, read) == {"V": "FILE:v/f:A"}


def test_the_status_of_a_pod_with_resources_of_its_own_has_those_of_its_containers() -> None:
    made = pod(
        container("main", {"cpu": "100m", "ephemeral-storage": "1Gi"}, {"cpu": "200m"}),
        container("more", {"cpu": "0.5"}, {"cpu": 1}),
        resources={"requests": {"memory": "65536Ki"}},
    )
    assert quantities.of_pod(made.spec, "requests") == {
        "memory": "64Mi", "cpu": "600m", "ephemeral-storage": "1Gi",
    }  # fmt: skip
    assert quantities.of_pod(made.spec, "limits") == {"cpu": "1200m"}
    running = actual_resources.of_pod(made)
    assert running.requests == {"memory": "64Mi", "cpu": "600m"}
    assert running.limits == {"cpu": "1200m"}


def test_what_a_container_has_of_its_pod_is_in_its_status() -> None:
    made = pod(container("main", {"memory": "32Mi"}, {"memory": "64Mi"}), resources={"limits": {"cpu": 1}})
    (main,) = made.containers
    told = cri.ContainerStatus()
    told.resources.linux.CopyFrom(resources.container_resources(made, main, NODE))
    found = actual_resources.of(main, told)
    assert (found.requests, found.limits) == ({"memory": "32Mi", "cpu": "1"}, {"memory": "64Mi", "cpu": "1"})


def test_which_paths_are_tidied_and_which_are_not(tmp_path: Path) -> None:
    mounts = [
        {"name": "host", "mountPath": "/a//b/"},
        {"name": "disk", "mountPath": "rel//c/."},
        {"name": "host", "mountPath": "/etc/hosts/"},
    ]
    made = pod(
        container("main", volumeMounts=mounts, terminationMessagePath="//words/./x/"),
        volumes=[{"name": "host", "hostPath": {"path": "/srv//h/"}}, {"name": "disk"}],
    )
    directory = PodDirectory.below(tmp_path, made.namespace, made.name, made.uid)
    found = volumes.planned_mounts(made, made.containers[0], NODE, FACTS, directory, {})
    assert [one.container_path for one in found] == [
        "/a//b/", "/rel/c", "/etc/hosts/", "/etc/hosts", "/words/x",
    ]  # fmt: skip
    assert found[0].host_path == "/srv//h/"
    ended = cri.ContainerStatus(state=cri.CONTAINER_EXITED, mounts=[found[-1]])
    ended.annotations[termination.PATH] = "//words/./x/"
    ended.mounts[0].host_path = str(tmp_path / "x")
    (tmp_path / "x").write_text("bye")
    assert termination.read_termination_message(ended) == "bye"


@pytest.mark.parametrize(
    ("name", "told"),
    [("SIGTERM", "SIGTERM"), ("SIGRTMIN+1", "SIGRTMINPLUS1"), ("SIGRTMAX-14", "SIGRTMAXMINUS14")],
)
def test_stop_signals_have_other_names_in_the_cri(name: str, told: str) -> None:
    made = pod(container("main", lifecycle={"stopSignal": name}), os={"name": "linux"})
    config = container_config(made, made.containers[0], cri.Image(id="i"), NODE, FACTS, environment={})
    assert cri.Signal.Name(config.stop_signal) == told
    assert signals.name(config.stop_signal) == name
    with pytest.raises(InvalidArgument, match="stopSignal: 'SIGRTMINPLUS1' is not a signal"):
        pod(container("main", lifecycle={"stopSignal": "SIGRTMINPLUS1"}), os={"name": "linux"})


def test_an_env_file_in_a_volume_that_nobody_mounts_is_not_found() -> None:
    source = {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "A", "optional": True}}
    made = pod(container("main", env=[{"name": "V", "valueFrom": source}]), volumes=[{"name": "v"}])
    with pytest.raises(ConfigError, match='cannot find the volume "v" referenced by FileKeyRef'):
        env.environment(made, made.containers[0], NODE, FACTS, lambda *_: "A='1'")
