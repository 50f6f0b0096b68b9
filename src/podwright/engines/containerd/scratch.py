"""Private directories for files on their way into containerd and out of it: what a crash leaves in them goes
at the next start."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from podwright.images import survivors
from podwright.images.layers import ENVIRONMENT, to_its_end
from podwright.linux import spawn


class Scratch:
    def __init__(self, top: Path) -> None:
        self._top = top
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Clear away what a crash left, with the programs that still write there."""
        self._top.mkdir(parents=True, exist_ok=True, mode=0o700)
        left = list(self._top.iterdir())
        if left:
            await asyncio.to_thread(survivors.end_in, self._top.absolute())
            await _delete(*left)

    @asynccontextmanager
    async def workplace(self) -> AsyncIterator[Path]:
        """A new private directory, gone at the end."""
        path = self._top / f"{os.getpid()}-{next(self._numbers)}"
        path.mkdir(mode=0o700, parents=True)
        try:
            yield path
        finally:
            await to_its_end(_delete(path))


async def _delete(*paths: Path) -> None:
    await spawn.check(["rm", "-rf", "--one-file-system", "--", *map(str, paths)], env=ENVIRONMENT)
