"""Clients attached to the first process of a container."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Container
from podwright.engines.streams import Size, Streams
from podwright.errors import FailedPrecondition
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import Bench, opened
from tests.oci.clients import Arrived, Client, Sent, Sizes, open_files
from tests.oci.test_oci_handlers import HANDLERS

pytestmark = pytest.mark.root
ECHO = 'while read line; do echo "got $line"; echo "err $line" >&2; done; echo end of stdin; exit 5'


async def started(
    bench: Bench,
    script: str,
    handler: str = "",
    *,
    stdin: bool = False,
    stdin_once: bool = False,
    tty: bool = False,
) -> Container:
    sandbox = await bench.sandbox(handler=handler)
    config = cri.ContainerConfig(stdin=stdin, stdin_once=stdin_once, tty=tty)
    return await bench.container(sandbox, "sh", "-c", script, config=config)


def attach(bench: Bench, container: Container, streams: Streams) -> asyncio.Task[None]:
    return asyncio.ensure_future(bench.engine.attach(container, streams))


async def logged(container: Container) -> str:
    lines = await reader.collect(reader.follow(container.log_path))
    return "".join(line.text.decode() + "\n" for line in lines)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_stdin_and_all_output_and_the_end(bench: Bench, handler: str) -> None:
    container = await started(bench, ECHO, handler, stdin=True, stdin_once=True)
    client = Client()
    session = attach(bench, container, client.streams)
    client.stdin.send(b"one\n")
    await client.stdout.has(b"got one\n")
    await client.stderr.has(b"err one\n")
    client.stdin.send(b"two\n")
    client.stdin.close()
    await asyncio.wait_for(session, 30)
    assert client.stdout.data.endswith(b"got two\nend of stdin\n")
    assert client.stderr.data == b"err one\nerr two\n"
    assert client.stdout.closed and client.stderr.closed
    assert (await bench.exit_of(container)).code == 5
    assert "got two" in await logged(container)


async def test_a_stdin_for_several_clients_outlives_each(bench: Bench) -> None:
    container = await started(bench, ECHO, stdin=True)
    for word in (b"one", b"two"):
        client = Client(word + b"\n", closed=True)
        session = attach(bench, container, client.streams)
        await client.stdout.has(b"got " + word)
        session.cancel()
        await asyncio.wait([session])
        assert session.cancelled()
    assert "running" in await bench.exec(container, "echo", "running")


async def test_with_stdin_once_the_first_that_speaks_ends_it_not_who_only_listens(bench: Bench) -> None:
    container = await started(bench, ECHO, stdin=True, stdin_once=True)
    for _ in range(3):
        listening = attach(bench, container, Streams(stdout=Arrived(), stderr=Arrived()))
        await asyncio.sleep(0.05)
        listening.cancel()
        await asyncio.wait([listening])
    client = Client()
    speaking = attach(bench, container, client.streams)
    client.stdin.send(b"still there\n")
    await client.stdout.has(b"got still there\n")
    speaking.cancel()
    await asyncio.wait([speaking])
    assert (await bench.exit_of(container)).code == 5
    assert "end of stdin" in await logged(container)


async def test_several_at_once_have_all_of_it(bench: Bench) -> None:
    container = await started(bench, "read go; seq 1 30000; seq 1 30000 >&2", stdin=True)
    clients = [Client() for _ in range(4)]
    sessions = [attach(bench, container, each.streams) for each in clients]
    stalled = clients[0]
    stalled.stdout.gate.clear()
    await asyncio.sleep(0.1)  # conmon tells nobody that it has accepted
    clients[1].stdin.send(b"go\n")
    await clients[2].stdout.has(b"\n10\n")
    stalled.stdout.gate.set()
    await asyncio.wait_for(asyncio.gather(*sessions), 60)
    wanted = "".join(f"{n}\n" for n in range(1, 30001))
    for each in clients:
        assert each.stdout.data.decode() == wanted
        assert each.stderr.data.decode() == wanted
    # In the log, too; there the streams need not be in order to each other.
    assert sorted((await logged(container)).split()) == sorted(2 * wanted.split())


async def test_streams_that_alternate_stay_apart(bench: Bench) -> None:
    script = "read go; i=0; while test $i -lt 3000; do echo o$i; echo e$i >&2; i=$((i+1)); done"
    container = await started(bench, script, stdin=True)
    client = Client(b"go\n")
    await asyncio.wait_for(attach(bench, container, client.streams), 60)
    assert client.stdout.data.decode() == "".join(f"o{n}\n" for n in range(3000))
    assert client.stderr.data.decode() == "".join(f"e{n}\n" for n in range(3000))


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_terminal(bench: Bench, handler: str) -> None:
    script = 'read line; stty size; echo "tty $line"; read line; stty size; exit 3'
    container = await started(bench, script, handler, stdin=True, tty=True)
    sizes = Sizes(Size(90, 20))
    client = Client(tty=True, sizes=sizes)
    session = attach(bench, container, client.streams)
    await asyncio.sleep(0.3)
    client.stdin.send(b"hello\n")
    await client.stdout.has(b"20 90\r\ntty hello\r\n")
    sizes.set(Size(5000, 5000))  # too much for conmon: left out
    sizes.set(Size(70, 10))
    await asyncio.sleep(0.3)
    client.stdin.send(b"\n")
    await asyncio.wait_for(session, 30)
    assert client.stdout.data.endswith(b"10 70\r\n")
    assert (await bench.exit_of(container)).code == 3


async def test_without_a_stdin_what_is_sent_is_dropped(bench: Bench) -> None:
    container = await started(bench, "cat; echo nothing; while ! test -e /go; do sleep 0.02; done; echo all")
    client = Client(*[b"x" * 65536] * 20, closed=True)
    session = attach(bench, container, client.streams)
    await asyncio.sleep(0.1)
    await bench.exec(container, "touch", "/go")
    await asyncio.wait_for(session, 30)
    assert client.stdout.data.endswith(b"all\n") and b"x" not in bytes(client.stdout.data)
    assert client.stdin.taken == 20 * 65536


async def test_gigabytes_are_not_needed_to_see_that_input_waits(bench: Bench) -> None:
    container = await started(bench, "sleep 1000", stdin=True)
    sent = Sent(*[b"x" * 65536] * 100)
    session = attach(bench, container, Streams(stdin=sent))
    await asyncio.sleep(0.5)
    assert sent.taken < 50 * 65536
    session.cancel()
    await asyncio.wait([session])


async def test_what_the_process_reads_is_what_was_sent(bench: Bench) -> None:
    container = await started(bench, "sha256sum; wc -c < /etc/passwd >/dev/null", stdin=True, stdin_once=True)
    data = os.urandom(5 << 20)
    client = Client(*(data[i : i + 100_000] for i in range(0, len(data), 100_000)), closed=True)
    await asyncio.wait_for(attach(bench, container, client.streams), 60)
    assert client.stdout.data.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_a_client_that_reads_no_more_holds_nobody_up(bench: Bench) -> None:
    container = await started(bench, "read go; seq 1 200000", stdin=True)
    client, other = Client(), Client()
    client.stdout.broken = client.stderr.broken = True
    sessions = [attach(bench, container, client.streams), attach(bench, container, other.streams)]
    await asyncio.sleep(0.1)
    other.stdin.send(b"go\n")
    await asyncio.wait_for(asyncio.gather(*sessions), 60)
    assert other.stdout.data.endswith(b"\n200000\n")


async def test_who_wants_no_output_is_done_when_all_is_said(bench: Bench) -> None:
    container = await started(bench, ECHO, stdin=True)
    listener = Client()
    listening = attach(bench, container, listener.streams)
    await asyncio.wait_for(attach(bench, container, Streams(stdin=Sent(b"a word\n", closed=True))), 30)
    await listener.stdout.has(b"got a word\n")
    listening.cancel()
    await asyncio.wait([listening])


async def test_another_engine_attaches_to_what_the_first_one_started(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as first:
        container = await started(first, ECHO, stdin=True)
        client = Client(b"once\n")
        session = attach(first, container, client.streams)
        await client.stdout.has(b"got once\n")
        first.containers.clear()
        first.sandboxes.clear()
        session.cancel()
        await asyncio.wait([session])
    async with opened(place, busybox) as second:
        second.sandboxes[container.sandbox.id] = container.sandbox
        second.containers[container.id] = container
        client = Client(b"again\n")
        session = attach(second, container, client.streams)
        await client.stdout.has(b"got again\n")
        session.cancel()
        await asyncio.wait([session])


async def test_a_container_that_is_killed_ends_it_and_then_there_is_nothing_to_attach_to(
    bench: Bench,
) -> None:
    container = await started(bench, "echo ready; exec sleep 1000")
    session = attach(bench, container, Client().streams)
    await asyncio.sleep(0.1)
    await bench.engine.signal_container(container, signal.SIGKILL)
    await asyncio.wait_for(session, 30)
    await bench.exit_of(container)
    with pytest.raises(FailedPrecondition, match="has ended"):
        await bench.engine.attach(container, Client().streams)


async def test_files_are_closed(bench: Bench) -> None:
    container = await started(bench, ECHO, stdin=True)
    before = open_files()
    for n in range(20):
        client = Client(b"%d\n" % n)
        session = attach(bench, container, client.streams)
        await client.stdout.has(b"got %d\n" % n)
        session.cancel()
        await asyncio.wait([session])
    assert open_files() <= before
