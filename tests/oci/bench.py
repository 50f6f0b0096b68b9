"""An oci engine driven as core drives it, without core."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Container, Exit, Image, Sandbox
from podwright.engines.oci.engine import OciEngine
from podwright.hooks.running import Hooks
from podwright.logs import reader
from podwright.state.database import Database
from podwright.wire import cri_pb2 as cri

TOOLS = Path(__file__).parents[2] / "tools"
POD, CONTAINER, NODE, TARGET = (
    cri.NamespaceMode.POD,
    cri.NamespaceMode.CONTAINER,
    cri.NamespaceMode.NODE,
    cri.NamespaceMode.TARGET,
)


def uncreatable(directory: Path) -> cri.ContainerConfig:
    """What no runtime can make: a directory mounted over a file."""
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/etc/passwd", host_path=str(directory))
    return config


class Bench:
    """An engine and shorthands for driving it as core would."""

    def __init__(self, engine: OciEngine, config: Config, image: Image) -> None:
        self.engine = engine
        self.config = config
        self.image = image
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}
        self._exits: dict[str, asyncio.Future[Exit]] = {}
        self.logs = Path(config.root) / "logs"

    async def collect_exits(self) -> None:
        async for each in self.engine.exits():
            future = self._exit(each.id)
            if not future.done():
                future.set_result(each)

    async def exit_of(self, container: Container | Sandbox, timeout: float = 20) -> Exit:
        return await asyncio.wait_for(asyncio.shield(self._exit(container.id)), timeout)

    async def sandbox(
        self,
        *,
        network: int = NODE,
        pid: int = CONTAINER,
        ipc: int = POD,
        handler: str = "",
        config: cri.PodSandboxConfig | None = None,
    ) -> Sandbox:
        id = secrets.token_hex(32)
        wanted = cri.PodSandboxConfig()
        wanted.metadata.name, wanted.metadata.namespace, wanted.metadata.uid = f"pod-{id[:6]}", "test", id[:8]
        options = wanted.linux.security_context.namespace_options
        options.network, options.pid, options.ipc = network, pid, ipc  # type: ignore[assignment]
        if config is not None:
            wanted.MergeFrom(config)
        sandbox = Sandbox(id, wanted.metadata.name, wanted, handler)
        self.sandboxes[id] = sandbox
        async with AsyncExitStack() as undo:
            facts = await self.engine.create_sandbox(sandbox, undo)
            undo.pop_all()
        sandbox = self.sandboxes[id] = replace(sandbox, facts=facts)
        return sandbox

    async def container(
        self,
        sandbox: Sandbox,
        *command: str,
        config: cri.ContainerConfig | None = None,
        log: bool = True,
        target: Container | None = None,
        start: bool = True,
    ) -> Container:
        id = secrets.token_hex(32)
        wanted = cri.ContainerConfig(command=command)
        wanted.metadata.name = f"c-{id[:6]}"
        options = wanted.linux.security_context.namespace_options
        options.CopyFrom(sandbox.config.linux.security_context.namespace_options)
        if config is not None:
            wanted.MergeFrom(config)
        container = Container(
            id,
            wanted.metadata.name,
            sandbox,
            wanted,
            self.image,
            str(self.logs / id[:8] / "0.log") if log else "",
            target,
        )
        self.containers[id] = container
        async with AsyncExitStack() as undo:
            facts = await self.engine.create_container(container, undo)
            undo.pop_all()
        container = self.containers[id] = replace(container, facts=facts)
        if start:
            await self.engine.start_container(container)
        return container

    async def output(self, container: Container) -> str:
        """What a container printed, once it has ended."""
        await self.exit_of(container)
        lines = await reader.collect(reader.follow(container.log_path))
        return "".join(line.text.decode() + "\n" for line in lines)

    async def run(self, sandbox: Sandbox, script: str, config: cri.ContainerConfig | None = None) -> str:
        return await self.output(await self.container(sandbox, "sh", "-c", script, config=config))

    async def exec(self, container: Container, *argv: str, timeout: float | None = 10) -> str:
        done = await self.engine.exec_sync(container, argv, timeout, 1 << 24)
        assert done.code == 0, done
        return done.stdout.decode()

    async def remove(self, container: Container) -> None:
        await self.engine.remove_container(container)
        self.containers.pop(container.id, None)

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        await self.engine.stop_sandbox(sandbox)
        await self.engine.remove_sandbox(sandbox)
        self.sandboxes.pop(sandbox.id, None)

    async def clear(self) -> None:
        for container in list(self.containers.values()):
            await self.remove(container)
        for sandbox in list(self.sandboxes.values()):
            await self.remove_sandbox(sandbox)

    def _exit(self, id: str) -> asyncio.Future[Exit]:
        return self._exits.setdefault(id, asyncio.get_running_loop().create_future())


def processes_with(text: str) -> list[int]:
    """Processes that have `text` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@asynccontextmanager
async def opened(config: Config, busybox: Path, hooks: Hooks | None = None) -> AsyncIterator[Bench]:
    Path(config.root).mkdir(parents=True, exist_ok=True)
    database = Database.open(Path(config.root) / "podwright.db")
    engine = OciEngine(config, database, hooks)
    await engine.open()
    image = await engine.images.import_root(
        busybox, "localhost/busybox:test", config={"Env": ["PATH=/bin:/usr/bin"], "Cmd": ["sh"]}
    )
    bench = Bench(engine, config, image)
    collector = asyncio.create_task(bench.collect_exits())
    try:
        yield bench
    finally:
        try:
            await bench.clear()
        finally:
            collector.cancel()
            await engine.close()
            database.close()
