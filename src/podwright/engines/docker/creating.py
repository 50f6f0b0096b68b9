"""Making a container in Docker under a name that may be taken.

Core has seen to it that no record of ours has the name. Whoever has it is left over from a creation that was
cut short, or belongs to somebody else.
"""

from __future__ import annotations

import logging
import re
import secrets

from podwright.engines.base import Json
from podwright.engines.docker import labels
from podwright.engines.docker.api import Docker, refusal
from podwright.errors import AlreadyExists

log = logging.getLogger(__name__)

TRIES = 4
_HOLDER = re.compile(r'is already in use by container "?([0-9a-f]{64})"?')


async def create(docker: Docker, name: str, body: Json, owner: str) -> tuple[str, tuple[str, ...]]:
    """Docker's id of what was made, and its warnings. Raises AlreadyExists while a running container that is
    not ours has the name, and what Docker refuses."""
    wanted = name
    for _ in range(TRIES):
        status, answer = await docker.request("POST", "/containers/create", {"name": wanted}, body)
        if status < 400:
            return answer["Id"], tuple(answer.get("Warnings") or ())
        holder = _HOLDER.search(str(answer)) if status == 409 else None
        if holder is None:
            break
        if not await _make_way(docker, name, holder.group(1), owner):
            # Docker knows the name and not the container: it will go on doing so.
            wanted = f"{name}_{secrets.token_hex(4)}"
    raise refusal(status, answer, f"create {name}")


async def _make_way(docker: Docker, name: str, holder: str, owner: str) -> bool:
    """Remove the container that has `name`. False when it is not to be had by removing."""
    status, found = await docker.request("GET", f"/containers/{holder}/json")
    if status == 404:
        return False
    if status < 400:
        of = (found["Config"].get("Labels") or {}).get(labels.OWNER, "")
        if of and of != owner:
            log.warning("%s is the name of a container of the podwright at %s; it keeps it", name, of)
            return False
    # Not by force: what runs is somebody's.
    status, answer = await docker.request("DELETE", f"/containers/{holder}", {"v": True})
    if status == 404:
        return False
    if status == 409 and "already in progress" in str(answer):
        return True
    if status >= 400:
        raise AlreadyExists(
            f"Docker has a running container {name!r} ({holder[:12]}) that is not this podwright's: stop and"
            " remove it, or whatever runs it"
        )
    log.warning("container %s (%s) was left over and has been removed", name, holder[:12])
    return True
