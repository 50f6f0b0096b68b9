"""containerd's Transfer and Streaming services, played: what a transfer is asked for, and whatever it is to
tell, ask and answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from podwright.engines.containerd.api import any_of
from podwright.wire.containerd import (
    streaming_pb2,
    streaming_pb2_grpc,
    transfer_pb2,
    transfer_pb2_grpc,
    transfer_types_pb2,
)

Play = Callable[["Transferring"], Awaitable[None]]


class Transferring:
    """One transfer, for who plays it."""

    def __init__(self, double: Double, request: transfer_pb2.TransferRequest, context: Any) -> None:
        self._double, self._context = double, context
        self.metadata = dict(context.invocation_metadata())
        assert request.source.type_url == "containerd.types.transfer.OCIRegistry"
        assert request.destination.type_url == "containerd.types.transfer.ImageStore"
        self.source = transfer_types_pb2.OCIRegistry.FromString(request.source.value)
        self.store = transfer_types_pb2.ImageStore.FromString(request.destination.value)
        self._progress = request.options.progress_stream

    async def tell(self, event: str, name: str, progress: int = 0, total: int = 0) -> None:
        told = transfer_types_pb2.Progress(event=event, name=name, progress=progress, total=total)
        await self._double.streams[self._progress].write(any_of(told))

    async def ask(self, host: str) -> transfer_types_pb2.AuthResponse:
        """For credentials."""
        stream = self._double.streams[self.source.resolver.auth_stream]
        await stream.write(any_of(transfer_types_pb2.AuthRequest(host=host, reference=self.source.reference)))
        answer = await stream.read()
        assert answer.type_url == "containerd.types.transfer.AuthResponse"
        return transfer_types_pb2.AuthResponse.FromString(answer.value)

    async def fail(self, code: grpc.StatusCode, words: str) -> None:
        await self._context.abort(code, words)


class Double(transfer_pb2_grpc.TransferServicer, streaming_pb2_grpc.StreamingServicer):
    def __init__(self, play: Play) -> None:
        self._play = play
        self.streams: dict[str, Any] = {}
        self.ended = asyncio.Event()
        """Of the last transfer, however it has."""

    async def Transfer(self, request: transfer_pb2.TransferRequest, context: Any) -> Empty:
        try:
            await self._play(Transferring(self, request, context))
        finally:
            self.ended.set()
        return Empty()

    async def Stream(self, requests: AsyncIterator[AnyMessage], context: Any) -> None:
        first = await context.read()
        assert first.type_url == "containerd.services.streaming.v1.StreamInit"
        id = streaming_pb2.StreamInit.FromString(first.value).id
        self.streams[id] = context
        await context.write(any_of(Empty()))
        await asyncio.Event().wait()  # until the client cancels it


@asynccontextmanager
async def playing(socket: Path, play: Play) -> AsyncIterator[Double]:
    server, double = grpc.aio.server(), Double(play)
    transfer_pb2_grpc.add_TransferServicer_to_server(double, server)  # type: ignore[no-untyped-call]
    streaming_pb2_grpc.add_StreamingServicer_to_server(double, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield double
    finally:
        await server.stop(None)
