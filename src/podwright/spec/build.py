"""The one way to a spec for whatever platform a sandbox has; the rules are the platforms' own."""

from __future__ import annotations

from podwright.errors import FailedPrecondition
from podwright.spec import darwin
from podwright.spec.darwin import DarwinSandboxInput
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.spec.linux import build as linux
from podwright.spec.linux.build import Built
from podwright.spec.platforms import Platform
from podwright.spec.windows import build as windows
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput


def build_container(
    platform: str, request: ContainerInput, host: HostFacts, *, explain: bool = False
) -> Built:
    """The spec of a container in a sandbox of `platform` ("linux/amd64", "windows/amd64", "darwin/arm64").

    Raises FailedPrecondition for a platform without a builder, and when `request` lacks that platform's
    facts; else as the platform's builder does.
    """
    system = Platform.parse(platform).os
    if system == "windows":
        if not isinstance(request, WindowsContainerInput):
            raise _no_facts(platform)
        return windows.build_container(request, host, explain=explain)
    if system == "darwin":
        return darwin.build_container(request, host, explain=explain)
    return linux.build_container(request, host, explain=explain)


def build_sandbox(platform: str, request: SandboxInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a sandbox: on Linux that of the pause process of a pod that shares its PID namespace, on
    Windows that of the pause image, on Darwin one that only names the pod. Errors as above."""
    system = Platform.parse(platform).os
    if system == "windows":
        if not isinstance(request, WindowsSandboxInput):
            raise _no_facts(platform)
        return windows.build_sandbox(request, host, explain=explain)
    if system == "darwin":
        if not isinstance(request, DarwinSandboxInput):
            raise _no_facts(platform)
        return darwin.build_sandbox(request, host, explain=explain)
    return linux.build_sandbox(request, host, explain=explain)


def _no_facts(platform: str) -> FailedPrecondition:
    return FailedPrecondition(f"spec platform {platform}: this engine gathers no facts of such hosts")
