"""port-forward as a user meets it."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.cli.forward import Pair, pair
from podwright.errors import InvalidArgument
from tests.cli.host_node import LIMIT, HostNode, command, host_node

ECHO, TIME, CHARGEN, NOTHING = 7, 13, 19, 81


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[HostNode]:
    async with host_node(tmp_path) as made:
        yield made


@asynccontextmanager
async def forwarded(
    root: Path, *arguments: str, lines: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[tuple[str, int, int]]]]:
    """The program, and its first `lines` as address, port here, port there."""
    child = await asyncio.create_subprocess_exec(
        *command(root, "port-forward", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        found = []
        for _ in range(lines):
            line = (await asyncio.wait_for(child.stdout.readline(), LIMIT)).decode()
            match = re.fullmatch(r"Forwarding from \[?([0-9.:]+?)\]?:(\d+) -> (\d+)\n", line)
            assert match is not None, line
            found.append((match[1], int(match[2]), int(match[3])))
        yield child, found
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def ask(address: str, port: int, text: bytes) -> bytes:
    """What comes for `text`, after which nothing more is sent."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(text)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(-1), LIMIT)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("text", "meant"),
    [("80", Pair(80, 80)), ("8080:80", Pair(8080, 80)), (":80", Pair(0, 80)), ("0:80", Pair(0, 80))],
)
def test_how_ports_are_written(text: str, meant: Pair) -> None:
    assert pair(text) == meant


@pytest.mark.parametrize("text", ["", ":", "x", "80:", "1:2:3", "0", "65536", "-1:80", "80:http", "8080:0"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(repr(text))):
        pair(text)


@pytest.mark.parametrize("transport", ["auto", "spdy"])
async def test_both_loopback_addresses_lead_to_each_port(
    node: HostNode, tmp_path: Path, transport: str
) -> None:
    arguments = ("--transport", transport, "pod", f":{ECHO}", f":{TIME}")
    async with forwarded(tmp_path, *arguments, lines=4) as (child, found):
        assert [(address, there) for address, _, there in found] == [
            ("127.0.0.1", ECHO),
            ("::1", ECHO),
            ("127.0.0.1", TIME),
            ("::1", TIME),
        ]
        assert found[0][1] == found[1][1] != found[2][1] == found[3][1]
        text = bytes(range(256)) * 4000
        for address, here, there in found:
            assert await ask(address, here, text) == (text if there == ECHO else b"noon\n")
        child.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(child.communicate(), LIMIT) == (b"", b"")
        assert child.returncode == 0


async def test_many_connections_at_once_do_not_mix(node: HostNode, tmp_path: Path) -> None:
    async with forwarded(tmp_path, "pod", f":{ECHO}", lines=2) as (_, found):
        address, here, _ = found[0]
        texts = [f"{number} ".encode() * 3000 for number in range(40)]
        assert await asyncio.gather(*(ask(address, here, text) for text in texts)) == texts


async def test_a_connection_that_fails_is_told_and_others_go_on(node: HostNode, tmp_path: Path) -> None:
    async with forwarded(tmp_path, "pod", f":{NOTHING}", f":{ECHO}", lines=4) as (child, found):
        closed, open_ = found[0][1], found[2][1]
        reader, writer = await asyncio.open_connection("127.0.0.1", open_)
        writer.write(b"before")
        assert await asyncio.wait_for(reader.readexactly(6), LIMIT) == b"before"
        with pytest.raises(ConnectionResetError):
            await ask("127.0.0.1", closed, b"anybody?")
        assert child.stderr is not None
        told = await asyncio.wait_for(child.stderr.readline(), LIMIT)
        assert told.decode().startswith(f"podwright: {closed} -> {NOTHING}: ")
        assert told.decode().endswith(f"nothing listens on localhost:{NOTHING} in the pod\n")
        writer.write(b"after")
        assert await asyncio.wait_for(reader.readexactly(5), LIMIT) == b"after"
        writer.close()


async def test_a_client_that_leaves_ends_its_connection_in_the_pod(node: HostNode, tmp_path: Path) -> None:
    async with forwarded(tmp_path, "pod", f":{CHARGEN}", lines=2) as (_, found):
        reader, writer = await asyncio.open_connection("127.0.0.1", found[0][1])
        await asyncio.wait_for(reader.readexactly(1000), LIMIT)
        assert node.engine.running == 1
        writer.transport.abort()
        async with asyncio.timeout(LIMIT):
            while node.engine.running:  # noqa: ASYNC110 - nobody tells it
                await asyncio.sleep(0.01)


async def test_the_end_of_the_program_ends_all_connections(node: HostNode, tmp_path: Path) -> None:
    async with forwarded(tmp_path, "pod", f":{ECHO}", lines=2) as (child, found):
        reader, writer = await asyncio.open_connection("127.0.0.1", found[0][1])
        writer.write(b"x")
        assert await asyncio.wait_for(reader.readexactly(1), LIMIT) == b"x"
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), LIMIT) == 0
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_addresses_can_be_chosen(node: HostNode, tmp_path: Path) -> None:
    arguments = ("--address", "127.0.0.1", "--address", "127.0.0.2", "pod", f":{TIME}")
    async with forwarded(tmp_path, *arguments, lines=2) as (_, found):
        assert [address for address, _, _ in found] == ["127.0.0.1", "127.0.0.2"]
        for address, here, _ in found:
            assert await ask(address, here, b"") == b"noon\n"


async def test_a_port_that_is_taken_is_told(node: HostNode, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        child = await asyncio.create_subprocess_exec(
            *command(tmp_path, "port-forward", "--address", "127.0.0.1", "pod", f"{port}:{ECHO}"),
            stderr=subprocess.PIPE,
        )
        _, err = await asyncio.wait_for(child.communicate(), LIMIT)
    finally:
        server.close()
    assert child.returncode == 1
    assert err.startswith(f"podwright: cannot listen at 127.0.0.1, port {port}: ".encode())
    assert b"in use" in err


async def test_a_pod_that_is_not_there_is_told(node: HostNode, tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *command(tmp_path, "port-forward", "nobody", "80"), stderr=subprocess.PIPE
    )
    _, err = await asyncio.wait_for(child.communicate(), LIMIT)
    assert (child.returncode, err) == (1, b"podwright: no pod has the id or name 'nobody'\n")
