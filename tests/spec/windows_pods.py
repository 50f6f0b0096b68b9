"""Pods and containers of Windows as tests ask for them; every spec is checked against the rules."""

from __future__ import annotations

from typing import Any

from podwright.spec.build import build_container, build_sandbox
from podwright.spec.inputs import HostFacts, ImageConfig, NamespacePaths
from podwright.spec.linux.build import Built
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.wire import cri_pb2 as cri
from tests.spec.platform_rules import check_windows
from tests.spec.test_golden_platforms import unexplained

HOST = HostFacts(hostname="node")
LAYERS = ("C:\\layers\\top", "C:\\layers\\base", "C:\\layers\\scratch")


def pod(**security: Any) -> cri.PodSandboxConfig:
    context = cri.WindowsSandboxSecurityContext(**security)
    return cri.PodSandboxConfig(windows=cri.WindowsPodSandboxConfig(security_context=context))


def container(resources: cri.WindowsContainerResources | None = None, **security: Any) -> cri.ContainerConfig:
    context = cri.WindowsContainerSecurityContext(**security)
    windows = cri.WindowsContainerConfig(resources=resources, security_context=context)
    return cri.ContainerConfig(command=["a.exe"], windows=windows)


def build(config: cri.ContainerConfig, host: HostFacts = HOST, **given: Any) -> Built:
    values: dict[str, Any] = {
        "id": "c",
        "config": config,
        "sandbox_id": "s",
        "sandbox": pod(),
        "image": ImageConfig(),
        "layer_folders": LAYERS,
        "namespaces": NamespacePaths(net="hcn"),
    }
    request = WindowsContainerInput(**{**values, **given})
    built = build_container("windows/amd64", request, host, explain=True)
    assert list(unexplained(built)) == []
    check_windows(built.spec)
    return built


def build_pod(config: cri.PodSandboxConfig, **given: Any) -> Built:
    values: dict[str, Any] = {
        "id": "s",
        "config": config,
        "image": ImageConfig(entrypoint=("pause.exe",)),
        "layer_folders": LAYERS,
    }
    request = WindowsSandboxInput(**{**values, **given})
    built = build_sandbox("windows/amd64", request, HOST, explain=True)
    assert list(unexplained(built)) == []
    check_windows(built.spec)
    return built


def mounted(*given: cri.Mount, **values: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = build(cri.ContainerConfig(command=["a"], mounts=given), **values).spec[
        "mounts"
    ]
    return found
