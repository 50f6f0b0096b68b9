"""`podwright run` on a terminal: what is drawn below the output, at several widths, and what is left."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.cli import pod_view
from podwright.cli.board import Board
from podwright.cli.pod_view import Row, Shown
from podwright.cli.region import Region
from podwright.testing import FakeServer
from tests.cli.fake_commands import PATIENCE, Commands, commands, pod, text_of


class Tmux:
    """A terminal that a user sees."""

    def __init__(self, width: int, height: int) -> None:
        name = f"podwright-{os.getpid()}-{time.monotonic_ns()}"
        self._prefix = ["tmux", "-L", name, "-f", "/dev/null"]
        self("new-session", "-d", "-x", str(width), "-y", str(height), "env PS1='host$ ' ENV= sh")

    def __call__(self, *arguments: str) -> str:
        command = [*self._prefix, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return done.stdout

    def until(self, pattern: str) -> list[str]:
        """The lines of the screen, once one of them fits."""
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = self("capture-pane", "-p").splitlines()
            if any(re.search(pattern, line) for line in lines):
                return lines
            assert time.monotonic() < deadline, "\n".join(lines)
            time.sleep(0.05)

    def close(self) -> None:
        subprocess.run([*self._prefix, "kill-server"], capture_output=True, timeout=PATIENCE, check=False)


@pytest.fixture
def podwright() -> Iterator[Commands]:
    # A socket's address is short.
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as directory,
        FakeServer(Path(directory)) as server,
        commands(server) as made,
    ):
        yield made


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("no tmux")
    terminal = Tmux(100, 24)
    yield terminal
    terminal.close()


def rules(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("── ")]


def test_pods_are_drawn_below_their_output_at_every_width_and_leave_nothing(
    podwright: Commands, tmux: Tmux, tmp_path: Path
) -> None:
    ticks = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done"
    (tmp_path / "pods.yaml").write_text(
        text_of(pod("web", ["sh", "-c", ticks]), pod("bad", ["sh", "-c", "echo oh; exit 3"]))
    )
    script = tmp_path / "p"
    script.write_text("#!/bin/sh\nexec " + " ".join(f"'{one}'" for one in podwright.prefix) + ' "$@"\n')
    script.chmod(0o755)
    tmux("send-keys", f"cd {tmp_path}; clear; ./p run pods.yaml; echo status=$?", "Enter")
    for width in (100, 60, 160):
        tmux("resize-window", "-x", str(width), "-y", "24")
        tmux.until(r"^web/main \| tick \d+$")
        tmux.until(rf"^(?=── web · Running · Ready).{{{width - 1}}}$")
        lines = tmux.until(r"^  main +CrashLoopBackOff \d+s +not ready")
        drawn = rules(lines)
        assert [rule.split()[1] for rule in drawn] == ["web", "bad"], lines
        at = lines.index(drawn[0])
        assert any(re.search(r"^web/main \| tick \d+$", line) for line in lines[:at])
        assert not any("tick" in line for line in lines[at:])
        assert max(map(len, lines)) <= width
    assert any("last: Error (3)" in line for line in lines), "there is room for the reason now"
    # It goes on being drawn: the count goes down.
    left = min(int(one) for one in re.findall(r"CrashLoopBackOff (\d+)s", "\n".join(lines)))
    if left > 1:
        tmux.until(rf"CrashLoopBackOff {left - 1}s|main +Running")
    tmux("send-keys", "C-c")
    lines = tmux.until(r"^status=\d+$")
    assert rules(lines) == [] and not any("CrashLoopBackOff" in line for line in lines)
    assert any(re.match(r"CONTAINER +EXIT CODE", line) for line in lines)
    assert podwright.pods() == []


# The board alone


class Recording(io.BytesIO):
    """A terminal that keeps what was written to it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: object) -> int:
        self.writes.append(bytes(data))  # type: ignore[call-overload]
        return len(self.writes[-1])


def recorded() -> tuple[io.TextIOWrapper, Recording]:
    raw = Recording()
    return io.TextIOWrapper(raw, encoding="utf-8"), raw


ONE = Shown("web", "Running", "good", rows=(Row("main", "Running 1s", "good", True),))


async def test_what_is_said_in_one_turn_and_the_pods_below_it_are_one_write() -> None:
    stream, raw = recorded()
    board = Board(stream, lambda: [ONE], lambda _: None)
    board.draw()
    raw.writes.clear()
    for index in range(50):
        board.write(f"line {index}\n".encode())
    await asyncio.sleep(0)
    (written,) = raw.writes
    assert written.index(b"line 0") < written.index(b"line 49") < written.index("── ".encode())
    board.hide()


async def test_what_has_not_changed_is_not_drawn_again() -> None:
    stream, raw = recorded()
    pods = [ONE]
    board = Board(stream, lambda: pods, lambda _: None)
    board.draw()
    first = len(raw.writes)
    board.draw()
    assert len(raw.writes) == first
    pods[0] = Shown("web", "Failed", "bad")
    board.draw()
    assert len(raw.writes) == first + 1
    # Drawn over, not cleared: nothing flickers.
    assert b"\x1b[J" not in raw.writes[-1].partition("── ".encode())[0]


async def test_the_pods_take_no_more_than_their_share_of_the_terminal() -> None:
    stream, raw = recorded()
    many = [Shown(f"web-{index}", "Pending", "busy", rows=(Row("main", "Creating"),)) for index in range(40)]
    Board(stream, lambda: many, lambda _: None).draw()
    lines = raw.writes[-1].count(b"\n") + 1
    assert lines == int(23 * pod_view.SHARE)  # a stream that is no terminal has 24 lines


async def test_lines_that_a_new_width_has_folded_are_cleared_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, raw = recorded()
    board = Board(stream, lambda: [ONE], lambda _: None)
    board.draw()
    monkeypatch.setattr(Region, "size", lambda _: os.terminal_size((30, 24)))
    board.draw()
    # The rule of 79 columns has three rows now.
    assert raw.writes[-1].startswith(b"\r\x1b[3A\x1b[J")
