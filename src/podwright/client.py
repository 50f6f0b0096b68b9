"""The CRI of a server at a socket: `connect()` gives an object that works like core's Runtime.

Status codes become the errors of `podwright.errors` again, so that a door need not know which of the two
it speaks to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from podwright import traceparent
from podwright.api import Cri, method_name
from podwright.errors import Unavailable
from podwright.server.endpoint import knock, silence, socket_path
from podwright.server.errors import error_of
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

MESSAGE_LIMIT = 80 << 20
"""Bytes of one message either way, as the server has it."""


@asynccontextmanager
async def connect(address: str, *, timeout: float | None = None) -> AsyncIterator[Cri]:
    """The CRI served at `address` ("/run/x.sock" or "unix:///run/x.sock"), podwright's or another's.

    Each call gets `timeout` seconds (None: as long as it takes), then raises DeadlineExceeded. Unavailable
    when nobody listens at the socket.
    """
    path = socket_path(address)
    if error := knock(path):
        raise Unavailable(f"no server at {path}: {silence(error)}; `podwright serve` starts one")
    options = (
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        # Go servers refuse the escaped path that gRPC would send otherwise.
        ("grpc.default_authority", "localhost"),
        # Nothing to look up in the environment: a proxy never leads to a Unix socket.
        ("grpc.enable_http_proxy", 0),
    )
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        yield cast(Cri, _Remote(channel, timeout))


class _Remote:
    """The methods of `Cri` and `Node`, each made from the wire's descriptors when it is first asked for."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float | None) -> None:
        self._channel = channel
        self._timeout = timeout

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        for service in (*cri.DESCRIPTOR.services_by_name.values(), *own.DESCRIPTOR.services_by_name.values()):
            for method in service.methods:
                if method_name(method.name) == name:
                    make = (
                        self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
                    )
                    call = make(
                        f"/{service.full_name}/{method.name}",
                        request_serializer=GetMessageClass(method.input_type).SerializeToString,
                        response_deserializer=GetMessageClass(method.output_type).FromString,
                    )
                    remote: Callable[[Message], Any] = (
                        _streamed(call) if method.server_streaming else _translated(call, self._timeout)
                    )
                    setattr(self, name, remote)
                    return remote
        raise AttributeError(f"neither the CRI nor podwright has a call {name!r}")


def _streamed(call: Any) -> Callable[[Message], AsyncIterator[Any]]:
    async def remote(request: Message, /) -> AsyncIterator[Any]:
        stream = call(request, metadata=_trace())
        try:
            async for part in stream:
                yield part
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from None
        finally:
            stream.cancel()

    return remote


def _translated(call: Any, timeout: float | None) -> Callable[[Message], Awaitable[Any]]:
    async def remote(request: Message, /) -> Any:
        try:
            return await call(request, timeout=timeout, metadata=_trace())
        except grpc.aio.AioRpcError as error:
            raise error_of(error.code(), error.details() or "") from None

    return remote


def _trace() -> tuple[tuple[str, str], ...] | None:
    """The trace that the caller has active, for the server's spans to hang below."""
    header = traceparent.active()
    return ((traceparent.HEADER, header),) if header else None
