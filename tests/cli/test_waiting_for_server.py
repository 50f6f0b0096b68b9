"""Commands right after a server's start: they wait for its recovery, say so, and not for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from podwright.api import Cri
from podwright.cli.share import reached
from podwright.errors import Unavailable
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.wire import cri_pb2 as cri
from tests.cli.test_cli_commands import Node, started

PATIENCE = 60.0
WAITING = "waiting for the server at {}: starting: recovery has not finished"


@pytest.mark.parametrize("command", ["ps", "logs"])
async def test_a_command_waits_for_recovery_and_says_what_it_waits_for(tmp_path: Path, command: str) -> None:
    gate, address = Gate(), str(tmp_path / "podwright.sock")
    options = ("--root", str(tmp_path / "root"), "--run", str(tmp_path), command)
    async with (
        listening(address, gate),
        started(*options, *(["nobody"] if command == "logs" else [])) as child,
        asyncio.timeout(PATIENCE),
    ):
        assert child.stderr is not None and child.stdout is not None
        told = (await child.stderr.readline()).decode()
        assert told == f"podwright: {WAITING.format(address)}\n"
        gate.open(cast(Cri, Node(tmp_path)))
        out, errors = await child.communicate()
        if command == "ps":
            assert (child.returncode, errors) == (0, b"") and b"http" in out
        else:
            assert child.returncode == 1 and b"nobody" in errors and b"recovery" not in errors


async def test_patience_has_an_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = str(tmp_path / "s")
    async with listening(address, Gate()):
        with pytest.raises(Unavailable, match=r"after 0\.1 s: .*recovery has not finished"):
            async with reached(address, patience=0.1):
                raise AssertionError("nothing can be called")
    assert capsys.readouterr().err == ""


async def test_a_server_that_stops_is_not_waited_for(tmp_path: Path) -> None:
    gate, address = Gate(), str(tmp_path / "s")
    gate.shut("stopping")
    async with (
        listening(address, gate),
        asyncio.timeout(PATIENCE),
        reached(address, patience=PATIENCE * 2) as runtime,
    ):
        with pytest.raises(Unavailable, match="stopping"):
            await runtime.list_containers(cri.ListContainersRequest())
