"""Sessions whose podwright was killed: Docker runs their programs on, without their clients. They are hung up
when the next podwright finds them."""

from __future__ import annotations

import asyncio
import base64
import logging

from podwright.engines.base import Json
from podwright.engines.docker.api import Docker
from podwright.engines.docker.connected import DETACH_KEYS, KEYS
from podwright.engines.node.host_process import HostProcess
from podwright.errors import NotFound, PodwrightError

log = logging.getLogger(__name__)

HANGUP_GRACE = 5.0
"""Seconds that a program has to end itself after SIGHUP."""
KILL_GRACE = 5.0


def marked(mark: str) -> str:
    """The detach keys of the sessions of one podwright. Docker has no labels for them, and tells these: who
    runs something by hand has others."""
    return ",".join((DETACH_KEYS, *mark))


class Strays:
    def __init__(self, docker: Docker, mark: str) -> None:
        """`mark`: of the sessions of this podwright, as in `marked`; those of no other podwright have it."""
        self._docker = docker
        self._mark = mark.encode()
        self._ending: set[asyncio.Task[None]] = set()

    def hang_up(self, inspected: Json) -> None:
        """End the programs that an earlier podwright has left in a container, of which Docker says
        `inspected`. Returns at once."""
        for exec_id in inspected.get("ExecIDs") or ():
            task = asyncio.ensure_future(self._end(inspected["Id"], exec_id))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        for task in self._ending:
            task.cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _end(self, docker_id: str, exec_id: str) -> None:
        try:
            found = await self._docker.call("GET", f"/exec/{exec_id}/json")
        except NotFound:
            return
        except PodwrightError as error:
            log.warning("an exec in %s may go on: %s", docker_id[:12], error)
            return
        keys = base64.b64decode(found.get("DetachKeys") or "")
        if not keys.startswith(KEYS) or keys == KEYS + self._mark or not found["Running"]:
            return
        process = HostProcess.of(int(found["Pid"] or 0), docker_id)
        if process is None:
            return
        log.info("container %s: a session of an earlier podwright is ended", docker_id[:12])
        try:
            process.hang_up()
            if not await process.ends_within(HANGUP_GRACE):
                process.kill()
                await process.ends_within(KILL_GRACE)
        finally:
            process.close()
