"""podwright keep: a directory's pods at a server that runs already, and what is left when it goes."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

PROGRAM = str(Path(sys.executable).with_name("podwright"))


def pod(image: str) -> str:
    spec = {"containers": [{"name": "main", "image": image}]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})


@asynccontextmanager
async def running(*arguments: str | Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *map(str, arguments), stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline(), (await process.communicate())[1].decode()
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                _, said = await process.communicate()
            assert b"Traceback" not in said, said.decode()


async def ps(run: Path, wanted: int, word: str = "running") -> list[str]:
    """The containers, once there are so many of which a row says `word`."""
    async with asyncio.timeout(60):
        while True:
            process = await asyncio.create_subprocess_exec(PROGRAM, "--run", str(run), "ps", stdout=PIPE)
            rows = (await process.communicate())[0].decode().splitlines()[1:]
            if len(rows) == wanted and all(word in one for one in rows):
                return [one.split()[0] for one in rows]


async def test_pods_are_kept_at_a_server_and_outlive_who_keeps_them(tmp_path: Path) -> None:
    manifests, run, root = tmp_path / "manifests", tmp_path / "run", tmp_path / "server"
    manifests.mkdir()
    (manifests / "web.yaml").write_text(pod("example.test/web:1"))
    keep = ("--root", tmp_path / "keeper", "--run", run, "keep", manifests)
    async with running("--root", root, "--run", run, "serve", "--engine", "fake"):
        async with running(*keep):
            before = await ps(run, 1)
        assert await ps(run, 1) == before
        async with running(*keep, "--endpoint", f"unix://{run}/podwright.sock"):
            draft = manifests / ".web"
            draft.write_text(pod("example.test/web:2"))
            draft.rename(manifests / "web.yaml")
            await ps(run, 1, "example.test/web:2")
            (manifests / "web.yaml").unlink()
            await ps(run, 0)


async def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--root", str(tmp_path), "--run", str(tmp_path), "keep", str(tmp_path), stderr=PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1 and b"no server answers" in said, said.decode()
