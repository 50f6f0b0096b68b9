"""A podwright of its own for tests of the real thing: roots under a temporary directory, and one image."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from podwright.linux import mounts

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE = "localhost/podwright/busybox:latest"


@dataclass(frozen=True)
class Finished:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """`podwright` with roots of its own."""

    root: Path
    run_directory: Path

    @property
    def prefix(self) -> list[str]:
        roots = ["--root", str(self.root), "--run", str(self.run_directory)]
        return [str(Path(sys.executable).with_name("podwright")), *roots]

    async def start(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.prefix,
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str | Path, seconds: float = 60) -> Finished:
        process = await self.start(*arguments)
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    def left(self) -> Sequence[str]:
        """What of pods is still there."""
        return [
            *(one.target for one in mounts.mounts_below(self.root)),
            *(one.target for one in mounts.mounts_below(self.run_directory)),
            *(str(one) for place in ("pods", "logs") for one in (self.root / place).glob("*")),
            *(str(one) for one in self.root.glob("cni/bridge.json")),
        ]


@pytest.fixture
async def podwright(tmp_path: Path) -> AsyncIterator[Command]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    command = Command(tmp_path / "root", tmp_path / "run")
    rootfs = tmp_path / "rootfs"
    maker = await asyncio.create_subprocess_exec(
        sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", rootfs
    )
    assert await maker.wait() == 0
    imported = await command("image", "import", rootfs, IMAGE, "--cmd", "sh")
    assert imported.status == 0, imported.err
    yield command
    assert command.left() == []
