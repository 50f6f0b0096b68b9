"""Sandboxes and containers of the CRI as objects of a Docker Engine: found by the notes in their facts, or by
label when there are none yet, looked at, and removed."""

from __future__ import annotations

import logging
from datetime import datetime

from podwright.engines.base import Container, Json, Sandbox
from podwright.engines.docker import labels
from podwright.engines.docker.api import Docker, filters
from podwright.errors import NotFound

log = logging.getLogger(__name__)

DOCKER_ID = "docker"
"""The note in `facts.own`: Docker's id."""

NEVER = 0
"""Docker's "0001-01-01T00:00:00Z"."""


class Objects:
    def __init__(self, docker: Docker, owner: str) -> None:
        self._docker = docker
        self.owner = owner
        """The state root, as the label OWNER says it."""
        self.expected: set[str] = set()
        """What this podwright has asked Docker to make, by the label ID. Docker goes on with what a podwright
        that was killed had asked for; nobody waits for that."""

    async def id(self, subject: Sandbox | Container) -> str:
        """Docker's id of it. NotFound when Docker has nothing for it."""
        if noted := str(subject.facts.own.get(DOCKER_ID, "")):
            return noted
        found = await self.by_label(subject.id)
        if not found:
            raise NotFound(f"Docker has no container for {_what(subject)} {subject.id}")
        return found[0]

    async def by_label(self, id: str) -> list[str]:
        """Docker's ids of all that was made for the CRI's `id`; one but after a crash, and mostly then."""
        listed = await self._docker.call(
            "GET", "/containers/json", {"all": True, "filters": filters(label=[f"{labels.ID}={id}"])}
        )
        return [each["Id"] for each in listed]

    async def inspect(self, subject: Sandbox | Container) -> Json:
        """Docker's account of it, None when Docker has nothing for it."""
        try:
            docker_id = await self.id(subject)
        except NotFound:
            return None
        return await self.inspect_docker(docker_id)

    async def inspect_docker(self, docker_id: str) -> Json:
        """The same by Docker's own id."""
        try:
            return await self._docker.call("GET", f"/containers/{docker_id}/json")
        except NotFound:
            return None

    async def remove(self, subject: Sandbox | Container) -> None:
        """Kill and remove all that Docker has for it; fine when there is nothing."""
        found = set(await self.by_label(subject.id))
        if noted := str(subject.facts.own.get(DOCKER_ID, "")):
            found.add(noted)
        for each in found:
            await self.remove_docker(each)
        self.expected.discard(subject.id)

    async def remove_docker(self, docker_id: str) -> None:
        """The same by Docker's own id."""
        try:
            await self._docker.call("DELETE", f"/containers/{docker_id}", {"force": True, "v": True})
        except NotFound:
            pass

    async def made(self, docker_id: str, id: str) -> None:
        """Docker has just made a container of this state root, labelled `id`. It is removed if it comes too
        late: recovery has looked for it, and had it undone, already."""
        if id in self.expected:
            return
        status, _ = await self._docker.request(
            "DELETE", f"/containers/{docker_id}", {"force": True, "v": True}
        )
        if status < 400:
            log.warning("container %s was asked for by an earlier podwright; it is removed", docker_id[:12])

    async def all(self) -> list[Json]:
        """Docker's list entries of everything that belongs to this state root."""
        found: list[Json] = await self._docker.call(
            "GET",
            "/containers/json",
            {"all": True, "filters": filters(label=[f"{labels.OWNER}={self.owner}"])},
        )
        return found


def nanoseconds(text: str) -> int:
    """A time of Docker's (RFC 3339 with up to nine decimals) since the epoch; NEVER for its year 1."""
    if not text or text.startswith("0001-"):
        return NEVER
    whole, _, rest = text.partition(".")
    if rest:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        fraction, zone = rest[:digits], rest[digits:]
    else:
        fraction, zone = "", "Z" if whole.endswith("Z") else whole[19:]
        whole = whole[:19]
    moment = datetime.fromisoformat(whole + ("+00:00" if zone in ("Z", "") else zone))
    return int(moment.timestamp()) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0)


def _what(subject: Sandbox | Container) -> str:
    return "sandbox" if isinstance(subject, Sandbox) else "container"
