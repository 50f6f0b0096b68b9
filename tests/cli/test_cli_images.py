"""podwright image …: before the real house, as a server and without one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.images.layouts import TarMaker, write_layout

pytestmark = pytest.mark.root

PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")
LAYER = TarMaker().add("text", b"here " * 10_000).done()

Podwright = Callable[..., Any]


@pytest.fixture
def podwright(tmp_path: Path) -> Podwright:
    """Runs a command in `tmp_path`."""

    async def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [*PROGRAM, *_options(tmp_path), *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *_options(tmp_path), "serve"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdout is not None
        assert "serves" in (await asyncio.wait_for(child.stdout.readline(), 60)).decode()
        yield
    finally:
        child.terminate()
        await child.wait()


def _options(tmp_path: Path) -> list[str]:
    return ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]


async def _tour(podwright: Podwright, tmp_path: Path) -> None:
    """All of it once: what is imported is explained, exported, imported again and pruned."""
    image_id = write_layout(tmp_path / "layout", [LAYER], config={"Cmd": ["sh"]})
    done = await podwright("image", "import", "layout", "localhost/team/app:1")
    assert (done.returncode, done.stdout) == (0, f"{image_id}\n"), done.stderr
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    done = await podwright("image", "import", "rootfs", "plain:2", "--env", "A=1", "--cmd", "sh -c 'echo hi'")
    plain_id = done.stdout.strip()
    assert done.returncode == 0, done.stderr

    done = await podwright("image", "why", "localhost/team/app:1")
    assert done.stdout.startswith(f"{image_id}: "), done.stderr
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()[2:]]
    assert rows[0] == ["KEPT", "BY", "NAME                   HOW"], done.stdout
    assert ["name", "localhost/team/app:1"] in [row[:2] for row in rows]
    told = json.loads((await podwright("image", "why", plain_id[:19], "-o", "json")).stdout)
    assert (told["digest"], told["keepers"][0]["name"]) == (plain_id, "docker.io/library/plain:2")
    done = await podwright("image", "why", "0123456789abcdef")
    assert done.returncode == 1 and "neither a blob, a layer nor an image" in done.stderr

    for target in ("oci:out", "oci-archive:out.tar", "docker-archive:out-docker.tar"):
        done = await podwright("image", "export", "localhost/team/app:1", target)
        assert (done.returncode, done.stdout) == (0, f"{image_id}\n"), done.stderr
    done = await podwright("image", "export", image_id, "bare", "--format", "docker-archive")
    assert done.returncode == 0 and (tmp_path / "bare").is_file(), done.stderr

    would = await podwright("image", "prune", "--dry-run", "-o", "json")
    wanted = json.loads(would.stdout)
    assert {image["id"] for image in wanted["images"]} == {image_id, plain_id}
    assert len((await podwright("images", "-q")).stdout.split()) == 2
    done = await podwright("image", "prune")
    assert done.returncode == 0 and "localhost/team/app:1" in done.stdout and "freed" in done.stdout
    assert (await podwright("images", "-q")).stdout == ""
    done = await podwright("image", "prune", "-o", "json")
    assert json.loads(done.stdout) == {"images": [], "bytes": "0", "inodes": "0", "blobs": []}

    for source in ("out", "out.tar", "out-docker.tar"):
        done = await podwright("image", "import", source)
        assert (done.returncode, done.stdout) == (0, f"{image_id}\n"), done.stderr
        shown = json.loads((await podwright("images", "-o", "json")).stdout)["images"]
        assert [image["repoTags"] for image in shown] == [["localhost/team/app:1"]], source
        assert (await podwright("rmi", image_id)).returncode == 0


async def test_images_go_in_and_out_without_a_server(podwright: Podwright, tmp_path: Path) -> None:
    await _tour(podwright, tmp_path)


async def test_images_go_in_and_out_beside_a_server(podwright: Podwright, tmp_path: Path) -> None:
    async with serving(tmp_path):
        await _tour(podwright, tmp_path)


async def test_what_is_wrong_is_said(podwright: Podwright, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text("[1]")
    (tmp_path / "text").write_text("no archive")
    for arguments, words in (
        (("import", "absent", "x:1"), f"{tmp_path}/absent"),
        (("import", "text", "x:1"), "neither a directory nor a tar archive"),
        (("import", "rootfs"), "a root file system has no name of its own"),
        (("import", "rootfs", "x@sha256:" + "1" * 64), "reference"),
        (("import", "rootfs", "x:1", "--env", "A"), "--env"),
        (("import", "rootfs", "x:1", "--config", "config.json"), "--config"),
        (("import", "rootfs", "x:1", "--cmd", "[sh"), "--cmd"),
        (("export", "x:1", "out.tar"), "x:1"),
        (("export", "x:1", "oci:out", "--format", "docker-archive"), "--format"),
    ):
        done = await podwright("image", *arguments)
        assert done.returncode == 1 and words in done.stderr, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, arguments


async def test_a_root_gets_the_configuration_of_a_file(podwright: Podwright, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    section = {"Env": ["A=1"], "Cmd": ["file"], "Labels": {"l": "1"}, "ExposedPorts": {"80/tcp": {}}}
    (tmp_path / "config.json").write_text(json.dumps(section))
    done = await podwright("image", "import", "rootfs", "x:1", "--config", "config.json", "--cmd", "option")
    assert done.returncode == 0, done.stderr
    shown = json.loads((await podwright("inspect", "x:1")).stdout)
    assert shown["info"]["info"]["imageSpec"]["config"] == section | {"Cmd": ["option"]}
