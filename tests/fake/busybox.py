"""A real shell and its programs to compare the built-in ones with."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from podwright.engines.fake.programs import NAMES
from tests.fake.containers import Node

BUSYBOX = shutil.which("busybox")
SIGNALLED = (b"Terminated\n", b"Killed\n")
"""What a shell says of a child that a signal ended; ours says nothing."""


@dataclass(frozen=True)
class Outcome:
    status: int
    stdout: str
    complained: bool
    """Whether it wrote anything on standard error; the words are its own."""


class Real:
    """Runs scripts with busybox alone."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self._directory = directory
        self._programs = programs

    def run(self, script: str) -> Outcome:
        shell = str(self._programs / "sh")
        done = subprocess.run(
            [shell, "-c", script],
            env={"PATH": str(self._programs), "HOME": "/root"},
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
        )
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        text = done.stdout.decode(errors="surrogateescape").replace(shell, "sh")
        return Outcome(status, text, done.stderr not in (b"", *SIGNALLED))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose programs are busybox's."""
    if BUSYBOX is None:
        pytest.skip("busybox is not installed")
    directory = tmp_path_factory.mktemp("bin")
    for name in NAMES:
        if name not in ("pause", "exit", "bash", "dash"):  # busybox has none of these
            (directory / name).symlink_to(BUSYBOX)
    return directory


@pytest.fixture
def real(programs: Path, tmp_path: Path) -> Real:
    directory = tmp_path / "cwd"
    directory.mkdir()
    return Real(directory, programs)


def scripts(name: str) -> list[str]:
    """Those of the file NAME.scripts, where a line of %% stands between two."""
    return (Path(__file__).parent / f"{name}.scripts").read_text().removesuffix("\n").split("\n%%\n")


async def fake(directory: Path, script: str) -> Outcome:
    """What a fake container makes of it."""
    node = Node(directory)
    case = await node.run(
        "sleep", "inf", seconds=0, working_dir="/cwd", envs=[{"key": "HOME", "value": b"/root"}]
    )
    answer = await case.timed_exec("sh", "-c", script)
    node.world.close()
    return Outcome(answer.code, answer.stdout.decode(errors="surrogateescape"), bool(answer.stderr))
