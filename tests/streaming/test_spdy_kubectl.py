"""SPDY sessions against a Go client: kubectl, whose API server is played here, as far as it asks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podwright.streaming.spdy import Session, Stream
from podwright.streaming.spdy.windows import Kept
from tests.streaming.spdy_ends import echo

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")

POD = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]},
    "status": {"phase": "Running"},
}
PODS = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
ANSWERS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [PODS]},
    "/api/v1/namespaces/default/pods/p": POD,
}
FAILED = {"status": "Failure", "reason": "NonZeroExitCode"}
STATUS = FAILED | {"details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}
LENGTH = 20_000_000


class ApiServer:
    """Answers of one pod; an exec echoes, a port-forward as well."""

    def __init__(self, home: Path) -> None:
        self.sessions: list[Session] = []
        self.executed = asyncio.Event()
        """All of an exec has been written, its exit status as well."""
        self.port = 0
        self.environment = os.environ | {
            "HOME": str(home),
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false",
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false",
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            path = head.split()[1].partition("?")[0]
            if "SPDY/3.1" in head:
                await self.speak(path.rpartition("/")[2], reader, writer)
                return
            answer = ANSWERS.get(path)
            body = json.dumps(answer or {"kind": "Status", "code": 404}).encode()
            status = "200 OK" if answer else "404 Not Found"
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )

    async def speak(self, what: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = "v4.channel.k8s.io" if what == "exec" else "portforward.k8s.io"
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\n\r\n".encode()
        )
        session = Session(client=False)
        self.sessions.append(session)
        session.take_over(writer.transport, owner=(reader, writer))
        if what == "exec":
            await execute(session)
            self.executed.set()
            await session.close()
        else:
            await forward(session)

    async def kubectl(self, *arguments: str, **redirected: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("kubectl", "-s", f"http://127.0.0.1:{self.port}", *arguments),
            env=self.environment,
            **redirected,  # type: ignore[arg-type]
        )


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[ApiServer]:
    api = ApiServer(home)
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0)
    api.port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(150):
            yield api
    finally:
        server.close()
        for session in api.sessions:
            session.abort()


async def execute(session: Session) -> None:
    """stdin comes back on stdout; a word on stderr; the exit code is 7."""
    streams: dict[str, Stream] = {}
    async for stream in session.accept():
        stream.accept()
        streams[stream.headers["streamtype"]] = stream
        if len(streams) == 4:
            break
    await echo(streams["stdin"], streams["stdout"])
    await streams["stderr"].write(b"bye")
    await streams["stderr"].close()
    await streams["error"].write(json.dumps(STATUS).encode())
    await streams["error"].close()


async def forward(session: Session) -> None:
    async with asyncio.TaskGroup() as tasks:
        async for stream in session.accept():
            if stream.headers["streamtype"] == "data":
                assert stream.headers["port"] == "80"
                tasks.create_task(echo(stream, stream))
            else:
                tasks.create_task(stream.close())


@pytest.mark.parametrize("length", [0, 5, 65_536, 65_537, LENGTH])
async def test_kubectl_exec_gets_back_what_it_sends(length: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        pipe = asyncio.subprocess.PIPE
        process = await api.kubectl("exec", "-i", "p", "--", "cat", stdin=pipe, stdout=pipe, stderr=pipe)
        question = os.urandom(length)
        answer, said = await process.communicate(question)
        assert answer == question
        assert b"bye" in said and b"exit code 7" in said
        assert process.returncode == 7
        (session,) = api.sessions
        assert await session.closed is None
        if length == LENGTH:
            # Go's spdystream: it grants nothing, and keeps to nothing.
            flow = session._connection._flow
            assert flow.streams_kept is flow.session_kept is Kept.NO


async def test_kubectl_exec_whose_output_is_read_late_gets_all_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        pipe = asyncio.subprocess.PIPE
        process = await api.kubectl("exec", "-i", "p", "--", "cat", stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin is not None
        process.stdin.write(bytes(300_000))
        process.stdin.close()
        await api.executed.wait()
        answer, _ = await process.communicate()
        assert len(answer) == 300_000
        assert process.returncode == 7


async def test_kubectl_port_forward_carries_many_connections_at_once(tmp_path: Path) -> None:
    async def connection(number: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        question = bytes([number]) * (LENGTH // 10)
        writer.write(question)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer == question

    async with serving(tmp_path) as api:
        process = await api.kubectl("port-forward", "pod/p", ":80", stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            found = re.search(rb"127.0.0.1:(\d+)", await process.stdout.readline())
            assert found is not None
            local = int(found[1])
            assert all(await asyncio.gather(*map(connection, range(10))))
            # A connection that its local side cuts leaves the others alone.
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            writer.write(bytes(100_000))
            await reader.readexactly(10)
            writer.transport.abort()
            assert await connection(1)
        finally:
            process.terminate()
            await process.wait()
        (session,) = api.sessions
        await session.closed
        assert not session._streams
