"""Short ways to a Linux spec for tests: one container of one pod on one host."""

from __future__ import annotations

from typing import Any

from podwright.spec.inputs import ContainerInput, HostFacts, ImageConfig, NamespacePaths, Policy, SystemFiles
from podwright.spec.linux.build import Built, build_container
from podwright.spec.linux.capabilities import KNOWN
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.wire import cri_pb2 as cri
from tests.spec import oci_rules

DEFAULT_SECCOMP = SeccompProfile({"defaultAction": "SCMP_ACT_ERRNO"}, "default")
PINNED = NamespacePaths(net="/pins/net", ipc="/pins/ipc", uts="/pins/uts")
FILES = SystemFiles(hostname="/s/hostname", hosts="/s/hosts", resolv_conf="/s/resolv", shm="/s/shm")


def host(policy: Policy | None = None, **facts: Any) -> HostFacts:
    values = {
        "hostname": "node",
        "capabilities": sorted(KNOWN),
        "kernel": (6, 1),
        "default_seccomp": DEFAULT_SECCOMP,
    }
    return HostFacts(**{**values, **facts}, policy=policy or Policy())


def container(
    security: cri.LinuxContainerSecurityContext | None = None, **fields: Any
) -> cri.ContainerConfig:
    linux = cri.LinuxContainerConfig(security_context=security, resources=fields.pop("resources", None))
    metadata = cri.ContainerMetadata(name="main")
    return cri.ContainerConfig(**{"command": ["/c"], "metadata": metadata, "linux": linux, **fields})


def pod(security: cri.LinuxSandboxSecurityContext | None = None, **fields: Any) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig(linux=cri.LinuxPodSandboxConfig(security_context=security), **fields)


def build(config: cri.ContainerConfig | None = None, facts: HostFacts | None = None, **given: Any) -> Built:
    """The spec, with its origins; it breaks none of the OCI's rules."""
    values: dict[str, Any] = {
        "id": "c",
        "config": config or container(),
        "sandbox_id": "s",
        "sandbox": pod(),
        "image": ImageConfig(),
        "cgroups_path": "/pod/c",
        "namespaces": PINNED,
        "system": FILES,
    }
    built = build_container(ContainerInput(**{**values, **given}), facts or host(), explain=True)
    assert oci_rules.problems(built.spec) == []
    return built
