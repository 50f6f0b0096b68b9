"""The rules of Exec, Attach and PortForward: who may have what, when asked for and when the client comes.

The CRI answers these calls with a URL. Whoever serves it is not core's affair: a `Giver`, which calls back
with the client's streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from podwright.core import validate
from podwright.core.containers import Containers, require_ready, require_running
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.sandboxes import Sandboxes
from podwright.engines.streams import Connection, Streams
from podwright.errors import InvalidArgument, Unimplemented
from podwright.steps import Operations
from podwright.wire import cri_pb2 as cri

Asked = cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest


class Giver(Protocol):
    """A streaming server."""

    async def url(self, asked: Asked) -> str:
        """Where a client can have what it asked for, once and soon. ResourceExhausted; FailedPrecondition
        when it cannot listen."""

    async def listen(self) -> None:
        """Already now, where an operator has said where or how."""

    @property
    def address(self) -> str:
        """Where it listens: "127.0.0.1:40112"; "" before it is first needed."""


class Streaming:
    def __init__(
        self, ground: Ground, sandboxes: Sandboxes, containers: Containers, operations: Operations
    ) -> None:
        self._ground = ground
        self._operations = operations
        self._sandboxes = sandboxes
        self._containers = containers
        self.giver: Giver | None = None
        """None: nobody serves streams here, and the calls for URLs are Unimplemented."""

    # URLs

    async def exec_url(self, request: cri.ExecRequest) -> str:
        giver = self._giver("Exec")
        asked = cri.ExecRequest()
        asked.CopyFrom(request)
        asked.container_id = self._running(request.container_id).id
        _check_streams(request)
        if not request.cmd:
            raise InvalidArgument("cmd", "no command specified")
        validate.argv(request.cmd, "cmd")
        return await giver.url(asked)

    async def attach_url(self, request: cri.AttachRequest) -> str:
        giver = self._giver("Attach")
        asked = cri.AttachRequest()
        asked.CopyFrom(request)
        asked.container_id = self._running(request.container_id).id
        _check_streams(request)
        return await giver.url(asked)

    async def port_forward_url(self, request: cri.PortForwardRequest) -> str:
        giver = self._giver("PortForward")
        asked = cri.PortForwardRequest()
        asked.CopyFrom(request)
        asked.pod_sandbox_id = self._ready(request.pod_sandbox_id).id
        for at, port in enumerate(request.port):
            _check_port(port, f"port[{at}]")
        return await giver.url(asked)

    # What the URLs are for: called when the client has come, or at once by who is in this process

    def check(self, asked: Asked) -> None:
        """Whether it can still be had: NotFound, FailedPrecondition."""
        if isinstance(asked, cri.PortForwardRequest):
            self._ready(asked.pod_sandbox_id)
        else:
            self._running(asked.container_id)

    async def exec(self, container_id: str, argv: Sequence[str], streams: Streams) -> int:
        """The exit code, 0..255."""
        record = self._running(container_id)
        if not argv:
            raise InvalidArgument("cmd", "no command specified")
        validate.argv(argv, "cmd")
        with self._operations.open("ExecSession", record.id):
            return await self._ground.engine.exec(record.seen_by_engine(), list(argv), streams)

    async def attach(self, container_id: str, streams: Streams) -> None:
        record = self._running(container_id)
        with self._operations.open("AttachSession", record.id):
            await self._ground.engine.attach(record.seen_by_engine(), streams)

    async def port_forward(self, sandbox_id: str, port: int, connection: Connection) -> None:
        record = self._ready(sandbox_id)
        _check_port(port, "port")
        with self._operations.open("PortForwardSession", record.id):
            await self._ground.engine.port_forward(record.seen_by_engine(), port, connection)

    def _giver(self, rpc: str) -> Giver:
        if self.giver is None:
            raise Unimplemented(f"{rpc}: no streaming server belongs to this runtime")
        return self.giver

    def _running(self, id: str) -> ContainerRecord:
        record = self._containers.shown(id)
        require_running(record)
        return record

    def _ready(self, id: str) -> SandboxRecord:
        record = self._sandboxes.shown(id)
        require_ready(record)
        return record


def _check_streams(request: cri.ExecRequest | cri.AttachRequest) -> None:
    if request.tty and request.stderr:
        raise InvalidArgument("stderr", "a terminal has one output, stdout: tty excludes stderr")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("stdout", "at least one of stdin, stdout and stderr must be true")


def _check_port(port: int, field: str) -> None:
    if not 0 < port < 65536:
        raise InvalidArgument(field, f"{port} is not a port number")
