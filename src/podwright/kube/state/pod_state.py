"""What a runtime has of one pod: its sandboxes and containers, looked up anew each time. No memory, no rules.

Everything that is decided about a pod (`actions`, `status`) is decided from a `Seen`; so a process that comes
later decides the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from podwright.api import Cri
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri

UID_LABEL = "io.kubernetes.pod.uid"
HASH_ANNOTATION = "io.kubernetes.container.hash"
RESTARTS_ANNOTATION = "io.kubernetes.container.restartCount"


@dataclass(frozen=True, slots=True)
class SeenContainer:
    """One attempt of a container."""

    status: cri.ContainerStatus
    sandbox_id: str

    @property
    def id(self) -> str:
        return self.status.id

    @property
    def name(self) -> str:
        return self.status.metadata.name

    @property
    def attempt(self) -> int:
        return self.status.metadata.attempt

    @property
    def created(self) -> bool:
        """It exists and was not started, or not yet."""
        return self.status.state == cri.CONTAINER_CREATED

    @property
    def running(self) -> bool:
        return self.status.state == cri.CONTAINER_RUNNING

    @property
    def exited(self) -> bool:
        return self.status.state == cri.CONTAINER_EXITED

    @property
    def unknown(self) -> bool:
        return self.status.state == cri.CONTAINER_UNKNOWN

    @property
    def failed(self) -> bool:
        return self.exited and self.status.exit_code != 0

    @property
    def restart_count(self) -> int:
        noted = self.status.annotations.get(RESTARTS_ANNOTATION, "")
        return int(noted) if noted.isdecimal() else self.attempt

    @property
    def hash(self) -> str:
        """What the container was made from (`translate.container_hash`); "" where nobody noted it."""
        return self.status.annotations.get(HASH_ANNOTATION, "")


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod as its runtime showed it."""

    sandboxes: tuple[cri.PodSandboxStatus, ...] = ()
    """Newest first, ready or not."""
    containers: tuple[SeenContainer, ...] = ()
    """Newest first, all attempts of all containers."""

    def container(self, name: str) -> SeenContainer | None:
        """The newest attempt."""
        return next((one for one in self.containers if one.name == name), None)

    def by_id(self, container_id: str) -> SeenContainer | None:
        return next((one for one in self.containers if one.id == container_id), None)

    def attempts(self, name: str) -> tuple[SeenContainer, ...]:
        """Newest first."""
        return tuple(one for one in self.containers if one.name == name)

    def ready_sandbox(self) -> cri.PodSandboxStatus | None:
        """The newest sandbox, if it is ready."""
        newest = self.sandboxes[0] if self.sandboxes else None
        return newest if newest is not None and newest.state == cri.SANDBOX_READY else None

    def active(self) -> tuple[SeenContainer, ...]:
        """The containers of the newest sandbox, if that is ready; newest first."""
        sandbox = self.ready_sandbox()
        return tuple(one for one in self.containers if sandbox is not None and one.sandbox_id == sandbox.id)

    def ips(self) -> tuple[str, ...]:
        """Addresses of the newest sandbox while it is ready; none on the host's network."""
        sandbox = self.ready_sandbox()
        if sandbox is None or not sandbox.network.ip:
            return ()
        return (sandbox.network.ip, *(one.ip for one in sandbox.network.additional_ips if one.ip))


async def look(runtime: Cri, uid: str) -> Seen:
    """Everything the runtime has with the label of the pod `uid`. What is removed meanwhile is left out."""
    labels = {UID_LABEL: uid}
    sandboxes, containers = await asyncio.gather(
        runtime.list_pod_sandbox(
            cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        ),
        runtime.list_containers(cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=labels))),
    )
    statuses, seen = await asyncio.gather(
        asyncio.gather(*(_sandbox(runtime, one.id) for one in sandboxes.items)),
        asyncio.gather(*(_container(runtime, one) for one in containers.containers)),
    )
    return Seen(
        tuple(sorted((one for one in statuses if one is not None), key=_sandbox_age, reverse=True)),
        tuple(sorted((one for one in seen if one is not None), key=_container_age, reverse=True)),
    )


async def _sandbox(runtime: Cri, sandbox_id: str) -> cri.PodSandboxStatus | None:
    try:
        answer = await runtime.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id))
    except NotFound:
        return None
    return answer.status


async def _container(runtime: Cri, listed: cri.Container) -> SeenContainer | None:
    try:
        answer = await runtime.container_status(cri.ContainerStatusRequest(container_id=listed.id))
    except NotFound:
        return None
    return SeenContainer(answer.status, listed.pod_sandbox_id)


def _sandbox_age(status: cri.PodSandboxStatus) -> tuple[int, int]:
    return status.created_at, status.metadata.attempt


def _container_age(seen: SeenContainer) -> tuple[int, int]:
    return seen.status.created_at, seen.attempt
