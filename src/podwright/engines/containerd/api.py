"""The gRPC API of a containerd as this engine speaks it: one channel, the namespace with each call, errors in
the house's words, leases, and what the daemon says of itself.

Which services there are is asked of the daemon (Introspection), never derived from its version.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from podwright.config import ContainerdConfig
from podwright.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from podwright.linux.waiting import to_the_end
from podwright.server.endpoint import knock, silence, socket_path
from podwright.wire.containerd import (
    containers_pb2_grpc,
    content_pb2_grpc,
    diff_pb2_grpc,
    events_pb2_grpc,
    images_pb2_grpc,
    introspection_pb2,
    introspection_pb2_grpc,
    leases_pb2,
    leases_pb2_grpc,
    namespaces_pb2,
    namespaces_pb2_grpc,
    sandbox_pb2_grpc,
    snapshots_pb2_grpc,
    streaming_pb2_grpc,
    tasks_pb2_grpc,
    transfer_pb2_grpc,
    version_pb2_grpc,
)

MESSAGE_LIMIT = 16 << 20
"""Bytes of one message either way, as containerd has it."""
SNAPSHOTTERS = "io.containerd.snapshotter.v1"
"""Kind of the plugins that keep file systems."""
TYPES = "types.containerd.io"
"""What containerd puts before the names of types that are JSON."""
SPEC = f"{TYPES}/opencontainers/runtime-spec/1/Spec"
PROCESS = f"{TYPES}/opencontainers/runtime-spec/1/Process"
LINUX_RESOURCES = f"{TYPES}/opencontainers/runtime-spec/1/LinuxResources"
LEASE_EXPIRY = "containerd.io/gc.expire"
"""A lease's label: when containerd may collect what it holds, whoever forgot it (RFC 3339)."""

log = logging.getLogger(__name__)

_LEASE: ContextVar[str] = ContextVar("lease", default="")
BROKEN_OFF = "Internal error from Core"
"""What gRPC itself says of a write into a stream whose other end has gone, before it knows more."""
_ERRORS: Mapping[grpc.StatusCode, Callable[[str], PodwrightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: lambda text: InvalidArgument("", text),
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}


def any_of(message: Message) -> AnyMessage:
    """A protobuf message as containerd carries it: its full name, without a host before it."""
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


class Containerd:
    """A containerd. Every call raises Unavailable when it does not answer at all, DeadlineExceeded when it
    answers too late, and else the error that its status means, with its words after `tried`."""

    def __init__(self, config: ContainerdConfig) -> None:
        """InvalidArgument for an endpoint that is none."""
        self.endpoint: str = config.endpoint
        try:
            self._path = socket_path(config.endpoint)
        except InvalidArgument as error:
            raise InvalidArgument("containerd.endpoint", str(error).partition(": ")[2]) from error
        self.namespace: str = config.namespace
        self._timeout: float = config.request_timeout
        self._plugins: dict[str, introspection_pb2.Plugin] = {}
        self._channel: grpc.aio.Channel | None = None
        self.containers: Any
        self.content: Any
        self.controllers: Any
        self.diffs: Any
        self.events: Any
        self.images: Any
        self.introspection: Any
        self.leases: Any
        self.namespaces: Any
        self.sandboxes: Any
        self.snapshots: Any
        self.streaming: Any
        self.tasks: Any
        self.transfers: Any
        self.versions: Any

    def open(self) -> None:
        """Get ready; nothing is asked yet."""
        options = (
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            # Go servers refuse the escaped path that gRPC would send otherwise.
            ("grpc.default_authority", "localhost"),
            ("grpc.enable_http_proxy", 0),
            # A containerd that comes back is to be found again at once.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        )
        channel = grpc.aio.insecure_channel(f"unix:{self._path}", options=options)
        self._channel = channel
        self.containers = containers_pb2_grpc.ContainersStub(channel)  # type: ignore[no-untyped-call]
        self.content = content_pb2_grpc.ContentStub(channel)  # type: ignore[no-untyped-call]
        self.controllers = sandbox_pb2_grpc.ControllerStub(channel)  # type: ignore[no-untyped-call]
        self.diffs = diff_pb2_grpc.DiffStub(channel)  # type: ignore[no-untyped-call]
        self.events = events_pb2_grpc.EventsStub(channel)  # type: ignore[no-untyped-call]
        self.images = images_pb2_grpc.ImagesStub(channel)  # type: ignore[no-untyped-call]
        self.introspection = introspection_pb2_grpc.IntrospectionStub(channel)  # type: ignore[no-untyped-call]
        self.leases = leases_pb2_grpc.LeasesStub(channel)  # type: ignore[no-untyped-call]
        self.namespaces = namespaces_pb2_grpc.NamespacesStub(channel)  # type: ignore[no-untyped-call]
        self.sandboxes = sandbox_pb2_grpc.StoreStub(channel)  # type: ignore[no-untyped-call]
        self.snapshots = snapshots_pb2_grpc.SnapshotsStub(channel)  # type: ignore[no-untyped-call]
        self.streaming = streaming_pb2_grpc.StreamingStub(channel)  # type: ignore[no-untyped-call]
        self.tasks = tasks_pb2_grpc.TasksStub(channel)  # type: ignore[no-untyped-call]
        self.transfers = transfer_pb2_grpc.TransferStub(channel)  # type: ignore[no-untyped-call]
        self.versions = version_pb2_grpc.VersionStub(channel)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    # What it is

    async def look(self, *, make: bool = True) -> str:
        """Ask which services it has, and its version; with `make` see to its having the namespace."""
        if error := knock(self._path):
            raise Unavailable(f"no containerd at {self._path} (containerd.endpoint): {silence(error)}")
        answer = await self.ask(self.introspection.Plugins, introspection_pb2.PluginsRequest(), "its plugins")
        self._plugins = {f"{each.type}.{each.id}": each for each in answer.plugins}
        if make:
            await self._make_namespace()
        told = await self.ask(self.versions.Version, Empty(), "its version")
        return str(told.version)

    async def _make_namespace(self) -> None:
        wanted = namespaces_pb2.Namespace(name=self.namespace)
        request = namespaces_pb2.CreateNamespaceRequest(namespace=wanted)
        try:
            await self.ask(self.namespaces.Create, request, f"namespace {self.namespace}")
        except AlreadyExists:
            pass
        except InvalidArgument as refusal:
            raise FailedPrecondition(f"configuration containerd.namespace: {refusal}") from refusal

    def has(self, kind: str, id: str) -> bool:
        """Whether it has a plugin that works, such as ("io.containerd.snapshotter.v1", "overlayfs")."""
        plugin = self._plugins.get(f"{kind}.{id}")
        return plugin is not None and not plugin.init_err.code and not plugin.init_err.message

    def why_not(self, kind: str, id: str) -> str:
        """Why it has not what `has` denied, for people."""
        plugin = self._plugins.get(f"{kind}.{id}")
        return plugin.init_err.message if plugin is not None else "this containerd has none"

    def plugins(self, kind: str) -> Mapping[str, introspection_pb2.Plugin]:
        """Those of a kind that work, by id."""
        return {
            each.id: each for each in self._plugins.values() if each.type == kind and self.has(kind, each.id)
        }

    # Asking

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the namespace, and the lease of the context, if there is one."""
        lease = _LEASE.get()
        named = (("containerd-namespace", self.namespace),)
        return (*named, ("containerd-lease", lease)) if lease else named

    async def ask(
        self, call: Callable[..., Awaitable[Any]], request: Message, tried: str, *, timeout: float | None = 0
    ) -> Any:
        """One call and its answer. `timeout` in seconds; None: as long as it takes, 0: as configured."""
        with _in_words(tried):
            return await call(request, timeout=self._limit(timeout), metadata=self.metadata())

    async def make(self, call: Callable[..., Awaitable[Any]], request: Message, tried: str) -> Any:
        """As `ask`, for what makes something. It is not cut short by a cancellation: containerd would go on
        with it for a while, and who undoes it would not find it yet."""
        return await to_the_end(self.ask(call, request, tried))

    async def listen(
        self, call: Callable[..., Any], request: Message, tried: str, *, timeout: float | None = 0
    ) -> AsyncIterator[Any]:
        """The messages of a call that answers with a stream; leaving the iteration cancels it. `timeout` is
        for all of them, as with `ask`."""
        with _in_words(tried):
            stream = call(request, timeout=self._limit(timeout), metadata=self.metadata())
            try:
                async for message in stream:
                    yield message
            finally:
                stream.cancel()

    def converse(self, call: Callable[..., Any], *, timeout: float | None = None) -> Any:
        """A call with streams both ways: gRPC's own object (`write`, `read`, `done_writing`, `cancel`), whose
        errors are put into words by `refusal`."""
        with _in_words("a conversation"):
            return call(timeout=timeout, metadata=self.metadata())

    @asynccontextmanager
    async def lease(self, id: str, *, expire: str) -> AsyncIterator[str]:
        """What is made in this context is not collected meanwhile, nor before `expire` (RFC 3339), should
        this process end in the middle. On leaving it only what something refers to stays."""
        request = leases_pb2.CreateRequest(id=id, labels={LEASE_EXPIRY: expire})
        await self.ask(self.leases.Create, request, f"lease {id}")
        try:
            with self.under(id):
                yield id
        finally:
            await to_the_end(self._let_go(id))

    @contextmanager
    def under(self, lease: str) -> Iterator[None]:
        """What is made in this context belongs to `lease`, which is there."""
        token = _LEASE.set(lease)
        try:
            yield
        finally:
            _LEASE.reset(token)

    async def _let_go(self, id: str) -> None:
        try:
            await self.ask(self.leases.Delete, leases_pb2.DeleteRequest(id=id), f"lease {id}")
        except PodwrightError as error:
            log.debug("lease %s stays until it expires: %s", id, error)

    def _limit(self, timeout: float | None) -> float | None:
        return self._timeout if timeout == 0 else timeout


@contextmanager
def _in_words(tried: str) -> Iterator[None]:
    """What goes wrong inside becomes the house's error."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise refusal(error, tried) from error
    except (grpc.aio.UsageError, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
            raise
        # gRPC takes the closing of the channel for a wish of whoever still uses it.
        raise Unavailable(f"containerd: {tried}: the connection has been closed here") from error


def refusal(error: grpc.aio.AioRpcError, tried: str) -> PodwrightError:
    """What a status of containerd means, in its own words. `tried` is what was asked, for people."""
    text = f"containerd: {tried}: {error.details() or error.code().name}"
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == BROKEN_OFF:
        return Unavailable(f"containerd: {tried}: it has gone away in the middle")
    make = _ERRORS.get(error.code())
    return make(text) if make is not None else PodwrightError(text)
