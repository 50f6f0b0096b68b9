"""What callers of a fake node have: all calls of the CRI and the streams beside it, all through the front."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from podwright.api import method_name
from podwright.core.events import decoded
from podwright.core.runtime import Runtime
from podwright.engines.streams import Connection, Streams
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.testing.front import Front


class Face:
    """A `Cri` whose calls go through a front. What the CRI does not have (`engine`, `wait`) is the core's own
    and is not recorded."""

    def __init__(self, front: Front, *, remote: bool) -> None:
        self._front = front
        self._remote = remote

    async def wait(self, container_id: str) -> cri.ContainerStatus:
        """The container's status once it has exited."""
        runtime = await self._front.answering(self._remote)
        return await self._front.fly(runtime.wait(container_id), self._remote)

    async def exec_streams(self, container_id: str, argv: Sequence[str], streams: Streams) -> int:
        """An Exec without a URL: the exit code."""
        request = cri.ExecRequest(container_id=container_id, cmd=argv, **_asked(streams))
        return await self._front.talk(
            "Exec", request, lambda core: core.exec_streams(container_id, argv, streams), self._remote
        )

    async def attach_streams(self, container_id: str, streams: Streams) -> None:
        """An Attach without a URL."""
        request = cri.AttachRequest(container_id=container_id, **_asked(streams))
        await self._front.talk(
            "Attach", request, lambda core: core.attach_streams(container_id, streams), self._remote
        )

    async def port_forward_connection(self, sandbox_id: str, port: int, connection: Connection) -> None:
        """One connection of a PortForward without a URL."""
        request = cri.PortForwardRequest(pod_sandbox_id=sandbox_id, port=[port])
        await self._front.talk(
            "PortForward",
            request,
            lambda core: core.port_forward_connection(sandbox_id, port, connection),
            self._remote,
        )

    def get_container_events(
        self, request: cri.GetEventsRequest, /
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        return decoded(self.get_container_events_wire(request))

    def get_container_events_wire(self, request: cri.GetEventsRequest, /) -> AsyncGenerator[bytes, None]:
        return self._front.listen("GetContainerEvents", request, self._remote)

    def watch_pulls(self, request: own.WatchPullsRequest, /) -> AsyncIterator[own.PullProgress]:
        return self._front.watch_pulls(request, self._remote)

    def __getattr__(self, name: str) -> Any:
        if self._front.runtime is None:
            raise AttributeError(f"{name!r}: {self._front.reason}")
        return getattr(self._front.runtime, name)


def _asked(streams: Streams) -> dict[str, bool]:
    return {
        "tty": streams.tty,
        **{name: getattr(streams, name) is not None for name in ("stdin", "stdout", "stderr")},
    }


def _recorded(rpc: str, name: str) -> Callable[[Face, Message], Coroutine[Any, Any, Any]]:
    async def call(self: Face, request: Message, /) -> Any:
        return await self._front.ask(rpc, name, request, self._remote)

    call.__name__ = name
    return call


def _recorded_stream(rpc: str, name: str) -> Callable[[Face, Message], AsyncIterator[Any]]:
    def call(self: Face, request: Message, /) -> AsyncIterator[Any]:
        return self._front.stream(rpc, name, request, self._remote)

    call.__name__ = name
    return call


def _methods() -> None:
    """Give Face every call of the CRI, and the twin that answers with bytes where core has one.

    Those that core does not have are recorded and struck like others, and then refused.
    """
    for service in cri.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            name = method_name(method.name)
            if hasattr(Face, name):
                continue
            make = _recorded_stream if method.server_streaming else _recorded
            setattr(Face, name, make(method.name, name))
            if hasattr(Runtime, f"{name}_wire"):
                setattr(Face, f"{name}_wire", make(method.name, f"{name}_wire"))


_methods()
