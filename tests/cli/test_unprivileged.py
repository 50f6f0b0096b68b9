"""The program for a user who is not root: where it keeps things, what works, and who says what does not."""

from __future__ import annotations

import os
import socket
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


def test_a_server_that_is_down_is_told_from_one_that_was_never_there(user: User) -> None:
    def said(*command: str) -> str:
        done = user.run("-m", "podwright", *command)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr

    root, run = user.home / "down/root", user.home / "down/run"
    places = (f"--root={root}", f"--run={run}")
    program = f"podwright --root={root} --run={run}"
    no_answer = f"podwright: no server answers at {run}/podwright.sock: "
    (user.home / "pod.yaml").write_text(POD)
    server = user.start(["-m", "podwright", *places, "serve", "--engine", "fake"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and b" serves " in server.stdout.readline()
        done = user.run("-m", "podwright", *places, "run", "-d", str(user.home / "pod.yaml"))
        assert done.returncode == 0, done.stderr
        done = user.run("-m", "podwright", *places, "fake", "crash", "--downtime", "1h")
        assert done.returncode == 0, done.stderr
        for command in (("ps",), ("rm", "web"), ("run", str(user.home / "pod.yaml"))):
            assert said(*places, *command) == (
                f"{no_answer}the server of this fake node is down: `{program} fake restart` starts it,"
                f" `{program} fake state` tells more\n"
            )
    finally:
        server.kill()
        server.communicate(timeout=30)
    again = f"`{program} serve --engine fake` starts it"
    assert said(*places, "ps") == f"{no_answer}the server of this fake node has been killed: {again} again\n"
    (run / "podwright.control.sock").unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        (run / "podwright.sock").unlink(missing_ok=True)
        stale.bind(str(run / "podwright.sock"))
    (run / "podwright.sock").chmod(0o666)
    assert said(*places, "ps") == (
        f"{no_answer}the pods in {root} are a fake node's, whose server is down: {again}\n"
    )
    (root / "podwright.db").unlink()
    assert said(*places, "ps") == (
        f"{no_answer}nobody listens there any more; `podwright serve` starts a server\n"
    )
    (run / "podwright.sock").unlink()
    assert "engine 'oci' needs root" in said(*places, "ps")


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


def test_a_place_that_is_closed_to_this_user_is_no_matter_of_root(user: User) -> None:
    done = user.run(
        *("-m", "podwright", "--root", "/proc/1/podwright", "--run", str(user.home / "r")),
        *("serve", "--engine", "fake"),
    )
    assert done.returncode == 1 and done.stderr.startswith("podwright: /"), done.stderr
    assert "needs root" not in done.stderr
    done = user.run("-m", "podwright", "--root", "/root/podwright", "serve", "--engine", "fake")
    assert done.returncode == 1
    assert done.stderr.endswith(f": Permission denied (this is uid {user.uid})\n"), done.stderr


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
