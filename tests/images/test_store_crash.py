"""kill -9 in the middle of all that changes a store: the next start finds it whole, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.images.store import ImageStore
from podwright.state.database import Database
from tests.images import crashing
from tests.images.layouts import TarMaker, write_layout
from tests.images.stored import Tree, examine

pytestmark = pytest.mark.root

DEEP = os.environ.get("PODWRIGHT_PROOF") == "deep"
AT_POINTS, AT_RANDOM = (1000, 300) if DEEP else (24, 16)
"""Rounds."""


@dataclass
class Victim:
    root: Path
    expected: dict[str, Tree]
    ask: Callable[[str], Awaitable[dict[str, int]]]


@pytest.fixture
async def victim(tmp_path: Path) -> AsyncIterator[Victim]:
    """The program that dies, and what its images hold."""
    base = {"etc/base": b"base" * 50_000, "gone": b"hidden by a layer above"}
    expected: dict[str, Tree] = {}

    def layout(name: str, text: str) -> str:
        maker = TarMaker()
        for path, content in base.items():
            maker.add(path, content)
        above = TarMaker().add("text", text.encode() * 20_000).add(".wh.gone")
        layers = [maker.done(), above.done(), TarMaker().add(f"only-{name}", name.encode()).done()]
        image_id = write_layout(tmp_path / name, layers)
        expected[image_id] = {
            "etc/base": base["etc/base"],
            "text": text.encode() * 20_000,
            f"only-{name}": name.encode(),
        }
        return f"oci:{tmp_path / name}:v1"

    sources = [layout("first", "1"), layout("second", "2"), layout("third", "2")]
    tar = tmp_path / "root.tar"
    tar.write_bytes(TarMaker().add("bin/x", b"x" * 100_000).done())
    expected[await _imported(tar, tmp_path / "other")] = {"bin/x": b"x" * 100_000}
    store = tmp_path / "store"
    store.mkdir()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.images.crashing", str(store), *sources, str(tar)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(crashing.__file__).parents[2],
    )

    async def ask(how: str) -> dict[str, int]:
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write(f"{how}\n".encode())
        return dict(json.loads(await asyncio.wait_for(program.stdout.readline(), 120)))

    yield Victim(store, expected, ask)
    program.kill()
    await program.wait()


async def _imported(tar: Path, elsewhere: Path) -> str:
    """The id that the image of `tar` gets."""
    database = Database.open(elsewhere / "podwright.db")
    store = ImageStore(elsewhere / "images", database, Config())
    await store.open()
    (image,) = await store.import_image(str(tar), "localhost/root:1", {"Cmd": ["x"]})
    await store.close()
    database.close()
    return image.id


async def test_a_kill_at_any_point_leaves_a_whole_store(victim: Victim, tmp_path: Path) -> None:
    """The points are spread over the whole of the work; each round begins with what the one before left."""
    whole = await victim.ask("never")
    assert (whole["code"], whole["killed"]) == (0, False)
    assert await examine(victim.root, victim.expected, tmp_path / "mount") == 3
    points = sorted(random.Random(7).sample(range(1, whole["points"]), min(AT_POINTS, whole["points"] - 1)))
    killed, seen = 0, set[int]()
    for point in points:
        answer = await victim.ask(f"at {point}")
        # A round that finds more than the one before did has fewer points.
        assert answer["killed"] or answer["code"] == 0, answer
        killed += answer["killed"]
        seen.add(await examine(victim.root, victim.expected, tmp_path / "mount"))
    assert killed > len(points) // 2
    assert len(seen) > 1, "every kill left the same number of images: they were all at the same place"


async def test_a_kill_at_any_moment_leaves_a_whole_store(victim: Victim, tmp_path: Path) -> None:
    loop, chance = asyncio.get_running_loop(), random.Random(11)
    began = loop.time()
    assert (await victim.ask("never"))["code"] == 0
    took, killed = loop.time() - began, 0
    for _ in range(AT_RANDOM):
        answer = await victim.ask(f"after {chance.uniform(0.005, took):.4f}")
        assert answer["killed"] or answer["code"] == 0, answer
        killed += answer["killed"]
        await examine(victim.root, victim.expected, tmp_path / "mount")
    assert killed > AT_RANDOM // 3
    assert (await victim.ask("never"))["code"] == 0
    assert await examine(victim.root, victim.expected, tmp_path / "mount") == 3
