"""The endpoint: GET /metrics in Prometheus' text format, at a TCP address or a Unix socket.

Whoever reaches it may ask as often as it likes: an answer is made at most once a second, and a connection
lasts half a minute, so the loop that serves the kubelet does not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from podwright.core.runtime import Runtime
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.metrics.meter import Meter
from podwright.metrics.state import Gauges, read
from podwright.metrics.static_pods import Keeping, StaticPods
from podwright.server.endpoint import claimed, private_umask, socket_path
from podwright.streaming.http import Connections, Limits, Request, Response

FRESH = 1.0
"""Seconds for which an answer is given again."""
AT_ONCE = 32
"""Connections; more are cut."""
LASTS = 30.0
"""Seconds after which a connection is cut, whatever its client does: Prometheus makes a new one."""
HEAD = 10.0
"""Seconds within which a request must have arrived."""

FIELD = "metrics.address"

log = logging.getLogger("podwright.metrics")


@asynccontextmanager
async def serving(runtime: Runtime, keeping: Keeping | None = None) -> AsyncIterator[str]:
    """Count from now on, and answer at `metrics.address`, until the block is left: where it listens. Of the
    pods of `keeping` it tells, too.

    InvalidArgument for what is no address, FailedPrecondition when it cannot be had.
    """
    registry = CollectorRegistry()
    meter, gauges = Meter(registry), Gauges(registry)
    if keeping is not None:
        StaticPods(registry, keeping)
    ProcessCollector(registry=registry)
    endpoint = _Endpoint(runtime, registry, gauges)
    operations = runtime.operations
    async with endpoint.listening(runtime.config.metrics.address) as place:
        operations.watchers += (meter,)
        try:
            yield place
        finally:
            operations.watchers = tuple(each for each in operations.watchers if each is not meter)


class _Endpoint:
    def __init__(self, runtime: Runtime, registry: CollectorRegistry, gauges: Gauges) -> None:
        self._runtime = runtime
        self._registry = registry
        self._gauges = gauges
        self._making = asyncio.Lock()
        self._made = b""
        self._made_at = float("-inf")
        self._connections = Connections(self._answer, limits=Limits(head=HEAD), made=self._bound)

    @asynccontextmanager
    async def listening(self, address: str) -> AsyncIterator[str]:
        if address.startswith(("/", "unix:")):
            path = socket_path(address)
            with claimed(path, FIELD):
                try:
                    with private_umask():
                        server = await asyncio.get_running_loop().create_unix_server(
                            self._connections, os.fspath(path)
                        )
                except OSError as error:
                    raise FailedPrecondition(f"{FIELD}: cannot listen at {path}: {error.strerror}") from error
                async with self._until_left(server):
                    yield str(path)
            return
        host, port = parse(address)
        try:
            server = await asyncio.get_running_loop().create_server(
                self._connections, host, port, family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except (OSError, OverflowError) as error:
            words = getattr(error, "strerror", None) or error
            raise FailedPrecondition(f"{FIELD}: cannot listen at {address}: {words}") from error
        host, port = server.sockets[0].getsockname()[:2]
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if not ip_address(host.partition("%")[0]).is_loopback:
            log.warning("metrics are served at %s to whoever reaches it; see %s", place, FIELD)
        async with self._until_left(server):
            yield place

    @asynccontextmanager
    async def _until_left(self, server: asyncio.Server) -> AsyncIterator[None]:
        try:
            yield
        finally:
            server.close()
            await self._connections.close()

    def _bound(self, transport: asyncio.Transport) -> None:
        if len(self._connections.all) > AT_ONCE:
            transport.abort()
        else:
            asyncio.get_running_loop().call_later(LASTS, transport.abort)

    async def _answer(self, request: Request) -> Response:
        if request.path != "/metrics":
            return Response.words(404, "nothing is here, only at /metrics")
        if request.method not in ("GET", "HEAD"):
            words = f"{request.method} is not possible here, only GET and HEAD"
            return Response.words(405, words, ("allow", "GET, HEAD"))
        return Response(200, await self._text(), (("content-type", CONTENT_TYPE_LATEST),))

    async def _text(self) -> bytes:
        async with self._making:
            loop = asyncio.get_running_loop()
            if loop.time() - self._made_at >= FRESH:
                self._gauges.state = await read(self._runtime)
                # A millisecond or ten, with hundreds of series.
                self._made = await asyncio.to_thread(generate_latest, _WithoutBirths(self._registry))
                self._made_at = loop.time()
            return self._made


class _WithoutBirths(Collector):
    """What a registry has without the series NAME_created: a third more series that no query of ours needs.
    The library's own switch for them is the whole process's, which may be another program's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if each.name != f"{family.name}_created"]
            yield family


def parse(address: str) -> tuple[str, int]:
    """ "127.0.0.1:9477", "[::1]:9477" or "localhost:9477". InvalidArgument that says what is wrong."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([\w.-]+)):([0-9]{1,5})", address, re.ASCII)
    if found is None or int(found[3]) > 65535:
        raise InvalidArgument(
            FIELD, f'{address!r} is neither HOST:PORT ("127.0.0.1:9477", "[::1]:9477") nor unix:///PATH'
        )
    return found[1] or found[2], int(found[3])
