"""Calls whose answers were lost, for the server that got them has gone: what the next server knows of them.

Asked again, a creation that has been carried out is refused: its name is taken, by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from podwright.api import Cri
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri


async def answer_of(runtime: Cri, method: str, request: Any) -> Any:
    """The answer to `runtime.METHOD(request)` that was lost; None when nothing came of that call, or when it
    may simply be made again."""
    find = _FINDERS.get(method)
    return await find(runtime, request) if find is not None else None


async def _sandbox(runtime: Cri, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse | None:
    filter = cri.PodSandboxFilter(
        label_selector=request.config.labels, state=cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    )
    listed = await runtime.list_pod_sandbox(cri.ListPodSandboxRequest(filter=filter))
    # The whole metadata: uid and attempt tell it from every other pod of the same name.
    same = [one.id for one in listed.items if one.metadata == request.config.metadata]
    return cri.RunPodSandboxResponse(pod_sandbox_id=same[0]) if same else None


async def _container(runtime: Cri, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse | None:
    filter = cri.ContainerFilter(
        pod_sandbox_id=request.pod_sandbox_id,
        label_selector=request.config.labels,
        state=cri.ContainerStateValue(state=cri.CONTAINER_CREATED),
    )
    listed = await runtime.list_containers(cri.ListContainersRequest(filter=filter))
    same = [one.id for one in listed.containers if one.metadata == request.config.metadata]
    return cri.CreateContainerResponse(container_id=same[0]) if same else None


async def _start(runtime: Cri, request: cri.StartContainerRequest) -> cri.StartContainerResponse | None:
    asked = cri.ContainerStatusRequest(container_id=request.container_id)
    try:
        status = (await runtime.container_status(asked)).status
    except NotFound:
        return None
    # One that could not be started has ended, too, but never began.
    ran = status.state == cri.CONTAINER_EXITED and status.started_at > 0
    return cri.StartContainerResponse() if ran or status.state == cri.CONTAINER_RUNNING else None


_FINDERS: Mapping[str, Callable[[Cri, Any], Awaitable[Any]]] = {
    "run_pod_sandbox": _sandbox,
    "create_container": _container,
    "start_container": _start,
}
