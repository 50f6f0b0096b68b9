"""Exec, Attach and PortForward through the URLs that they answer with: over WebSocket and over SPDY."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from grpc import StatusCode

from podwright import client as sockets
from podwright import errors
from podwright.api import Cri
from podwright.engines.streams import Connection, Size, Streams
from podwright.streaming import client as streaming
from podwright.streaming.client import Options, Transport
from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, Pod, rejected
from tests.behaviour.stage import until
from tests.oci.clients import Arrived, Sent, Sizes
from tests.oci.clients import Client as User

T = TypeVar("T")
PATIENCE = 90.0
ECHO = 'while read line; do echo "got $line"; echo "err $line" >&2; done; echo end of stdin; exit 5'
ALL = bytes(range(256)) * 4000


@pytest.fixture(params=[Transport.WEBSOCKET, Transport.SPDY])
def options(request: pytest.FixtureRequest) -> Options:
    return Options(request.param)


@pytest.fixture
def container(client: Client) -> Container:
    return client.pod().run()


def talk(client: Client, work: Callable[[Cri], Awaitable[T]]) -> T:
    """What `work` makes of a connection of its own."""

    async def connected() -> T:
        async with sockets.connect(str(client.server.socket)) as runtime, asyncio.timeout(PATIENCE):
            return await work(runtime)

    return asyncio.run(connected())


def execute(container: Container, options: Options, streams: Streams, *argv: str) -> int:
    return talk(
        container.pod.client, lambda runtime: streaming.exec(runtime, container.id, argv, streams, options)
    )


def sized(rows: int, columns: int) -> str:
    """For a script that waits until its terminal is so large."""
    return f"until test \"$(stty size 2>&1)\" = '{rows} {columns}'; do sleep 0.1; done"


# Exec


def test_exec_streams_stay_apart_and_bytes_stay_as_they_are(container: Container, options: Options) -> None:
    user = User(ALL[:100], ALL[100:], closed=True)
    code = execute(container, options, user.streams, "sh", "-c", "echo err >&2; cat; exit 7")
    assert code == 7
    assert user.stderr.data == b"err\n"
    assert user.stdout.data == ALL


def test_exec_streams_that_nobody_asked_for_are_empty(container: Container, options: Options) -> None:
    out = Arrived()
    assert execute(container, options, Streams(stdout=out), "sh", "-c", "cat; echo end; echo x >&2") == 0
    assert out.data == b"end\n"


def test_exec_tells_how_the_command_ended(container: Container, options: Options) -> None:
    assert execute(container, options, User(closed=True).streams, "sh", "-c", "kill -9 $$") == 137
    container.sh("echo no program > /tmp/plain")
    for command, code in (("/no/such/program", 127), ("/tmp/plain", 126)):
        user = User(closed=True)
        assert execute(container, options, user.streams, command) == code
        assert user.stderr.data.endswith(b"\n"), "the reason is not told"


def test_exec_on_a_terminal(container: Container, options: Options) -> None:
    sizes = Sizes(Size(100, 30))
    user = User(tty=True, sizes=sizes)
    script = (
        f"{sized(30, 100)}; tty; echo $TERM; read line; echo [$line];"
        f" {sized(43, 132)}; echo resized; sleep 1000; echo never"
    )

    async def work(runtime: Cri) -> int:
        session = asyncio.ensure_future(
            streaming.exec(runtime, container.id, ["sh", "-c", script], user.streams, options)
        )
        await user.stdout.has(b"xterm\r\n")
        user.stdin.send(b"typeX\x7fd\r")
        await user.stdout.has(b"[typed]\r\n")
        sizes.set(Size(132, 43))
        await user.stdout.has(b"resized\r\n")
        user.stdin.send(b"\x03")
        return await session

    assert talk(container.pod.client, work) == 130
    assert user.stdout.data.startswith(b"/dev/pts/0\r\nxterm\r\ntypeX\b \bd\r\n[typed]\r\n")
    assert user.stdout.data.endswith(b"resized\r\n^C")


def test_the_end_of_input_is_one_on_a_terminal_too(container: Container, options: Options) -> None:
    user = User(b"a\n", closed=True, tty=True)
    assert execute(container, options, user.streams, "sh", "-c", "cat; echo end") == 0
    assert user.stdout.data.replace(b"^D\b\b", b"") == b"a\r\na\r\nend\r\n"


def test_a_client_that_vanishes_hangs_up(container: Container, options: Options) -> None:
    user = User()
    script = "trap 'echo hup > /tmp/told; exit' HUP; echo on; while :; do sleep 0.1; done"

    async def work(runtime: Cri) -> None:
        session = asyncio.ensure_future(
            streaming.exec(runtime, container.id, ["sh", "-c", script], user.streams, options)
        )
        await user.stdout.has(b"on\n")
        session.cancel()
        await asyncio.wait([session])

    talk(container.pod.client, work)
    until(lambda: container.exec("cat", "/tmp/told").out == "hup\n", "the command to be told")
    until(lambda: "told" not in container.sh("ps | grep '[t]rap' || true"), "the command to end")


def test_a_server_that_dies_takes_its_streams_along(client: Client, container: Container) -> None:
    user = User()

    async def work(runtime: Cri) -> None:
        session = asyncio.ensure_future(
            streaming.exec(runtime, container.id, ["sh", "-c", "echo on; cat"], user.streams)
        )
        await user.stdout.has(b"on\n")
        await asyncio.to_thread(client.server.crash)
        with pytest.raises(errors.Unavailable):
            await session

    talk(client, work)
    client.server.start()
    assert container.status().state == cri.CONTAINER_RUNNING
    until(lambda: "cat" not in container.sh("ps | grep '[c]at' || true"), "the command to end")


def test_streams_that_cannot_be_are_refused(container: Container) -> None:
    runtime, id = container.runtime, container.id
    ended = container.pod.run("/bin/true").ended()
    for ask, request in ((runtime.Exec, cri.ExecRequest), (runtime.Attach, cri.AttachRequest)):
        command: dict[str, Any] = {"cmd": ["true"]} if request is cri.ExecRequest else {}
        with rejected(StatusCode.INVALID_ARGUMENT, "tty"):
            ask(request(container_id=id, tty=True, stdout=True, stderr=True, **command))
        with rejected(StatusCode.INVALID_ARGUMENT, "stdin, stdout and stderr"):
            ask(request(container_id=id, **command))
        with rejected(StatusCode.FAILED_PRECONDITION):
            ask(request(container_id=ended.id, stdout=True, **command))
        with rejected(StatusCode.NOT_FOUND):
            ask(request(container_id="nobody", stdout=True, **command))
    with rejected(StatusCode.INVALID_ARGUMENT, "command"):
        runtime.Exec(cri.ExecRequest(container_id=id, stdout=True))
    with rejected(StatusCode.INVALID_ARGUMENT, "port"):
        runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=container.pod.id, port=[0]))


# Attach


def attached(runtime: Cri, container: Container, streams: Streams, options: Options) -> asyncio.Task[None]:
    return asyncio.ensure_future(streaming.attach(runtime, container.id, streams, options))


def test_attach_has_the_streams_of_the_first_process(client: Client, options: Options) -> None:
    container = client.pod().shell(ECHO, stdin=True, stdin_once=True)
    user = User(b"one\n")

    async def work(runtime: Cri) -> None:
        session = attached(runtime, container, user.streams, options)
        await user.stdout.has(b"got one\n")
        await user.stderr.has(b"err one\n")
        user.stdin.send(b"two\n")
        user.stdin.close()
        await session

    talk(client, work)
    assert user.stdout.data == b"got one\ngot two\nend of stdin\n"
    assert user.stderr.data == b"err one\nerr two\n"
    assert container.ended().status().exit_code == 5
    assert container.output() == user.stdout.data.decode()


def test_several_clients_are_attached_at_once_and_leave(client: Client, options: Options) -> None:
    container = client.pod().shell(ECHO, stdin=True)
    users = [User(b"one\n"), User(b"two\n")]

    async def work(runtime: Cri) -> None:
        sessions = []
        for user in users:
            sessions.append(attached(runtime, container, user.streams, options))
            await user.stdout.has(b"got ")
        await users[0].stdout.has(b"got two\n")
        sessions[0].cancel()
        await asyncio.wait(sessions[:1])
        users[1].stdin.send(b"three\n")
        await users[1].stdout.has(b"got three\n")
        sessions[1].cancel()
        await asyncio.wait(sessions)

    talk(client, work)
    assert users[1].stdout.data == b"got two\ngot three\n"
    assert container.status().state == cri.CONTAINER_RUNNING


def test_a_stdin_for_one_client_ends_with_it(client: Client, options: Options) -> None:
    container = client.pod().shell(ECHO, stdin=True, stdin_once=True)
    user = User(b"one\n")

    async def work(runtime: Cri) -> None:
        session = attached(runtime, container, user.streams, options)
        await user.stdout.has(b"got one\n")
        session.cancel()
        await asyncio.wait([session])

    talk(client, work)
    assert container.ended().status().exit_code == 5
    assert container.output().endswith("end of stdin\n")


def test_attach_to_a_terminal(client: Client, options: Options) -> None:
    script = f"{sized(25, 90)}; echo sized; read a; echo [$a]; exit 3"
    container = client.pod().shell(script, stdin=True, tty=True)
    user = User(tty=True, sizes=Sizes(Size(90, 25)))

    async def work(runtime: Cri) -> None:
        session = attached(runtime, container, user.streams, options)
        await user.stdout.has(b"sized\r\n")
        user.stdin.send(b"word\r")
        await session

    talk(client, work)
    assert user.stdout.data == b"sized\r\nword\r\n[word]\r\n"
    assert container.ended().status().exit_code == 3


def test_input_is_dropped_where_the_container_wants_none(client: Client, options: Options) -> None:
    container = client.pod().shell("cat; echo none; until test -e /tmp/go; do sleep 0.1; done; echo end")
    user = User(*[b"x" * 10_000] * 50)

    async def work(runtime: Cri) -> None:
        taken = asyncio.Event()
        user.stdin.then(taken.set)
        session = attached(runtime, container, user.streams, options)
        await taken.wait()
        await asyncio.to_thread(container.sh, "touch /tmp/go")
        await session

    talk(client, work)
    assert container.ended().output() == "none\nend\n"
    assert user.stdout.data.endswith(b"end\n")


# Port-forward


class Closing(Arrived):
    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    async def close(self) -> None:
        await super().close()
        self.over.set()


def listening(client: Client, *command: str) -> Pod:
    pod = client.pod()
    pod.run("nc", "-ll", "-p", "7", "-e", *command)
    return pod


async def connection(
    runtime: Cri, pod: Pod, port: int, source: Sent, sink: Arrived, options: Options
) -> None:
    async with streaming.forwarding(runtime, pod.id, [port], options) as ports:
        await ports.connect(port, Connection(source, sink))


async def answering(runtime: Cri, pod: Pod, options: Options) -> None:
    """The listener is a moment behind its container's start."""
    while True:
        try:
            await connection(runtime, pod, 7, Sent(closed=True), Arrived(), options)
            return
        except errors.PodwrightError:
            await asyncio.sleep(0.1)


def test_ports_of_a_pod_are_reached(client: Client, options: Options) -> None:
    pod = listening(client, "cat")
    sinks = [Arrived(), Arrived()]

    async def work(runtime: Cri) -> None:
        await answering(runtime, pod, options)
        async with streaming.forwarding(runtime, pod.id, [7], options) as ports:
            sources = [Sent(word, ALL) for word in (b"one", b"two")]
            sessions = [
                asyncio.ensure_future(ports.connect(7, Connection(source, sink)))
                for source, sink in zip(sources, sinks, strict=True)
            ]
            for source, sink in zip(sources, sinks, strict=True):
                await sink.until(lambda data: len(data) == 3 + len(ALL))
                source.close()
            await asyncio.gather(*sessions)

    talk(client, work)
    assert [bytes(sink.data[:3]) for sink in sinks] == [b"one", b"two"]
    assert [sink.data[3:] == ALL and sink.closed for sink in sinks] == [True, True]


def test_a_listener_ends_its_direction(client: Client, options: Options) -> None:
    pod = listening(client, "echo", "served")
    sink = Closing()

    async def work(runtime: Cri) -> None:
        await answering(runtime, pod, options)
        source = Sent()
        session = asyncio.ensure_future(connection(runtime, pod, 7, source, sink, options))
        await sink.until(lambda data: data == b"served\n")
        await sink.over.wait()
        source.close()
        await session

    talk(client, work)


def test_a_port_on_which_nobody_listens_is_told(client: Client, options: Options) -> None:
    pod = client.pod()
    with pytest.raises(errors.PodwrightError, match=r"port 81\b.*(?i:connection refused)"):
        talk(client, lambda runtime: connection(runtime, pod, 81, Sent(b"x"), Arrived(), options))
