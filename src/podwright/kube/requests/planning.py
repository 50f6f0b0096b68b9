"""The calls that a pod's start would make on a node where nothing of it is yet, without making them. Pure.

What nobody can know before stands as a placeholder: ids, the pod's address, random names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.kube import volumes
from podwright.kube.failures import Failure
from podwright.kube.files import id_ranges
from podwright.kube.files.directory import PodDirectory
from podwright.kube.node import PodFacts
from podwright.kube.requests import translate
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer
    from podwright.kube.node import Node

SANDBOX_ID, POD_IP, TIME, RANDOM = "SANDBOX_ID", "POD_IP", "TIME", "RANDOM"

Call = tuple[str, "Message"]
"""The name of the rpc, "RunPodSandbox", and its request."""


def plan(
    manifest: Manifest,
    node: Node,
    *,
    images: Mapping[str, cri.Image] | None = None,
    facts: PodFacts | None = None,
) -> list[Call]:
    """In order: the sandbox, image volumes, init containers and sidecars, containers; for each its image, its
    creation, its start and its post-start hook, where that is a command.

    `images`: those that the node has, by the manifest's references; others are pulled (without credentials
    here), once, and their users are not known. Raises ConfigError or SandboxConfigError for what could not be
    asked for at all; a note names the container.
    """
    own = facts or _facts(manifest, node)
    known = dict(images or {})
    directory = PodDirectory.of(node, manifest.namespace, manifest.name, manifest.uid)
    config = translate.sandbox_config(manifest, node, own, str(directory.logs_root))
    request = cri.RunPodSandboxRequest(config=config, runtime_handler=translate.runtime_handler(manifest))
    calls: list[Call] = [("RunPodSandbox", request)]
    for volume in manifest.spec.volumes or []:
        if volume.image is not None:
            calls += _pull(volume.image.reference or "", volume.image.pullPolicy or "", config, known)
    for container in [*manifest.init_containers, *manifest.containers]:
        calls += _pull(container.image or "", container.imagePullPolicy or "", config, known)
        try:
            calls += _start(manifest, container, node, own, directory, config, known)
        except Failure as error:
            error.add_note(container.name)
            raise
    return calls


def planned_mounts(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    environment: Mapping[str, str],
) -> list[cri.Mount]:
    """The container's mounts, with a placeholder for what is drawn anew each time."""
    found = volumes.planned_mounts(
        manifest, container, node, facts, directory, environment, bindings=manifest.bindings
    )
    below = directory.termination_log(container.name).parent
    for mount in found:
        if mount.host_path and Path(mount.host_path).parent == below:
            mount.host_path = str(below / RANDOM)
    return found


def container_id(name: str) -> str:
    return f"CONTAINER_ID:{name}"


def _facts(manifest: Manifest, node: Node) -> PodFacts:
    return PodFacts(
        ips=node.ips if manifest.spec.hostNetwork else (POD_IP,),
        user_ids=id_ranges.LENGTH if manifest.spec.hostUsers is False else None,
        source="file" if manifest.static else "api",
        seen_at=TIME,
    )


def _pull(
    reference: str, policy: str, config: cri.PodSandboxConfig, known: dict[str, cri.Image]
) -> Iterator[Call]:
    if policy == "Always" or (policy == "IfNotPresent" and reference not in known):
        spec = cri.ImageSpec(image=complete(reference), annotations=config.annotations)
        yield "PullImage", cri.PullImageRequest(image=spec, sandbox_config=config)
    known.setdefault(reference, cri.Image(id=f"IMAGE_ID:{reference}"))


def _start(
    manifest: Manifest,
    container: AnyContainer,
    node: Node,
    facts: PodFacts,
    directory: PodDirectory,
    config: cri.PodSandboxConfig,
    known: Mapping[str, cri.Image],
) -> Iterator[Call]:
    variables = translate.environment(manifest, container, node, facts)
    mounts = planned_mounts(manifest, container, node, facts, directory, variables)
    wanted = translate.container_config(
        manifest,
        container,
        known[container.image or ""],
        node,
        facts,
        environment=variables,
        mounts=mounts,
    )
    request = cri.CreateContainerRequest(pod_sandbox_id=SANDBOX_ID, config=wanted, sandbox_config=config)
    yield "CreateContainer", request
    name = container_id(container.name)
    yield "StartContainer", cri.StartContainerRequest(container_id=name)
    hook = container.lifecycle.postStart if container.lifecycle is not None else None
    if hook is not None and hook.exec is not None:
        yield "ExecSync", cri.ExecSyncRequest(container_id=name, cmd=hook.exec.command or [])


def complete(reference: str) -> str:
    """With a tag, as the kubelet asks for it."""
    last = reference.rpartition("/")[2]
    return reference if "@" in last or ":" in last else f"{reference}:latest"
