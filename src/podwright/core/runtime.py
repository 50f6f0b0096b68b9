"""The CRI on any engine: every call of `podwright.api.Cri`, each handed to the room that has its rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from google.protobuf.message import Message

from podwright import __version__
from podwright.config import Config
from podwright.core import streams
from podwright.core.containers import Containers
from podwright.core.ends import exited
from podwright.core.events import Events, Subscription, decoded
from podwright.core.following import Following
from podwright.core.ground import Ground
from podwright.core.images import Images
from podwright.core.metric_table import descriptors
from podwright.core.metrics import Metrics
from podwright.core.node import runtime_config, status
from podwright.core.node_images import NodeImages
from podwright.core.operations import RECOVERY, InFlight, listed, operation
from podwright.core.pod_network import PodNetwork
from podwright.core.records import Records
from podwright.core.recovery import look_again, recover
from podwright.core.sandboxes import Sandboxes
from podwright.core.stats import Stats
from podwright.core.streaming import Streaming
from podwright.core.views import container_status_wire, sandbox_status_wire
from podwright.core.words import json_texts
from podwright.engines.base import Engine, Exit, Orphan
from podwright.engines.streams import Connection, Streams
from podwright.errors import ResourceExhausted
from podwright.hooks.running import Hooks
from podwright.state.database import Database
from podwright.steps import Operations, step
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

KUBELET_API_VERSION = "0.1.0"
"""What the kubelet checks VersionResponse.version against."""

FOLLOW_AGAIN, FOLLOW_AT_MOST = 1.0, 4.0
"""Seconds after which an engine that has stopped telling exits is asked again; twice as many each time that
it has nothing to tell, up to the second number."""

log = logging.getLogger(__name__)


class Runtime:
    """Open it with `open`; until that has returned no call may be made."""

    def __init__(
        self, config: Config, engine: Engine, database: Database, hooks: Hooks | None = None
    ) -> None:
        self.config = config
        self.engine = engine
        self.in_flight = InFlight()
        self.operations = Operations()
        """Every call is one of them, through whichever door it comes."""
        self._following = Following()
        self.operations.watchers = (self.in_flight, self._following)
        self._hooks = hooks or Hooks()
        self._watching: asyncio.Task[None] | None = None
        self._ground = Ground(config, engine, Records(database))
        self._pod_network = PodNetwork(engine, database)
        self._containers = Containers(self._ground)
        self._sandboxes = Sandboxes(self._ground, self._containers)
        self._images = Images(self._ground)
        self._node_images = NodeImages(self._ground)
        self._stats = Stats(self._ground, self._sandboxes, self._containers)
        self._metrics = Metrics(self._ground)
        self._exits: asyncio.Task[None] | None = None
        self.streaming = Streaming(self._ground, self._sandboxes, self._containers, self.operations)
        """For a streaming server, which gives the URLs and comes back with the clients."""

    @property
    def events(self) -> Events:
        return self._ground.events

    @property
    def parked(self) -> int:
        """Creations that have ended without a client, and wait for it."""
        return len(self._ground.creations.parked())

    @property
    def records(self) -> Records:
        """To be read."""
        return self._ground.records

    async def open(self) -> None:
        """Load the records, follow the engine's exits, and recover."""
        self._ground.records.load()
        await self._pod_network.open()
        if self._hooks.watches:
            self._watching = asyncio.get_running_loop().create_task(self._tell_hooks(self.events.subscribe()))
        self._exits = asyncio.get_running_loop().create_task(self._follow_exits())
        with self.operations.open(RECOVERY):
            await recover(self._ground, self._sandboxes, self._containers)

    async def close(self) -> None:
        """Roll back creations under way; containers keep running."""
        await self._ground.close()
        for task in (self._exits, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def abandon(self) -> None:
        """What `close` is after the engine and the database have died in a test of crashes: every task is
        cancelled until it has ended, and what it still tries fails."""
        while tasks := self._ground.cancel():
            await asyncio.wait(tasks, timeout=0.1)
        await self.close()

    async def _validate(self, rpc: str, request: Message) -> None:
        with step("hooks"):
            await self._hooks.validate(rpc, request)

    async def _tell_hooks(self, events: Subscription) -> None:
        while True:
            try:
                await self._hooks.watch(events)
            except ResourceExhausted as error:
                log.error("the hooks that watch do not keep up: %s", error)
                events = self.events.subscribe()

    async def _follow_exits(self) -> None:
        clock, pause = self._ground.clock, FOLLOW_AGAIN
        while True:
            begun, why = clock.monotonic(), "it has ended telling them"
            try:
                async for exit in self.engine.exits():
                    self._ended(exit)
            except Exception as error:
                why = str(error)
            if clock.monotonic() - begun > pause:
                pause = FOLLOW_AGAIN  # it has told them for a while
            log.error("the engine tells no exits any more, it is asked again in %g s: %s", pause, why)
            await clock.sleep(pause)
            pause = min(2 * pause, FOLLOW_AT_MOST)
            # It runs when the exits are followed already: none falls in between.
            self._ground.start(look_again(self._ground, self._sandboxes, self._containers))

    def _ended(self, exit: Exit) -> None:
        records = self._ground.records
        try:
            if exit.sandbox:
                if exit.id in records.sandboxes:
                    self._sandboxes.lose(records.sandboxes.get(exit.id))
            elif exit.id in records.containers:
                exited(self._ground, records.containers.get(exit.id), exit)
        except Exception:
            # One exit that cannot be recorded must not hide the others.
            log.exception("the exit of %s could not be recorded", exit.id)

    # The node

    async def version(self, request: cri.VersionRequest, /) -> cri.VersionResponse:
        return cri.VersionResponse(
            version=KUBELET_API_VERSION,
            runtime_name="podwright",
            runtime_version=__version__,
            runtime_api_version="v1",
        )

    async def status(self, request: cri.StatusRequest, /) -> cri.StatusResponse:
        engine = await self.engine.status()
        response = status(engine, request.verbose, self.config, self._pod_network.cidr)
        if request.verbose and self.streaming.giver is not None:
            response.info.update(json_texts({"streaming": {"address": self.streaming.giver.address}}))
        return response

    async def runtime_config(self, request: cri.RuntimeConfigRequest, /) -> cri.RuntimeConfigResponse:
        return runtime_config(self.engine.cgroup_driver)

    @operation
    async def update_runtime_config(
        self, request: cri.UpdateRuntimeConfigRequest, /
    ) -> cri.UpdateRuntimeConfigResponse:
        await self._ground.detached(self._pod_network.update(request))
        return cri.UpdateRuntimeConfigResponse()

    # Sandboxes

    @operation
    async def run_pod_sandbox(self, request: cri.RunPodSandboxRequest, /) -> cri.RunPodSandboxResponse:
        if self._hooks.validates:
            await self._validate("RunPodSandbox", request)
        return cri.RunPodSandboxResponse(pod_sandbox_id=await self._sandboxes.run(request))

    @operation
    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest, /) -> cri.StopPodSandboxResponse:
        await self._sandboxes.stop(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    @operation
    async def remove_pod_sandbox(
        self, request: cri.RemovePodSandboxRequest, /
    ) -> cri.RemovePodSandboxResponse:
        await self._sandboxes.remove(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    async def pod_sandbox_status(
        self, request: cri.PodSandboxStatusRequest, /
    ) -> cri.PodSandboxStatusResponse:
        return await self._sandboxes.status(request)

    @operation
    async def update_pod_sandbox_resources(
        self, request: cri.UpdatePodSandboxResourcesRequest, /
    ) -> cri.UpdatePodSandboxResourcesResponse:
        await self._sandboxes.update(request)
        return cri.UpdatePodSandboxResourcesResponse()

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest, /) -> cri.ListPodSandboxResponse:
        return cri.ListPodSandboxResponse.FromString(await self.list_pod_sandbox_wire(request))

    # Containers

    @operation
    async def create_container(self, request: cri.CreateContainerRequest, /) -> cri.CreateContainerResponse:
        if self._hooks.validates:
            await self._validate("CreateContainer", request)
        return cri.CreateContainerResponse(container_id=await self._containers.create(request))

    @operation
    async def start_container(self, request: cri.StartContainerRequest, /) -> cri.StartContainerResponse:
        await self._containers.start(request.container_id)
        return cri.StartContainerResponse()

    @operation
    async def stop_container(self, request: cri.StopContainerRequest, /) -> cri.StopContainerResponse:
        await self._containers.stop(request.container_id, request.timeout)
        return cri.StopContainerResponse()

    @operation
    async def remove_container(self, request: cri.RemoveContainerRequest, /) -> cri.RemoveContainerResponse:
        await self._containers.remove(request.container_id)
        return cri.RemoveContainerResponse()

    async def container_status(self, request: cri.ContainerStatusRequest, /) -> cri.ContainerStatusResponse:
        return await self._containers.status(request)

    async def list_containers(self, request: cri.ListContainersRequest, /) -> cri.ListContainersResponse:
        return cri.ListContainersResponse.FromString(await self.list_containers_wire(request))

    @operation
    async def update_container_resources(
        self, request: cri.UpdateContainerResourcesRequest, /
    ) -> cri.UpdateContainerResourcesResponse:
        if self._hooks.validates:
            await self._validate("UpdateContainerResources", request)
        await self._containers.update(request)
        return cri.UpdateContainerResourcesResponse()

    @operation
    async def reopen_container_log(
        self, request: cri.ReopenContainerLogRequest, /
    ) -> cri.ReopenContainerLogResponse:
        await self._containers.reopen_log(request.container_id)
        return cri.ReopenContainerLogResponse()

    @operation
    async def checkpoint_container(
        self, request: cri.CheckpointContainerRequest, /
    ) -> cri.CheckpointContainerResponse:
        await self._containers.checkpoint(request)
        return cri.CheckpointContainerResponse()

    @operation
    async def exec_sync(self, request: cri.ExecSyncRequest, /) -> cri.ExecSyncResponse:
        return await self._containers.exec_sync(request)

    # Streams: as URLs for clients of the CRI, directly for who is in this process

    async def exec(self, request: cri.ExecRequest, /) -> cri.ExecResponse:
        return cri.ExecResponse(url=await self.streaming.exec_url(request))

    async def attach(self, request: cri.AttachRequest, /) -> cri.AttachResponse:
        return cri.AttachResponse(url=await self.streaming.attach_url(request))

    async def port_forward(self, request: cri.PortForwardRequest, /) -> cri.PortForwardResponse:
        return cri.PortForwardResponse(url=await self.streaming.port_forward_url(request))

    async def listen(self) -> None:
        """Whoever serves this runtime for good calls it once: a streaming server that cannot be had as it is
        configured shall be known at the start. InvalidArgument, FailedPrecondition."""
        if self.streaming.giver is not None:
            await self.streaming.giver.listen()

    async def exec_streams(self, container_id: str, argv: Sequence[str], streams: Streams) -> int:
        """The exit code, 0..255. Cancelled, the command gets a hang-up."""
        return await self.streaming.exec(container_id, argv, streams)

    async def attach_streams(self, container_id: str, streams: Streams) -> None:
        await self.streaming.attach(container_id, streams)

    async def port_forward_connection(self, sandbox_id: str, port: int, connection: Connection) -> None:
        """Carry one connection to a port of the pod until both sides have ended it."""
        await self.streaming.port_forward(sandbox_id, port, connection)

    async def wait(self, container_id: str) -> cri.ContainerStatus:
        """The container's status once it has exited."""
        return await self._containers.wait(container_id)

    # Images

    async def list_images(self, request: cri.ListImagesRequest, /) -> cri.ListImagesResponse:
        return await self._images.list(request)

    async def image_status(self, request: cri.ImageStatusRequest, /) -> cri.ImageStatusResponse:
        return await self._images.status(request)

    @operation
    async def pull_image(self, request: cri.PullImageRequest, /) -> cri.PullImageResponse:
        return await self._images.pull(request)

    def watch_pulls(self, request: own.WatchPullsRequest, /) -> AsyncIterator[own.PullProgress]:
        """See `api.Node`. What happens from this call on is told, not only from the first state taken."""
        return self._images.watch_pulls(request)

    def watch_steps(self, request: own.WatchStepsRequest, /) -> AsyncIterator[own.StepEvent]:
        """See `api.Node`."""
        return self._following.follow(request)

    @operation
    async def remove_image(self, request: cri.RemoveImageRequest, /) -> cri.RemoveImageResponse:
        await self._images.remove(request)
        return cri.RemoveImageResponse()

    async def image_fs_info(self, request: cri.ImageFsInfoRequest, /) -> cri.ImageFsInfoResponse:
        return await self._images.filesystem()

    # Images, beyond the CRI: see `api.Node`

    async def explain_blob(self, request: own.ExplainBlobRequest, /) -> own.ExplainBlobResponse:
        return await self._node_images.explain_blob(request)

    @operation
    async def prune_images(self, request: own.PruneImagesRequest, /) -> own.PruneImagesResponse:
        return await self._node_images.prune(request)

    @operation
    async def import_image(self, request: own.ImportImageRequest, /) -> own.ImportImageResponse:
        return await self._node_images.import_image(request)

    @operation
    async def export_image(self, request: own.ExportImageRequest, /) -> own.ExportImageResponse:
        return await self._node_images.export_image(request)

    # What goes on, beyond the CRI

    async def list_operations(self, request: own.ListOperationsRequest, /) -> own.ListOperationsResponse:
        operations = listed(self.in_flight, self._ground, reading=request.reading)
        return own.ListOperationsResponse(operations=operations)

    # What is asked most often, encoded already: a server sends it as it is

    async def list_pod_sandbox_wire(self, request: cri.ListPodSandboxRequest, /) -> bytes:
        if not request.filter.ByteSize():
            return self.records.sandbox_roll.all()
        return self.records.sandbox_roll.some(self._sandboxes.list(request.filter))

    async def pod_sandbox_status_wire(self, request: cri.PodSandboxStatusRequest, /) -> bytes:
        if request.verbose:
            return (await self.pod_sandbox_status(request)).SerializeToString()
        return sandbox_status_wire(self._sandboxes.shown(request.pod_sandbox_id), self._ground.clock.now())

    async def list_containers_wire(self, request: cri.ListContainersRequest, /) -> bytes:
        if not request.filter.ByteSize():
            return self.records.container_roll.all()
        return self.records.container_roll.some(self._containers.list(request.filter))

    async def container_status_wire(self, request: cri.ContainerStatusRequest, /) -> bytes:
        if request.verbose:
            return (await self.container_status(request)).SerializeToString()
        return container_status_wire(self._containers.shown(request.container_id))

    async def list_container_stats_wire(self, request: cri.ListContainerStatsRequest, /) -> bytes:
        return await self._stats.containers(request.filter)

    async def list_pod_sandbox_stats_wire(self, request: cri.ListPodSandboxStatsRequest, /) -> bytes:
        return await self._stats.sandboxes(request.filter)

    async def list_pod_sandbox_metrics_wire(self, request: cri.ListPodSandboxMetricsRequest, /) -> bytes:
        return await self._metrics.all()

    # Lists as streams

    def stream_pod_sandboxes(
        self, request: cri.StreamPodSandboxesRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxesResponse]:
        return streams.read(cri.StreamPodSandboxesResponse, self.stream_pod_sandboxes_wire(request))

    def stream_pod_sandboxes_wire(self, request: cri.StreamPodSandboxesRequest, /) -> AsyncIterator[bytes]:
        wanted = self._sandboxes.list(request.filter) if request.filter.ByteSize() else None
        return streams.in_chunks(streams.entries(self.records.sandbox_roll, wanted))

    def stream_containers(
        self, request: cri.StreamContainersRequest, /
    ) -> AsyncIterator[cri.StreamContainersResponse]:
        return streams.read(cri.StreamContainersResponse, self.stream_containers_wire(request))

    def stream_containers_wire(self, request: cri.StreamContainersRequest, /) -> AsyncIterator[bytes]:
        wanted = self._containers.list(request.filter) if request.filter.ByteSize() else None
        return streams.in_chunks(streams.entries(self.records.container_roll, wanted))

    async def stream_images(
        self, request: cri.StreamImagesRequest, /
    ) -> AsyncIterator[cri.StreamImagesResponse]:
        listed = await self._images.list(cri.ListImagesRequest(filter=request.filter))
        pieces = (cri.StreamImagesResponse(images=[each]).SerializeToString() for each in listed.images)
        async for message in streams.read(cri.StreamImagesResponse, streams.in_chunks(pieces)):
            yield message

    def stream_container_stats(
        self, request: cri.StreamContainerStatsRequest, /
    ) -> AsyncIterator[cri.StreamContainerStatsResponse]:
        return streams.read(cri.StreamContainerStatsResponse, self.stream_container_stats_wire(request))

    def stream_container_stats_wire(
        self, request: cri.StreamContainerStatsRequest, /
    ) -> AsyncIterator[bytes]:
        return self._stats.containers_in_parts(request.filter)

    def stream_pod_sandbox_stats(
        self, request: cri.StreamPodSandboxStatsRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxStatsResponse]:
        return streams.read(cri.StreamPodSandboxStatsResponse, self.stream_pod_sandbox_stats_wire(request))

    def stream_pod_sandbox_stats_wire(
        self, request: cri.StreamPodSandboxStatsRequest, /
    ) -> AsyncIterator[bytes]:
        return self._stats.sandboxes_in_parts(request.filter)

    def stream_pod_sandbox_metrics(
        self, request: cri.StreamPodSandboxMetricsRequest, /
    ) -> AsyncIterator[cri.StreamPodSandboxMetricsResponse]:
        return streams.read(
            cri.StreamPodSandboxMetricsResponse, self.stream_pod_sandbox_metrics_wire(request)
        )

    def stream_pod_sandbox_metrics_wire(
        self, request: cri.StreamPodSandboxMetricsRequest, /
    ) -> AsyncIterator[bytes]:
        return self._metrics.in_chunks()

    # Events

    def get_container_events(
        self, request: cri.GetEventsRequest, /
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        return decoded(self.events.subscribe())

    def get_container_events_wire(self, request: cri.GetEventsRequest, /) -> AsyncIterator[bytes]:
        return self.events.subscribe()

    # Statistics

    async def container_stats(self, request: cri.ContainerStatsRequest, /) -> cri.ContainerStatsResponse:
        return cri.ContainerStatsResponse(stats=await self._stats.container(request.container_id))

    async def list_container_stats(
        self, request: cri.ListContainerStatsRequest, /
    ) -> cri.ListContainerStatsResponse:
        return cri.ListContainerStatsResponse.FromString(await self.list_container_stats_wire(request))

    async def pod_sandbox_stats(self, request: cri.PodSandboxStatsRequest, /) -> cri.PodSandboxStatsResponse:
        return cri.PodSandboxStatsResponse(stats=await self._stats.sandbox(request.pod_sandbox_id))

    async def list_pod_sandbox_stats(
        self, request: cri.ListPodSandboxStatsRequest, /
    ) -> cri.ListPodSandboxStatsResponse:
        return cri.ListPodSandboxStatsResponse.FromString(await self.list_pod_sandbox_stats_wire(request))

    async def list_metric_descriptors(
        self, request: cri.ListMetricDescriptorsRequest, /
    ) -> cri.ListMetricDescriptorsResponse:
        return descriptors()

    async def list_pod_sandbox_metrics(
        self, request: cri.ListPodSandboxMetricsRequest, /
    ) -> cri.ListPodSandboxMetricsResponse:
        return cri.ListPodSandboxMetricsResponse.FromString(await self.list_pod_sandbox_metrics_wire(request))

    # Repair

    async def orphans(self) -> Sequence[Orphan]:
        """What is on the host that belongs to no record."""
        records = self._ground.records
        return await self.engine.orphans(
            {sandbox.id for sandbox in records.sandboxes},
            {container.id for container in records.containers},
        )

    async def repair(self, orphan: Orphan) -> None:
        """Remove one of `orphans()`."""
        await self.engine.remove_orphan(orphan)
