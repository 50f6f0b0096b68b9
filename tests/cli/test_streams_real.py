"""exec, attach, port-forward and cp with real containers: without a server, at ours, and in tmux."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import podwright
from podwright.linux import mounts
from podwright.wire import cri_pb2 as cri
from tests.cli.host_node import LIMIT, Terminal
from tests.cli.test_cp_cli import Facts, facts
from tests.cli.test_exec_cli import Done
from tests.cli.test_port_forward_cli import ask

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE, BARE = "localhost/podwright/busybox:latest", "localhost/podwright/bare:latest"
IDLE = ["sh", "-c", "trap 'exit 3' TERM; sleep 100000 & wait"]


@dataclass
class House:
    """One pod, "pod", with "main" (it waits), "shell" (a shell on a terminal) and "bare" (without tar)."""

    root: Path
    run: Path

    def command(self, *arguments: str) -> list[str]:
        program = (sys.executable, "-c", "from podwright.cli.main import main; main()")
        return [*program, "--root", str(self.root), "--run", str(self.run), *arguments]

    async def podwright(self, *arguments: str, input: bytes = b"") -> Done:
        child = await asyncio.create_subprocess_exec(
            *self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = await asyncio.wait_for(child.communicate(input), LIMIT)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        assert child.returncode is not None
        return Done(child.returncode, out, err)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = House(tmp_path / "root", tmp_path / "run")
    maker = await asyncio.create_subprocess_exec(
        sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", tmp_path / "rootfs"
    )
    assert await maker.wait() == 0
    async with podwright.open(made.root, made.run) as runtime:
        await runtime.import_root(tmp_path / "rootfs", IMAGE)
        (tmp_path / "rootfs" / "bin" / "tar").unlink()
        await runtime.import_root(tmp_path / "rootfs", BARE)
        sandbox = await runtime.run_sandbox("pod")
        await sandbox.run("main", IMAGE, IDLE)
        await sandbox.run("bare", BARE, IDLE)
        shell = cri.ContainerConfig(command=["sh"], tty=True, stdin=True)
        await sandbox.run("shell", IMAGE, config=shell)
    try:
        yield made
    finally:
        done = await made.podwright("rm", "-f", "pod")
        assert (done.status, done.stderr) == (0, b"")
        assert mounts.mounts_below(tmp_path) == []


@asynccontextmanager
async def served(house: House) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        *house.command("serve"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdout is not None
        assert b"serves" in await asyncio.wait_for(child.stdout.readline(), LIMIT)
        yield
    finally:
        child.terminate()
        await child.wait()


@pytest.fixture(params=["embedded", "served"])
async def either(house: House, request: pytest.FixtureRequest) -> AsyncIterator[House]:
    if request.param == "embedded":
        yield house
    else:
        async with served(house):
            yield house


async def test_streams_and_statuses(either: House) -> None:
    done = await either.podwright("exec", "main", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done == Done(7, b"out\n", b"err\n")
    data = os.urandom(5_000_000)
    assert await either.podwright("exec", "-i", "main", "cat", input=data) == Done(0, data, b"")
    done = await either.podwright("exec", "main", "no-such-program")
    assert done.status == 127 and b"no-such-program" in done.stderr
    assert (await either.podwright("exec", "main", "/etc")).status == 126
    assert (await either.podwright("exec", "main", "sh", "-c", "kill -9 $$")).status == 137


async def test_files_go_in_and_out_with_tar_and_without(either: House, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub dir").mkdir(parents=True)
    (source / "big").write_bytes(os.urandom(3_000_000))
    (source / "sub dir" / "-x").write_text("odd")
    (source / "link").symlink_to("/etc/passwd")
    (source / "big").chmod(0o741)
    for name in ("main", "bare"):
        assert await either.podwright("cp", str(source), f"{name}:/var") == Done(0, b"", b"")
        seen = await either.podwright(
            "exec", name, "sh", "-c", "cd /var/source; stat -c '%a %u %n' big; md5sum big"
        )
        digest = hashlib.md5((source / "big").read_bytes()).hexdigest()
        assert seen.stdout.decode() == f"741 0 big\n{digest}  big\n"
        assert await either.podwright("cp", f"{name}:/var/source", str(tmp_path / name)) == Done(0, b"", b"")
        assert _timeless(facts(tmp_path / name)) == _timeless(facts(source))


def _timeless(tree: Facts) -> Facts:
    """Without the times of directories, which busybox's tar sets before it writes into them."""
    return {
        name: (mode, content, 0 if stat.S_ISDIR(mode) else when)
        for name, (mode, content, when) in tree.items()
    }


async def test_links_of_a_container_without_tar_stay_inside_it(house: House, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    script = (
        f"mkdir -p /d {tmp_path}/outside; ln -s {outside} /d/out; ln -s / /d/top; ln -s /proc/1/root /d/magic"
    )
    assert (await house.podwright("exec", "bare", "sh", "-c", script)).status == 0
    (tmp_path / "file").write_text("x")
    assert await house.podwright("cp", str(tmp_path / "file"), "bare:/d/out/") == Done(0, b"", b"")
    assert list(outside.iterdir()) == []  # it went where the link leads inside
    assert await house.podwright("cp", str(tmp_path / "file"), "bare:/d/top/tmp/") == Done(0, b"", b"")
    seen = await house.podwright("exec", "bare", "ls", f"{outside}/file", "/tmp/file")
    assert seen.status == 0
    done = await house.podwright("cp", "bare:/d/magic/etc", str(tmp_path / "etc"))
    assert done.status == 1 and b"magic" in done.stderr
    assert not (tmp_path / "etc").exists()


async def test_attach_leaves_and_comes_back(either: House) -> None:
    terminal = Terminal(90, 20)
    try:
        await terminal.run(either.command("attach", "shell"))
        await terminal.until(b"ctrl-p,ctrl-q leaves it running")
        await terminal.until_raw()
        terminal.type(b"echo $((6*7))x; stty size\r")
        await terminal.until(b"42x\r\n")
        terminal.type(b"\x10\x11")
        assert await terminal.ended() == 0
        assert terminal.is_as_before()
        await terminal.run(either.command("attach", "shell"))
        await terminal.until_raw()
        terminal.type(b"echo $((6*8))y\r")
        await terminal.until(b"48y\r\n")
        terminal.type(b"exit 9\r")
        assert await terminal.ended() == 9
        assert terminal.is_as_before()
    finally:
        await terminal.close()


async def test_ports_of_the_pods_own_network_are_reached(either: House) -> None:
    script = "mkdir /tmp/www; echo page > /tmp/www/index.html; httpd -p 127.0.0.1:8080 -h /tmp/www"
    assert (await either.podwright("exec", "main", "sh", "-c", script)).status == 0
    child = await asyncio.create_subprocess_exec(
        *either.command("port-forward", "pod", ":8080", ":81"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert child.stdout is not None and child.stderr is not None
        lines = [await asyncio.wait_for(child.stdout.readline(), LIMIT) for _ in range(4)]
        page, closed = (int(line.split(b":")[-1].split()[0]) for line in (lines[0], lines[2]))
        request = b"GET / HTTP/1.0\r\n\r\n"
        for answer in await asyncio.gather(*(ask("127.0.0.1", page, request) for _ in range(10))):
            assert answer.endswith(b"page\n")
        with pytest.raises(ConnectionResetError):
            await ask("127.0.0.1", closed, request)
        assert b"-> 81: " in await asyncio.wait_for(child.stderr.readline(), LIMIT)
        child.send_signal(2)
        assert await asyncio.wait_for(child.wait(), LIMIT) == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_a_second_exec_works_beside_one_that_lasts(house: House) -> None:
    terminal = Terminal(80, 24)
    try:
        await terminal.run(house.command("exec", "-it", "main", "sh"))
        terminal.type(b"echo $((1+1))z\r")
        await terminal.until(b"2z\r\n")
        assert await house.podwright("exec", "-i", "main", "cat", input=b"beside") == Done(0, b"beside", b"")
        terminal.type(b"exit 4\r")
        assert await terminal.ended() == 4
    finally:
        await terminal.close()


class Tmux:
    """A shell in a terminal of tmux, driven as a user would."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        self("send-keys", *keys)

    async def until(self, line: str) -> None:
        """Until the screen shows `line`, alone on a line."""
        try:
            async with asyncio.timeout(LIMIT):
                while line not in self("capture-pane", "-p").splitlines():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"no {line!r} in\n{self('capture-pane', '-p')}") from None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
async def test_in_a_terminal_of_tmux(either: House, tmp_path: Path) -> None:
    script = tmp_path / "p"
    script.write_text(f'#!/bin/sh\nexec {" ".join(map(repr, either.command()))} "$@"\n')
    script.chmod(0o755)
    tmux = Tmux(tmp_path / "tmux.sock")
    tmux("new-session", "-d", "-x", "90", "-y", "24", f"PS1='host$ ' ENV= sh -c 'cd {tmp_path}; exec sh'")
    try:
        tmux.keys("stty -g > before; ./p exec -it main sh; echo status=$?", "Enter")
        tmux.keys("stty size; echo in-$((40+2))", "Enter")
        await tmux.until("in-42")
        await tmux.until("24 90")
        tmux("resize-window", "-x", "100", "-y", "30")
        tmux.keys("until stty size | grep '^30 100$'; do sleep 0.1; done", "Enter")
        await tmux.until("30 100")
        tmux.keys("echo sl''eeps; sleep 1000; echo aw''ake-$?", "Enter")
        await tmux.until("sleeps")
        tmux.keys("C-c")
        tmux.keys("echo still-$((40+3))", "Enter")
        await tmux.until("still-43")
        tmux.keys("exit 5", "Enter")
        await tmux.until("status=5")
        tmux.keys("stty -g | cmp - before && echo same-$((40+4))", "Enter")
        await tmux.until("same-44")
    finally:
        tmux("kill-server")
