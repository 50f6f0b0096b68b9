"""Configurations as verbose statuses show them: in the JSON that crictl reads as well."""

from __future__ import annotations

import json

from podwright.cli.explain_sources import message
from podwright.core.words import as_asked, json_texts
from podwright.wire import cri_pb2 as cri

CONFIG = cri.ContainerConfig(
    metadata=cri.ContainerMetadata(name="main", attempt=3),
    args=["-c", "true"],
    envs=[cri.KeyValue(key="A", value=b"1"), cri.KeyValue(key="TEXT", value=b"dGVzdA==")],
    mounts=[cri.Mount(container_path="/data", propagation=cri.PROPAGATION_BIDIRECTIONAL)],
    labels={"app": "web"},
    linux=cri.LinuxContainerConfig(
        resources=cri.LinuxContainerResources(memory_limit_in_bytes=1 << 40, unified={"memory.high": "1"}),
        security_context=cri.LinuxContainerSecurityContext(run_as_user=cri.Int64Value(value=1000)),
    ),
)


def test_numbers_are_numbers_and_variables_are_text() -> None:
    assert json.loads(json_texts({"info": as_asked(CONFIG)})["info"]) == {
        "metadata": {"name": "main", "attempt": 3},
        "args": ["-c", "true"],
        "envs": [{"key": "A", "value": "1"}, {"key": "TEXT", "value": "dGVzdA=="}],
        "mounts": [{"container_path": "/data", "propagation": "PROPAGATION_BIDIRECTIONAL"}],
        "labels": {"app": "web"},
        "linux": {
            "resources": {"memory_limit_in_bytes": 1 << 40, "unified": {"memory.high": "1"}},
            "security_context": {"run_as_user": {"value": 1000}},
        },
    }


def test_what_is_shown_can_be_read_again() -> None:
    tree = as_asked(CONFIG)
    assert isinstance(tree, dict)
    assert message(tree, cri.ContainerConfig(), "container.json") == CONFIG


def test_what_a_newer_client_sent_is_shown_all_the_same() -> None:
    config = cri.ContainerConfig(envs=[cri.KeyValue(key="B", value=b"\xff\xfe1")])
    config.mounts.add().propagation = 77  # type: ignore[assignment]
    assert as_asked(config) == {
        "envs": [{"key": "B", "value": "\ufffd\ufffd1"}],
        "mounts": [{"propagation": 77}],
    }


def test_an_empty_configuration_is_an_empty_object() -> None:
    assert as_asked(cri.PodSandboxConfig()) == {}
