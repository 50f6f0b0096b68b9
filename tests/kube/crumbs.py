"""A CRI in memory for the runner's logic: it notes every call, and containers end as their program says."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from podwright.api import Cri
from podwright.errors import NotFound, PodwrightError
from podwright.wire import cri_pb2 as cri

SECOND = 1_000_000_000


class CrumbCri:
    """The first argument of a container is its program: "exit N", "run" (until it is stopped), "deaf" (until
    it is killed), "unstartable"; several, separated by ",", are one for each attempt, the last one for the
    rest. `calls` has "name argument" of each call, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._noted: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.images: dict[str, cri.Image] = {}
        self.configs: dict[str, cri.ContainerConfig] = {}
        self.sandboxes: dict[str, cri.PodSandboxConfig] = {}
        self.status_of: dict[str, cri.ContainerStatus] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.fail: dict[str, PodwrightError] = {}
        self.before: Callable[[str], Any] | None = None

    def add_image(self, reference: str, **fields: Any) -> None:
        image = cri.Image(id=f"sha256:{reference}", repo_tags=[reference], **fields)
        image.uid.SetInParent()
        self.images[reference] = image

    @property
    def api(self) -> Cri:
        return cast(Cri, self)

    async def called(self, call: str) -> None:
        """Wait until it has been asked for `call`."""
        async with asyncio.timeout(60):
            await self._noted[call].wait()

    async def _note(self, call: str) -> None:
        self.calls.append(call)
        self._noted[call].set()
        await asyncio.sleep(0)
        if self.before is not None:
            await self.before(call)
        if call in self.fail:
            raise self.fail[call]

    async def image_status(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        return cri.ImageStatusResponse(image=self.images.get(request.image.image))

    async def pull_image(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        await self._note(f"pull {request.image.image}")
        self.add_image(request.image.image)
        return cri.PullImageResponse(image_ref=request.image.image)

    async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        await self._note("run sandbox")
        self.sandboxes["pod"] = request.config
        return cri.RunPodSandboxResponse(pod_sandbox_id="pod")

    async def pod_sandbox_status(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        network = cri.PodSandboxNetworkStatus(ip="10.1.0.2")
        return cri.PodSandboxStatusResponse(status=cri.PodSandboxStatus(id="pod", network=network))

    async def create_container(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        id = f"{request.config.metadata.name}:{request.config.metadata.attempt}"
        await self._note(f"create {id}")
        self.configs[id], self.ended[id] = request.config, asyncio.Event()
        self.status_of[id] = cri.ContainerStatus(id=id, state=cri.CONTAINER_CREATED)
        return cri.CreateContainerResponse(container_id=id)

    async def start_container(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        id = request.container_id
        await self._note(f"start {id}")
        config, status = self.configs[id], self.status_of[id]
        program = self.program(id)
        if program == "unstartable":
            raise PodwrightError("no such program")
        status.state, status.started_at = cri.CONTAINER_RUNNING, SECOND
        log = Path(next(iter(self.sandboxes.values())).log_directory, config.log_path)
        with log.open("ab") as file:
            file.write(b"2026-01-02T03:04:05.000000006Z stdout F hello from %s\n" % id.encode())
        if match := re.fullmatch(r"exit (\d+)", program):
            self.end(id, int(match[1]))
        return cri.StartContainerResponse()

    def program(self, id: str) -> str:
        programs = self.configs[id].args[0].split(",")
        return programs[min(self.configs[id].metadata.attempt, len(programs) - 1)].strip()

    def end(self, id: str, code: int, seconds: float = 1) -> None:
        status = self.status_of[id]
        if status.state != cri.CONTAINER_EXITED:
            status.state, status.exit_code = cri.CONTAINER_EXITED, code
            status.finished_at = status.started_at + int(seconds * SECOND)
            status.reason = "Error" if code else "Completed"
            self.ended[id].set()

    async def stop_container(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        id = request.container_id
        await self._note(f"stop {id} {request.timeout}")
        if self.program(id) != "deaf":
            self.end(id, 143)
        elif request.timeout == 0:
            self.end(id, 137)
        await self.ended[id].wait()
        return cri.StopContainerResponse()

    async def container_status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        if request.container_id not in self.status_of:
            raise NotFound(request.container_id)
        return cri.ContainerStatusResponse(status=self.status_of[request.container_id])

    async def wait(self, container_id: str) -> cri.ContainerStatus:
        await self.ended[container_id].wait()
        return self.status_of[container_id]

    async def remove_container(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        await self._note(f"remove {request.container_id}")
        return cri.RemoveContainerResponse()

    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        await self._note("stop sandbox")
        for id in self.status_of:
            self.end(id, 137)
        return cri.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        await self._note("remove sandbox")
        return cri.RemovePodSandboxResponse()
