"""Volumes seen from inside real containers, with the host's users and with users of the pod's own."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import podwright
from podwright.kube import volumes
from podwright.kube.files import id_ranges, pod_cgroups, termination
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life import exits
from podwright.kube.manifests import manifest
from podwright.kube.node import PodFacts, observe
from podwright.kube.requests import translate
from podwright.library import Runtime
from podwright.linux import cgroups, mounts
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE = "localhost/podwright/busybox:latest"

POD = """
apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {app.conf: "a=1", other: x}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: inside, labels: {a: b}}
spec:
  hostUsers: HOST_USERS
  securityContext: {runAsUser: 1000, fsGroup: 2000}
  volumes:
  - {name: e, emptyDir: {}}
  - {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: cm, configMap: {name: cm}}
  - {name: s, secret: {secretName: s, defaultMode: 0400}}
  - {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: p, projected: {sources: [{configMap: {name: cm}}, {secret: {name: s}}]}}
  containers:
  - name: c
    image: localhost/podwright/busybox:latest
    resources: {limits: {memory: 64Mi}}
    command: [sh, -c, "set by the test"]
    volumeMounts:
    - {name: e, mountPath: /e}
    - {name: m, mountPath: /m}
    - {name: cm, mountPath: /cm}
    - {name: s, mountPath: /s}
    - {name: d, mountPath: /d}
    - {name: p, mountPath: /p}
    - {name: e, mountPath: /sub, subPathExpr: "of/$(NAME)"}
    - {name: cm, mountPath: /one, subPath: other}
    env: [{name: NAME, value: nobody}]
"""
SCRIPT = """
cat /cm/app.conf /s/password /d/labels /p/other /p/password /one; echo
touch /e/file /m/file /sub/file && stat -c '%u %g' /e/file /m/file /sub/file /e/of/nobody/file
stat -L -c '%a %u %g' /e /m /s/password
touch /cm/file 2>&1; head -1 /etc/hosts; df -P /m | tail -1 | tr -s ' ' | cut -d ' ' -f 2,6
printf bye > /dev/termination-log; exit 3
"""
EXPECTED = """\
a=1husha="b"xhushx
1000 2000
1000 2000
1000 2000
1000 2000
2777 0 2000
3777 0 2000
440 0 2000
touch: /cm/file: Read-only file system
# Kubernetes-managed hosts file.
1024 /m
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that users of a pod's own may pass through: those below pytest's they may not."""
    with tempfile.TemporaryDirectory(prefix="podwright-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path
        mounts.unmount_below(path)  # after a failure; nothing is removed through a mount


@pytest.fixture
async def runtime(place: Path) -> AsyncIterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    maker = await asyncio.create_subprocess_exec(
        sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", place / "rootfs"
    )
    assert await maker.wait() == 0
    async with podwright.open(place / "root", place / "run") as runtime:
        await runtime.import_root(place / "rootfs", IMAGE, {"Cmd": ["sh"]})
        yield runtime
    assert mounts.mounts_below(place) == []


@pytest.mark.parametrize("users", ["true", "false"])
async def test_a_container_finds_what_its_manifest_says(runtime: Runtime, users: str) -> None:
    (pod,) = manifest.parse(POD.replace("HOST_USERS", users))
    here = replace(await observe(runtime.cri, runtime.config), cgroup_root=f"/podwright-test-{pod.uid}")
    directory = PodDirectory.of(here, pod.namespace, pod.name, pod.uid)
    facts = PodFacts()
    if users == "false":
        facts = PodFacts(user_ids=id_ranges.claim(here.root, directory))
    container = pod.containers[0]
    container.command = ["sh", "-c", SCRIPT]
    try:
        pod_cgroups.make(pod, here)
        volumes.make(pod, here, facts, directory)
        directory.logs(container.name).mkdir()
        config = translate.sandbox_config(pod, here, facts, str(directory.logs_root))
        sandbox = (await runtime.cri.run_pod_sandbox(cri.RunPodSandboxRequest(config=config))).pod_sandbox_id
        network = (
            await runtime.cri.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))
        ).status.network
        facts = replace(facts, ips=(network.ip,))
        image = (
            await runtime.cri.image_status(cri.ImageStatusRequest(image=cri.ImageSpec(image=IMAGE)))
        ).image
        variables = translate.environment(pod, container, here, facts, directory)
        mounted = volumes.container_mounts(pod, container, here, facts, directory, variables)
        made = translate.container_config(
            pod, container, image, here, facts, mounts=mounted, environment=variables
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=made, sandbox_config=config)
        id = (await runtime.cri.create_container(request)).container_id
        await runtime.cri.start_container(cri.StartContainerRequest(container_id=id))
        async with asyncio.timeout(60):
            status = await exits.wait(runtime.cri, id)
        lines = [one.text.decode() async for one in reader.follow(directory.log(container.name, 0))]
        assert "\n".join(lines) + "\n" == EXPECTED
        assert status.exit_code == 3
        assert termination.read_termination_message(status) == "bye"
        await runtime.cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    finally:
        volumes.remove(directory)
        pod_cgroups.remove(pod, here)
        left = cgroups.directories(f"{here.cgroup_root}/kubepods")
        cgroups.remove(here.cgroup_root)
    assert left == []
    assert not directory.path.exists()
