"""What commands that last tell and return when their server dies, and when it comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podwright.testing import FakeServer
from tests.cli.fake_commands import PATIENCE, Commands, pod, text_of

IMPATIENT = (
    "from podwright.cli import share; share.PATIENCE = 0.5; from podwright.cli.main import main; main()"
)
LASTING = {
    "logs": (["logs", "-f", "web/main"], "said"),
    "port-forward": (["port-forward", "--address", "127.0.0.1", "web", ":80"], "Forwarding from"),
    "attach": (["attach", "--no-stdin", "writes/main"], "tick"),
    "exec": (["exec", "web/main", "sh", "-c", "echo there; sleep 1000"], "there"),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(tmp_path) as started:
        yield started


@contextmanager
def running(commands: Commands, *arguments: str, patience: bool = True) -> Iterator[subprocess.Popen[str]]:
    prefix = commands.prefix if patience else [sys.executable, "-c", IMPATIENT, *commands.prefix[3:]]
    pipe = subprocess.PIPE
    child = subprocess.Popen([*prefix, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def pods(commands: Commands) -> Iterator[None]:
    """ "web" and "writes", kept by a command of its own."""
    text = text_of(
        pod("web", ["sh", "-c", "echo said; sleep 1000"]),
        pod("writes", ["sh", "-c", "while true; do echo tick; sleep 0.2; done"]),
    )
    with running(commands, "run", "-") as runner:
        assert runner.stdin is not None
        runner.stdin.write(text)
        runner.stdin.close()
        runner.stdin = None
        while commands("ps", "-q").stdout.count("\n") < 2:
            assert runner.poll() is None
        yield


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def test_a_server_that_dies_and_stays_away_is_told_and_no_success(server: FakeServer) -> None:
    commands = Commands(server)
    with (
        pods(commands),
        running(commands, *LASTING["logs"][0], patience=False) as logs,
        running(commands, *LASTING["port-forward"][0], patience=False) as forward,
        running(commands, *LASTING["attach"][0], patience=False) as attach,
        running(commands, *LASTING["exec"][0], patience=False) as exec,
    ):
        children = {"logs": logs, "port-forward": forward, "attach": attach, "exec": exec}
        for name, child in children.items():
            assert LASTING[name][1] in line(child)
        assert server._process is not None
        server._process.kill()
        for name, child in children.items():
            _, errors = child.communicate(timeout=PATIENCE)
            assert child.returncode == 1, name
            words = "what runs there goes on" if name in ("logs", "port-forward") else "is lost"
            assert errors.startswith("podwright: ") and words in errors and errors.count("\n") == 1, name


def test_a_server_that_comes_back_is_followed_on(server: FakeServer) -> None:
    commands = Commands(server)
    with (
        pods(commands),
        running(commands, "logs", "-f", "writes/main") as logs,
        running(commands, *LASTING["port-forward"][0]) as forward,
    ):
        assert "tick" in line(logs) and "Forwarding" in line(forward)
        server.control.post("/v1/crash")
        server.control.post("/v1/restart")
        assert "tick" in line(logs)
        assert forward.poll() is None
        assert commands("rm", "--force", "writes", "web").returncode == 0
        _, errors = logs.communicate(timeout=PATIENCE)
        assert (logs.returncode, errors) == (0, "")
        _, errors = forward.communicate(timeout=PATIENCE)
        assert forward.returncode == 1 and errors == "podwright: pod web has ended\n"
