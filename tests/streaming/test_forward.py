"""Port-forward: many connections to many ports over one connection of the client, over all its protocols."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.streaming.spdy import Session
from tests.streaming.stand_in import CHUNK, Node, channels, everything, node, pair, pump, spdy, tunnel

PROTOCOL = "portforward.k8s.io"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Node]:
    async with node(tmp_path) as made, asyncio.timeout(120):
        yield made


@pytest.fixture(params=["spdy", "tunnel"])
async def session(served: Node, request: pytest.FixtureRequest) -> AsyncIterator[Session]:
    url = await served.forward_url()
    made = await (spdy(url, PROTOCOL) if request.param == "spdy" else tunnel(url))
    yield made
    made.abort()


async def test_bytes_go_both_ways_and_each_direction_has_its_end(session: Session) -> None:
    error, data = await pair(session, 7, "0")
    await error.close()
    await data.write(CHUNK)
    seen = b""
    while len(seen) < len(CHUNK):
        seen += await data.read()
    assert seen == CHUNK
    await data.write(b"last")
    await data.close()
    assert await data.read() == b"last"
    assert await data.read() == b""
    assert await error.read() == b""


async def test_a_connection_that_the_pod_ends_first(served: Node, session: Session) -> None:
    error, data = await pair(session, 13, "0")
    assert await everything(data) == b"noon\n"
    assert await error.read() == b""
    # What the client still sends is nobody's, and does not stop the others.
    await pump(data, 8 << 20)
    await data.close()
    error, data = await pair(session, 13, "1")
    assert await everything(data) == b"noon\n"
    assert served.engine.running == 0


async def test_a_connection_that_the_client_cuts_is_no_failure(served: Node, session: Session) -> None:
    # client-go does so when the pod has closed its direction, and ends its session upon any word of an error.
    error, data = await pair(session, 7, "0")
    await data.write(b"word")
    assert await data.read() == b"word"
    await data.reset()
    assert await error.read() == b""
    while served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_why_a_port_cannot_be_reached(session: Session) -> None:
    error, data = await pair(session, 80, "0")
    words = await everything(error)
    assert words == b"cannot forward port 80: nothing listens on localhost:80 in the pod"
    with pytest.raises(ConnectionResetError):
        await data.read()
    # The session goes on.
    error, data = await pair(session, 13, "1")
    assert await everything(data) == b"noon\n"


async def test_many_connections_at_once_do_not_wait_for_each_other(session: Session) -> None:
    _, stuck = await pair(session, 19, "stuck")

    async def one(at: int) -> bytes:
        _, data = await pair(session, 7, str(at))
        await data.write(b"%d" % at * 1000)
        await data.close()
        return await everything(data)

    seen = await asyncio.gather(*(one(at) for at in range(100)))
    assert seen == [b"%d" % at * 1000 for at in range(100)]
    assert await stuck.read()


async def test_much_goes_through_unchanged(session: Session) -> None:
    _, data = await pair(session, 7, "0")
    wanted, found = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for _ in range(512):
            await data.write(CHUNK)
            wanted.update(CHUNK)
        await data.close()

    sending = asyncio.ensure_future(send())
    while part := await data.read():
        found.update(part)
    await sending
    assert found.digest() == wanted.digest()


async def test_old_clients_number_no_requests(session: Session) -> None:
    headers = {"port": "7"}
    for word in (b"one", b"two"):
        error = await session.open({"streamtype": "error", **headers})
        data = await session.open({"streamtype": "data", **headers})
        await data.write(word)
        await data.close()
        assert await everything(data) == word
        await error.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "-1"},
        {"streamtype": "data", "port": "http"},
        {"streamtype": "data", "port": "1" * 5000},
        {"streamtype": "data"},
        {"streamtype": "stdin", "port": "7"},
        {"port": "7"},
    ],
)
async def test_streams_that_make_no_sense_are_refused(session: Session, headers: dict[str, str]) -> None:
    with pytest.raises(ConnectionResetError, match="REFUSED_STREAM"):
        stream = await session.open({"requestid": "0", **headers})
        await stream.read()
    _, data = await pair(session, 13, "1")
    assert await everything(data) == b"noon\n"


async def test_a_third_stream_of_a_pair_is_refused(session: Session) -> None:
    first = await session.open({"streamtype": "data", "port": "7", "requestid": "0"})
    with pytest.raises(ConnectionResetError, match="PROTOCOL_ERROR"):
        await (await session.open({"streamtype": "data", "port": "7", "requestid": "0"})).read()
    with pytest.raises(ConnectionResetError, match="PROTOCOL_ERROR"):
        await (await session.open({"streamtype": "error", "port": "8", "requestid": "0"})).read()
    await session.open({"streamtype": "error", "port": "7", "requestid": "0"})
    await first.write(b"on")
    assert await first.read() == b"on"


async def test_half_a_pair_is_given_up(tmp_path: Path) -> None:
    async with node(tmp_path, creation_timeout=0.2) as served, asyncio.timeout(60):
        session = await spdy(await served.forward_url(), PROTOCOL)
        error = await session.open({"streamtype": "error", "port": "7", "requestid": "0"})
        assert await everything(error) == b"the stream for data did not come within 0.2 s"
        data = await session.open({"streamtype": "data", "port": "7", "requestid": "1"})
        with pytest.raises(ConnectionResetError):
            await data.read()
        _, data = await pair(session, 13, "0")
        assert await everything(data) == b"noon\n"
        session.abort()


async def test_a_client_that_leaves_cuts_its_connections(served: Node, session: Session) -> None:
    for at in range(5):
        await pair(session, 20, str(at))
    while served.engine.running < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    session.abort()
    while served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert served.engine.hung_up.is_set()


@pytest.mark.parametrize("version", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_the_old_protocol_has_two_channels_a_port(served: Node, version: str) -> None:
    client = await channels(await served.forward_url(7, 258, 13), version)
    await client.channels.outlet(0).write(b"hello")
    seen = b""
    while len(seen) < 7:
        seen += await client.read(0)
    assert seen == b"\x07\x00hello"
    error = b""
    while b"in the pod" not in error:
        error += await client.read(3)
    assert error == b"\x02\x01cannot forward port 258: nothing listens on localhost:258 in the pod"
    noon = b""
    while b"\n" not in noon:
        noon += await client.read(4)
    assert noon == b"\x0d\x00noon\n"
    assert await client.read(1) == b"\x07\x00"
    client.socket.transport.abort()
    while served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_client_of_the_old_protocol_that_leaves_cuts_its_connections(served: Node) -> None:
    client = await channels(await served.forward_url(20, 7), "v4.channel.k8s.io")
    await served.engine.started.wait()
    client.socket.transport.abort()
    await served.engine.hung_up.wait()
    while served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_the_old_protocol_ends_when_all_its_connections_have(served: Node) -> None:
    client = await channels(await served.forward_url(13, 258), "v4.channel.k8s.io")
    assert await client.all(0) == b"\x0d\x00noon\n"
    await client.socket.closed
