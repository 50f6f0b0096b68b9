"""Port-forward with our client: over each protocol and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.engines.streams import Connection
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.streaming.client import Forwarding, forwarding
from podwright.streaming.pipe import Pipe
from tests.streaming.stand_in import node
from tests.streaming.test_client import LIMIT, Door, Given, Kept

ECHO, TIME, CHARGEN, HANG, NOTHING = 7, 13, 19, 20, 81


@pytest.fixture(params=["here", "auto", "websocket", "spdy"])
async def door(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async with node(tmp_path) as made:
        yield Door(made, request.param)


@pytest.fixture
async def tunnel(door: Door) -> AsyncIterator[Forwarding]:
    async with forwarding(door.cri, door.node.pod, [ECHO, TIME], door.options) as made:
        yield made


async def test_bytes_go_both_ways_and_both_ends_are_told(tunnel: Forwarding) -> None:
    out = Kept(digest=True)
    chunks = [bytes(range(256)) * 1000 for _ in range(30)]
    await asyncio.wait_for(tunnel.connect(ECHO, Connection(Given(*chunks), out)), LIMIT)
    assert out.length == sum(map(len, chunks))
    assert out.closed.is_set()


async def test_a_service_that_speaks_first_and_leaves_ends_the_connection(tunnel: Forwarding) -> None:
    out, stays_open = Kept(), Pipe()
    await asyncio.wait_for(tunnel.connect(TIME, Connection(stays_open, out)), LIMIT)
    assert out.data == b"noon\n"


async def test_a_port_that_refuses_says_so_and_concerns_nobody_else(tunnel: Forwarding) -> None:
    up, down = Pipe(), Pipe()
    other = asyncio.ensure_future(tunnel.connect(ECHO, Connection(up, down)))
    await up.write(b"before")
    assert await asyncio.wait_for(down.read(), LIMIT) == b"before"
    for _ in range(5):
        request = Given(b"GET / HTTP/1.0\r\n\r\n" * 1000)
        with pytest.raises(PodwrightError, match="nothing listens on localhost:81"):
            await asyncio.wait_for(tunnel.connect(NOTHING, Connection(request, Kept())), LIMIT)
    await up.write(b"after")
    assert await asyncio.wait_for(down.read(), LIMIT) == b"after"
    await up.close()
    await asyncio.wait_for(other, LIMIT)


async def test_many_at_once_do_not_mix(tunnel: Forwarding) -> None:
    async def one(number: int) -> None:
        out, text = Kept(), f"{number} ".encode() * 2000
        await tunnel.connect(ECHO, Connection(Given(text), out))
        assert out.data == text

    await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(60))), LIMIT)


async def test_a_connection_that_is_cancelled_ends_in_the_pod(door: Door, tunnel: Forwarding) -> None:
    running = asyncio.ensure_future(tunnel.connect(HANG, Connection(Pipe(), Kept())))
    await asyncio.wait_for(door.node.engine.started.wait(), LIMIT)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(door.node.engine.hung_up.wait(), LIMIT)


async def test_a_local_side_that_leaves_ends_an_endless_service(door: Door, tunnel: Forwarding) -> None:
    class Leaves(Kept):
        async def write(self, data: bytes | bytearray | memoryview, /) -> None:
            raise BrokenPipeError("enough")

    connection = Connection(Pipe(), Leaves())
    if door.is_remote:
        await asyncio.wait_for(tunnel.connect(CHARGEN, connection), LIMIT)
    else:
        with pytest.raises(BrokenPipeError):
            await asyncio.wait_for(tunnel.connect(CHARGEN, connection), LIMIT)
    while door.node.engine.running:  # noqa: ASYNC110 - nobody tells it
        await asyncio.sleep(0.01)


async def test_a_server_that_vanishes_is_told_as_such(door: Door, tunnel: Forwarding) -> None:
    if not door.is_remote:
        pytest.skip("there is no server")
    running = asyncio.ensure_future(tunnel.connect(HANG, Connection(Pipe(), Kept())))
    await asyncio.wait_for(door.node.engine.started.wait(), LIMIT)
    door.node.server.abort()
    with pytest.raises(Unavailable, match="lost"):
        await asyncio.wait_for(running, LIMIT)


async def test_a_pod_that_is_not_ready_is_refused_at_once(door: Door) -> None:
    from podwright.wire import cri_pb2 as cri

    await door.node.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=door.node.pod))
    with pytest.raises(FailedPrecondition, match="not ready"):
        async with forwarding(door.cri, door.node.pod, [ECHO], door.options) as made:
            await made.connect(ECHO, Connection(Given(), Kept()))
