"""The program for a user who is not root: where it keeps things, what works, and who says what does not."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.config import Config, load
from podwright.errors import FailedPrecondition
from tests.behaviour.user import User, open_user

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - {name: main, image: busybox, command: [sh, -c, "echo hello; sleep 1000"]}
"""


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with open_user() as user:
        user.environment["XDG_RUNTIME_DIR"] = str(user.directory(user.home / "runtime"))
        yield user


@pytest.fixture
def server(user: User) -> Iterator[Path]:
    """The user's own, at its default socket."""
    server = user.start(["-m", "podwright", "serve", "--engine", "fake"], stdout=subprocess.PIPE)
    assert server.stdout is not None
    line = server.stdout.readline().decode()
    try:
        assert " serves " in line
        yield Path(line.split(" serves ")[1].split()[0])
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


def test_everything_lies_in_directories_that_are_closed_to_others(user: User, server: Path) -> None:
    run, root = user.home / "runtime/podwright", user.home / ".local/state/podwright"
    assert server == run / "podwright.sock"
    assert (run / "podwright.control.sock").is_socket()
    for path in (run, root, root.parent, root.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        assert path.stat().st_uid == user.uid


def test_the_commands_work(user: User, server: Path) -> None:
    def podwright(*arguments: str, status: int = 0) -> str:
        done = user.run("-m", "podwright", *arguments)
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout

    (user.home / "pod.yaml").write_text(POD)
    assert "RuntimeReady   yes" in podwright("status")
    assert str(server) in podwright("version")
    assert podwright("pull", "busybox").startswith("sha256:")
    assert "busybox" in podwright("images")
    podwright("run", "-d", str(user.home / "pod.yaml"), "--endpoint", str(server))
    assert "running" in podwright("ps") and "web" in podwright("pods")
    assert podwright("exec", "web", "echo", "hi") == "hi\n"
    assert podwright("logs", "web") == "hello\n"
    assert podwright("fake", "state").startswith("server up")
    assert "it needs nothing of this host" in podwright("doctor")
    podwright("stop", "-t", "0", "web")
    podwright("rm", "web")
    assert podwright("pods", "-q") == ""


def test_the_oci_engine_says_that_it_needs_root(user: User) -> None:
    words = (
        f"podwright: engine 'oci' needs root, and this is uid {user.uid}: run it as root, or try"
        " `podwright serve --engine fake`, which needs no privileges\n"
    )
    for command in (("serve", "--engine", "oci"), ("ps",), ("pull", "busybox")):
        done = user.run("-m", "podwright", *command)
        assert (command, done.returncode, done.stdout, done.stderr) == (command, 1, "", words)
    done = user.run("-m", "podwright", "doctor")
    assert done.returncode == 1
    assert "needs root" in done.stdout and done.stderr == ""


def test_root_keeps_the_systems_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load() == Config()


def test_what_is_configured_counts_more_than_the_users_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345_678)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/12345678")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    config = load()
    assert (config.root, config.run) == ("/home/me/state/podwright", "/run/user/12345678/podwright")
    assert config.listen == "/run/user/12345678/podwright/podwright.sock"
    config = load(run="/elsewhere", root="/here")
    assert (config.root, config.run, config.listen) == ("/here", "/elsewhere", "/elsewhere/podwright.sock")
    file = tmp_path / "config.toml"
    file.write_text('root = "/a"\nlisten = "/b.sock"\n')
    config = load(file)
    assert (config.root, config.run, config.listen) == ("/a", "/run/user/12345678/podwright", "/b.sock")


def test_without_a_runtime_directory_one_below_tmp_is_used_if_it_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345_678)
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert load().run == "/tmp/podwright-12345678/podwright"
    planted = Path("/tmp/podwright-12345678")
    planted.mkdir()
    try:
        with pytest.raises(FailedPrecondition, match="is not this user's own directory"):
            load()
        assert load(run="/elsewhere").run == "/elsewhere"
    finally:
        planted.rmdir()
