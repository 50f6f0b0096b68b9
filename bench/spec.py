"""How long the spec of an ordinary container takes to build and to write as JSON.

An ordinary one is what a kubelet sends for a plain pod: a handful of variables and mounts, dropped
capabilities, limits, the masked paths, RuntimeDefault.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.report import Rows
from podwright.config import Config
from podwright.spec.encode import encode
from podwright.spec.inputs import (
    ContainerInput,
    HostFacts,
    ImageConfig,
    NamespacePaths,
    RootfsFiles,
    SystemFiles,
)
from podwright.spec.linux.build import build_container
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.linux.security import DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS
from podwright.wire import cri_pb2 as cri

BATCHES, SPECS = 11, 100


def spec_build(rows: Rows) -> None:
    """The row `spec_build`: milliseconds a spec, the median of some batches."""
    request, host = ordinary()
    rows.add("spec_build", "ms", "podwright", statistics.median(batches(request, host)) * 1000)


def batches(request: ContainerInput, host: HostFacts) -> list[float]:
    """Seconds a spec, on average in each batch."""
    encode(build_container(request, host).spec)  # converts the seccomp profile, once for all
    found = []
    for _ in range(BATCHES):
        begun = time.perf_counter()
        for _ in range(SPECS):
            encode(build_container(request, host).spec)
        found.append((time.perf_counter() - begun) / SPECS)
    return found


def ordinary() -> tuple[ContainerInput, HostFacts]:
    security = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(drop_capabilities=["ALL"], add_capabilities=["NET_BIND_SERVICE"]),
        run_as_user=cri.Int64Value(value=1000),
        supplemental_groups=[2000],
        no_new_privs=True,
        masked_paths=DEFAULT_MASKED_PATHS,
        readonly_paths=DEFAULT_READONLY_PATHS,
        seccomp=cri.SecurityProfile(),
    )
    limits = cri.LinuxContainerResources(
        cpu_period=100_000,
        cpu_quota=50_000,
        cpu_shares=102,
        memory_limit_in_bytes=128 << 20,
        oom_score_adj=900,
        unified={"memory.oom.group": "1"},
    )
    volumes = [
        cri.Mount(container_path=f"/var/{name}", host_path=f"/pods/volumes/{name}", readonly=True)
        for name in ("run/secrets/kubernetes.io/serviceaccount", "config", "cache", "data")
    ]
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="main"),
        image=cri.ImageSpec(image="registry.example/app:v1"),
        command=["/bin/app"],
        args=["--port", "80"],
        envs=[cri.KeyValue(key=f"SERVICE_{number}", value=b"10.0.0.1") for number in range(20)],
        mounts=volumes,
        annotations={"io.kubernetes.container.hash": "1234"},
        linux=cri.LinuxContainerConfig(security_context=security, resources=limits),
    )
    pod = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="pod", namespace="default", uid="1"), hostname="pod"
    )
    request = ContainerInput(
        id="c" * 64,
        config=config,
        sandbox_id="s" * 64,
        sandbox=pod,
        image=ImageConfig(env=("PATH=/usr/bin:/bin", "LANG=C.UTF-8"), working_dir="/app"),
        cgroups_path=f"/kubepods/pod1/{'c' * 64}",
        rootfs=RootfsFiles("root:x:0:0::/:\napp:x:1000:1000::/:\n", "root:x:0:\napp:x:1000:app\n"),
        namespaces=NamespacePaths(net="/pins/net", ipc="/pins/ipc", uts="/pins/uts"),
        system=SystemFiles(hostname="/s/hostname", hosts="/s/hosts", resolv_conf="/s/resolv", shm="/s/shm"),
    )
    return request, HostFacts(
        hostname="node", kernel=(6, 1), capabilities=sorted(KNOWN), default_seccomp=_runtime_default()
    )


def _runtime_default() -> SeccompProfile:
    """The installed profile, with its hundreds of names; else the smallest there is."""
    file = Path(Config().seccomp_profile)
    content = file.read_bytes() if file.exists() else b'{"defaultAction": "SCMP_ACT_ERRNO"}'
    return SeccompProfile.parse(content, str(file))
