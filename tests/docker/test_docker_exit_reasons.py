"""Ends of containers when Docker tells of them, and then no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podwright.engines.base import Exit, Json
from podwright.engines.docker import labels
from podwright.engines.docker.exits import Exits
from podwright.errors import NotFound, PodwrightError, Unavailable

ID, DOCKER_ID = "a" * 64, "b" * 64
DIE = {
    "Action": "die",
    "timeNano": 1_700_000_000_000_000_000,
    "Actor": {"ID": DOCKER_ID, "Attributes": {labels.ID: ID, "exitCode": "137"}},
}


async def first(inspected: Json | PodwrightError) -> Exit:
    """What is told of DIE when Docker says `inspected` of its container, and its stream ends then."""

    @asynccontextmanager
    async def stream(*_: object) -> AsyncIterator[AsyncIterator[Json]]:
        async def events() -> AsyncIterator[Json]:
            yield DIE

        yield events()

    async def inspect_docker(docker_id: str) -> Json:
        assert docker_id == DOCKER_ID
        if isinstance(inspected, PodwrightError):
            raise inspected
        return inspected

    async def finish(id: str) -> None:
        assert id == ID

    objects = SimpleNamespace(owner="ours", inspect_docker=inspect_docker)
    exits = Exits(
        cast(Any, SimpleNamespace(stream=stream)),
        cast(Any, objects),
        cast(Any, SimpleNamespace(finish=finish)),
    )
    async for each in exits.exits():
        return each
    raise AssertionError("nothing is told, and the stream has no error")


async def test_the_state_tells_that_memory_was_short() -> None:
    state = {"Running": False, "ExitCode": 137, "OOMKilled": True, "FinishedAt": "2026-01-01T00:00:00Z"}
    end = await first({"State": state})
    assert (end.id, end.code, end.oom_killed) == (ID, 137, True)


async def test_of_one_that_is_gone_the_event_tells() -> None:
    for gone in (None, NotFound("no such container"), PodwrightError("Docker is confused")):
        end = await first(gone)
        assert (end.id, end.code, end.oom_killed) == (ID, 137, False)


async def test_a_docker_that_goes_away_in_between_is_asked_when_it_is_back() -> None:
    """Or the reason of the end would be lost: who is told Unavailable looks at all containers."""
    with pytest.raises(Unavailable, match="gone"):
        await first(Unavailable("it has gone"))
