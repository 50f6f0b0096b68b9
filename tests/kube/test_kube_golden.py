"""The translation against recordings of a kubelet: same requests, but for a table of differences."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from podwright.kube import manifest as manifests
from podwright.kube import translate
from podwright.kube import old_volumes as volumes
from podwright.kube.old_directory import PodDirectory
from podwright.kube.manifest import Manifest
from podwright.kube.models import Container
from podwright.kube.translate import Host
from podwright.wire import cri_pb2 as cri

GOLDEN = Path(__file__).parent.parent / "golden" / "kubelet"
CASES = """
    apparmor-unconfined capabilities command-args command-image-defaults cpu-fractions cwd
    dns-clusterfirst-hostnet dns-default dns-none emptydir env-fieldref env-literal
    env-resourcefield ephemeral-storage fsgroup grace-period host-aliases host-ipc host-network
    host-pid host-port hostname-fqdn hostpath-types init-containers labels-annotations minimal
    mount-propagation mount-readonly oom-killed ports priority-critical privilege-escalation
    privileged pull-latest qos-burstable qos-guaranteed readonly-rootfs restart-on-failure
    run-as-nonroot run-as-user seccomp share-process-namespace stdin-tty stop-signal subpath-expr
    supplemental-groups sysctls termination-message var-expansion
""".split()

KUBELET = "${KUBELET_ROOT}/pods/${POD_UID}"
HOST = Host(
    node_name="node-1",
    ips=("${NODE_IP}",),
    cpus=2,
    memory=25276514304,
    resolver=translate.parse_resolver("nameserver 192.0.2.53\nsearch host.test\noptions ndots:1 timeout:2\n"),
    recursive_read_only=True,
    seccomp_root="${KUBELET_ROOT}/seccomp",
)
USERS = {"app": 1234}

SANDBOX_DIFFERENCES = {
    ("annotations", "kubernetes.io/config.seen"): "no API server or file source is behind a run",
    ("annotations", "kubernetes.io/config.source"): "no API server or file source is behind a run",
    ("linux", "cgroup_parent"): "the runtime's own parent: no kubelet makes pod cgroups beforehand",
    ("linux", "overhead"): "no RuntimeClass objects, so nothing is known of an overhead",
}
CLUSTER_DNS = {("dns_config",): "dnsPolicy ClusterFirst: without a cluster the host's resolver stands in"}
CONTAINER_DIFFERENCES = {
    (
        "annotations",
        "io.kubernetes.container.hash",
    ): "tells a kubelet that a spec changed; a run's never does",
    ("linux", "security_context", "apparmor_profile"): "deprecated: the field apparmor says the same",
    ("linux", "resources", "hugepage_limits"): "huge pages are not supported yet; none are asked for",
    ("image", "user_specified_image"): "the manifest's own words; the kubelet completes them with :latest",
}
MOUNT_DIFFERENCES = {
    "/etc/hosts": "the runtime's own hosts file does, unless the pod has names of its own (test_kube_files)",
    "termination message": "the file lies in the pod's directory, named by attempt",
}


def recorded(case: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = json.loads((GOLDEN / f"{case}.calls.json").read_text())["calls"]
    return [one for one in calls if "call" in one]


def read(case: str) -> Manifest:
    (manifest,) = manifests.read(GOLDEN / f"{case}.yaml")
    assert manifest.pod.metadata is not None
    manifest.pod.metadata.uid = "${POD_UID}"
    return manifest


@pytest.mark.parametrize("case", CASES)
def test_sandbox_is_asked_for_as_a_kubelet_does(case: str) -> None:
    manifest = read(case)
    request = next(one["request"] for one in recorded(case) if one["call"] == "RunPodSandbox")
    expected = ParseDict(request["config"], cri.PodSandboxConfig())
    path = f"${{POD_LOG_DIR}}/{manifest.namespace}_{manifest.name}_${{POD_UID}}"
    config = translate.sandbox_config(manifest, HOST, path)
    config.dns_config.options.sort()
    cluster = manifest.spec.dnsPolicy == "ClusterFirst" and not manifest.spec.hostNetwork
    differences = [*SANDBOX_DIFFERENCES, *(CLUSTER_DNS if cluster else ())]
    assert plain(config, differences) == plain(expected, differences)


@pytest.mark.parametrize("case", CASES)
def test_containers_are_asked_for_as_a_kubelet_does(case: str) -> None:
    manifest = read(case)
    requests = [one["request"]["config"] for one in recorded(case) if one["call"] == "CreateContainer"]
    every = {one.name: one for one in [*manifest.init_containers, *manifest.containers]}
    assert requests
    for request in requests:
        container = every[request["metadata"]["name"]]
        attempt = request["metadata"].get("attempt", 0)
        expected = expected_container(request, manifest)
        image = cri.Image(id=expected.image.image)
        image.uid.value = USERS.get(expected.image.image.split(":")[1], 0)
        config = translate.container_config(
            manifest,
            container,
            image,
            host=HOST,
            pod_ips=["${POD_IP}"],
            mounts=kubelet_mounts(manifest, container),
            attempt=attempt,
        )
        config.envs.sort(key=lambda one: one.key)
        differences = [*CONTAINER_DIFFERENCES]
        assert plain(config, differences) == plain(expected, differences), container.name


def expected_container(request: dict[str, Any], manifest: Manifest) -> cri.ContainerConfig:
    for env in request.get("envs", []):
        env["value"] = base64.b64encode(env.get("value", "").encode()).decode()
    expected = ParseDict(request, cri.ContainerConfig())
    kept = [one for one in expected.mounts if not one.host_path.endswith("/etc-hosts")]
    del expected.mounts[:]
    expected.mounts.extend(kept)
    for mount in expected.mounts:
        if "/containers/" in mount.host_path:
            mount.host_path = "termination"
    return expected


def kubelet_mounts(manifest: Manifest, container: Container) -> list[cri.Mount]:
    """The mounts with the kubelet's paths; `volumes` makes the same ones in the pod's own directory."""
    made = []
    for index, mount in enumerate(container.volumeMounts or []):
        source = str(volumes.source_path(manifest.volume(mount.name), PodDirectory(Path(KUBELET))))
        source = source.replace("/.pod/", "/")
        if mount.subPath or mount.subPathExpr:
            source = f"{KUBELET}/volume-subpaths/{mount.name}/{container.name}/{index}"
        made.append(translate.volume_mount(mount, source, HOST))
    path = container.terminationMessagePath
    return [*made, cri.Mount(container_path=path, host_path="termination")]


def plain(message: Any, differences: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The message as JSON without what differs on purpose, and without what then is empty."""
    tree: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    for path in differences:
        parent = tree
        for name in path[:-1]:
            parent = parent.get(name, {})
        parent.pop(path[-1], None)
    return {key: value for key, value in tree.items() if value != {}}
