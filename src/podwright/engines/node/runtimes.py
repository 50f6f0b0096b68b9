"""What the rules of this room ask of the OCI runtime, or the shim, that a handler stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from podwright.engines.base import Image


class Runtime(Protocol):
    """One handler's runtime."""

    @property
    def handler(self) -> str: ...

    @property
    def program(self) -> str:
        """Its absolute path."""

    @property
    def kind(self) -> str:
        """The program's own name, such as "crun": which of the runtimes' peculiarities apply."""

    @property
    def sandboxed(self) -> bool:
        """Its processes are not processes of this host's kernel."""


class Runtimes(Protocol):
    """What handlers can do; "" is the default one."""

    async def recursive_read_only(self, name: str, /) -> bool:
        """Whether the handler can make a mount and all below it read-only."""

    async def maps_ids(self, name: str, /) -> bool:
        """Whether the handler's runtime itself maps the ids of single mounts."""

    async def no_user_namespaces(self, name: str, /) -> str:
        """Why the handler cannot run pods with user namespaces of their own; "" if it can."""


class VolumeImages(Protocol):
    """The images that may be mounted as volumes, with their layers as directories of this host."""

    async def find(self, reference: str, /) -> Image | None: ...

    async def acquire(self, image_id: str, user: str, /) -> Sequence[Path]:
        """Keep the image's layers for `user` until that is released; their directories, topmost first.
        FailedPrecondition when they are none."""
