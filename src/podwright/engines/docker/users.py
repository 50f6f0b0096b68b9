"""The user databases of images: which numbers a name has, and which groups a user is in.

Docker shows files of containers only. So one is made of the image, never started, and removed again: once for
an image as long as podwright runs.
"""

from __future__ import annotations

import asyncio
import io
import posixpath
import secrets
import tarfile

from podwright.engines.docker import labels
from podwright.engines.docker.api import Docker
from podwright.engines.docker.objects import Objects
from podwright.errors import NotFound
from podwright.linux.waiting import to_the_end
from podwright.spec.inputs import RootfsFiles
from podwright.steps import step

LINKS = 8
"""Symbolic links that are followed from /etc/passwd."""
LARGEST = 4 << 20
"""Bytes of a database that are looked at."""


class Users:
    def __init__(self, docker: Docker, objects: Objects) -> None:
        self._docker = docker
        self._objects = objects
        self._known: dict[str, asyncio.Future[RootfsFiles]] = {}

    async def of_image(self, image_id: str) -> RootfsFiles:
        """Raises NotFound when the image is gone."""
        known = self._known.get(image_id)
        if known is None:
            known = self._known[image_id] = asyncio.ensure_future(self._look(image_id))
        try:
            return await asyncio.shield(known)
        except Exception:
            self._known.pop(image_id, None)
            raise

    async def _look(self, image_id: str) -> RootfsFiles:
        with step("image users"):
            id = secrets.token_hex(32)
            body = {
                "Image": image_id,
                "Entrypoint": ["/never-started"],
                "Labels": {
                    labels.TYPE: labels.LOOKUP,
                    labels.ID: id,
                    labels.OWNER: self._objects.owner,
                },
                "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
            }
            self._objects.expected.add(id)
            try:
                made = await self._docker.call("POST", "/containers/create", json=body)
                try:
                    return RootfsFiles(
                        passwd=await self._file(made["Id"], "/etc/passwd"),
                        group=await self._file(made["Id"], "/etc/group"),
                    )
                finally:
                    await to_the_end(self._objects.remove_docker(made["Id"]))
            finally:
                self._objects.expected.discard(id)

    async def _file(self, docker_id: str, path: str) -> str | None:
        for _ in range(LINKS):
            try:
                async with self._docker.response(
                    "GET", f"/containers/{docker_id}/archive", {"path": path}
                ) as answer:
                    raw = await answer.content.read(LARGEST)
            except NotFound:
                return None
            found = _first(raw)
            if found is None or isinstance(found, str):
                return found
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), found.target))
        return None


class _Link:
    def __init__(self, target: str) -> None:
        self.target = target


def _first(raw: bytes) -> str | _Link | None:
    """The text of the one file in a tar, where the link there leads, None for anything else."""
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r|") as tar:
            member = tar.next()
            if member is None:
                return None
            if member.issym():
                return _Link(member.linkname)
            content = tar.extractfile(member) if member.isfile() else None
            return content.read().decode(errors="replace") if content is not None else None
    except tarfile.TarError:
        return None
