"""Limits and settings that no CRI field has: ulimits, umask, shared memory, by annotation and by the node."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.spec import quantities, rlimits
from podwright.spec.base_spec import BaseSpec
from podwright.spec.inputs import HandlerOptions, Policy
from podwright.spec.linux.limits import shm_size
from podwright.spec.rlimits import UNLIMITED, Rlimit
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host

ALLOWING = HandlerOptions(
    allowed_annotations=[
        "umask.crio.io",
        "io.kubernetes.cri-o.*",
        "ulimits.noderesource.dev",
        "shm-size.crio.io",
    ]
)


def annotated(**annotations: str) -> cri.PodSandboxConfig:
    return cri.PodSandboxConfig(annotations=annotations)


# Quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        (7, 7),
        ("50M", 50_000_000),
        ("1k", 1000),
        ("128Mi", 128 << 20),
        ("1.5G", 1_500_000_000),
        ("1e3", 1000),
        ("100m", 1),
        (".5Ki", 512),
        ("1E", 10**18),
    ],
)
def test_quantities(text: str | int, value: int) -> None:
    assert quantities.parse(text, "f") == value


@pytest.mark.parametrize("text", ["", "x", "-1", "1mi", "1 M", "9Ei", "1ee5", "1e", "٣"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="f"):
        quantities.parse(text, "f")


# Resource limits


def test_settings_of_resource_limits() -> None:
    assert rlimits.parse_settings(["nofile=1024:4096", "NPROC=-1", "rlimit_core=0", "core=1"], "f") == (
        Rlimit("RLIMIT_NOFILE", 1024, 4096),
        Rlimit("RLIMIT_NPROC", UNLIMITED, UNLIMITED),
        Rlimit("RLIMIT_CORE", 1, 1),
    )


@pytest.mark.parametrize(
    "text", ["nofile", "nofile=", "nofile=x", "nofile=2:1", "nofile=-2", "files=1", f"nofile={2**64}", "=1"]
)
def test_settings_that_are_no_limits_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"spec\.default_ulimits"):
        rlimits.parse_settings([text], "spec.default_ulimits")


@pytest.mark.parametrize("text", ["{", "x", "- 5", "- {type: nofile, soft: 2, hard: 1}", "- {typ: nofile}"])
def test_annotations_that_are_no_limits_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"ulimits\.noderesource\.dev/container\.main"):
        build(
            sandbox=annotated(**{"ulimits.noderesource.dev/container.main": text}),
            handler=ALLOWING,
        )


def test_the_annotations_limits_go_over_the_nodes_and_these_over_the_base_specs() -> None:
    base = BaseSpec(
        "/base.json",
        {
            "ociVersion": "1.0.2",
            "process": {
                "rlimits": [
                    {"type": name, "soft": 1, "hard": 1}
                    for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_AS")
                ]
            },
        },
    )
    policy = Policy(default_ulimits=rlimits.parse_settings(["nofile=2", "as=2"], "f"))
    limit = "- {type: RLIMIT_AS, soft: 3, hard: 3}"
    handler = HandlerOptions(base_spec=base, allowed_annotations=["ulimits.noderesource.dev"])
    built = build(
        facts=host(policy),
        handler=handler,
        sandbox=annotated(**{"ulimits.noderesource.dev/container.main": limit}),
    )
    found = {limit["type"]: limit["soft"] for limit in built.spec["process"]["rlimits"]}
    assert found == {"RLIMIT_CORE": 1, "RLIMIT_NOFILE": 2, "RLIMIT_AS": 3}


def test_without_any_the_container_inherits() -> None:
    assert "rlimits" not in build().spec["process"]


# Umask


@pytest.mark.parametrize(
    ("policy", "pod", "own", "handler", "expected"),
    [
        (None, {}, {}, ALLOWING, None),
        (0o27, {}, {}, ALLOWING, 0o27),
        (0o27, {"umask.crio.io": "077"}, {}, ALLOWING, 0o77),
        (None, {"io.kubernetes.cri-o.umask": "77"}, {}, ALLOWING, 0o77),
        (None, {"umask.crio.io": "077"}, {"umask.crio.io": "022"}, ALLOWING, 0o22),
        (0o27, {"umask.crio.io": "077"}, {"umask.crio.io": "022"}, HandlerOptions(), 0o27),
    ],
)
def test_umask(
    policy: int | None,
    pod: dict[str, str],
    own: dict[str, str],
    handler: HandlerOptions,
    expected: int | None,
) -> None:
    built = build(
        container(annotations=own), host(Policy(umask=policy)), sandbox=annotated(**pod), handler=handler
    )
    assert built.spec["process"]["user"].get("umask") == expected


@pytest.mark.parametrize("text", ["", "8", "01000", "-1", "x"])
def test_what_is_no_umask_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"sandbox_config\.annotations\[umask\.crio\.io\]"):
        build(sandbox=annotated(**{"umask.crio.io": text}), handler=ALLOWING)


# Shared memory


@pytest.mark.parametrize(
    ("annotations", "handler", "size"),
    [
        ({}, ALLOWING, 5),
        ({"shm-size.crio.io": "128Mi"}, ALLOWING, 128 << 20),
        ({"io.kubernetes.cri-o.ShmSize": "1Gi"}, ALLOWING, 1 << 30),
        ({"shm-size.crio.io": "128Mi"}, HandlerOptions(), 5),
    ],
)
def test_size_of_shared_memory(annotations: dict[str, str], handler: HandlerOptions, size: int) -> None:
    assert shm_size(annotated(**annotations), handler, Policy(shm_size=5)) == size


@pytest.mark.parametrize("text", ["0", "x", "-5Mi"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"shm-size\.crio\.io"):
        shm_size(annotated(**{"shm-size.crio.io": text}), ALLOWING, Policy())


# Others


@pytest.mark.parametrize(
    ("quota", "period", "own", "expected"),
    [
        (0, 0, "", None),
        (-1, 0, "", None),
        (150_000, 100_000, "", "2"),
        (50_000, 0, "", "1"),
        (400_000, 100_000, "7", "7"),
    ],
)
def test_go_programs_learn_their_quota(quota: int, period: int, own: str, expected: str | None) -> None:
    envs = [cri.KeyValue(key="GOMAXPROCS", value=own.encode())] if own else []
    limits = cri.LinuxContainerResources(cpu_quota=quota, cpu_period=period)
    for policy, found in ((Policy(gomaxprocs=True), expected), (Policy(), own or None)):
        built = build(container(resources=limits, envs=envs), host(policy))
        variables: dict[str, Any] = dict(item.split("=", 1) for item in built.spec["process"]["env"])
        assert variables.get("GOMAXPROCS") == found


@pytest.mark.parametrize(
    ("limit", "fine"), [(0, True), (-1, True), (12 << 20, True), ((12 << 20) - 1, False)]
)
def test_memory_below_what_the_runtime_needs_is_refused(limit: int, fine: bool) -> None:
    config = container(resources=cri.LinuxContainerResources(memory_limit_in_bytes=limit))
    assert build(config).spec
    handler = HandlerOptions(minimum_memory=12 << 20)
    if fine:
        assert build(config, handler=handler).spec
    else:
        with pytest.raises(InvalidArgument, match="memory_limit_in_bytes"):
            build(config, handler=handler)
