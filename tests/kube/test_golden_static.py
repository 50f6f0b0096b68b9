"""Odd static pods against recordings of a kubelet: the requests that describe their sandboxes and containers,
mounts included, and how long their ends may take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from podwright.kube import volumes
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests import static_pods
from podwright.kube.manifests.documents import documents
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import translate
from podwright.kube.rules import grace
from podwright.wire import cri_pb2 as cri
from tests.kube import golden

GOLDEN = Path(__file__).parent.parent / "golden" / "kubelet_static"
CASES = sorted(path.name.removesuffix(".calls.json") for path in GOLDEN.glob("*.calls.json"))
NODE = replace(golden.node("static"), memory=25276502016, allocatable_memory=25276502016, handlers={})


def read(case: str) -> Manifest:
    ((tree, place),) = documents((GOLDEN / f"{case}.yaml").read_text(), case)
    # The placeholder is no uid that an API server would take.
    made = static_pods.from_tree({**tree, "metadata": {**tree["metadata"], "uid": "uid"}}, place, NODE)
    assert made.pod.metadata is not None
    made.pod.metadata.uid = "${POD_UID}"
    assert made.pod.metadata.annotations is not None
    made.pod.metadata.annotations["kubernetes.io/config.hash"] = "${POD_UID}"
    return made


def facts(manifest: Manifest) -> PodFacts:
    ids = golden.USER_IDS if manifest.spec.hostUsers is False else None
    ips = NODE.ips if manifest.spec.hostNetwork else ("${POD_IP}",)
    return PodFacts(ips=ips, user_ids=ids, source="file", seen_at=golden.TIME)


def recorded(case: str) -> list[dict[str, Any]]:
    text = (GOLDEN / f"{case}.calls.json").read_text()
    text = text.replace('"${USERNS_HOST_ID}"', str(golden.USER_IDS))
    calls: list[dict[str, Any]] = json.loads(text)["calls"]
    return calls


def mounts(manifest: Manifest, name: str, node: Node, variables: dict[str, str]) -> list[cri.Mount]:
    container = manifest.container(name)
    assert container is not None
    directory = PodDirectory.of(node, manifest.namespace, manifest.name, manifest.uid)
    found = volumes.planned_mounts(manifest, container, node, facts(manifest), directory, variables)
    below = str(directory.messages(name))
    for mount in found:
        if mount.host_path.startswith(below):
            mount.host_path = f"{below}/${{RANDOM}}"
    return found


@pytest.mark.parametrize("case", CASES)
def test_static_pods_are_asked_for_as_a_kubelet_does(case: str) -> None:
    manifest, seen = read(case), 0
    for one in recorded(case):
        request = one["request"]
        if one["call"] == "RunPodSandbox":
            expected = ParseDict(request["config"], cri.PodSandboxConfig())
            logs = f"${{POD_LOG_DIR}}/{manifest.namespace}_{manifest.name}_${{POD_UID}}"
            config = translate.sandbox_config(manifest, NODE, facts(manifest), logs)
            assert golden.plain(config) == golden.plain(expected)
            seen += 1
        elif one["call"] == "CreateContainer":
            wanted = golden.container_config(request["config"])
            container = manifest.container(wanted.metadata.name)
            assert container is not None
            variables = translate.environment(manifest, container, NODE, facts(manifest))
            made = translate.container_config(
                manifest, container, golden.image(wanted.image.image), NODE, facts(manifest),
                environment=variables, mounts=mounts(manifest, container.name, NODE, variables),
                attempt=wanted.metadata.attempt,
            )  # fmt: skip
            assert golden.plain(made) == golden.plain(wanted), container.name
            seen += 1
    assert seen > 0


def test_ends_take_no_longer_than_the_pods_grace() -> None:
    asked = 0
    for case in CASES:
        manifest = read(case)
        for one in recorded(case):
            if one["call"] == "StopContainer":
                assert int(one["request"].get("timeout", 0)) <= grace.timeout(manifest.grace), case
                asked += 1
    assert asked >= 30
