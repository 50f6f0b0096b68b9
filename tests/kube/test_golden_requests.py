"""The translation against recordings of a kubelet: the contents of requests that describe a pod or container.

Mounts are `test_golden_volumes`' affair, and the order of calls that of `test_golden_calls`.
"""

from __future__ import annotations

import pytest
from google.protobuf.json_format import ParseDict

from podwright.kube.failures import ConfigError
from podwright.kube.manifests import admission
from podwright.kube.requests import env, translate
from podwright.wire import cri_pb2 as cri
from tests.kube import golden

WITHOUT_SANDBOX = {
    "configmap-volume-missing": "the volume fails",
    "hostpath-wrong-type": "the volume fails",
    "sysctl-forbidden": "the node refuses the pod",
}
WITHOUT_CONTAINERS = {
    **WITHOUT_SANDBOX,
    "run-as-nonroot-fails": "their users are refused",
    "runtime-class-unknown": "the sandbox fails",
}
REFUSED_USERS = {"root-image": 0, "named-user": "appuser", "user-zero": 0}
FILES = {("conf", "app.env"): "COLOR='blue'\nSIZE='two words'\n"}
"""What containers of the recordings wrote into volumes."""


@pytest.mark.parametrize("case", golden.CASES)
def test_sandboxes_are_asked_for_as_a_kubelet_does(case: str) -> None:
    steps: list[str] = []
    node, seen = golden.node(case), 0
    for entry in golden.calls(case):
        if "step" in entry:
            steps.append(entry["step"])
            continue
        request = entry["request"]
        manifest = golden.read(case, *steps)
        facts = golden.facts(case, manifest)
        directory = f"${{POD_LOG_DIR}}/{manifest.namespace}_{manifest.name}_${{POD_UID}}"
        wanted = request.get("config") if entry["call"] == "RunPodSandbox" else request.get("sandbox_config")
        if isinstance(wanted, dict):
            attempt = wanted["metadata"].get("attempt", 0)
            config = translate.sandbox_config(manifest, node, facts, directory, attempt)
            expected = ParseDict(wanted, cri.PodSandboxConfig())
            assert golden.plain(config) == golden.plain(expected)
            seen += 1
        if entry["call"] == "RunPodSandbox":
            assert translate.runtime_handler(manifest) == request.get("runtime_handler", "")
        if entry["call"] == "PullImage":
            assert request["image"]["annotations"] == translate.pod_annotations(manifest, facts)
        if entry["call"] == "UpdatePodSandboxResources":
            update = ParseDict(request, cri.UpdatePodSandboxResourcesRequest())
            assert translate.sandbox_overhead(manifest) == update.overhead
    assert bool(seen) != (case in WITHOUT_SANDBOX)


@pytest.mark.parametrize("case", golden.CASES)
def test_containers_are_asked_for_as_a_kubelet_does(case: str) -> None:
    steps: list[str] = []
    node, seen = golden.node(case), 0
    for entry in golden.calls(case):
        if "step" in entry:
            steps.append(entry["step"])
        elif entry["call"] == "CreateContainer":
            manifest = golden.read(case, *steps)
            expected = golden.container_config(entry["request"]["config"])
            container = manifest.container(expected.metadata.name)
            assert container is not None
            facts = golden.facts(case, manifest)
            config = translate.container_config(
                manifest,
                container,
                golden.image(expected.image.image),
                node,
                facts,
                environment=env.environment(
                    manifest, container, node, facts, lambda volume, path: FILES[volume, path]
                ),
                mounts=expected.mounts,
                attempt=expected.metadata.attempt,
                target_id=expected.linux.security_context.namespace_options.target_id,
            )
            assert golden.plain(config) == golden.plain(expected), container.name
            seen += 1
    assert bool(seen) != (case in WITHOUT_CONTAINERS)


@pytest.mark.parametrize(("name", "user"), REFUSED_USERS.items())
def test_users_are_refused_in_the_kubelets_words(name: str, user: int | str) -> None:
    case = "run-as-nonroot-fails"
    manifest = golden.read(case)
    container = manifest.container(name)
    assert container is not None
    image = cri.Image(username=user) if isinstance(user, str) else cri.Image(uid=cri.Int64Value(value=user))
    facts = golden.facts(case, manifest)
    with pytest.raises(ConfigError) as caught:
        translate.container_config(manifest, container, image, golden.node(case), facts, environment={})
    assert ("Failed", f"Error: {caught.value.message}") in golden.events(case)


def test_a_missing_key_is_told_in_the_kubelets_words() -> None:
    case = "env-configmap-missing-key"
    manifest = golden.read(case)
    facts = golden.facts(case, manifest)
    with pytest.raises(ConfigError) as caught:
        translate.environment(manifest, manifest.containers[0], golden.node(case), facts)
    assert ("Failed", f"Error: {caught.value.message}") in golden.events(case)


def test_a_forbidden_sysctl_is_refused_in_the_kubelets_words() -> None:
    case = "sysctl-forbidden"
    refusal = admission.refusal(golden.read(case), golden.node(case))
    assert refusal is not None
    assert (refusal.reason, refusal.message) in golden.events(case)


@pytest.mark.parametrize("case", ["resize"])
def test_resizes_are_asked_for_as_a_kubelet_does(case: str) -> None:
    """What a kubelet says in several steps, its last one says in whole."""
    steps = [entry["step"] for entry in golden.calls(case) if "step" in entry]
    manifest = golden.read(case, *steps)
    updates = [entry["request"] for entry in golden.calls(case) if entry.get("call", "").startswith("Update")]
    of_container = [one for one in updates if "container_id" in one][-1]
    of_sandbox = [one for one in updates if "resources" in one][-1]
    expected = ParseDict(of_container["linux"], cri.LinuxContainerResources())
    whole = ParseDict(of_sandbox["resources"], cri.LinuxContainerResources())
    (container,) = manifest.containers
    assert translate.container_resources(manifest, container, golden.node(case)) == expected
    assert translate.sandbox_resources(manifest) == whole
