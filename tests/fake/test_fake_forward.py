"""Port-forwards to fake pods: programs that listen, and ports of the scenario."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.engines.base import Sandbox
from podwright.engines.streams import Connection
from podwright.wire import cri_pb2 as cri
from tests.fake.containers import Case, Node
from tests.oci.clients import Arrived, Sent


@dataclass
class Pod:
    node: Node
    sandbox: Sandbox

    async def start(self, *command: str) -> Case:
        case = await self.node.create(*command)
        self.node.world.drop(case.container.id)
        container = replace(case.container, sandbox=self.sandbox)
        async with AsyncExitStack() as undo:
            await self.node.engine.create_container(container, undo)
            undo.pop_all()
        await self.node.engine.start_container(container)
        await self.node.clock.advance(0)
        return Case(self.node, container)

    def connect(self, port: int, source: Sent, sink: Arrived) -> asyncio.Task[None]:
        return asyncio.ensure_future(
            self.node.engine.port_forward(self.sandbox, port, Connection(source, sink))
        )

    async def ask(self, port: int, *sent: bytes) -> bytes:
        """What comes back until both sides have ended."""
        sink = Arrived()
        async with asyncio.timeout(30):
            await self.connect(port, Sent(*sent, closed=True), sink)
        assert sink.closed
        return bytes(sink.data)


async def pod(node: Node, name: str = "web", network: Any = cri.POD) -> Pod:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name=name, namespace="space", uid="u"))
    config.linux.security_context.namespace_options.network = network
    sandbox = Sandbox(node.world.new_id(), name, config, "")
    async with AsyncExitStack() as undo:
        facts = await node.engine.create_sandbox(sandbox, undo)
        undo.pop_all()
    return Pod(node, replace(sandbox, facts=facts))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_an_echo(node: Node) -> None:
    web = await pod(node)
    case = await web.start("nc", "-ll", "-p", "7", "-e", "cat")
    every = bytes(range(256)) * 4000
    assert await asyncio.gather(*(web.ask(7, each, every) for each in (b"a", b"b"))) == [
        b"a" + every,
        b"b" + every,
    ]
    source, sink = Sent(b"one"), Arrived()
    session = web.connect(7, source, sink)
    await sink.has(b"one")
    await case.signal(9)
    async with asyncio.timeout(30):
        await sink.until(lambda _: sink.closed)
        source.close()
        await session
    with pytest.raises(errors.FailedPrecondition, match="nothing listens on port 7 of pod space/web"):
        await web.ask(7)


async def test_each_direction_ends_by_itself_and_neither_gets_ahead(node: Node) -> None:
    web = await pod(node)
    await web.start("nc", "-ll", "-p", "9", "-e", "sh", "-c", "cat | wc -c; yes | head -c 500000")
    source, sink = Sent(*[b"x" * 10_000] * 30), Arrived()
    sink.gate.clear()
    session = web.connect(9, source, sink)
    await node.clock.advance(1)
    source.close()
    await node.clock.advance(1)
    assert not session.done() and sink.count == 0
    sink.gate.set()
    async with asyncio.timeout(30):
        await session
    assert sink.data.startswith(b"300000\ny\n") and sink.count == 500_007


async def test_files_over_http(node: Node) -> None:
    web = await pod(node)
    files = "mkdir -p /srv/d; echo front > /srv/index.html; echo text > /srv/d/a.txt"
    await web.start("sh", "-c", f"{files}; httpd -p 8080 -h /srv; pause")

    async def get(line: str) -> tuple[str, str, str]:
        answer = (await web.ask(8080, f"{line}\r\nHost: x\r\n\r\n".encode())).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return head.split("\r\n")[0], head, body

    assert (await get("GET / HTTP/1.1"))[::2] == ("HTTP/1.1 200 OK", "front\n")
    status, head, body = await get("GET /d/a%2Etxt?x=y HTTP/1.1")
    assert (status, body) == ("HTTP/1.1 200 OK", "text\n")
    assert "Content-Length: 5" in head and "Content-Type: text/plain" in head
    assert (await get("HEAD /d/a.txt HTTP/1.1"))[::2] == ("HTTP/1.1 200 OK", "")
    for path in ("/none", "/d", "/../etc/passwd"):
        assert (await get(f"GET {path} HTTP/1.1"))[0] == "HTTP/1.1 404 Not Found"
    assert (await get("POST / HTTP/1.1"))[0] == "HTTP/1.1 501 Not Implemented"
    assert (await get("what"))[0] == "HTTP/1.1 400 Bad Request"


async def test_one_connection_with_the_programs_own_streams(node: Node) -> None:
    web = await pod(node)
    case = await web.start("sh", "-c", "echo hello | nc -lp 5; echo rest; exit 4")
    assert await web.ask(5, b"from outside\n") == b"hello\n"
    await node.clock.advance(0)
    assert (case.output(), case.code) == ("from outside\nrest\n", 4)


async def test_containers_of_a_pod_share_its_ports_and_no_other_pod_does(node: Node) -> None:
    web, other = await pod(node), await pod(node, "other")
    server = await web.start("nc", "-ll", "-p", "80", "-e", "echo", "served")
    for place, seen in ((web, "served\n"), (other, "")):
        case = await place.start(
            "sh", "-c", "nc localhost 80 < /dev/null || echo no >&2; nc -l -p 80 2>&1 | head"
        )
        assert case.output().startswith(seen)
        assert ("Address already in use" in case.output()) == (place is web)
    await server.signal(15)
    await node.clock.advance(0)
    again = await web.start("nc", "-ll", "-p", "80", "-e", "echo", "again")
    assert again.running and await web.ask(80) == b"again\n"


async def test_pods_of_the_host_network_share_the_hosts_ports(node: Node) -> None:
    one, two = await pod(node, "one", cri.NODE), await pod(node, "two", cri.NODE)
    await one.start("nc", "-ll", "-p", "80", "-e", "echo", "host")
    assert await two.ask(80) == b"host\n"


async def test_a_client_that_goes_resets_the_connection(node: Node) -> None:
    web = await pod(node)
    case = await web.start("sh", "-c", "nc -l -p 7 > /tmp/x; echo $?")
    session = web.connect(7, Sent(b"one"), Arrived())
    await node.clock.advance(0)
    session.cancel()
    await asyncio.wait([session])
    await node.clock.advance(0)
    assert case.output("stderr") == "nc: Connection reset by peer\n" and case.output() == "1\n"


async def test_a_crash_of_the_server_ends_the_connection(node: Node) -> None:
    web = await pod(node)
    case = await web.start("sh", "-c", "nc -l -p 7; echo $?")
    session = web.connect(7, Sent(b"one\n"), Arrived())
    await node.clock.advance(0)
    node.engine.crash()
    await node.clock.advance(0)
    assert case.output() == "one\n0\n"
    session.cancel()
    await asyncio.wait([session])


async def test_ports_of_the_scenario(tmp_path: Path) -> None:
    ports = [
        {"port": 80, "answer": "hello\n", "after": "2s"},
        {"port": 7, "echo": True},
        {"port": 8, "answer": "say: ", "echo": True},
        {"port": 9},
    ]
    node = Node(tmp_path, {"pods": [{"match": {"pod": "web"}, "ports": ports}]})
    web, other = await pod(node), await pod(node, "other")
    greeted, sink = Sent(b"hi"), Arrived()
    session = web.connect(80, greeted, sink)
    await node.clock.advance(1.9)
    assert sink.data == b""
    await node.clock.advance(0.1)
    await sink.until(lambda data: data == b"hello\n" and sink.closed)
    assert not session.done(), "the client has not ended its direction"
    greeted.close()
    async with asyncio.timeout(30):
        await session
    assert await web.ask(7, b"a", b"b") == b"ab"
    assert await web.ask(8, b"a") == b"say: a"
    assert await web.ask(9, b"a") == b""
    for place, port in ((other, 7), (web, 10)):
        with pytest.raises(errors.FailedPrecondition, match=r"nothing listens .*Connection refused"):
            await place.ask(port)


@pytest.mark.parametrize("how", ["is stopped", "is lost"])
async def test_a_pod_that_ends_takes_its_ports_along(tmp_path: Path, how: str) -> None:
    node = Node(tmp_path, {"pods": [{"ports": [{"port": 7, "echo": True}]}]})
    web = await pod(node)
    sink = Arrived()
    session = web.connect(7, Sent(b"one"), sink)
    await sink.has(b"one")
    if how == "is stopped":
        await node.engine.stop_sandbox(web.sandbox)
    else:
        node.world.pause_ended(node.world.sandboxes[web.sandbox.id])
    with pytest.raises(errors.FailedPrecondition, match="the pod has stopped"):
        await session
    with pytest.raises(errors.FailedPrecondition, match="not ready"):
        await web.ask(7)


@pytest.mark.parametrize("port", [0, 65536])
async def test_impossible_ports(node: Node, port: int) -> None:
    with pytest.raises(errors.InvalidArgument, match="port"):
        await (await pod(node)).ask(port)
