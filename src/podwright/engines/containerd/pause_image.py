"""The image of the containers that hold pods together: as configured, or made of the host's catatonit."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from podwright.engines.base import Image
from podwright.engines.containerd.scratch import Scratch
from podwright.errors import FailedPrecondition
from podwright.images.importing import Importing, name_for
from podwright.steps import step

log = logging.getLogger(__name__)

PROGRAM = "catatonit"
REPOSITORY = "localhost/podwright/pause"
CONFIG = {"Entrypoint": [f"/{PROGRAM}", "-P"], "User": "65535:65535", "WorkingDir": "/"}
"""Nobody in particular, as pause images have it."""


class PauseImage:
    def __init__(
        self,
        configured: str,
        find: Callable[[str], Awaitable[Image | None]],
        pull: Callable[[str], Awaitable[Image]],
        importing: Importing,
        scratch: Scratch,
    ) -> None:
        self._configured = configured
        self._find = find
        self._pull = pull
        self._importing = importing
        self._scratch = scratch
        self._lock = asyncio.Lock()

    async def ensure(self) -> Image:
        """It is there when this returns. FailedPrecondition when none is configured and catatonit is not
        installed; else what a pull raises."""
        name = self._configured or f"{REPOSITORY}:{await asyncio.to_thread(_digest)}"
        async with self._lock:
            return await self._find(name) or await self._make(name)

    async def _make(self, name: str) -> Image:
        if self._configured:
            with step("pull sandbox image", name):
                # No credentials of a call are meant for it: those of images.authfile are.
                return await self._pull(name)
        with step("make sandbox image"):
            async with self._scratch.workplace() as work:
                root = work / "root"
                await asyncio.to_thread(_fill, root)
                image = await self._importing.directory(root, name_for(name), CONFIG)
        log.info("%s is made of the host's %s", name, PROGRAM)
        return image


def _program() -> Path:
    found = shutil.which(PROGRAM)
    if found is None:
        raise FailedPrecondition(
            f"{PROGRAM} is not installed: install it, or set containerd.sandbox_image to an image that only"
            " waits"
        )
    return Path(found)


def _digest() -> str:
    return hashlib.sha256(_program().read_bytes()).hexdigest()[:16]


def _fill(root: Path) -> None:
    root.mkdir(mode=0o755)
    shutil.copyfile(_program(), root / PROGRAM)
    (root / PROGRAM).chmod(0o755)
