"""docs/fake.md: its shell commands work one after the other, and its Python tests pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.testing import FakeNode
from podwright.testing.control import Control

TEXT = (Path(__file__).parents[2] / "docs/fake.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="podwright-docs-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


def test_its_commands_work(directory: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    # Wherever the reader has podwright: here a directory is its whole state.
    places = f"--root {directory}/root --run {directory}/run"
    (directory / "podwright").write_text(f'#!/bin/sh\nexec {sys.executable} -m podwright {places} "$@"\n')
    (directory / "podwright").chmod(0o755)
    script = "set -e -o pipefail; trap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n" + "".join(blocks("sh"))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "web/side" in done.stdout and "\nhello\nhi\n" in done.stdout
    assert "exited (1)" in done.stdout, "the scenario of the second server"
    assert done.stdout.rstrip().endswith('{"server":"down"}')


def test_its_tests_pass(directory: Path) -> None:
    for block in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None
        (directory / name[1]).write_text(block)
    (directory / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(directory)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TEXT.count('def test_')} passed" in done.stdout


async def test_its_table_has_every_route() -> None:
    async with FakeNode() as node:
        routes = {line.replace("{name}", "NAME") for line in Control(node).lines}
    told = set()
    for methods in re.findall(r"^\| ((?:GET|PUT|POST|PATCH|DELETE) [^|]*) \|", TEXT, re.MULTILINE):
        first, *others = methods.split(", ")
        told |= {first, *(f"{first.partition(' ')[0]} {other}" for other in others)}
    assert told == {route.replace("{id}", "ID") for route in routes}
