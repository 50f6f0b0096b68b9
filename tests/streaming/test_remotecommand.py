"""Exec and attach over SPDY and WebSocket, as clients of every protocol version speak them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from podwright.engines.streams import Size
from podwright.streaming import channels as numbers
from podwright.streaming.channels import Channels
from podwright.streaming.sizes import Sizes
from podwright.streaming.websocket import NORMAL
from tests.streaming.stand_in import (
    CHUNK,
    WEBSOCKET,
    Client,
    Node,
    Remote,
    channels,
    node,
    pump,
    remote,
    spdy,
    upgrade,
)

V1, V2, V3, V4 = "channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"
SUCCESS = {"metadata": {}, "status": "Success"}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Node]:
    async with node(tmp_path) as made, asyncio.timeout(120):
        yield made


# SPDY


async def test_output_and_success(served: Node) -> None:
    client = await remote(await served.exec_url("echo", "hello", "there"), "stdout")
    assert await client.all("stdout") == b"hello there\n"
    assert await client.status() == SUCCESS
    assert await client.session.closed is None


async def test_an_exit_code_is_a_document(served: Node) -> None:
    client = await remote(await served.exec_url("exit", "3"), "stdout")
    assert await client.status() == {
        "metadata": {},
        "status": "Failure",
        "message": "command terminated with non-zero exit code: 3",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }


@pytest.mark.parametrize(
    ("command", "message", "reason", "code"),
    [
        ("refuse", "the runtime says no", "Conflict", 409),
        ("defect", "RuntimeError: a defect, made for a test", "InternalError", 500),
    ],
)
async def test_an_error_of_the_engine_is_a_document(
    served: Node, command: str, message: str, reason: str, code: int
) -> None:
    client = await remote(await served.exec_url(command), "stdout")
    assert await client.all("stdout") == b""
    assert await client.status() == {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


@pytest.mark.parametrize("version", ["", V1, V2, V3])
async def test_before_v4_the_error_stream_is_text_and_empty_on_success(served: Node, version: str) -> None:
    client = await remote(await served.exec_url("echo", "x"), "stdout", version=version)
    assert (await client.all("stdout"), await client.all("error")) == (b"x\n", b"")
    client = await remote(await served.exec_url("exit", "3"), "stdout", version=version)
    assert await client.all("error") == b"command terminated with non-zero exit code: 3"
    client = await remote(await served.exec_url("refuse"), "stdout", version=version)
    assert await client.all("error") == b"the runtime says no"


async def test_half_closed_stdin_ends_a_filter_and_stderr_is_a_stream_of_its_own(served: Node) -> None:
    client = await remote(await served.exec_url("cat", stdin=True, stdout=True), "stdin", "stdout")
    data = CHUNK * 5
    await client.streams["stdin"].write(data)
    await client.streams["stdin"].close()
    assert await client.all("stdout") == data
    assert await client.status() == SUCCESS
    client = await remote(await served.exec_url("err", "oh", stdout=True, stderr=True), "stdout", "stderr")
    assert (await client.all("stdout"), await client.all("stderr")) == (b"", b"oh")


@pytest.mark.parametrize("version", [V3, V4])
async def test_a_terminal_has_sizes_and_bad_ones_are_passed_over(served: Node, version: str) -> None:
    url = await served.exec_url("sizes", "2", stdin=True, stdout=True, tty=True)
    client = await remote(url, "stdin", "stdout", "resize", version=version)
    resize, seen = client.streams["resize"], b""
    await resize.write(b'nonsense{"Width":-1,"Height":2}{"Width":80,"Hei')
    await resize.write(b'ght":24}\n')
    while b"80x24 " not in seen:
        seen += await client.streams["stdout"].read()
    await resize.write(b'{"Width":132,"Height":50}\n')
    assert seen + await client.all("stdout") == b"80x24 132x50 "
    await client.all("error")


@pytest.mark.parametrize("version", [V1, V2])
async def test_before_v3_a_terminal_has_no_sizes(served: Node, version: str) -> None:
    url = await served.exec_url("cat", stdin=True, stdout=True, tty=True)
    client = await remote(url, "stdin", "stdout", version=version)
    await client.streams["stdin"].write(b"typed")
    assert await client.streams["stdout"].read() == b"typed"
    await client.streams["stdin"].close()
    assert await client.all("error") == b""


async def test_streams_nobody_asked_for_are_refused(served: Node) -> None:
    session = await spdy(await served.exec_url("echo", "x"))
    client = await Remote(session).open("error")
    for name in ("stdin", "error", "", "data"):
        with pytest.raises(ConnectionResetError, match="REFUSED_STREAM"):
            await (await session.open({"streamtype": name})).read()
    await client.open("stdout")
    assert await client.all("stdout") == b"x\n"
    assert await client.status() == SUCCESS


async def test_a_client_that_does_not_open_its_streams_is_told_so(tmp_path: Path) -> None:
    async with node(tmp_path, creation_timeout=0.2) as served, asyncio.timeout(60):
        client = await remote(await served.exec_url("cat", stdin=True, stdout=True), "stdout")
        status = await client.status()
        assert status["message"] == "the client did not open these streams within 0.2 s: stdin"
        assert await client.session.closed is None
        # One that opens none at all is just left.
        session = await spdy(await served.exec_url("cat", stdin=True, stdout=True))
        await asyncio.wait([session.closed])
        assert served.engine.running == 0


async def test_attach_speaks_the_same(served: Node) -> None:
    client = await remote(await served.attach_url(stdin=True, stdout=True), "stdin", "stdout")
    await client.streams["stdin"].write(b"in")
    await client.streams["stdin"].close()
    assert await client.all("stdout") == b"attached\nin"
    assert await client.status() == SUCCESS


async def test_a_client_that_vanishes_hangs_the_command_up(served: Node) -> None:
    client = await remote(await served.exec_url("hang"), "stdout")
    await served.engine.started.wait()
    client.session.abort()
    await served.engine.hung_up.wait()
    assert served.engine.running == 0


async def test_a_client_that_says_goodbye_hangs_the_command_up(served: Node) -> None:
    client = await remote(await served.exec_url("hang"), "stdout")
    await served.engine.started.wait()
    await client.session.close()
    await served.engine.hung_up.wait()


async def test_a_stream_that_the_client_resets_does_not_end_the_others(served: Node) -> None:
    url = await served.exec_url("cat", stdin=True, stdout=True, stderr=True)
    client = await remote(url, "stdin", "stdout", "stderr")
    await client.streams["stderr"].reset()
    await client.streams["stdin"].write(b"on")
    await client.streams["stdin"].close()
    assert await client.all("stdout") == b"on"
    assert await client.status() == SUCCESS


async def test_a_hundred_at_once(served: Node) -> None:
    async def one(at: int) -> bytes:
        client = await remote(await served.exec_url("cat", stdin=True, stdout=True), "stdin", "stdout")
        sent = b"%d " % at * 10_000
        writing = asyncio.ensure_future(client.streams["stdin"].write(sent))
        seen = b""
        while len(seen) < len(sent):
            seen += await client.streams["stdout"].read()
        await writing
        everybody.append(at)
        while len(everybody) < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await client.streams["stdin"].close()
        assert await client.status() == SUCCESS
        return seen

    everybody: list[int] = []
    seen = await asyncio.gather(*(one(at) for at in range(100)))
    assert seen == [b"%d " % at * 10_000 for at in range(100)]


async def test_much_goes_both_ways_in_little_memory(served: Node) -> None:
    """64 MiB through a filter whose output the client takes slowly: what is under way is bounded."""
    client = await remote(await served.exec_url("cat", stdin=True, stdout=True), "stdin", "stdout")
    stdin, stdout = client.streams["stdin"], client.streams["stdout"]
    sent, taken, most = 0, 0, 0
    wanted, found = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        nonlocal sent
        for _ in range(1024):
            await stdin.write(CHUNK)
            wanted.update(CHUNK)
            sent += len(CHUNK)
        await stdin.close()

    sending = asyncio.ensure_future(send())
    while data := await stdout.read():
        taken += len(data)
        found.update(data)
        most = max(most, sent - taken)
        await asyncio.sleep(0)
    await sending
    assert taken == 64 << 20
    assert found.digest() == wanted.digest()
    # Two windows each way, the buffers of the transports, and what the kernel takes of a loopback socket.
    assert most < 32 << 20
    assert await client.status() == SUCCESS


async def test_a_slow_reader_gets_the_end_after_the_command_has_ended(served: Node) -> None:
    """What the command wrote before its end waits for the client, and the end after it."""
    size = 200 << 10  # as much as one window takes
    client = await remote(await served.exec_url("pump", str(size)), "stdout")
    client_pipe = client.session._pipe
    assert client_pipe is not None
    client_pipe.pause_reading()
    while served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    client_pipe.resume_reading()
    assert len(await client.all("stdout")) == size
    assert await client.status() == SUCCESS


# WebSocket


async def talk(client: Client, *numbers: int) -> list[bytes]:
    """What comes on these channels, until the connection ends."""
    return await asyncio.gather(*(client.all(number) for number in numbers))


@pytest.mark.parametrize("version", ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_channels_carry_output_and_a_document(served: Node, version: str) -> None:
    client = await channels(await served.exec_url("echo", "ünï"), version)
    out, error = await talk(client, numbers.STDOUT, numbers.ERROR)
    assert (out, msgspec.json.decode(error)) == ("ünï\n".encode(), SUCCESS)
    client = await channels(await served.exec_url("exit", "7"), version)
    (error,) = await talk(client, numbers.ERROR)
    assert msgspec.json.decode(error)["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}


@pytest.mark.parametrize("version", ["", "channel.k8s.io", "base64.channel.k8s.io"])
async def test_old_channels_carry_text_for_errors(served: Node, version: str) -> None:
    client = await channels(await served.exec_url("err", "x", stdout=True, stderr=True), version)
    assert await talk(client, numbers.STDERR, numbers.ERROR) == [b"x", b""]
    client = await channels(await served.exec_url("exit", "7"), version)
    assert await talk(client, numbers.ERROR) == [b"command terminated with non-zero exit code: 7"]


async def test_v5_ends_the_input_without_ending_the_connection(served: Node) -> None:
    client = await channels(await served.exec_url("cat", stdin=True, stdout=True))
    stdin, taking = client.channels.outlet(numbers.STDIN), asyncio.ensure_future(talk(client, 1, 3))
    data = CHUNK * 20
    await stdin.write(data)
    await stdin.close()
    out, error = await taking
    assert out == data
    assert msgspec.json.decode(error) == SUCCESS


async def test_a_terminal_in_channels_has_sizes(served: Node) -> None:
    url = await served.exec_url("sizes", "1", stdin=True, stdout=True, tty=True)
    client = await channels(url)
    await client.channels.send(numbers.RESIZE, b'{"Width":100,"Height":40}')
    assert (await talk(client, numbers.STDOUT))[0] == b"100x40 "


@pytest.mark.parametrize("streams", [{"stdout": True}, {"stderr": True}, {"stdin": True}])
async def test_a_first_empty_message_says_that_the_connection_stands(
    served: Node, streams: dict[str, bool]
) -> None:
    url = await served.exec_url("hang", **streams)
    heard: asyncio.Future[tuple[bytes, bool]] = asyncio.get_running_loop().create_future()
    made = Channels("v4.channel.k8s.io", client=True)
    made.message = lambda *message: heard.set_result(message)  # type: ignore[method-assign]
    await upgrade(url, made.socket, "GET", WEBSOCKET)
    expected = {"stdout": b"\x01", "stderr": b"\x02", "stdin": b"\x03"}
    assert await heard == (expected[next(iter(streams))], True)


@pytest.mark.parametrize("polite", [True, False])
async def test_a_client_of_channels_that_leaves_hangs_the_command_up(served: Node, polite: bool) -> None:
    client = await channels(await served.exec_url("hang"))
    await served.engine.started.wait()
    if polite:
        await client.socket.close(NORMAL)
    else:
        client.socket.transport.abort()
    await served.engine.hung_up.wait()


async def test_what_breaks_the_rules_of_channels_ends_the_session(served: Node) -> None:
    for message in (b"\xff", b"\xff\x00\x01"):
        client = await channels(await served.exec_url("hang", stdin=True))
        await served.engine.started.wait()
        await client.socket.send(message)
        await served.engine.hung_up.wait()
        await client.channels.gone
        served.engine.started.clear()
        served.engine.hung_up.clear()
    client = await channels(await served.exec_url("hang", stdin=True), "v4.base64.channel.k8s.io")
    await served.engine.started.wait()
    await client.socket.send("0not base64!")
    await served.engine.hung_up.wait()


async def test_channels_that_are_not_there_are_passed_over(served: Node) -> None:
    client = await channels(await served.exec_url("cat", stdin=True, stdout=True))
    taking = asyncio.ensure_future(talk(client, numbers.STDOUT))
    for message in (b"", b"\x01mine", b"\x2afoo", b"\xff\x2a", b"\x00in"):
        await client.socket.send(message)
    await client.channels.outlet(numbers.STDIN).close()
    assert await taking == [b"in"]


async def test_input_for_one_that_does_not_take_it_waits_and_its_client_is_seen_to_leave(
    tmp_path: Path,
) -> None:
    async with node(tmp_path, look_every=0.05) as served, asyncio.timeout(60):
        client = await channels(await served.exec_url("hang", stdin=True))
        await served.engine.started.wait()
        await pump(client.channels.outlet(numbers.STDIN), 512 << 10)
        (connection,) = served.server._connections.all
        while connection.transport.is_reading():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not served.engine.hung_up.is_set()
        client.socket.transport.abort()
        await served.engine.hung_up.wait()


# Sizes


async def test_who_asks_for_a_size_gets_the_newest() -> None:
    sizes = Sizes()
    sizes.feed(b'{"Width":1,"Height":2}{"Width":3,"Height":4}')
    assert await sizes.__anext__() == Size(3, 4)
    waiting = asyncio.ensure_future(sizes.__anext__())
    sizes.feed(b'{"width": 5, "height": 6')
    sizes.feed(b"}")
    assert await waiting == Size(5, 6)
    sizes.feed(b'{"Width":7,"Height":8}')
    sizes.end()
    assert [size async for size in sizes] == [Size(7, 8)]


@pytest.mark.parametrize(
    "text",
    [
        b'{"Width":0,"Height":1}',
        b'{"Width":65536,"Height":1}',
        b'{"Width":1.5,"Height":1}',
        b'{"Width":true,"Height":1}',
        b'{"Width":"1","Height":1}',
        b'{"Width":1}',
        b"{}",
        b"{]}",
        b"\xff\x00{\xff}",
        b"[1, 2]",
        b"}" * 5000,
        b"{" * 5000,
    ],
)
async def test_what_is_no_size_is_passed_over(text: bytes) -> None:
    sizes = Sizes()
    sizes.feed(text)
    assert len(sizes._rest) <= 1024
    sizes.feed(b'\n{"Width":80,"Height":24}\n')
    assert await sizes.__anext__() == Size(80, 24)
