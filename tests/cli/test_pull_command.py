"""`podwright pull` and what `podwright run` shows of pulls, at a fake node's server and at another CRI's."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from podwright.api import Cri
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.testing import FakeServer
from podwright.wire import cri_pb2 as cri

PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")
ID = re.compile(r"sha256:[0-9a-f]{64}\n")
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "app:1", command: [echo, hello]}]
"""
PATIENCE = 60.0


def apply(server: FakeServer, **parts: object) -> None:
    server.control.call("PATCH", "/v1/scenario", parts)


def slow(server: FakeServer, seconds: str = "3s") -> None:
    apply(server, images={"size": 50_000_000, "pull": seconds})


def command(server: FakeServer, *arguments: str) -> list[str]:
    places = ("--root", server.directory / "root", "--run", server.directory / "run")
    return [*PROGRAM, *map(str, places), "--socket", str(server.socket), *arguments]


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: list[str], columns: int = 90) -> None:
        self._fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = os.environ | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            argv, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True
        )
        os.close(child)
        self.text = ""

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if not self._read(deadline):
                raise AssertionError(f"it has ended: {self.text}")

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)

    def left(self) -> list[str]:
        """The lines that are there in the end."""
        lines, row = [""], 0
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.text):
            if part == "\n":
                row += 1
                lines += [""] if row == len(lines) else []
            elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
                row -= int(up[1])
            elif part == "\x1b[J":
                lines[row:] = [""]
            elif part[0] not in "\x1b\r":
                lines[row] += part
        return [line for line in lines if line]

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        with suppress(OSError):  # EIO: nobody has the other end any more
            if ready and (data := os.read(self._fd, 65536)):
                self.text += data.decode()
                return True
        return False


@pytest.fixture
def terminal() -> object:
    opened: list[Terminal] = []

    def open(argv: list[str], columns: int = 90) -> Terminal:
        opened.append(Terminal(argv, columns))
        return opened[-1]

    yield open
    for each in opened:
        each.close()


Open = Callable[..., Terminal]


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    # A socket's address is short.
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, FakeServer(Path(directory)) as server:
        yield server


def test_without_a_terminal_there_are_lines_and_the_id_alone_on_stdout(fake_server: FakeServer) -> None:
    slow(fake_server, "500ms")
    done = subprocess.run(
        command(fake_server, "pull", "app:1"), capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert ID.fullmatch(done.stdout)
    lines = done.stderr.splitlines()
    assert lines[0] == "docker.io/library/app:1: pulling"
    assert re.fullmatch(r"docker.io/library/app:1: pulled 50 MB in \d layers?, \d+\.\d s", lines[-1])
    assert "\x1b" not in done.stderr


def test_quiet_prints_the_id_alone(fake_server: FakeServer) -> None:
    done = subprocess.run(
        command(fake_server, "pull", "-q", "app:1"), capture_output=True, text=True, timeout=PATIENCE
    )
    assert ID.fullmatch(done.stdout) and done.stderr == ""


def test_an_error_is_one_line(fake_server: FakeServer) -> None:
    apply(fake_server, images={"unknown": "refuse"})
    done = subprocess.run(
        command(fake_server, "pull", "-q", "app:1"), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("podwright: docker.io/library/app:1: manifest unknown")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [90, 40])
def test_on_a_terminal_it_is_drawn_and_nothing_of_that_is_left(
    fake_server: FakeServer, terminal: Open, columns: int
) -> None:
    slow(fake_server)
    shown = terminal(command(fake_server, "pull", "app:1"), columns)
    shown.read_until(r"Pulling docker.io/library/app:1")
    shown.read_until(r"\d MB of 50 MB")
    assert shown.end() == 0
    assert shown.text.count("Pulling") > 3
    summary, image_id = shown.left()
    assert summary.startswith("docker.io/library/app:1: pulled 50 MB in ")
    assert ID.fullmatch(image_id + "\n")


def test_ctrl_c_ends_the_pull_at_the_server(fake_server: FakeServer, terminal: Open) -> None:
    slow(fake_server, "1h")
    shown = terminal(command(fake_server, "pull", "app:1"))
    shown.read_until(r"Pulling docker.io/library/app:1")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 130
    assert shown.left() == []
    outcomes = [pull["outcome"] for pull in fake_server.control.get("/v1/pulls")["pulls"]]
    assert outcomes == ["cancelled"]


def test_an_error_on_a_terminal_leaves_only_itself(fake_server: FakeServer, terminal: Open) -> None:
    item = {"reference": "app:1", "pull": "1s", "error": {"code": "Unavailable", "message": "away"}}
    apply(fake_server, images={"items": [item]})
    shown = terminal(command(fake_server, "pull", "app:1"))
    assert shown.end() == 1
    assert "Pulling" in shown.text
    (line,) = shown.left()
    assert line.startswith("podwright: ")


def test_run_shows_the_pull_above_what_containers_write(
    fake_server: FakeServer, terminal: Open, tmp_path: Path
) -> None:
    slow(fake_server)
    (tmp_path / "pod.yaml").write_text(POD)
    shown = terminal(command(fake_server, "run", str(tmp_path / "pod.yaml")))
    shown.read_until(r"Pulling docker.io/library/app:1")
    assert shown.end() == 0
    left = shown.left()
    assert not any("Pulling" in line for line in left)
    assert any("app:1: pulled 50 MB in" in line for line in left)
    assert any(re.search(r"main \| .*hello", line) for line in left)
    assert any(line.startswith("CONTAINER") or "EXIT CODE" in line for line in left)


def test_the_example_prints_each_step(fake_server: FakeServer) -> None:
    slow(fake_server, "1s")
    example = Path(__file__).parents[2] / "examples/pull_progress.py"
    argv = [sys.executable, str(example), "app:1", fake_server.endpoint]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    lines = done.stdout.splitlines()
    assert ID.fullmatch(lines[-1] + "\n"), done.stderr
    sums = [line for line in lines if line.startswith("PULL_")]
    assert sums[-1] == "PULL_DONE 50000000 of 50000000 bytes"
    assert any(re.fullmatch(r"PULL_TRANSFERRING [1-9]\d* of 50000000 bytes", line) for line in sums)


class Other:
    """Another CRI's server: it pulls, and knows nothing of progress."""

    async def pull_image(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        await asyncio.sleep(1.0)
        return cri.PullImageResponse(image_ref="sha256:" + "a" * 64)


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.parametrize("live", [False, True])
async def test_another_cris_server_pulls_without_progress(
    tmp_path: Path, short: Path, terminal: Open, live: bool
) -> None:
    gate = Gate()
    gate.open(cast(Cri, Other()))
    address = str(short / "s")
    argv = [*PROGRAM, "--root", str(tmp_path), "--run", str(tmp_path), "--socket", address, "pull", "app:1"]
    async with listening(address, gate):
        if live:
            shown = terminal(argv)
            assert await asyncio.to_thread(shown.end) == 0
            assert "Pulling docker.io/library/app:1" in shown.text
            lines = shown.left()
        else:
            done = await asyncio.to_thread(
                subprocess.run, argv, capture_output=True, text=True, timeout=PATIENCE
            )
            lines = (done.stderr + done.stdout).splitlines()
            assert lines.pop(0) == "docker.io/library/app:1: pulling"
    assert re.fullmatch(r"docker.io/library/app:1: pulled, \d+\.\d s", lines[0])
    assert lines[1:] == ["sha256:" + "a" * 64]
