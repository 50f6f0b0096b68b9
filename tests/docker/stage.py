"""The engine's own parts over a Docker Engine that answers what was recorded, with stand-ins for networks,
logs and images: for whole calls, request by request."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from podwright.config import Config, DockerConfig
from podwright.engines.base import Container, ContainerFacts, ImageService, SandboxFacts
from podwright.engines.docker.api import Docker
from podwright.engines.docker.containers import Containers
from podwright.engines.docker.host import Host
from podwright.engines.docker.logs import Logs
from podwright.engines.docker.objects import DOCKER_ID, Objects
from podwright.engines.docker.sandboxes import Sandboxes
from podwright.errors import FailedPrecondition
from podwright.network.attachment import Attachment
from podwright.network.cni import Cni, Result
from tests.docker import golden
from tests.docker.double import Asked, Double, asked, double

SANDBOX, CONTAINER, HOLDER = "a" * 64, "b" * 64, "d" * 64


@dataclass
class Network:
    """Stands in for Cni."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)
    broken: bool = False
    kept: set[str] = field(default_factory=set)

    async def add(self, attachment: Attachment) -> Result:
        self.calls.append(("ADD", attachment.id, attachment.netns))
        if self.broken:
            raise FailedPrecondition("no such plugin")
        self.kept.add(attachment.id)
        return Result(("10.1.2.3",), (), {})

    async def delete(self, attachment: Attachment) -> None:
        self.calls.append(("DEL", attachment.id, attachment.netns))
        self.kept.discard(attachment.id)

    def cached_ids(self) -> set[str]:
        return self.kept


@dataclass
class Quiet:
    """Stands in for Logs and for the image service."""

    pulled: list[str] = field(default_factory=list)

    def check(self, container: Container) -> None: ...

    def log_config(self, container: Container) -> dict[str, Any]:
        return {"Type": "json-file"}

    async def begin(self, container: Container, docker_id: str) -> None: ...

    async def finish(self, id: str) -> None: ...

    async def remove(self, id: str) -> None: ...

    async def pull(self, name: str, credentials: None) -> None:
        self.pulled.append(name)


@dataclass
class Room:
    docker: Double
    sandboxes: Sandboxes
    containers: Containers
    network: Network
    images: Quiet

    @property
    def lines(self) -> list[str]:
        return [each.line for each in self.docker.changes]


@asynccontextmanager
async def room(name: str, tmp_path: Path) -> AsyncIterator[Room]:
    # A socket's path is short.
    tokens = {
        "SANDBOX_ID": SANDBOX,
        "SANDBOX_ID_2": SANDBOX,
        "CONTAINER_ID": CONTAINER,
        "ID_1": HOLDER,
        "PID": str(os.getpid()),
        "DOCKER_ROOT": str(tmp_path),
        "VOLUMES": str(tmp_path / "volumes"),
        "LOG_DIR": str(tmp_path / "logs"),
    }
    exchanges = golden.filled(golden.case(name)["docker"], tokens)
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        cgroup_parent="",
        docker=DockerConfig(
            endpoint=f"unix://{tmp_path}/docker.sock", sandbox_image=golden.FEATURES.sandbox_image
        ),
    )
    for id in (SANDBOX, CONTAINER, HOLDER):
        (tmp_path / "containers" / id).mkdir(parents=True)
        (tmp_path / "containers" / id / "resolv.conf").write_text(
            "nameserver 9.9.9.9\n" + "# Docker's\n" * 99
        )
    async with double(tmp_path, exchanges) as served:
        docker = Docker(config.docker)
        docker.open()
        try:
            objects, host = Objects(docker, golden.OWNER), Host(config, docker)
            await host.look()
            network, quiet = Network(), Quiet()
            made = Sandboxes(config, docker, objects, host, cast(ImageService, quiet), cast(Cni, network))
            containers = Containers(config, docker, objects, host, cast(Logs, quiet), lambda exit: None)
            yield Room(served, made, containers, network, quiet)
        finally:
            await docker.close()


def recorded(name: str, without: Sequence[str] = ()) -> list[Asked]:
    tokens = {
        "SANDBOX_ID": SANDBOX,
        "SANDBOX_ID_2": SANDBOX,
        "CONTAINER_ID": CONTAINER,
        "ID_1": HOLDER,
        "PID": "0",
    }
    return [
        asked(each["method"], each["path"], each["body"])
        for each in golden.filled(golden.case(name)["docker"], tokens)
        if each["method"] not in ("GET", "HEAD") and not any(part in each["path"] for part in without)
    ]


def started_container() -> Container:
    container = golden.container_of("create-minimal")
    sandbox = replace(container.sandbox, facts=SandboxFacts(own={DOCKER_ID: SANDBOX}))
    return replace(container, sandbox=sandbox, facts=ContainerFacts(own={DOCKER_ID: CONTAINER}))


def in_sandbox(container: Container) -> Container:
    return replace(
        container, sandbox=replace(container.sandbox, facts=SandboxFacts(own={DOCKER_ID: SANDBOX}))
    )


def made(id: str) -> dict[str, Any]:
    return {
        "method": "POST",
        "path": "/v1.41/containers/create",
        "status": 201,
        "response": {"Id": id, "Warnings": []},
    }


def holder(id: str) -> dict[str, Any]:
    """Of dockershim's kind: without podwright's labels."""
    return ours(f"/containers/{id}/json", {"Id": id, "Config": {"Labels": {}}})


def running(id: str, root: Path) -> dict[str, Any]:
    state = {"Running": True, "Pid": os.getpid()}
    path = str(root / "containers" / id / "resolv.conf")
    return ours(f"/containers/{id}/json", {"Id": id, "State": state, "ResolvConfPath": path})


def ours(path: str, response: Any) -> dict[str, Any]:
    return {"method": "GET", "path": f"/v1.41{path}", "status": 200, "response": response}
