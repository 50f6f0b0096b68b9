"""The choice of a builder by the platform of the sandbox."""

from __future__ import annotations

import pytest

from podwright.errors import FailedPrecondition
from podwright.spec.build import build_container, build_sandbox
from podwright.spec.inputs import ContainerInput, ImageConfig, SandboxInput
from podwright.spec.platforms import Platform
from podwright.spec.windows.inputs import WindowsContainerInput
from podwright.wire import cri_pb2 as cri
from tests.spec.windows_pods import HOST, container, pod


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("windows(10.0.17763)/amd64", Platform("windows", "amd64", "", "10.0.17763")),
        ("Darwin/ARM64", Platform("darwin", "arm64")),
        ("macos/aarch64", Platform("darwin", "arm64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("windows", Platform("windows")),
    ],
)
def test_platforms(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize("text", ["", "freebsd/amd64", "plan9", "linux/", "/amd64", "linux/a/b/c"])
def test_platforms_without_a_builder(text: str) -> None:
    with pytest.raises(FailedPrecondition, match="spec platform"):
        Platform.parse(text)
    sandbox = cri.PodSandboxConfig()
    with pytest.raises(FailedPrecondition, match="spec platform"):
        build_sandbox(text, SandboxInput(id="s", config=sandbox, cgroups_path="", rootfs_path=""), HOST)


def test_the_platform_chooses_the_builder() -> None:
    request = WindowsContainerInput(
        id="c", config=container(), sandbox_id="s", sandbox=pod(), image=ImageConfig()
    )
    assert "windows" in build_container("windows/amd64", request, HOST).spec
    assert "linux" in build_container("linux/amd64", request, HOST).spec
    darwin = build_container("darwin/arm64", request, HOST).spec
    assert "windows" not in darwin
    assert "linux" not in darwin


def test_a_platform_whose_facts_nobody_gathered_is_refused() -> None:
    plain = ContainerInput(
        id="c", config=container(), sandbox_id="s", sandbox=pod(), image=ImageConfig(), cgroups_path=""
    )
    with pytest.raises(FailedPrecondition, match="windows/amd64"):
        build_container("windows/amd64", plain, HOST)
    sandbox = SandboxInput(id="s", config=pod(), cgroups_path="", rootfs_path="")
    for platform in ("windows/amd64", "darwin/arm64"):
        with pytest.raises(FailedPrecondition, match=platform):
            build_sandbox(platform, sandbox, HOST)
