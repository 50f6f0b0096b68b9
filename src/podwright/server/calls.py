"""From an RPC on the wire to a method of the house and back: decoding, the gate, errors, the log line.

One handler is made for every rpc that `api.Cri` names, and for the rest, among them those of `api.Node`,
where the house has a method for it;
gRPC itself answers UNIMPLEMENTED for others.
There are no interceptors: each costs every call, and what they would do is here in one function.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from podwright.api import Cri, method_name
from podwright.core.operations import subject
from podwright.server.endpoint import STARTING
from podwright.server.errors import EXPECTED, status_of
from podwright.steps import Operations
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

log = logging.getLogger("podwright.server")

Handler = Callable[[Message], Any]
"""A method of the house, or its twin that answers with bytes (see Gate.open): an awaitable of the response,
or an asynchronous iterator of the parts of one that streams."""


class Gate:
    """Stands between the socket and the house: shut until recovery has ended, and again while closing."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._house: Cri | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self.reason = STARTING
        self.refused = 0
        """Calls that came while it was shut."""

    def open(self, house: Cri) -> None:
        """Let calls through to `house`.

        Where it has a method with `_wire` after its name, that one is served: it answers with bytes, a
        response serialised before. Two hundred containers take 0.5 ms to serialise and nothing to join.
        """
        self._house = house
        for _, method in (*served_methods(), *other_methods(), *own_methods()):
            name = method_name(method.name)
            handler = getattr(house, f"{name}_wire", None) or getattr(house, name, None)
            if handler is not None:
                self._handlers[name] = handler

    def shut(self, reason: str) -> None:
        """Let nothing through any more; streams, which have no end of their own, end now."""
        self._handlers, self.reason = {}, reason
        for stream in self._streams:
            stream.cancel()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """The current task streams an answer."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    def operation(
        self, rpc: str, request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AbstractContextManager[object]:
        """The block is the call `rpc` of the house's operations."""
        # A fake node's house has others after each crash; another server's CRI has none.
        operations = getattr(self._house, "operations", None)
        if operations is None:
            return nullcontext()
        return cast("Operations", operations).open(rpc, subject(request), _caller(context))

    @property
    def is_open(self) -> bool:
        return bool(self._handlers)

    def refusal(self, rpc: str) -> tuple[grpc.StatusCode, str]:
        """What a call is told for which there is no method."""
        if self.is_open:
            return grpc.StatusCode.UNIMPLEMENTED, f"{rpc} is not implemented here"
        return grpc.StatusCode.UNAVAILABLE, self.reason

    def __call__(self, method: str) -> Handler | None:
        """The house's method, or None while the gate is shut, or where the house has none."""
        self.refused += not self._handlers
        return self._handlers.get(method)


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]  # grpc has no inline types
    """Finds the handler of an rpc by its path, "/runtime.v1.RuntimeService/Version"."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._table = {path: _handler(method, gate) for path, method in served_methods()}
        self._others = {
            path: (method_name(method.name), _handler(method, gate))
            for path, method in (*other_methods(), *own_methods())
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        served = self._table.get(path)
        if served is None and path in self._others:
            name, other = self._others[path]
            served = other if self._gate(name) is not None else None
        return served


def served_methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Every rpc that `api.Cri` names, with its path."""
    return ((path, method) for path, method in _methods() if hasattr(Cri, method_name(method.name)))


def other_methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Those that it does not name: a fake node's house has them, to record that they were called."""
    return ((path, method) for path, method in _methods() if not hasattr(Cri, method_name(method.name)))


def own_methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """The rpcs of podwright's own service, `api.Node`."""
    return _methods(own.DESCRIPTOR)


def _methods(file: FileDescriptor = cri.DESCRIPTOR) -> Iterator[tuple[str, MethodDescriptor]]:
    for service in file.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}", method


def _handler(method: MethodDescriptor, gate: Gate) -> Any:
    return _stream(method, gate) if method.server_streaming else _unary(method, gate)


def _stream(method: MethodDescriptor, gate: Gate) -> Any:
    rpc, name = method.name, method_name(method.name)

    async def answer(
        request: Message, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Message | bytes]:
        started = time.monotonic()
        handler = gate(name)
        if handler is None:
            await _refuse(context, *gate.refusal(rpc))
        try:
            with gate.streaming(), gate.operation(rpc, request, context):
                parts = handler(request)
                # The client learns that it hears everything from now on.
                await context.send_initial_metadata(())
                async for part in parts:
                    yield part
            # Lists come as streams from some kubelets, each second: they are calls like others.
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s %s: %.1f ms", rpc, _of(request), _since(started))
        except asyncio.CancelledError:
            if gate.is_open:
                log.debug("%s: the client left after %.0f s", rpc, time.monotonic() - started)
                raise
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, gate.reason)
        except Exception as error:
            code, message = status_of(error)
            _log_failure(rpc, request, code, error, started)
            await _refuse(context, code, message)

    return grpc.unary_stream_rpc_method_handler(
        answer,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_serialize,
    )


def _unary(method: MethodDescriptor, gate: Gate) -> Any:
    rpc, name = method.name, method_name(method.name)

    async def answer(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message | bytes:
        started = time.monotonic()
        handler = gate(name)
        if handler is None:
            return await _refuse(context, *gate.refusal(rpc))
        try:
            with gate.operation(rpc, request, context):
                response = await handler(request)
        except asyncio.CancelledError:
            # The client went away or its deadline passed; core has rolled back before this reaches us.
            log.info("%s %s: cancelled after %.1f ms", rpc, _of(request), _since(started))
            raise
        except Exception as error:
            code, message = status_of(error)
            _log_failure(rpc, request, code, error, started)
            return await _refuse(context, code, message)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s: %.1f ms", rpc, _of(request, response), _since(started))
        return cast("Message | bytes", response)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=_serialize,
    )


def _caller(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The traceparent header, which every OpenTelemetry client sends."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            return value if isinstance(value, str) else ""
    return ""


def _serialize(response: Message | bytes) -> bytes:
    return response if type(response) is bytes else cast(Message, response).SerializeToString()


async def _refuse(
    context: grpc.aio.ServicerContext[Any, Any], code: grpc.StatusCode, message: str
) -> NoReturn:
    # `abort` raises; a status set on the context would still send an empty response first.
    await context.abort(code, message)
    raise AssertionError("abort has raised")


def _log_failure(rpc: str, request: Message, code: grpc.StatusCode, error: Exception, started: float) -> None:
    subject, took = _of(request), _since(started)
    if code is grpc.StatusCode.INTERNAL:
        log.error("%s %s: a defect, after %.1f ms", rpc, subject, took, exc_info=error)
    else:
        level = logging.DEBUG if code in EXPECTED else logging.ERROR
        log.log(level, "%s %s: %s after %.1f ms: %s", rpc, subject, code.name, took, error)


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000


def _of(request: Message, response: Message | bytes | None = None) -> str:
    return subject(request, response) or "-"
