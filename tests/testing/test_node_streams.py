"""Exec, attach and port-forward at a fake node: recorded, struck by faults, and cut by a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from podwright import errors
from podwright.api import Cri
from podwright.client import connect
from podwright.engines.streams import Connection, Streams
from podwright.streaming import client as streaming
from podwright.streaming.client import Options, Transport
from podwright.testing import FakeNode, Fault
from podwright.wire import cri_pb2 as cri
from tests.oci.clients import Arrived, Client, Sent
from tests.testing import requests

SCENARIO = {"pods": [{"ports": [{"port": 7, "echo": True}]}]}
WAYS = ["here", Transport.WEBSOCKET, Transport.SPDY]


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    tasks = asyncio.all_tasks()
    async with FakeNode(SCENARIO) as node:
        yield node
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    assert not left or not (await asyncio.wait(left, timeout=10))[1], "something goes on without its node"


@pytest.fixture(params=WAYS)
async def way(
    node: FakeNode, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Cri, Options]]:
    """The node in this process, or at a socket."""
    if request.param == "here":
        yield node.cri, Options()
        return
    async with node.serve(tmp_path / "s"), connect(str(tmp_path / "s"), timeout=30) as client:
        yield client, Options(request.param)


Begin = Callable[[Cri, Options, str, str, Client], Awaitable[object]]


async def _exec(runtime: Cri, options: Options, pod: str, container: str, client: Client) -> None:
    script = "read word; echo $word; sleep 1000"
    await streaming.exec(runtime, container, ["sh", "-c", script], client.streams, options)


async def _attach(runtime: Cri, options: Options, pod: str, container: str, client: Client) -> None:
    await streaming.attach(runtime, container, client.streams, options)


async def _port_forward(runtime: Cri, options: Options, pod: str, container: str, client: Client) -> None:
    async with streaming.forwarding(runtime, pod, [7], options) as ports:
        await ports.connect(7, Connection(client.stdin, client.stdout))


SESSIONS: dict[str, Begin] = {"Exec": _exec, "Attach": _attach, "PortForward": _port_forward}


async def begun(
    node: FakeNode, way: tuple[Cri, Options], rpc: str, client: Client
) -> tuple[asyncio.Task[object], str]:
    """The session, once a word has gone there and back, and its container."""
    pod = await requests.run_pod(node.cri)
    await node.cri.pull_image(requests.pull())
    request = requests.container(pod)
    request.config.command[:] = ["sh", "-c", "while read word; do echo $word; done; sleep 1000"]
    request.config.stdin = True
    id = (await node.cri.create_container(request)).container_id
    await node.cri.start_container(cri.StartContainerRequest(container_id=id))
    session = asyncio.ensure_future(SESSIONS[rpc](*way, pod, id, client))
    client.stdin.send(b"word\n")
    await client.stdout.has(b"word\n")
    return session, id


@pytest.mark.parametrize("rpc", SESSIONS)
async def test_sessions_are_recorded(node: FakeNode, way: tuple[Cri, Options], rpc: str) -> None:
    client = Client()
    session, _ = await begun(node, way, rpc, client)
    (call,) = node.calls.of(rpc)
    here = way[0] is node.cri
    assert call.outcome == ("under way" if here else "ok"), "over a socket the call gives a URL, and ends"
    if rpc == "Exec":
        assert call.request.cmd[:2] == ["sh", "-c"] and call.request.stdin and not call.request.tty
    if rpc == "PortForward":
        assert call.request.port == [7]
    assert call.title == ("web" if rpc == "PortForward" else "web/main")
    session.cancel()
    await asyncio.wait([session])
    assert call.outcome == ("the client left" if here else "ok")


@pytest.mark.parametrize("rpc", SESSIONS)
async def test_a_crash_cuts_sessions_and_the_container_goes_on(
    node: FakeNode, way: tuple[Cri, Options], rpc: str
) -> None:
    client = Client()
    session, id = await begun(node, way, rpc, client)
    await node.kill(None)
    with pytest.raises(errors.Unavailable):
        async with asyncio.timeout(30):
            await session
    await node.restart()
    assert (await requests.status(node.cri, id)).state == cri.CONTAINER_RUNNING
    assert (await node.cri.exec_sync(cri.ExecSyncRequest(container_id=id, cmd=["ps"]))).stdout.count(
        b"sleep 1000"
    ) == 1 + (rpc == "Exec"), "its own program, and that of the exec"


@pytest.mark.parametrize("rpc", SESSIONS)
async def test_a_graceful_end_cuts_sessions(node: FakeNode, way: tuple[Cri, Options], rpc: str) -> None:
    client = Client()
    session, id = await begun(node, way, rpc, client)
    stopping = asyncio.ensure_future(node.restart())
    if way[0] is node.cri:
        session.cancel()  # calls under way in this process are the caller's affair
    async with asyncio.timeout(30):
        await stopping
        await asyncio.wait([session])
    assert (await requests.status(node.cri, id)).state == cri.CONTAINER_RUNNING


@pytest.mark.parametrize("rpc", SESSIONS)
async def test_faults_strike_calls_and_steps(node: FakeNode, way: tuple[Cri, Options], rpc: str) -> None:
    runtime, options = way
    pod = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, pod)
    step = {"Exec": "exec.start", "Attach": "attach.attach", "PortForward": "port_forward.connect"}[rpc]
    for on in (rpc, step):
        node.inject_error(on, errors.ResourceExhausted("too many at once"), pod="web")
        with pytest.raises(errors.PodwrightError, match="too many at once"):
            await SESSIONS[rpc](runtime, options, pod, id, Client(b"x", closed=True))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_the_start_of_an_exec(node: FakeNode, way: tuple[Cri, Options], when: str) -> None:
    runtime, options = way
    id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    node.faults.add(Fault(on="exec.start", crash=when, count=1))  # type: ignore[arg-type]
    with pytest.raises(errors.Unavailable):
        await streaming.exec(runtime, id, ["sleep", "1000"], Streams(stdout=Arrived()), options)
    await node.started()
    seen = await node.cri.exec_sync(cri.ExecSyncRequest(container_id=id, cmd=["ps"]))
    assert seen.stdout.count(b"sleep 1000") == (when == "after")


async def test_a_node_without_a_server_refuses_sessions(node: FakeNode) -> None:
    id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    await node.kill(None)
    with pytest.raises(errors.Unavailable, match="the server crashed"):
        await streaming.attach(node.cri, id, Streams(stdin=Sent()))
    assert node.calls.last("Attach").outcome == "Unavailable: the server crashed"
