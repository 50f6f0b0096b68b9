"""Stops against what was recorded. Docker's own stop knows one time-out a call and the image's signal;
podwright sends the signals itself (docs/differences.md): what becomes of the container is compared."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from podwright.wire import cri_pb2 as cri
from tests.docker.double import Asked
from tests.docker.replay import Replay, replayed
from tests.oci.clients import PATIENCE

TERM, KILL = "signal=15", "signal=9"


def killed(id: str) -> dict[str, Any]:
    return {"method": "POST", "path": f"/v1.41/containers/{id}/kill", "status": 204, "response": None}


async def asked_for(here: Replay, query: str) -> Asked:
    """Wait until a signal was sent."""
    while True:
        for each in here.docker.changes:
            if each.line.endswith(f"/kill {query}"):
                return each
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "code", "signals"),
    [("stop-term", 0, [TERM]), ("stop-deaf-timeout-1", 137, [TERM, KILL])],
)
async def test_what_runs_is_stopped(name: str, code: int, signals: list[str], tmp_path: Path) -> None:
    async with replayed(name, tmp_path, state="running") as here, asyncio.timeout(PATIENCE):
        id = here.asked["container_id"]
        here.docker.exchanges += [killed(id) for _ in signals]
        call = asyncio.ensure_future(here.runtime.stop_container(cri.StopContainerRequest(**here.asked)))
        for each in signals:
            await asked_for(here, each)
        assert not call.done()
        here.end(id, code)
        await call
        assert here.lines == [f"POST /containers/{id}/kill {each}" for each in signals]
        found = await here.runtime.container_status(cri.ContainerStatusRequest(container_id=id))
        assert (found.status.state, found.status.exit_code) == (cri.CONTAINER_EXITED, code)
        assert found.status.finished_at == 1_714_979_289_500_000_000


@pytest.mark.parametrize(
    ("name", "state"), [("stop-exited", "exited"), ("stop-created", "created"), ("stop-missing", "")]
)
async def test_what_does_not_run_is_let_be(name: str, state: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path, state=state) as here:
        await here.runtime.stop_container(cri.StopContainerRequest(**here.asked))
        assert here.lines == []
