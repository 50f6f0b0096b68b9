"""Containers of one test on the tests' Docker Engine, without a podwright that made them."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from podwright.config import Config, DockerConfig
from podwright.engines.base import Container, ContainerFacts, Image, Json, Sandbox, SandboxFacts
from podwright.engines.docker.api import Docker
from podwright.engines.docker.objects import DOCKER_ID, Objects
from podwright.engines.docker.sessions import Sessions
from podwright.wire import cri_pb2 as cri
from tests.docker.daemon import Daemon
from tests.oci.clients import PATIENCE
from tools import busybox_rootfs

IMAGE = "podwright.test/whole-busybox:1"
STAY = ["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
LIMIT = 16 << 20


def load_image(daemon: Daemon, root: Path) -> None:
    """IMAGE: all of the host's static busybox."""
    busybox_rootfs.make(root)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.add(root, arcname=".")
    repository, _, tag = IMAGE.rpartition(":")
    changes = f"changes={quote('ENV FROM_IMAGE=yes')}"
    query = f"fromSrc=-&repo={quote(repository, safe='')}&tag={tag}&{changes}"
    daemon.request("POST", f"/images/create?{query}", raw.getvalue(), "application/x-tar")


class Room:
    def __init__(self, docker: Docker, root: str) -> None:
        self.docker = docker
        self.objects = Objects(docker, root)
        self.sessions = Sessions(docker, self.objects, Config())
        self.made: list[str] = []
        """Docker's ids of its containers."""

    async def create(
        self, argv: list[str], more: Mapping[str, Json] | None = None, *, log_path: str = ""
    ) -> Container:
        body = {"Image": IMAGE, "Cmd": argv, "HostConfig": {"NetworkMode": "none"}, **(more or {})}
        made = await self.docker.call("POST", "/containers/create", json=body)
        self.made.append(made["Id"])
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="c"),
            stdin=bool(body.get("OpenStdin")),
            stdin_once=bool(body.get("StdinOnce")),
            tty=bool(body.get("Tty")),
        )
        pod = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="pod", namespace="default"))
        own = {DOCKER_ID: made["Id"]}
        sandbox = Sandbox(secrets.token_hex(32), "pod", pod, "", SandboxFacts(own=own))
        image = Image("sha256:" + "0" * 64, (), (), 1, {})
        facts = ContainerFacts(own=own)
        return Container(secrets.token_hex(32), "c", sandbox, config, image, log_path, facts=facts)

    async def start(self, container: Container) -> None:
        await self.docker.call("POST", f"/containers/{docker_id(container)}/start")

    async def container(self, argv: list[str], more: Mapping[str, Json] | None = None) -> Container:
        made = await self.create(argv, more)
        await self.start(made)
        return made

    async def ended(self, container: Container) -> int:
        """Wait for its end; its code."""
        answer = await self.docker.call("POST", f"/containers/{docker_id(container)}/wait", timeout=PATIENCE)
        return int(answer["StatusCode"])

    async def run(
        self, container: Container, *argv: str, timeout: float | None = PATIENCE
    ) -> tuple[int, bytes, bytes]:
        done = await self.sessions.exec_sync(container, argv, timeout, LIMIT)
        return done.code, done.stdout, done.stderr


def docker_id(container: Container) -> str:
    return str(container.facts.own[DOCKER_ID])


@asynccontextmanager
async def opened(daemon: Daemon, root: Path) -> AsyncIterator[Room]:
    docker = Docker(DockerConfig(endpoint=daemon.endpoint))
    docker.open()
    made = Room(docker, str(root))
    try:
        yield made
    finally:
        for each in made.made:
            await docker.request("DELETE", f"/containers/{each}", {"force": True, "v": True})
        await docker.close()
