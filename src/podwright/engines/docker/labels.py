"""Names and labels of what podwright makes in a Docker Engine: how an object is found again from its id.

Docker gives its containers ids of its own; nobody can choose them, and core has written an object's id before
Docker is asked for anything. So a CRI id is not Docker's. The label ID carries it from the creation's one
request on: whatever was made is found by it after a crash at any instruction. Names are those that dockershim
gave, which people and programs beside Docker know.
"""

from __future__ import annotations

from collections.abc import Mapping

from podwright.wire import cri_pb2 as cri

ID = "io.podwright.id"
"""The CRI's id of a sandbox or container."""
OWNER = "io.podwright.root"
"""The state root of the podwright that made it: several may use one Docker Engine."""

TYPE = "io.kubernetes.docker.type"
SANDBOX, CONTAINER = "podsandbox", "container"
LOOKUP = "lookup"
"""Never started, and removed at once: made to read files of an image."""
CONTAINER_NAME = "io.kubernetes.container.name"
LOG_PATH = "io.kubernetes.container.logpath"
SANDBOX_ID = "io.kubernetes.sandbox.id"
"""In a container: the CRI's id of its sandbox."""
ANNOTATION = "annotation."
"""Stands before the key of an annotation: Docker has labels only."""

INTERNAL = frozenset((ID, OWNER, TYPE, LOG_PATH, SANDBOX_ID))


def sandbox_name(config: cri.PodSandboxConfig) -> str:
    pod = config.metadata
    return "_".join(("k8s", "POD", pod.name, pod.namespace, pod.uid, str(pod.attempt)))


def container_name(sandbox: cri.PodSandboxConfig, config: cri.ContainerConfig) -> str:
    pod, own = sandbox.metadata, config.metadata
    return "_".join(("k8s", own.name, pod.name, pod.namespace, pod.uid, str(own.attempt)))


def of_sandbox(config: cri.PodSandboxConfig, id: str, owner: str) -> dict[str, str]:
    return {
        **_outer(config.labels, config.annotations),
        CONTAINER_NAME: "POD",
        TYPE: SANDBOX,
        ID: id,
        OWNER: owner,
    }


def of_container(
    config: cri.ContainerConfig, *, id: str, owner: str, sandbox: str, log_path: str
) -> dict[str, str]:
    made = {**_outer(config.labels, config.annotations), TYPE: CONTAINER, SANDBOX_ID: sandbox}
    if log_path:
        made[LOG_PATH] = log_path
    return {**made, ID: id, OWNER: owner}


def outer(labels: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The CRI's labels and annotations among Docker's: `_outer` undone, what is podwright's own left out.

    An image's labels are among them, Docker mixes them in. The record core keeps has none of these."""
    own = {
        key: value
        for key, value in labels.items()
        if key not in INTERNAL and not (key == CONTAINER_NAME and value == "POD")
    }
    annotations = {key[len(ANNOTATION) :]: own.pop(key) for key in list(own) if key.startswith(ANNOTATION)}
    return own, annotations


def _outer(labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, str]:
    return {**labels, **{ANNOTATION + key: value for key, value in annotations.items()}}
