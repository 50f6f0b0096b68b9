"""Programs that the OCI runtime calls, and annotations that it is given."""

from __future__ import annotations

import json

import pytest

from tests.behaviour.client import Client
from tests.behaviour.stage import until
from tests.matrix.server import MatrixServer

pytestmark = pytest.mark.root

STAGES = ("createRuntime", "poststart", "poststop")


def test_hooks_of_the_directories(client: Client, native: str, server: MatrixServer) -> None:
    """Called for the containers they are meant for, at their stage, with the container's state."""

    def marks() -> dict[str, str]:
        """Which container each stage was told of last."""
        found = {}
        for file in server.marks.iterdir():
            state = json.loads(file.read_text() or '{"id": ""}')
            found[file.name.partition("-")[0]] = state["id"]
        return found

    pod = client.pod(handler=native)
    pod.run()
    assert pod.run(annotations={"example.com/marked": "no"}).id not in marks().values()
    container = pod.create("/bin/sleep", "1000", annotations={"example.com/marked": "yes"})
    assert marks()["createRuntime"] == container.id
    if native == "crun":  # runc 1.1 calls it at the end of `create` already
        assert marks().get("poststart") != container.id
    container.start()
    until(lambda: marks().get("poststart") == container.id, "the hook after the start")
    assert marks().get("poststop") != container.id
    container.stop()
    container.remove()
    assert marks()["poststop"] == container.id
    by_pod = client.pod(handler=native, annotations={"example.com/marked": "yes"}).run()
    assert marks()["createRuntime"] == by_pod.id


def test_a_hook_that_fails_fails_the_creation(client: Client, native: str, server: MatrixServer) -> None:
    pod = client.pod(handler=native)
    marks = list(server.marks.iterdir())
    program = server.root / "createRuntime.sh"
    text = program.read_text()
    program.write_text("#!/bin/sh\necho it is broken >&2\nexit 9\n")
    try:
        with pytest.raises(Exception, match="hook"):
            pod.create("/bin/true", annotations={"example.com/marked": "yes"})
    finally:
        program.write_text(text)
    assert list(server.marks.iterdir()) == marks
    assert pod.run(annotations={"example.com/marked": "yes"}).exec("true").code == 0


def test_annotations_that_the_runtime_is_given(client: Client, native: str) -> None:
    """Who it is, and what the handler's patterns let through; nothing else of what a pod says."""
    pod = client.pod(
        handler=native,
        annotations={"pod.example.com/a": "pod", "example.com/b": "not a pod's"},
    )
    container = pod.run(
        name="main", annotations={"example.com/c": "own", "example.com/c/d": "deeper", "other": "no"}
    )
    given = container.info()["runtimeSpec"]["annotations"]
    meta = pod.config.metadata
    assert given == {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-id": pod.id,
        "io.kubernetes.cri.sandbox-name": meta.name,
        "io.kubernetes.cri.sandbox-namespace": meta.namespace,
        "io.kubernetes.cri.sandbox-uid": meta.uid,
        "io.kubernetes.cri.container-name": "main",
        "io.kubernetes.cri.image-name": container.config.image.user_specified_image,
        "pod.example.com/a": "pod",
        "example.com/c": "own",
    }
