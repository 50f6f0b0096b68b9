"""The image of the containers that hold pods together: as configured, or made of the host's catatonit."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import shutil
import tarfile
from pathlib import Path

from podwright.engines.base import ImageService
from podwright.engines.docker.api import Docker, part
from podwright.errors import FailedPrecondition, NotFound
from podwright.steps import step

log = logging.getLogger(__name__)

PROGRAM = "catatonit"
REPOSITORY = "localhost/podwright/pause"
USER = "65535:65535"
"""Nobody in particular, as pause images have it. An image that is made of a file alone cannot say."""


class SandboxImage:
    def __init__(self, docker: Docker, images: ImageService, configured: str) -> None:
        self._docker = docker
        self._images = images
        self._configured = configured
        self._lock = asyncio.Lock()

    def name(self) -> str:
        """FailedPrecondition when none is configured and catatonit is not there."""
        return self._configured or f"{REPOSITORY}:{_digest(_program())[:16]}"

    async def ensure(self) -> str:
        """Its name; it is there when this returns. Raises what a pull raises."""
        name = self.name()
        if not await self._there(name):
            async with self._lock:
                if not await self._there(name):
                    await self._make(name)
        return name

    async def _there(self, name: str) -> bool:
        try:
            await self._docker.call("GET", f"/images/{part(name)}/json")
        except NotFound:
            return False
        return True

    async def _make(self, name: str) -> None:
        if self._configured:
            with step("pull sandbox image", name):
                # No credentials of a call are meant for it: the image service looks into the keyring.
                await self._images.pull(name, None)
            return
        with step("make sandbox image"):
            repository, _, tag = name.rpartition(":")
            parameters = {
                "fromSrc": "-",
                "repo": repository,
                "tag": tag,
                "changes": f'ENTRYPOINT ["/{PROGRAM}", "-P"]',
            }
            archive = await asyncio.to_thread(_archive, _program())
            async with self._docker.stream("POST", "/images/create", parameters, data=archive) as answers:
                async for each in answers:
                    if error := each.get("error"):
                        raise FailedPrecondition(f"Docker could not make {name}: {error}")
        log.info("%s is made of the host's %s", name, PROGRAM)


def _program() -> Path:
    found = shutil.which(PROGRAM)
    if found is None:
        raise FailedPrecondition(
            f"{PROGRAM} is not installed: install it, or set docker.sandbox_image to an image that only waits"
        )
    return Path(found)


def _digest(program: Path) -> str:
    return hashlib.sha256(program.read_bytes()).hexdigest()


def _archive(program: Path) -> bytes:
    """A root with nothing but the program, the same bytes for the same program."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo(PROGRAM)
        content = program.read_bytes()
        entry.size, entry.mode = len(content), 0o755
        tar.addfile(entry, io.BytesIO(content))
    return raw.getvalue()
