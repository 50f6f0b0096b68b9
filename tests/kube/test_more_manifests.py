"""Manifests as real clusters have them, beyond the recordings: what the API server takes and what it refuses,
with the field's name; and odd values that must come out as a kubelet's."""

from __future__ import annotations

import copy
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwright.errors import InvalidArgument, PodwrightError
from podwright.kube.failures import ConfigError, CreateError
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import VolumeMount
from podwright.kube.node import storage
from podwright.kube.requests import container, env, resources
from podwright.kube.volumes import subpath
from podwright.wire import cri_pb2 as cri
from tests.kube.golden import GOLDEN
from tests.kube.volume_pods import FACTS, node

MAIN: dict[str, Any] = {"name": "main", "image": "x:1"}


def pod(main: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "web", **spec.pop("metadata", {})}
    spec = {"containers": [{**MAIN, **(main or {})}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def projected(*sources: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "v", "projected": {"sources": list(sources)}}]


def variable(**source: Any) -> dict[str, Any]:
    return {"env": [{"name": "A", "valueFrom": source}]}


def items(path: str) -> dict[str, Any]:
    return {"name": "x", "items": [{"key": "k", "path": path}]}


def added(capability: str) -> dict[str, Any]:
    return {"capabilities": {"add": [capability]}}


FILE = {"volumeName": "v", "path": "f", "key": "A"}
DISK = {"name": "v", "emptyDir": {}}
RESTARTED = {"resourceName": "memory", "restartPolicy": "RestartContainer"}
NET = {"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]}
SHM = {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        (pod({"lifecycle": {"stopSignal": "SIGUSR1"}}), "spec.containers[0].lifecycle.stopSignal: needs"),
        (
            pod({"resources": {"limits": {"cpu": 1, "hugepages-2Mi": "3Mi"}}}),
            "spec.containers[0].resources.limits[hugepages-2Mi]: 3Mi is no multiple",
        ),
        (pod(variable(fieldRef={"apiVersion": "v2", "fieldPath": "metadata.name"})), "apiVersion: 'v2' is"),
        (pod(variable(fieldRef={"fieldPath": "metadata.labels['a b']"})), "fieldRef.fieldPath: "),
        (
            pod(variable(resourceFieldRef={"resource": "limits.cpu", "divisor": "10m"})),
            "resourceFieldRef.divisor: '10m' is none of 1, 1m",
        ),
        (
            pod(variable(resourceFieldRef={"resource": "limits.memory", "divisor": "1m"})),
            "resourceFieldRef.divisor: '1m' is none of 1, 1k,",
        ),
        (pod(variable(configMapKeyRef={"name": "a", "key": "b/c"})), "configMapKeyRef.key: 'b/c' is no key"),
        (pod(variable(secretKeyRef={"name": "A_B", "key": "c"})), "secretKeyRef.name: 'A_B'"),
        (pod({"envFrom": [{"configMapRef": {"name": "A_B"}}]}), "spec.containers[0].envFrom[0]: 'A_B'"),
        (
            pod(volumes=projected({"configMap": items("p")}, {"secret": items("p")})),
            "projected.sources[1].secret.items[0].path: 'p' comes twice",
        ),
        (
            pod(volumes=projected({"serviceAccountToken": {"path": "..t"}})),
            "projected.sources[0].serviceAccountToken.path: '..t' begins with two dots",
        ),
        (
            pod(volumes=projected({"serviceAccountToken": {"path": "t", "expirationSeconds": 1 << 33}})),
            "projected.sources[0].serviceAccountToken.expirationSeconds: 8589934592 is not between",
        ),
        (
            pod({"resizePolicy": [RESTARTED]}, restartPolicy="Never"),
            "spec.containers[0].resizePolicy[0].restartPolicy: RestartContainer cannot be in a pod",
        ),
        (
            pod(initContainers=[{**MAIN, "name": "i", "resizePolicy": [RESTARTED]}]),
            "spec.initContainers[0].resizePolicy[0].restartPolicy: RestartContainer cannot be of an init",
        ),
        (pod(variable(fileKeyRef=FILE | {"path": "a/../b"}), volumes=[DISK]), "fileKeyRef.path: 'a/../b'"),
        (pod(variable(fileKeyRef=FILE | {"key": ""}), volumes=[DISK]), "fileKeyRef.key: ''"),
        (pod(resources={"limits": {"hugepages-2Mi": "4Mi"}}), "spec.resources: huge pages need cpu"),
        (pod({"securityContext": {"runAsUser": -1}}), "spec.containers[0].securityContext.runAsUser: -1"),
        (pod({"securityContext": {"runAsGroup": 1 << 31}}), "securityContext.runAsGroup: 2147483648"),
        (pod(securityContext={"supplementalGroups": [1, -2]}), "securityContext.supplementalGroups[1]: -2"),
        (
            pod(securityContext={"appArmorProfile": {"type": "Localhost", "localhostProfile": " x"}}),
            "spec.securityContext.appArmorProfile.localhostProfile: ' x'",
        ),
        (
            pod({"securityContext": {"allowPrivilegeEscalation": False, **added("CAP_SYS_ADMIN")}}),
            "spec.containers[0].securityContext.allowPrivilegeEscalation: ",
        ),
        (pod(hostNetwork=True, securityContext=NET), "sysctls[0].name: 'net/ipv4/tcp_syncookies' cannot be"),
        (pod(hostIPC=True, securityContext=SHM), "sysctls[0].name: 'kernel.shm_rmid_forced' cannot be"),
        (pod(activeDeadlineSeconds=1 << 31), "spec.activeDeadlineSeconds: 2147483648 is not between"),
        (pod(metadata={"namespace": "Prod"}), "metadata.namespace: 'Prod' is not a DNS label"),
        (pod(readinessGates=[{"conditionType": "a b"}]), "spec.readinessGates[0].conditionType: 'a b'"),
    ],
)  # fmt: skip
def test_what_the_api_server_refuses_is_refused_with_the_name_of_the_field(
    tree: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        manifest.from_dict(tree, "x")
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "tree",
    [
        pod({"lifecycle": {"stopSignal": "SIGUSR1"}}, os={"name": "linux"}),
        pod({"resources": {"limits": {"cpu": 1, "hugepages-2Mi": "4Mi"}}}),
        pod({"livenessProbe": {"httpGet": {"port": "nobody"}}}),
        pod({"securityContext": {"allowPrivilegeEscalation": False, **added("SYS_ADMIN")}}),
        pod(variable(fieldRef={"fieldPath": "metadata.annotations['Example.COM/Key']"})),
        pod(variable(resourceFieldRef={"resource": "limits.memory", "divisor": "1000"})),
        pod(variable(resourceFieldRef={"resource": "limits.cpu", "divisor": "0"})),
        pod(metadata={"annotations": {"Example.COM/Key": "v"}}),
        pod(hostIPC=True, securityContext=NET),
        pod(variable(fieldRef={"fieldPath": "spec.host"})),
        pod(variable(fileKeyRef=FILE | {"path": "/f"}), volumes=[DISK]),
        pod({"volumeMounts": [{"name": "v", "mountPath": "/a:b"}]}, volumes=[DISK]),
        pod(volumes=projected({}, {"configMap": items("t")}, {"serviceAccountToken": {"path": "t"}})),
        pod(
            resources={"limits": {"cpu": 1}},
            initContainers=[
                {**MAIN, "name": "i", "resources": {"limits": {"cpu": 2}, "requests": {"cpu": 1}}}
            ],
        ),
        pod(
            hostNetwork=True,
            initContainers=[{**MAIN, "name": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}],
        ),
    ],
)
def test_what_the_api_server_takes_is_taken(tree: dict[str, Any]) -> None:
    assert manifest.from_dict(tree, "x").name == "web"


@pytest.mark.parametrize("network", [True, False])
def test_an_init_container_may_have_the_host_port_that_another_has_later(network: bool) -> None:
    ports = {"ports": [{"containerPort": 9100, "hostPort": 9100}]}
    early = {"name": "early", "image": "x:1", **ports}
    assert manifest.from_dict(pod(ports, initContainers=[early], hostNetwork=network), "x").init_containers
    twice = {**pod(ports), "spec": {"containers": [{**MAIN, **ports}, early]}}
    with pytest.raises(InvalidArgument, match=r"containers\[1\].ports\[0\].hostPort: 9100 is taken"):
        manifest.from_dict(twice, "x")


def config(found: Manifest) -> cri.ContainerConfig:
    here = node(GOLDEN)
    (main,) = found.containers
    variables = env.environment(found, main, here, FACTS, lambda *_: "")
    return container.container_config(found, main, cri.Image(id="i"), here, FACTS, environment=variables)


def test_variables_may_be_bytes_that_are_no_text_but_arguments_may_not() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {raw: gYL/, text: aGk=}\n---\n"
    tree = pod({"envFrom": [{"secretRef": {"name": "s"}}], "command": ["echo", "$(text)"]})
    (found,) = manifest.parse(secret + yaml.safe_dump(tree))
    assert {one.key: one.value for one in config(found).envs} == {"raw": b"\x81\x82\xff", "text": b"hi"}
    found.containers[0].args = ["$(raw)"]
    with pytest.raises(CreateError, match="would not be UTF-8"):
        config(found)


def test_without_a_limit_a_variable_shows_what_the_node_has(tmp_path: Path) -> None:
    names = ("cpu", "memory", "ephemeral-storage")
    wanted = [
        {"name": f"V{at}", "valueFrom": {"resourceFieldRef": {"resource": f"limits.{name}"}}}
        for at, name in enumerate(names)
    ]
    found = manifest.from_dict(pod({"env": wanted}), "x")
    here = replace(node(tmp_path), cpus=3, allocatable_memory=1 << 30, storage=storage(tmp_path / "later"))
    variables = env.environment(found, found.containers[0], here, FACTS, lambda *_: "")
    disk = os.statvfs(tmp_path)
    share = int(variables["V2"]) / (disk.f_frsize * disk.f_blocks)
    assert (variables["V0"], variables["V1"], round(share, 6)) == ("3", str(1 << 30), 0.9)


def test_a_sub_path_that_leads_out_is_not_said_to_be_made(tmp_path: Path) -> None:
    volume, mount = tmp_path / "volume", VolumeMount(name="v", mountPath="/v")
    volume.mkdir()
    for name, target, words in (
        ("out", "/etc", "prepare subPath"),
        ("lost", "/no/such", "create subPath dir"),
    ):
        (volume / name).symlink_to(target)
        with pytest.raises(ConfigError, match=f"failed to {words}"):
            subpath.bind(volume, name, tmp_path / "target", mount, "c")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("limits", "quota", "memory"),
    [
        ({"cpu": 0.1, "memory": 1e8}, 10_000, 100_000_000),
        ({"cpu": "1e-2", "memory": "1.5Gi"}, 1_000, 1_610_612_736),
        ({"cpu": 1.0005, "memory": "128974848000m"}, 100_100, 128_974_848),
        ({"cpu": "0", "memory": "0"}, 0, 0),
        ({"cpu": "1E", "memory": "16E"}, 2**63 - 1, 2**63 - 1),
        ({"cpu": "1e400", "memory": "1e30"}, 2**63 - 1, 2**63 - 1),
    ],
)
def test_odd_amounts(limits: dict[str, Any], quota: int, memory: int) -> None:
    found = manifest.from_dict(pod({"resources": {"limits": limits}}), "x")
    told = resources.container_resources(found, found.containers[0], node(GOLDEN))
    assert (told.cpu_quota, told.memory_limit_in_bytes) == (quota, memory)
    assert resources.sandbox_resources(found).memory_limit_in_bytes == memory


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (pod(metadata={"labels": {1: "a"}}), "metadata.labels: key 1 is no text"),
        (pod({"command": ["echo", "\ud800"]}), "spec.containers[0].command[1]: '\\ud800' holds half"),
        ({"apiVersion": "policy/v1", "kind": "Budget", "metadata": "x"}, "Budget: metadata: Expected"),
    ],
)
def test_trees_that_no_file_could_hold_are_refused(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        manifest.from_trees([(tree, "x")])
    assert words in str(caught.value)


def test_half_a_character_is_refused_in_a_file_too() -> None:
    for text in ('{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "\\ud800"}}', 'a: "\\uDFFF"'):
        with pytest.raises(InvalidArgument, match="half a character"):
            manifest.parse(text, "x")


BOMB = [f"n{at}: &n{at} [{', '.join([f'*n{at - 1}'] * 9)}]" for at in range(1, 8)]
"""Lines of YAML that stand for millions of values."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "is nested too deeply"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "is nested too deeply"),
        ("a: &a [*a]", "is nested too deeply"),
        ("a: " + "9" * 5_000, "line 1, column 4: a number of 5000 digits"),
        ('{"a": ' + "9" * 5_000 + "}", "line 1, column 7: a number of 5000 digits"),
        ("a: 0b12", "has no kind and apiVersion"),
        ("\n".join(["n0: &n0 [x, x, x]", *BOMB]), "has more than 200000 values"),
    ],
    ids=["deep JSON", "deep YAML", "endless", "number", "number in JSON", "no number", "bomb"],
)
def test_texts_that_would_break_a_reader_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        manifest.parse(text, "x")
    assert words in str(caught.value)


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1 << 70, "", "x", "a/../b", "$(A)", "\0", "\ud800", [], [None], [[]], ["x"], {},
    {"a": 1}, {"": ""}, {1: 2}, float("nan"), float("inf"), "1e400",
)  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(each for key, value in below for each in places(value, (*path, key)))]


def test_whatever_stands_at_a_field_is_taken_or_refused_and_nothing_else() -> None:
    """One recorded manifest after the other, with something odd at a place: 2000 times."""
    draw = random.Random(8)
    names = sorted(one.name for one in GOLDEN.glob("*.yaml") if not one.name.endswith(".status.yaml"))
    streams = [list(yaml.safe_load_all((GOLDEN / one).read_text())) for one in draw.sample(names, 40)]
    refused = 0
    for _ in range(2000):
        trees = copy.deepcopy(draw.choice(streams))
        *path, last = draw.choice([one for one in places(draw.choice(trees)) if one] or [("kind",)])
        for tree in trees:
            try:
                for key in path:
                    tree = tree[key]
                tree[last] = copy.deepcopy(draw.choice(ODD))
            except (KeyError, IndexError, TypeError):
                continue
        try:
            manifest.from_trees([(one, "x") for one in trees])
        except PodwrightError as error:
            refused += 1
            assert str(error)
    assert 500 < refused < 2000


def test_a_limit_that_is_none_is_told_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        manifest.from_dict(pod({"resources": {"limits": {"cpu": "1 core"}}}), "x")
    assert str(caught.value).count("1 core") == 1
