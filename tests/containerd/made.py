"""Containers made of a record, a snapshot and a task, by the engine's own pieces but without the engine."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.config import CniConfig, Config
from podwright.engines.base import Container, ContainerFacts, Image, Sandbox
from podwright.engines.containerd.api import SPEC, Containerd, any_of
from podwright.engines.containerd.images import Images
from podwright.engines.containerd.sessions import Sessions
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.places import Places
from podwright.linux import cgroups
from podwright.logs import reader
from podwright.logs.limits import Limits
from podwright.logs.writing import LogWriter
from podwright.wire import cri_pb2 as cri
from podwright.wire.containerd import containers_pb2, runc_pb2
from tests.containerd.daemon import BUSYBOX, Daemon

PARENT = f"/podwright-made-{os.getpid()}"
SNAPSHOTTER = "overlayfs"


class Room:
    """An api, and pieces of the engine upon it."""

    def __init__(self, daemon: Daemon, containerd: Containerd, config: Config) -> None:
        self.daemon = daemon
        self.config = config
        self.containerd = containerd
        self.places = Places(config)
        self.logs = LogWriter(self.places.logs)
        self.tasks = Tasks(containerd, self.places, self.logs)
        self.snapshots = Snapshots(containerd)
        self._images = Images(containerd, config)
        self.sessions = self.another()
        self.made: dict[str, Container] = {}
        self._snapshotters: dict[str, str] = {}
        self._parent = ""

    def another(self) -> Sessions:
        """As the next podwright has it."""
        return Sessions(self.containerd, self.tasks, self.places, self.logs, self.config)

    async def container(
        self,
        *argv: str,
        config: cri.ContainerConfig | None = None,
        runtime: str = "runc",
        snapshotter: str = SNAPSHOTTER,
        log: bool = True,
        process: dict[str, Any] | None = None,
    ) -> Container:
        """One that runs `argv`."""
        id = secrets.token_hex(32)
        config = config or cri.ContainerConfig()
        path = str(self.places.root / "logs" / id[:8] / "0.log") if log else ""
        sandbox = Sandbox(secrets.token_hex(32), "pod", cri.PodSandboxConfig(), runtime)
        image = Image("sha256:" + "0" * 64, (), (), 1, {})
        container = Container(id, f"c-{id[:6]}", sandbox, config, image, path, None)
        self.made[id], self._snapshotters[id] = container, snapshotter
        mounts = await self.snapshots.prepare(id, await self._chain(snapshotter), snapshotter)
        spec = json.dumps(spec_of(id, argv, config.tty, process or {})).encode()
        record = containers_pb2.Container(
            id=id, spec=AnyMessage(type_url=SPEC, value=spec), snapshotter=snapshotter, snapshot_key=id
        )
        record.runtime.name = "io.containerd.runc.v2"
        options = runc_pb2.Options(binary_name=self.daemon.handlers[runtime].path)
        record.runtime.options.CopyFrom(any_of(options))
        request = containers_pb2.CreateContainerRequest(container=record)
        await self.containerd.ask(self.containerd.containers.Create, request, "record")
        directory = self.places.container_run(id)
        directory.mkdir(parents=True)
        (directory / "config.json").write_bytes(spec)
        names = ("stdout",) if config.tty else ("stdout", "stderr")
        fifos = await self.logs.add(id, path, Limits(), raw=names)
        stdin = ""
        if config.stdin:
            stdin = str(directory / "stdin")
            os.mkfifo(stdin)
        await self.tasks.create(
            id,
            rootfs=mounts,
            terminal=config.tty,
            stdin=stdin,
            stdout=str(fifos / "stdout"),
            stderr="" if config.tty else str(fifos / "stderr"),
        )
        pid = await self.tasks.start(id)
        container = self.made[id] = replace(container, facts=ContainerFacts(pid=pid))
        return container

    async def remove(self, container: Container) -> None:
        await self.tasks.end(container.id)
        await self.logs.finish(container.id)
        request = containers_pb2.DeleteContainerRequest(id=container.id)
        await self.containerd.ask(self.containerd.containers.Delete, request, "record")
        del self.made[container.id]
        await self.snapshots.remove(container.id, self._snapshotters[container.id])

    async def logged(self, container: Container) -> str:
        """Once it has ended."""
        lines = await reader.collect(reader.follow(container.log_path))
        return "".join(line.text.decode() + "\n" for line in lines)

    async def exit(self, container: Container) -> int:
        """Wait for its end, which is noted and cleared away."""
        async with asyncio.timeout(60):
            while (seen := await self.tasks.observe(container.id)).exit is None:
                await self.tasks._wait(container.id)
        return seen.exit.code

    async def _chain(self, snapshotter: str) -> str:
        """The layer of BUSYBOX: tests before may have left other images."""
        image = await self._images.find(BUSYBOX)
        assert image is not None, f"{BUSYBOX} is not there"
        return await self._images.chain(image.id, snapshotter)


@asynccontextmanager
async def room(daemon: Daemon, directory: Path) -> AsyncIterator[Room]:
    config = Config(
        root=str(directory / "lib"), run=str(directory / "run"), cni=CniConfig(), containerd=daemon.config
    )
    containerd = Containerd(config.containerd)
    containerd.open()
    try:
        await containerd.look()
        made = Room(daemon, containerd, config)
        for each in made.places.directories():
            each.mkdir(parents=True, exist_ok=True)
        await made.logs.open()
        try:
            yield made
        finally:
            await made.sessions.close()
            for container in list(made.made.values()):
                await made.remove(container)
            await made.tasks.close()
            await made.logs.close()
            cgroups.remove(PARENT)
    finally:
        await containerd.close()


def spec_of(id: str, argv: tuple[str, ...], tty: bool, process: dict[str, Any]) -> dict[str, Any]:
    capabilities = ["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(argv),
            "cwd": "/",
            "env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"],
            "user": {"uid": 0, "gid": 0},
            "terminal": tty,
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            **process,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "cgroupsPath": f"{PARENT}/{id}",
            "namespaces": [{"type": each} for each in ("pid", "mount", "ipc", "uts")],
        },
    }
