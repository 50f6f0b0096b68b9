"""Requests as a kubelet sends them, as short as they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from podwright.api import Cri
from podwright.wire import cri_pb2 as cri


def pod(name: str = "web", attempt: int = 0) -> cri.RunPodSandboxRequest:
    return cri.RunPodSandboxRequest(
        config=cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(
                name=name, namespace="default", uid=f"uid-{name}", attempt=attempt
            ),
            labels={"app": name},
        )
    )


def container(sandbox: str, name: str = "main", image: str = "nginx") -> cri.CreateContainerRequest:
    return cri.CreateContainerRequest(
        pod_sandbox_id=sandbox,
        config=cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=image, user_specified_image=image),
        ),
    )


def pull(image: str = "nginx", **auth: str) -> cri.PullImageRequest:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=image))
    if auth:
        request.auth.CopyFrom(cri.AuthConfig(**auth))
    return request


async def run_pod(node: Cri, name: str = "web") -> str:
    return (await node.run_pod_sandbox(pod(name))).pod_sandbox_id


async def run_container(node: Cri, sandbox: str, name: str = "main") -> str:
    """A running one; its image is pulled."""
    await node.pull_image(pull())
    id = (await node.create_container(container(sandbox, name))).container_id
    await node.start_container(cri.StartContainerRequest(container_id=id))
    return id


async def status(node: Cri, id: str) -> cri.ContainerStatus:
    return (await node.container_status(cri.ContainerStatusRequest(container_id=id))).status


async def pods(node: Cri) -> dict[str, cri.PodSandboxState]:
    """The states by name."""
    items = (await node.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    return {item.metadata.name: item.state for item in items}


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition()` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)
