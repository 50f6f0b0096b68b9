"""A containerd whose shims hold sandboxes, as far as sandboxes need one: the sandbox service and what stands
around it, over gRPC, in memory. It answers as told; what it was asked is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from podwright.wire.containerd import (
    containers_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    introspection_pb2,
    introspection_pb2_grpc,
    namespaces_pb2,
    namespaces_pb2_grpc,
    sandbox_pb2,
    sandbox_pb2_grpc,
    snapshots_pb2,
    snapshots_pb2_grpc,
    tasks_pb2_grpc,
    types_pb2,
    version_pb2,
    version_pb2_grpc,
)

PLUGINS = (
    ("io.containerd.grpc.v1", "sandboxes"),
    ("io.containerd.grpc.v1", "sandbox-controllers"),
    ("io.containerd.sandbox.controller.v1", "shim"),
    ("io.containerd.snapshotter.v1", "overlayfs"),
)
_Context = grpc.aio.ServicerContext[Message, Message]


class SandboxDouble:
    """State outlives the server, as it does that of a containerd."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.plugins = list(PLUGINS)
        self.asked: list[tuple[str, Message]] = []
        """Of the sandbox service, in order: "Store.Create", "Controller.Start", …"""
        self.failing: dict[str, grpc.StatusCode] = {}
        """Those that answer with an error, after they have done what they are for."""
        self.platform: types_pb2.Platform | None = None
        """None: the call is not implemented."""
        self.started = sandbox_pb2.ControllerStartResponse()
        self.waits_at_once = False
        """Whether Wait answers although nothing has ended."""
        self.slow = False
        """Whether Controller.Create takes until `go`; it goes on without its client, as containerd does."""
        self.asked_to_create, self.go = asyncio.Event(), asyncio.Event()
        self.looked = asyncio.Event()
        """Somebody has asked for a status."""
        self.records: dict[str, types_pb2.Sandbox] = {}
        self.snapshots: dict[str, dict[str, str]] = {}
        self._held: dict[str, asyncio.Future[int]] = {}
        """Of each sandbox that a shim has the code that it ends with."""
        self._server: grpc.aio.Server | None = None

    @property
    def held(self) -> list[str]:
        return list(self._held)

    def named(self, rpc: str) -> list[Message]:
        """The requests of one kind."""
        return [request for name, request in self.asked if name == rpc]

    def end(self, id: str, code: int) -> None:
        """What is in a sandbox ends."""
        self._held[id].set_result(code)

    async def start(self) -> None:
        server = self._server = grpc.aio.server()
        around = _Around(self)
        introspection_pb2_grpc.add_IntrospectionServicer_to_server(around, server)  # type: ignore[no-untyped-call]
        version_pb2_grpc.add_VersionServicer_to_server(around, server)  # type: ignore[no-untyped-call]
        namespaces_pb2_grpc.add_NamespacesServicer_to_server(_Namespaces(), server)  # type: ignore[no-untyped-call]
        events_pb2_grpc.add_EventsServicer_to_server(_Events(), server)  # type: ignore[no-untyped-call]
        snapshots_pb2_grpc.add_SnapshotsServicer_to_server(_Snapshots(self), server)  # type: ignore[no-untyped-call]
        containers_pb2_grpc.add_ContainersServicer_to_server(_Nothing(), server)  # type: ignore[no-untyped-call]
        tasks_pb2_grpc.add_TasksServicer_to_server(_Nothing(), server)  # type: ignore[no-untyped-call]
        sandbox_pb2_grpc.add_StoreServicer_to_server(_Store(self), server)  # type: ignore[no-untyped-call]
        sandbox_pb2_grpc.add_ControllerServicer_to_server(_Controller(self), server)  # type: ignore[no-untyped-call]
        self.socket.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{self.socket}")
        await server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def note(self, rpc: str, request: Message, context: _Context) -> None:
        self.asked.append((rpc, request))
        if rpc in self.failing:
            await context.abort(self.failing[rpc], f"{rpc} fails")


@asynccontextmanager
async def running(socket: Path) -> AsyncIterator[SandboxDouble]:
    double = SandboxDouble(socket)
    await double.start()
    try:
        yield double
    finally:
        await double.stop()


class _Around(introspection_pb2_grpc.IntrospectionServicer, version_pb2_grpc.VersionServicer):
    def __init__(self, double: SandboxDouble) -> None:
        self._double = double

    async def Plugins(self, request: Message, context: _Context) -> introspection_pb2.PluginsResponse:
        plugins = [introspection_pb2.Plugin(type=kind, id=id) for kind, id in self._double.plugins]
        return introspection_pb2.PluginsResponse(plugins=plugins)

    async def Version(self, request: Message, context: _Context) -> version_pb2.VersionResponse:
        return version_pb2.VersionResponse(version="double")


class _Namespaces(namespaces_pb2_grpc.NamespacesServicer):
    async def Create(self, request: Message, context: _Context) -> namespaces_pb2.CreateNamespaceResponse:
        return namespaces_pb2.CreateNamespaceResponse()


class _Events(events_pb2_grpc.EventsServicer):
    def __init__(self) -> None:
        self._listening: set[asyncio.Queue[types_pb2.Envelope]] = set()

    async def Publish(self, request: events_pb2.PublishRequest, context: _Context) -> Empty:
        for each in self._listening:
            each.put_nowait(types_pb2.Envelope(topic=request.topic, event=request.event))
        return Empty()

    async def Subscribe(self, request: Message, context: _Context) -> AsyncIterator[types_pb2.Envelope]:
        queue: asyncio.Queue[types_pb2.Envelope] = asyncio.Queue()
        self._listening.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listening.discard(queue)


class _Nothing:
    """Neither a record of a container nor a task."""

    def __getattr__(self, name: str) -> object:
        async def call(request: Message, context: _Context) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not found")

        return call


class _Snapshots(snapshots_pb2_grpc.SnapshotsServicer):
    def __init__(self, double: SandboxDouble) -> None:
        self._double = double

    async def Prepare(
        self, request: snapshots_pb2.PrepareSnapshotRequest, context: _Context
    ) -> snapshots_pb2.PrepareSnapshotResponse:
        self._double.snapshots[request.key] = dict(request.labels)
        mount = types_pb2.Mount(type="bind", source=f"/snapshots/{request.key}")
        return snapshots_pb2.PrepareSnapshotResponse(mounts=[mount])

    async def Remove(self, request: snapshots_pb2.RemoveSnapshotRequest, context: _Context) -> Empty:
        if self._double.snapshots.pop(request.key, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such snapshot")
        return Empty()


class _Store(sandbox_pb2_grpc.StoreServicer):
    def __init__(self, double: SandboxDouble) -> None:
        self._double = double

    async def Create(
        self, request: sandbox_pb2.StoreCreateRequest, context: _Context
    ) -> sandbox_pb2.StoreCreateResponse:
        self._double.records[request.sandbox.sandbox_id] = request.sandbox
        await self._double.note("Store.Create", request, context)
        return sandbox_pb2.StoreCreateResponse(sandbox=request.sandbox)

    async def Update(
        self, request: sandbox_pb2.StoreUpdateRequest, context: _Context
    ) -> sandbox_pb2.StoreUpdateResponse:
        record = self._double.records[request.sandbox.sandbox_id]
        for name in request.fields:
            getattr(record, name).CopyFrom(getattr(request.sandbox, name))
        await self._double.note("Store.Update", request, context)
        return sandbox_pb2.StoreUpdateResponse(sandbox=record)

    async def Get(
        self, request: sandbox_pb2.StoreGetRequest, context: _Context
    ) -> sandbox_pb2.StoreGetResponse:
        await self._double.note("Store.Get", request, context)
        record = self._double.records.get(request.sandbox_id)
        if record is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        return sandbox_pb2.StoreGetResponse(sandbox=record)

    async def Delete(
        self, request: sandbox_pb2.StoreDeleteRequest, context: _Context
    ) -> sandbox_pb2.StoreDeleteResponse:
        await self._double.note("Store.Delete", request, context)
        if self._double.records.pop(request.sandbox_id, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        return sandbox_pb2.StoreDeleteResponse()


class _Controller(sandbox_pb2_grpc.ControllerServicer):
    def __init__(self, double: SandboxDouble) -> None:
        self._double = double

    async def Create(
        self, request: sandbox_pb2.ControllerCreateRequest, context: _Context
    ) -> sandbox_pb2.ControllerCreateResponse:
        await asyncio.shield(asyncio.ensure_future(self._make(request.sandbox_id)))
        await self._double.note("Controller.Create", request, context)
        return sandbox_pb2.ControllerCreateResponse(sandbox_id=request.sandbox_id)

    async def _make(self, id: str) -> None:
        self._double.asked_to_create.set()
        if self._double.slow:
            await self._double.go.wait()
        self._double._held[id] = asyncio.get_running_loop().create_future()

    async def Start(
        self, request: sandbox_pb2.ControllerStartRequest, context: _Context
    ) -> sandbox_pb2.ControllerStartResponse:
        await self._double.note("Controller.Start", request, context)
        answer = sandbox_pb2.ControllerStartResponse(sandbox_id=request.sandbox_id)
        answer.MergeFrom(self._double.started)
        return answer

    async def Platform(
        self, request: sandbox_pb2.ControllerPlatformRequest, context: _Context
    ) -> sandbox_pb2.ControllerPlatformResponse:
        await self._double.note("Controller.Platform", request, context)
        if self._double.platform is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "method Platform not implemented")
        return sandbox_pb2.ControllerPlatformResponse(platform=self._double.platform)

    async def Wait(
        self, request: sandbox_pb2.ControllerWaitRequest, context: _Context
    ) -> sandbox_pb2.ControllerWaitResponse:
        await self._double.note("Controller.Wait", request, context)
        held = self._double._held.get(request.sandbox_id)
        if held is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        assert held is not None
        answer = sandbox_pb2.ControllerWaitResponse()
        if not self._double.waits_at_once:
            answer.exit_status = await asyncio.shield(held)
            answer.exited_at.FromNanoseconds(1_700_000_000_123_456_789)
        return answer

    async def Status(
        self, request: sandbox_pb2.ControllerStatusRequest, context: _Context
    ) -> sandbox_pb2.ControllerStatusResponse:
        await self._double.note("Controller.Status", request, context)
        self._double.looked.set()
        held = self._double._held.get(request.sandbox_id)
        answer = sandbox_pb2.ControllerStatusResponse(sandbox_id=request.sandbox_id)
        if held is None:
            answer.exited_at.GetCurrentTime()  # as containerd does of what it does not know
        elif held.done():
            answer.state = "SANDBOX_NOTREADY"
        else:
            answer.state = "SANDBOX_READY"
            answer.info["hypervisor"] = "of the double"
        return answer

    async def Stop(
        self, request: sandbox_pb2.ControllerStopRequest, context: _Context
    ) -> sandbox_pb2.ControllerStopResponse:
        held = self._double._held.get(request.sandbox_id)
        if held is not None and not held.done() and "Controller.Stop" not in self._double.failing:
            held.set_result(0)
        await self._double.note("Controller.Stop", request, context)
        return sandbox_pb2.ControllerStopResponse()

    async def Shutdown(
        self, request: sandbox_pb2.ControllerShutdownRequest, context: _Context
    ) -> sandbox_pb2.ControllerShutdownResponse:
        if self._double._held.pop(request.sandbox_id, None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        await self._double.note("Controller.Shutdown", request, context)
        return sandbox_pb2.ControllerShutdownResponse()

    async def Metrics(
        self, request: sandbox_pb2.ControllerMetricsRequest, context: _Context
    ) -> sandbox_pb2.ControllerMetricsResponse:
        await self._double.note("Controller.Metrics", request, context)
        answer = sandbox_pb2.ControllerMetricsResponse()
        answer.metrics.data.type_url = "io.containerd.cgroups.v2.Metrics"
        return answer

    async def Update(
        self, request: sandbox_pb2.ControllerUpdateRequest, context: _Context
    ) -> sandbox_pb2.ControllerUpdateResponse:
        await self._double.note("Controller.Update", request, context)
        return sandbox_pb2.ControllerUpdateResponse()
