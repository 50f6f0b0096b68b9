"""kubectl and the streaming server: an API server is played here that passes what kubectl asks for on, as
API server and kubelet do. test_spdy_kubectl has the protocol alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.streaming.stand_in import CHUNK, Node, node
from tests.streaming.test_spdy_kubectl import ANSWERS

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")

PIPE = asyncio.subprocess.PIPE


class ApiServer:
    """Of one pod, on `node`."""

    def __init__(self, served: Node, home: Path, websocket: bool) -> None:
        self.node = served
        self.port = 0
        self.upgrades: list[str] = []
        """What kubectl wanted to go on in."""
        self._environment = os.environ | {
            "HOME": str(home),
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": str(websocket).lower(),
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": str(websocket).lower(),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(maxsplit=2)
                url = urlsplit(target)
                if (what := url.path.rpartition("/")[2]) in ("exec", "attach", "portforward"):
                    found = re.search(r"^upgrade: *(\S+)", head, re.M | re.I)
                    assert found is not None
                    self.upgrades.append(found[1])
                    await self._pass_on(head, method, await self._url(what, url.query), reader, writer)
                    return
                answer = ANSWERS.get(url.path)
                body = json.dumps(answer or {"kind": "Status", "code": 404}).encode()
                status = "200 OK" if answer else "404 Not Found"
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # kubectl has left
        finally:
            writer.close()

    async def _url(self, what: str, query: str) -> str:
        asked = parse_qs(query)
        streams = {name: name in asked for name in ("stdin", "stdout", "stderr")}
        match what:
            case "exec":
                return await self.node.exec_url(*asked["command"], **streams)
            case "attach":
                return await self.node.attach_url(**streams)
            case _:
                return await self.node.forward_url(*(int(port) for port in asked.get("ports", ())))

    async def _pass_on(
        self, head: str, method: str, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        to = urlsplit(url)
        to_reader, to_writer = await asyncio.open_connection(to.hostname, to.port)
        rest = head.partition("\r\n")[2]
        to_writer.write(f"{method} {to.path} HTTP/1.1\r\n{rest}".encode())
        try:
            await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))
        finally:
            to_writer.close()

    async def kubectl(self, *arguments: str, **redirected: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("kubectl", "-s", f"http://127.0.0.1:{self.port}", *arguments),
            env=self._environment,
            **redirected,  # type: ignore[arg-type]
        )


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture(params=["SPDY/3.1", "websocket"])
async def api(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with node(tmp_path) as served, asyncio.timeout(150):
        made = ApiServer(served, tmp_path, request.param == "websocket")
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            server.close()
        assert set(made.upgrades) == {request.param}


async def test_exec_gives_back_bytes_and_the_status(api: ApiServer) -> None:
    process = await api.kubectl("exec", "-i", "p", "--", "cat", stdin=PIPE, stdout=PIPE)
    answer, _ = await process.communicate(CHUNK * 100)
    assert answer == CHUNK * 100
    assert process.returncode == 0
    process = await api.kubectl("exec", "p", "--", "exit", "7", stdout=PIPE, stderr=PIPE)
    _, said = await process.communicate()
    assert process.returncode == 7, said
    process = await api.kubectl("exec", "p", "--", "refuse", stdout=PIPE, stderr=PIPE)
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"the runtime says no" in said


async def test_attach(api: ApiServer) -> None:
    process = await api.kubectl("attach", "-i", "-q", "p", stdin=PIPE, stdout=PIPE)
    answer, _ = await process.communicate(b"hello")
    assert answer == b"attached\nhello"


async def test_a_kubectl_that_is_killed_hangs_the_command_up(api: ApiServer) -> None:
    process = await api.kubectl("exec", "p", "--", "hang")
    await api.node.engine.started.wait()
    process.kill()
    await process.wait()
    await api.node.engine.hung_up.wait()


async def test_connections_that_the_pod_ends_first_do_not_end_the_port_forward(api: ApiServer) -> None:
    process = await api.kubectl("port-forward", "pod/p", ":80", ":17", ":7", stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None and process.stderr is not None
    try:
        ports: dict[int, int] = {}
        while len(ports) < 3:
            if found := re.search(rb"127.0.0.1:(\d+) -> (\d+)", await process.stdout.readline()):
                ports[int(found[2])] = int(found[1])
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[17])
            assert await reader.read() == b"word\n"
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", ports[7])
        writer.write(CHUNK * 100)
        writer.write_eof()
        assert await reader.read() == CHUNK * 100
        writer.close()
        # Since 1.31 a port that cannot be reached ends it; before, the others went on.
        _, writer = await asyncio.open_connection("127.0.0.1", ports[80])
        said = b""
        while b"nothing listens on localhost:80" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line
        writer.close()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
