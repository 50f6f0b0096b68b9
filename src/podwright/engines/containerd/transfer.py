"""Pulls by containerd's Transfer service: containerd talks with the registry, we say what and watch.

Credentials and progress go over streams of their own (the Streaming service). What a pull has made belongs to
a lease of ours, as with our own transport.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.engines.containerd.api import Containerd, any_of, refusal
from podwright.engines.containerd.leases import PullLease
from podwright.engines.containerd.transfer_progress import Board
from podwright.errors import NotFound, PodwrightError, RegistryUnavailable
from podwright.images import registries
from podwright.images.access import is_loopback
from podwright.images.attempts import of_registry
from podwright.images.gate import certificates
from podwright.images.platform import Platform
from podwright.images.progress import Progress
from podwright.images.references import DEFAULT_DOMAIN, Reference
from podwright.images.signatures import accepts_anything
from podwright.linux.waiting import to_the_end
from podwright.steps import step
from podwright.wire.containerd import streaming_pb2, transfer_pb2, transfer_types_pb2, types_pb2

PLUGINS = (
    ("io.containerd.transfer.v1", "local"),
    ("io.containerd.grpc.v1", "transfer"),
    ("io.containerd.grpc.v1", "streaming"),
)
HUB_HOSTS = ("docker.io", "registry-1.docker.io", "auth.docker.io", "index.docker.io")
GONE = re.compile(r"failed to connect to all addresses|Socket closed|Connection reset|recvmsg")
"""What gRPC says when containerd itself is away."""
_DEFAULT = ImageConfig()


class TransferPulls:
    def __init__(self, containerd: Containerd, config: ImageConfig, *, wanted: bool) -> None:
        """`wanted`: it is to be used where it can be (containerd.transfer)."""
        self._containerd = containerd
        self._config = config
        self._wanted = wanted

    def why_not(self, source: Reference, credentials: Credentials | None) -> str:
        """What only our own transport does for this pull; "" when the service can do it all."""
        config = self._config
        if not self._wanted:
            return "containerd.transfer is off"
        if missing := [f"{kind}.{id}" for kind, id in PLUGINS if not self._containerd.has(kind, id)]:
            return f"this containerd has no {missing[0]}"
        if not accepts_anything(Path(config.policy)):
            return "images.policy asks for signatures"
        if credentials is None and config.authfile:
            return "images.authfile"
        if credentials is not None and credentials.registry_token:
            return "the call has a registry token"
        if config.discard_unpacked_layers:
            return "images.discard_unpacked_layers"
        if config.max_concurrent_downloads != _DEFAULT.max_concurrent_downloads:
            return "images.max_concurrent_downloads"
        if source.domain in config.insecure_registries:
            return "images.insecure_registries"
        if is_loopback(source.domain):
            return "a registry on loopback, which needs no TLS"  # not every containerd knows
        if certificates(config.certs_dir, source.domain) is not None:
            return "certificates for this registry"
        entry = registries.entry_for(source.repository, registries.files(config.registries_conf))
        if entry != registries.Registry(source.domain, source.domain):
            return "registries.conf says something of this registry"
        return ""

    async def pull(
        self,
        source: Reference,
        credentials: Credentials | None,
        platform: Platform,
        snapshotter: str,
        labels: dict[str, str],
        lease: PullLease,
        progress: Progress,
    ) -> None:
        """Fetch and unpack; afterwards there is a record called as `source`. Raises as ImageService.pull."""
        wanted = types_pb2.Platform(
            os=platform.os, architecture=platform.architecture, variant=platform.variant
        )
        store = transfer_types_pb2.ImageStore(name=str(source), labels=labels, platforms=[wanted])
        store.unpacks.add(platform=wanted, snapshotter=snapshotter)
        with step("pull", str(source)), self._containerd.under(lease.id):
            try:
                await self._transfer(source, credentials, store, progress)
            except PodwrightError as error:
                raise _explained(error, credentials) from error

    async def _transfer(
        self,
        source: Reference,
        credentials: Credentials | None,
        store: transfer_types_pb2.ImageStore,
        progress: Progress,
    ) -> None:
        registry = transfer_types_pb2.OCIRegistry(reference=str(source))
        async with (
            self._unless_silent(source, progress) as board,
            self._answering(source, credentials) as registry.resolver.auth_stream,
            self._watching(board) as stream,
        ):
            request = transfer_pb2.TransferRequest(source=any_of(registry), destination=any_of(store))
            request.options.progress_stream = stream
            await self._containerd.ask(
                self._containerd.transfers.Transfer, request, str(source), timeout=None
            )
            board.done()

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[tuple[str, Any]]:
        """A new stream with containerd, which knows it by the name that comes first."""
        id = f"podwright-{secrets.token_hex(8)}"
        stream = self._containerd.converse(self._containerd.streaming.Stream)
        try:
            try:
                await stream.write(any_of(streaming_pb2.StreamInit(id=id)))
                await stream.read()  # it is ready
            except grpc.aio.AioRpcError as error:
                raise refusal(error, "a stream") from error
            yield id, stream
        finally:
            stream.cancel()

    @asynccontextmanager
    async def _watching(self, board: Board) -> AsyncIterator[str]:
        """The name of a stream on which is told how far the pull is."""

        async def watch(stream: Any) -> None:
            async for message in _messages(stream):
                board.tell(transfer_types_pb2.Progress.FromString(message.value))

        async with self._stream() as (id, stream), _beside(watch(stream)):
            yield id

    @asynccontextmanager
    async def _answering(self, source: Reference, credentials: Credentials | None) -> AsyncIterator[str]:
        """The name of a stream on which containerd asks for credentials, "" when there are none."""
        if credentials is None or credentials.withheld:
            yield ""
            return

        async def answer(stream: Any) -> None:
            async for message in _messages(stream):
                asked = transfer_types_pb2.AuthRequest.FromString(message.value)
                await stream.write(any_of(_authorization(source, asked.host, credentials)))

        async with self._stream() as (id, stream), _beside(answer(stream)):
            yield id

    @asynccontextmanager
    async def _unless_silent(self, source: Reference, progress: Progress) -> AsyncIterator[Board]:
        """RegistryUnavailable when nothing is heard of the pull for so long that it has stalled."""
        patience = self._config.progress_timeout
        try:
            async with asyncio.timeout(None) as bound:
                yield Board(progress, bound, patience)
        except TimeoutError:
            if not bound.expired():
                raise
            raise RegistryUnavailable(
                f"{source}: no byte has come for {patience:g} s (images.progress_timeout)"
            ) from None


def _authorization(source: Reference, host: str, credentials: Credentials) -> transfer_types_pb2.AuthResponse:
    """Credentials for the image's own registry, none for any other host."""
    hosts = HUB_HOSTS if source.domain == DEFAULT_DOMAIN else (source.domain,)
    if host not in hosts:
        return transfer_types_pb2.AuthResponse(authType=transfer_types_pb2.NONE)
    if credentials.identity_token:
        return transfer_types_pb2.AuthResponse(
            authType=transfer_types_pb2.REFRESH, secret=credentials.identity_token
        )
    return transfer_types_pb2.AuthResponse(
        authType=transfer_types_pb2.CREDENTIALS, username=credentials.username, secret=credentials.password
    )


def _whose(credentials: Credentials | None) -> str:
    if credentials is None:
        return "none"
    if credentials.withheld:
        return f"none (the call's are for {credentials.withheld})"
    return "the call's"


def _explained(error: PodwrightError, credentials: Credentials | None) -> PodwrightError:
    """The error that a failed transfer means: most are what a registry has said."""
    if isinstance(error, RegistryUnavailable) or GONE.search(str(error)):
        return error
    words = str(error).removeprefix("containerd: ")
    text = f"{words} (credentials: {_whose(credentials)})"
    return NotFound(text) if isinstance(error, NotFound) else of_registry(words, text)


async def _messages(stream: Any) -> AsyncIterator[AnyMessage]:
    """What comes on a stream until it ends, however it does: the transfer itself says what went wrong."""
    try:
        while (message := await stream.read()) is not grpc.aio.EOF:
            yield message
    except grpc.aio.AioRpcError:
        pass


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await to_the_end(asyncio.wait({task}))
