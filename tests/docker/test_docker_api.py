"""The connection with a Docker Engine: versions, errors in the words of the house, streams, connections given
over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.config import DockerConfig
from podwright.engines.docker.api import Docker, refusal
from podwright.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    Unavailable,
    Unimplemented,
)
from tests.docker.daemon import Daemon
from tests.docker.double import double

BOTH = 10.0
"""Seconds for both sides of a connection."""


@asynccontextmanager
async def connected(config: DockerConfig) -> AsyncIterator[Docker]:
    docker = Docker(config)
    docker.open()
    try:
        yield docker
    finally:
        await docker.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidArgument),
        (404, NotFound),
        (409, FailedPrecondition),
        (500, PodwrightError),
        (501, Unimplemented),
        (503, Unavailable),
    ],
)
def test_errors_have_dockers_words(status: int, kind: type[PodwrightError]) -> None:
    error = refusal(status, {"message": "no such thing"}, "GET /x")
    assert type(error) is kind
    assert str(error) == "Docker: GET /x: no such thing"
    assert "status 500" in str(refusal(500, None, "GET /x"))


@pytest.mark.parametrize(
    ("theirs", "spoken"), [("1.41", (1, 41)), ("1.43", (1, 43)), ("1.99", (1, 44)), ("2.0", (1, 44))]
)
async def test_the_newest_version_that_both_know_is_spoken(
    theirs: str, spoken: tuple[int, int], tmp_path: Path
) -> None:
    async with double(tmp_path, []) as served, connected(DockerConfig(endpoint=served.endpoint)) as docker:
        served.version = theirs
        assert await docker.version() == spoken
        await docker.call("GET", "/info")
        assert [each.method for each in served.log] == ["HEAD", "GET"]


@pytest.mark.parametrize("theirs", ["1.40", "", "new"])
async def test_what_is_too_old_or_no_docker_is_refused(theirs: str, tmp_path: Path) -> None:
    async with double(tmp_path, []) as served, connected(DockerConfig(endpoint=served.endpoint)) as docker:
        served.version = theirs
        with pytest.raises(FailedPrecondition, match=r"1\.40; podwright needs|no Docker Engine"):
            await docker.version()


async def test_after_docker_was_away_versions_are_agreed_on_again(tmp_path: Path) -> None:
    config = DockerConfig(endpoint=f"unix://{tmp_path}/docker.sock")
    async with connected(config) as docker:
        async with double(tmp_path, []):
            assert await docker.version() == (1, 41)
        (tmp_path / "docker.sock").unlink(missing_ok=True)
        with pytest.raises(Unavailable, match="no Docker Engine answers"):
            await docker.call("GET", "/info")
        with pytest.raises(Unavailable):
            await docker.hijack("POST", "/exec/x/start")
        async with double(tmp_path, []) as newer:
            newer.version = "1.43"
            assert await docker.version() == (1, 43)


async def test_who_answers_too_late_is_not_waited_for(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, tmp_path / "s")
    try:
        config = DockerConfig(endpoint=f"unix://{tmp_path}/s", request_timeout=0.2)
        async with connected(config) as docker:
            with pytest.raises(DeadlineExceeded, match=r"HEAD /_ping within 0\.2 s"):
                await docker.version()
    finally:
        server.close()


async def test_a_connection_given_over_goes_both_ways_and_ends(tmp_path: Path) -> None:
    async with double(tmp_path, []) as served, connected(DockerConfig(endpoint=served.endpoint)) as docker:
        served.upgrades = True
        taken = await docker.hijack("POST", "/exec/x/start", json={"Tty": True})
        async with asyncio.timeout(BOTH):
            await taken.write(b"and more")
            assert await taken.read_exactly(11) == b"HI AND MORE"
            assert taken.end_input()
            assert await taken.read() == b""
        taken.close()


async def test_who_does_not_give_a_connection_over_says_why(tmp_path: Path) -> None:
    refused = {
        "method": "POST",
        "path": "/v1.41/exec/x/start",
        "status": 409,
        "response": {"message": "paused"},
    }
    async with (
        double(tmp_path, [refused]) as served,
        connected(DockerConfig(endpoint=served.endpoint)) as docker,
    ):
        with pytest.raises(FailedPrecondition, match=r"Docker: POST /exec/x/start: paused"):
            await docker.hijack("POST", "/exec/x/start")


@pytest.mark.root
async def test_a_stream_tells_each_thing_as_it_comes(daemon: Daemon) -> None:
    async with daemon.docker() as docker, asyncio.timeout(60):
        body = {"Image": "podwright.test/busybox:1", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        async with docker.stream(
            "GET", "/events", {"since": "0", "filters": '{"event":["create"]}'}
        ) as events:
            made = await docker.call("POST", "/containers/create", json=body)
            async for event in events:
                if event["Actor"]["ID"] == made["Id"]:
                    break
        status, gone = await docker.request("DELETE", f"/containers/{made['Id']}")
        assert (status, gone) == (204, None)
        with pytest.raises(NotFound, match="No such container"):
            await docker.call("GET", f"/containers/{made['Id']}/json")
