"""Recorded cases of Windows, Darwin and a platform without a builder: podwright's specs are containerd's.

There are no differences to list. How to read a case: tests/golden/spec/README.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import json_format

from podwright.errors import PodwrightError
from podwright.spec import darwin
from podwright.spec.build import build_container, build_sandbox
from podwright.spec.darwin import DarwinSandboxInput
from podwright.spec.inputs import (
    ContainerInput,
    HandlerOptions,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
    SandboxInput,
)
from podwright.spec.linux.build import Built
from podwright.spec.windows import mounts as windows
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.wire import cri_pb2 as cri
from tests.spec.golden_cases import index, load

Json = Any

CASES = index("windows", "darwin", "freebsd")
HOST = HostFacts(hostname="${HOST_NAME}")
NETWORK = NamespacePaths(net="${NETNS}")
PAUSE = "registry.example/golden/pause:v1"


@pytest.mark.parametrize("name", CASES)
def test_recorded_container(name: str) -> None:
    case = load(CASES[name])
    recorded = case["containerd"]
    if "error" in recorded:
        with pytest.raises(PodwrightError):
            _build_container(case)
        return
    built = _build_container(case)
    assert said(built.spec) == said(recorded["container_spec"])
    assert list(unexplained(built)) == []


@pytest.mark.parametrize("name", CASES)
def test_recorded_sandbox(name: str) -> None:
    case = load(CASES[name])
    recorded = case["containerd"]["sandbox_spec"]
    if recorded is None:
        with pytest.raises(PodwrightError, match=case["platform"]):
            _build_sandbox(case)
        return
    built = _build_sandbox(case)
    assert said(built.spec) == said(recorded)
    assert list(unexplained(built)) == []


def test_the_recordings_cover_each_platform() -> None:
    assert {name.partition("/")[0] for name in CASES} == {"windows", "darwin", "platform"}


def said(spec: Json) -> Json:
    """What a spec says: absent and empty members are the same, and the version is the daemon's own."""
    if isinstance(spec, dict):
        members = {name: said(value) for name, value in spec.items() if name != "ociVersion"}
        return {name: value for name, value in members.items() if value not in (None, {}, [], "", False)}
    return [said(value) for value in spec] if isinstance(spec, list) else spec


def unexplained(built: Built) -> Iterator[str]:
    """Places without an origin, their own or that of what they are part of."""
    for place in _places(built.spec):
        if not any(place == known or place.startswith((f"{known}.", f"{known}[")) for known in built.origins):
            yield place


def _places(spec: Mapping[str, Json], prefix: str = "") -> Iterator[str]:
    for name, value in spec.items():
        path = f"{prefix}{name}"
        if path == "mounts":
            yield from (f"mounts[{mount['destination']}]" for mount in value)
        elif path == "annotations":
            yield from (f"annotations[{key}]" for key in value)
        elif isinstance(value, dict) and value:
            yield from _places(value, f"{path}.")
        elif value not in ({}, []):
            yield path


# A case as podwright's inputs


def _handler(case: Json) -> HandlerOptions:
    return HandlerOptions(**case["host_facts"].get("handler_options", {}))


def _build_container(case: Json) -> Built:
    config = json_format.ParseDict(case["container_config"], cri.ContainerConfig())
    image = ImageConfig.parse(case["image_config"])
    common: dict[str, Any] = {
        "id": "${CONTAINER_ID}",
        "config": config,
        "sandbox_id": "${SANDBOX_ID}",
        "sandbox": json_format.ParseDict(case["sandbox_config"], cri.PodSandboxConfig()),
        "image": image,
        "handler": _handler(case),
        "cgroups_path": "",
        "rootfs_path": "",
    }
    if case["platform"] == "windows":
        needed = windows.volumes_needed(config, image, HOST.policy)
        volumes = "${ROOT}\\containers\\${CONTAINER_ID}\\volumes\\"
        request: ContainerInput = WindowsContainerInput(
            **common,
            namespaces=NETWORK,
            mount_sources=[MountSource(path=found.host_path) for found in windows.lookups(config)],
            volumes={path: f"{volumes}${{VOLUME:{path}}}" for path in needed},
        )
    else:
        volumes = "${ROOT}/containers/${CONTAINER_ID}/volumes/"
        request = ContainerInput(
            **common,
            mount_sources=[
                MountSource(path=_follow(found.host_path, case)) for found in darwin.lookups(config)
            ],
            volumes={
                path: f"{volumes}${{VOLUME:{path}}}"
                for path in darwin.volumes_needed(config, image, HOST.policy)
            },
        )
    return build_container(case["platform"], request, HOST, explain=True)


def _build_sandbox(case: Json) -> Built:
    common: dict[str, Any] = {
        "id": "${SANDBOX_ID}",
        "config": json_format.ParseDict(case["sandbox_config"], cri.PodSandboxConfig()),
        "handler": _handler(case),
        "rootfs_path": "",
    }
    if case["platform"] == "windows":
        request: SandboxInput = WindowsSandboxInput(
            **common,
            namespaces=NETWORK,
            image=ImageConfig.parse(case["pause_image_config"]),
            image_name=PAUSE,
        )
    else:
        request = DarwinSandboxInput(**common, image_name=PAUSE)
    return build_sandbox(case["platform"], request, HOST, explain=True)


def _follow(path: str, case: Json) -> str:
    entry = case["host_facts"]["fixtures"]["paths"].get(path, {})
    if entry.get("type") != "symlink":
        return path
    return _follow(posixpath.normpath(posixpath.join(posixpath.dirname(path), entry["target"])), case)
