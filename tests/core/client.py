"""A CRI client that keeps account of what it was told, and of what it saw of the event stream.

One that was told nothing (its call was cut short) may call again: `patient` ones take "it is there already"
for an answer, as the kubelet does when it lists what there is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from podwright.errors import AlreadyExists, FailedPrecondition
from podwright.wire import cri_pb2 as cri
from tests.core.node import IMAGE, Node


@dataclass
class Account:
    """What all clients of a node together were told; it outlives a crash."""

    answered: set[str] = field(default_factory=set)
    """Ids that a creation answered with."""
    leaving: set[str] = field(default_factory=set)
    """Ids whose removal was asked for: they may go at any time."""
    gone: set[str] = field(default_factory=set)
    """Ids whose removal was answered."""


class Client:
    def __init__(self, node: Node, account: Account | None = None) -> None:
        self.node = node
        self.account = account or Account()
        self.patient = False

    def _told(self, what: set[str], *ids: str) -> None:
        if not self.node.dead:  # otherwise it was never sent
            what.update(ids)

    async def pod(self, name: str = "pod", *, host_network: bool = False, shared_pid: bool = False) -> str:
        request = self.node.sandbox_request(name, host_network=host_network, shared_pid=shared_pid)
        try:
            id = (await self.node.runtime.run_pod_sandbox(request)).pod_sandbox_id
        except AlreadyExists:
            if not self.patient:
                raise
            listed = await self.node.runtime.list_pod_sandbox(cri.ListPodSandboxRequest())
            [id] = [each.id for each in listed.items if each.metadata == request.config.metadata]
        self._told(self.account.answered, id)
        return id

    async def create(self, pod: str, name: str = "main", *, target: str = "", image: str = "") -> str:
        request = self.node.container_request(pod, name, target=target)
        if image:
            request.config.image.image = image
        try:
            id = (await self.node.runtime.create_container(request)).container_id
        except AlreadyExists:
            if not self.patient:
                raise
            filter = cri.ContainerFilter(pod_sandbox_id=pod)
            listed = await self.node.runtime.list_containers(cri.ListContainersRequest(filter=filter))
            [id] = [each.id for each in listed.containers if each.metadata.name == name]
        self._told(self.account.answered, id)
        return id

    async def start(self, container: str) -> None:
        try:
            await self.node.runtime.start_container(cri.StartContainerRequest(container_id=container))
        except FailedPrecondition:
            if not self.patient or (await self.node.status(container)).state == cri.CONTAINER_CREATED:
                raise

    async def stop(self, container: str, timeout: int = 0) -> None:
        request = cri.StopContainerRequest(container_id=container, timeout=timeout)
        await self.node.runtime.stop_container(request)

    async def remove(self, container: str) -> None:
        self.account.leaving.add(container)
        await self.node.runtime.remove_container(cri.RemoveContainerRequest(container_id=container))
        self._told(self.account.gone, container)

    async def stop_pod(self, pod: str) -> None:
        await self.node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod))

    async def remove_pod(self, pod: str) -> None:
        filter = cri.ContainerFilter(pod_sandbox_id=pod)
        listed = await self.node.runtime.list_containers(cri.ListContainersRequest(filter=filter))
        going = {pod, *(each.id for each in listed.containers)}
        self.account.leaving |= going
        await self.node.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod))
        self._told(self.account.gone, *going)

    async def update(self, container: str, limit: int) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id=container)
        request.linux.memory_limit_in_bytes = limit
        await self.node.runtime.update_container_resources(request)

    async def checkpoint(self, container: str, location: str) -> None:
        request = cri.CheckpointContainerRequest(container_id=container, location=location)
        await self.node.runtime.checkpoint_container(request)

    async def exec(self, container: str) -> None:
        request = cri.ExecSyncRequest(container_id=container, cmd=["true"], timeout=5)
        await self.node.runtime.exec_sync(request)

    async def reopen_log(self, container: str) -> None:
        request = cri.ReopenContainerLogRequest(container_id=container)
        await self.node.runtime.reopen_container_log(request)

    async def pull(self, image: str = IMAGE) -> None:
        await self.node.runtime.pull_image(cri.PullImageRequest(image=cri.ImageSpec(image=image)))


class Watch:
    """What a subscriber of the event stream gets from now on, by object."""

    def __init__(self, node: Node) -> None:
        self.events: list[cri.ContainerEventResponse] = []
        records = node.runtime.records
        self.known = {each.id for each in (*records.sandboxes, *records.containers)}
        """Objects that were there before: it has missed the first part of their lives."""
        self._task = asyncio.ensure_future(self._listen(node))

    async def _listen(self, node: Node) -> None:
        async for event in node.runtime.get_container_events(cri.GetEventsRequest()):
            self.events.append(event)
