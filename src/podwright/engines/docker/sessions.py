"""What clients do in containers and pods while they run: exec, attach, port-forward."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from podwright.config import Config
from podwright.engines import exec_sync, forward
from podwright.engines.base import Container, ExecResult, Json, Sandbox
from podwright.engines.docker import attach, exec, strays
from podwright.engines.docker.api import Docker
from podwright.engines.docker.objects import Objects
from podwright.engines.docker.strays import Strays
from podwright.engines.streams import Connection, Streams
from podwright.errors import FailedPrecondition
from podwright.wire import cri_pb2 as cri


class Sessions:
    def __init__(self, docker: Docker, objects: Objects, config: Config) -> None:
        self._docker = docker
        self._objects = objects
        mark = secrets.token_hex(4)
        self._keys = strays.marked(mark)
        self._strays = Strays(docker, mark)

    async def close(self) -> None:
        await self._strays.close()

    async def hang_up_strays(self, container: Container) -> None:
        """End what sessions of an earlier podwright left in the running `container`. Returns at once."""
        inspected = await self._objects.inspect(container)
        if inspected is not None:
            self._strays.hang_up(inspected)

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        """As `Engine.exec_sync`. A command that cannot be run is no error: 127 or 126, and why on stderr."""
        docker_id = await self._objects.id(container)

        def run(streams: Streams) -> Coroutine[Any, Any, int]:
            return exec.run(self._docker, docker_id, argv, streams, detach_keys=self._keys, patient=False)

        return await exec_sync.within(timeout, argv[0], exec_sync.kept(limit, run))

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        """As `Engine.exec`."""
        docker_id = await self._objects.id(container)
        return await exec.run(self._docker, docker_id, argv, streams, detach_keys=self._keys)

    async def attach(self, container: Container, streams: Streams) -> None:
        """As `Engine.attach`."""
        found = await self._running(container)
        await attach.attach(self._docker, found["Id"], container.config, streams)

    async def port_forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        """As `Engine.port_forward`."""
        forward.check_port(port)
        metadata = sandbox.config.metadata
        pod = f"{metadata.namespace}/{metadata.name}"
        namespace = None
        options = sandbox.config.linux.security_context.namespace_options
        if options.network != cri.NamespaceMode.NODE:
            namespace = Path(f"/proc/{await self._pid(sandbox)}/ns/net")
        await forward.forward(pod, namespace, port, connection)

    async def _pid(self, sandbox: Sandbox) -> int:
        """Of the process that holds the pod together."""
        return int((await self._running(sandbox))["State"]["Pid"])

    async def _running(self, subject: Container | Sandbox) -> Json:
        """Docker's account of it; FailedPrecondition when it does not run."""
        found = await self._objects.inspect(subject)
        if found is None or not found["State"]["Running"]:
            what = "sandbox" if isinstance(subject, Sandbox) else "container"
            raise FailedPrecondition(f"{what} {subject.id[:12]} does not run")
        return found
