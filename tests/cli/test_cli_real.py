"""The commands before the real house: as a server and without one."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")

Podwright = Callable[..., Any]


@pytest.fixture
def podwright(tmp_path: Path) -> Podwright:
    async def run(*arguments: str, **roots: str) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, *_options(tmp_path, **roots), *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root directory for an image that nobody runs here."""
    directory = tmp_path / "rootfs"
    (directory / "etc").mkdir(parents=True)
    (directory / "etc" / "motd").write_text("hello\n")
    return directory


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`podwright serve`, ready."""
    child = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *_options(tmp_path), "serve"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdout is not None
        line = await asyncio.wait_for(child.stdout.readline(), 30)
        assert f"serves {tmp_path}/run/podwright.sock (state in {tmp_path}/root)" in line.decode()
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _options(tmp_path: Path, root: str = "root", run: str = "run") -> list[str]:
    return ["--root", str(tmp_path / root), "--run", str(tmp_path / run)]


async def test_an_imported_image_is_listed_inspected_and_removed_without_a_server(
    podwright: Podwright, rootfs: Path
) -> None:
    done = await podwright(
        *("image", "import", str(rootfs), "localhost/test:1", "--cmd", '["sh", "-c", "echo hi"]'),
        *("--env", "A=b=c", "--user", "1000:1000", "--workdir", "/tmp"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    id = done.stdout.strip()
    assert (await podwright("images", "-q")).stdout.strip() == id
    shown = json.loads((await podwright("inspect", "localhost/test:1")).stdout)
    assert shown["image"]["uid"]["value"] == "1000"
    assert shown["info"]["info"]["imageSpec"]["config"] == {
        "Cmd": ["sh", "-c", "echo hi"],
        "Env": ["A=b=c"],
        "User": "1000:1000",
        "WorkingDir": "/tmp",
    }
    assert (await podwright("rmi", "localhost/test:1")).stdout.strip() == id
    assert (await podwright("images", "-q")).stdout == ""


async def test_an_image_imported_before_is_listed_by_the_server(
    podwright: Podwright, rootfs: Path, tmp_path: Path
) -> None:
    done = await podwright("image", "import", str(rootfs), "localhost/test:1")
    async with serving(tmp_path):
        assert (await podwright("images", "-q")).stdout == done.stdout
        assert "podwright.sock" in (await podwright("version")).stdout
        assert (await podwright("ps", "-a", "-q")).stdout == ""


async def test_a_second_server_on_the_same_state_is_refused(podwright: Podwright, tmp_path: Path) -> None:
    async with serving(tmp_path) as first:
        same = await podwright("serve")
        assert same.returncode == 1
        assert same.stderr.splitlines()[-1].startswith("podwright: another podwright serves at ")
        other = await podwright("serve", run="elsewhere")
        assert other.returncode == 1
        assert other.stderr.splitlines()[-1].startswith(f"podwright: {tmp_path}/root is in use by another")
        assert not (tmp_path / "elsewhere" / "podwright.sock").exists()
        assert (await podwright("ps")).returncode == 0
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 30) == 0
    assert not (tmp_path / "run" / "podwright.sock").exists()


async def test_a_server_waits_for_a_command_that_has_the_state_and_says_for_whom(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from podwright.state.lock import locked\n"
        "with locked(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    root, socket = tmp_path / "root", tmp_path / "run" / "podwright.sock"
    pipe = subprocess.PIPE
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, root, "podwright", "exec", "web", "a b", stdin=pipe, stdout=pipe
    )
    serve = (*PROGRAM, *_options(tmp_path), "serve")
    server = None
    try:
        assert holder.stdin is not None and holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), 30)
        server = await asyncio.create_subprocess_exec(*serve, stdout=pipe, stderr=pipe)
        assert server.stdout is not None and server.stderr is not None
        said = (await asyncio.wait_for(server.stderr.readline(), 30)).decode()
        who = f"pid {holder.pid}, `podwright exec web 'a b'`"
        assert said.endswith(f"WARNING podwright: waiting for who has {root}: {who}\n")
        assert not socket.exists()
        holder.stdin.close()
        assert b" serves " in await asyncio.wait_for(server.stdout.readline(), 30)
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 30) == 0
    finally:
        for child in (holder, server):
            if child is not None and child.returncode is None:
                child.kill()
                await child.wait()


async def test_doctor_tells_of_the_host_and_of_each_handler(podwright: Podwright) -> None:
    done = await podwright("doctor", "-o", "json")
    report = json.loads(done.stdout)
    subjects = {check["subject"]: check for check in report["checks"]}
    assert {"kernel", "privileges", "cgroups", "overlayfs", "conmon", "handler crun"} <= subjects.keys()
    assert all(check["state"] in ("ok", "warning", "missing") and check["note"] for check in report["checks"])
    assert report["orphans"] == []
    missing = [check for check in report["checks"] if check["state"] == "missing"]
    assert done.returncode == (1 if missing else 0)


async def test_doctor_beside_a_server_asks_it(podwright: Podwright, tmp_path: Path) -> None:
    async with serving(tmp_path):
        report = json.loads((await podwright("doctor", "-o", "json")).stdout)
    subjects = {check["subject"]: check["note"] for check in report["checks"]}
    assert "owns the state" in subjects["orphans"]
    assert "handler crun" in subjects


async def test_doctor_fix_removes_what_belongs_to_nobody(podwright: Podwright, tmp_path: Path) -> None:
    assert (await podwright("ps")).returncode == 0  # makes the directories
    left = tmp_path / "run" / "sandboxes" / ("f" * 64)
    left.mkdir()
    before = json.loads((await podwright("doctor", "-o", "json")).stdout)
    assert [(one["name"], one["fate"]) for one in before["orphans"]] == [(str(left), "left")]
    after = json.loads((await podwright("doctor", "--fix", "-o", "json")).stdout)
    assert [(one["name"], one["fate"]) for one in after["orphans"]] == [(str(left), "removed")]
    assert not left.exists()
