"""What the docker engine would ask of Docker, without asking it: the create request, why each part is so, and
what is otherwise than with the oci engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import msgspec

from podwright.config import Config
from podwright.engines.base import Container, Explanation, Image, Sandbox
from podwright.engines.docker import reasons, refused, sandbox_config, security, spec_words
from podwright.engines.docker.api import Docker, part
from podwright.engines.docker.container_config import Found, create_request
from podwright.engines.docker.host import Host
from podwright.engines.docker.objects import DOCKER_ID
from podwright.engines.docker.pause import REPOSITORY
from podwright.engines.node import host as files
from podwright.engines.node.foreseen import UNKNOWN_ID, asked_names
from podwright.errors import NotFound, PodwrightError
from podwright.linux import caps
from podwright.spec.inputs import MountSource, RootfsFiles
from podwright.spec.linux import mounts as mount_rules

SANDBOX, TARGET = "SANDBOX", "TARGET"
"""Stand where Docker's id of the sandbox, or of the target container, will be."""

CREATE = "Docker create request"


class Plan:
    """Implements engines.base.Planner."""

    name = "docker"

    def __init__(self, config: Config, host: Host, docker: Docker, *, opened: bool) -> None:
        """`opened`: the connection is somebody else's, who keeps it open."""
        self._config = config
        self._host = host
        self._docker = docker
        self._opened = opened
        self._unreachable = ""
        self._told = False

    def check_handler(self, name: str) -> None:
        if self._host.version:
            self._host.runtime(name)

    async def recursive_read_only(self, handler: str) -> bool:
        async with self._connected():
            return self._host.features.recursive_read_only

    def runs_here(self, handler: str) -> bool:
        return True

    async def find_image(self, reference: str) -> Image | None:
        async with self._connected() as unreachable:
            if unreachable:
                return None
            try:
                found = await self._docker.call("GET", f"/images/{part(reference)}/json")
            except NotFound:
                return None
        return Image(
            found["Id"],
            tuple(found.get("RepoTags") or ()),
            tuple(found.get("RepoDigests") or ()),
            max(1, int(found.get("Size") or 0)),
            found.get("Config") or {},
        )

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        async with self._connected() as unreachable:
            features = self._host.features
            warnings = self._once(unreachable)
            refused.of_sandbox(container.sandbox.config)
            config = container.config
            sources = []
            for place, lookup in enumerate(mount_rules.lookups(config, features.policy)):
                source, missing = await asyncio.to_thread(_source, lookup, place, to_come)
                sources.append(source)
                warnings += missing
            for place, device in enumerate(config.devices):
                refused.device(device, f"config.devices[{place}]")
            path = security.profile_path(
                config.linux.security_context,
                features,
                container.sandbox.config.annotations,
                config.metadata.name,
            )
            users, unknown = _users(container)
            found = Found(
                sandbox=str(container.sandbox.facts.own.get(DOCKER_ID) or SANDBOX),
                target=str(container.target.facts.own.get(DOCKER_ID) if container.target else TARGET),
                users=users,
                sources=sources,
                profile=files.seccomp_profile(path, self._config.seccomp_root) if path else None,
            )
            document = create_request(container, features, self._config.root, found)
            warnings += unknown
            origins = reasons.of_container(document, config)
            return Explanation(
                document,
                origins,
                (*warnings, *reasons.differences(config, features)),
                CREATE,
                spec_words.of_container(document, origins, container, features, caps.bounding()),
            )

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        async with self._connected() as unreachable:
            image = self._config.docker.sandbox_image or f"{REPOSITORY}:MADE_OF_CATATONIT"
            features = replace(self._host.features, sandbox_image=image)
            config = sandbox.config
            path = security.profile_path(config.linux.security_context, features, config.annotations)
            profile = files.seccomp_profile(path, self._config.seccomp_root) if path else None
            document = sandbox_config.create_request(sandbox, features, self._config.root, profile=profile)
            return Explanation(
                document,
                reasons.of_sandbox(document, config),
                tuple(self._once(unreachable)),
                CREATE,
            )

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[str]:
        """What Docker can do is known inside; else why not."""
        if self._opened or self._unreachable:
            yield self._unreachable  # a second try would take its time, too
            return
        try:
            self._docker.open()
            try:
                await self._host.look()
            except PodwrightError as error:
                self._unreachable = f"what Docker Engine 20.10 can do is taken for granted: {error}"
            yield self._unreachable
        finally:
            await self._docker.close()

    def _once(self, unreachable: str) -> list[str]:
        """A warning, of the first thing that is explained."""
        told, self._told = self._told, True
        return [unreachable] if unreachable and not told else []


@contextmanager
def planned(config: Config) -> Iterator[Plan]:
    """A plan of the docker engine as `config` describes it; Docker is asked what it can do if it answers.
    FailedPrecondition or InvalidArgument when a configured value cannot be used."""
    short = msgspec.structs.replace(config.docker, request_timeout=min(5.0, config.docker.request_timeout))
    docker = Docker(short)
    yield Plan(config, Host(config, docker), docker, opened=False)


def _source(lookup: mount_rules.Lookup, place: int, to_come: Sequence[str]) -> tuple[MountSource, list[str]]:
    """What would be at the source of a mount, and what has to be said of it."""
    source, there = files.foreseen_source(lookup, place, to_come)
    if there:
        return source, []
    words = f"config.mounts[{place}].host_path: {source.path} is not there; a directory would be made"
    return source, [words]


def _users(container: Container) -> tuple[RootfsFiles, list[str]]:
    """Databases with just the names that are asked for: the image's own cannot be read without making
    something."""
    user, group = asked_names(container)
    words = [
        "groups that the image's /etc/group gives are not known before the container is made"
        + (f"; {UNKNOWN_ID} stands for {' and '.join(filter(None, (user, group)))}" if user or group else "")
    ]
    return (
        RootfsFiles(
            passwd=f"{user}:x:{UNKNOWN_ID}:{UNKNOWN_ID}::/:\n" if user else None,
            group=f"{group}:x:{UNKNOWN_ID}:\n" if group else None,
        ),
        words,
    )
