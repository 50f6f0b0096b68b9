"""The streaming server as a whole: URLs, refusals, TLS, time-outs, stopping, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import h11
import pytest
import wsproto
from wsproto.connection import Connection
from wsproto.events import BytesMessage

from podwright.core.streaming import Streaming
from podwright.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
)
from podwright.streaming.channels import Channels
from podwright.streaming.giver import LazyServer
from podwright.streaming.http import Limits
from podwright.streaming.spdy import Session
from podwright.tls import client_context
from podwright.wire import cri_pb2 as cri
from tests.streaming.stand_in import (
    CHUNK,
    KEY,
    SPDY,
    UPGRADE,
    WEBSOCKET,
    Node,
    ask,
    channels,
    everything,
    node,
    pair,
    remote,
    spdy,
    tunnel,
    upgrade,
)

V4 = ("x-stream-protocol-version", "v4.channel.k8s.io")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Node]:
    async with node(tmp_path) as made, asyncio.timeout(120):
        yield made


# URLs, and who gets one


async def test_a_url_is_where_the_server_listens_since_it_was_first_asked_for(served: Node) -> None:
    assert served.server.address == ""
    url = await served.exec_url("echo")
    assert served.server.address.startswith("127.0.0.1:")
    assert url.startswith(f"http://{served.server.address}/exec/")
    assert (await served.attach_url(stdout=True)).startswith(f"http://{served.server.address}/attach/")
    assert (await served.forward_url()).startswith(f"http://{served.server.address}/portforward/")


async def test_status_says_where(served: Node) -> None:
    async def told() -> Any:
        answer = await served.runtime.status(cri.StatusRequest(verbose=True))
        return json.loads(answer.info["streaming"])

    assert await told() == {"address": ""}
    await served.exec_url("echo")
    assert await told() == {"address": served.server.address}


async def test_what_is_asked_for_is_checked(served: Node) -> None:
    stopped = await served.add("stopped")
    container, pod = served.container, served.pod
    exec, attach, forward = cri.ExecRequest, cri.AttachRequest, cri.PortForwardRequest
    for request, kind, words in [
        (
            exec(container_id=container, cmd=["a"], tty=True, stdout=True, stderr=True),
            InvalidArgument,
            "^stderr:",
        ),
        (exec(container_id=container, cmd=["a"]), InvalidArgument, "^stdout: at least one"),
        (exec(container_id=container, stdout=True), InvalidArgument, "^cmd: no command"),
        (exec(cmd=["a"], stdout=True), InvalidArgument, "^container_id:"),
        (exec(container_id="f" * 64, cmd=["a"], stdout=True), NotFound, "no container"),
        (exec(container_id=stopped, cmd=["a"], stdout=True), FailedPrecondition, "is not running"),
        (attach(container_id=container, tty=True, stdout=True, stderr=True), InvalidArgument, "^stderr:"),
        (attach(container_id=container), InvalidArgument, "^stdout: at least one"),
        (attach(container_id=stopped, stdout=True), FailedPrecondition, "is not running"),
        (attach(stdout=True), InvalidArgument, "^container_id:"),
        (forward(), InvalidArgument, "^pod_sandbox_id:"),
        (forward(pod_sandbox_id="f" * 64), NotFound, "no pod sandbox"),
        (forward(pod_sandbox_id=pod, port=[80, 65536]), InvalidArgument, r"^port\[1\]: 65536"),
        (forward(pod_sandbox_id=pod, port=[0]), InvalidArgument, r"^port\[0\]: 0"),
    ]:
        call: Any = {
            exec: served.runtime.exec,
            attach: served.runtime.attach,
            forward: served.runtime.port_forward,
        }
        with pytest.raises(kind, match=words):
            await call[type(request)](request)
    assert served.server.address == ""
    await served.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod))
    with pytest.raises(FailedPrecondition, match="is not ready"):
        await served.forward_url()


async def test_an_id_may_be_shortened(served: Node) -> None:
    request = cri.ExecRequest(container_id=served.container[:12], cmd=["echo", "x"], stdout=True)
    client = await remote((await served.runtime.exec(request)).url, "stdout")
    assert await client.all("stdout") == b"x\n"
    forward = cri.PortForwardRequest(pod_sandbox_id=served.pod[:12])
    session = await spdy((await served.runtime.port_forward(forward)).url, "portforward.k8s.io")
    _, data = await pair(session, 13, "0")
    assert await everything(data) == b"noon\n"
    session.abort()


async def test_who_may_have_it_is_checked_again_when_the_client_comes(served: Node) -> None:
    urls = [await served.exec_url("echo"), await served.attach_url(stdout=True), await served.forward_url()]
    await served.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=served.pod))
    versions = [V4, V4, ("x-stream-protocol-version", "portforward.k8s.io")]
    answers = [await ask(url, "POST", (*SPDY, version)) for url, version in zip(urls, versions, strict=True)]
    assert [answer.status for answer in answers] == [409, 409, 409]
    assert "is not running: it is exited" in answers[0].body
    assert "is not ready" in answers[2].body
    await served.runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=served.pod))


async def test_a_thousand_urls_may_wait(served: Node) -> None:
    urls = [await served.exec_url("echo") for _ in range(1000)]
    assert len(set(urls)) == 1000
    with pytest.raises(ResourceExhausted):
        await served.exec_url("echo")
    client = await remote(urls[0], "stdout")
    await client.status()
    assert await served.exec_url("echo")


async def test_a_runtime_without_a_streaming_server_says_so(served: Node) -> None:
    served.runtime.streaming.giver = None
    with pytest.raises(Unimplemented, match="no streaming server"):
        await served.exec_url("echo")


async def test_in_this_process_no_server_is_needed(served: Node) -> None:
    streaming: Streaming = served.runtime.streaming
    with pytest.raises(InvalidArgument, match="cmd"):
        await streaming.exec(served.container, [], None)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^port: 0"):
        await served.runtime.port_forward_connection(served.pod, 0, None)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await served.runtime.attach_streams("f" * 64, None)  # type: ignore[arg-type]
    assert await served.runtime.exec_streams(served.container, ["exit", "4"], None) == 4  # type: ignore[arg-type]


# What is refused, in words


async def test_a_url_works_once(served: Node) -> None:
    url = await served.exec_url("echo", "x")
    client = await remote(url, "stdout")
    assert await client.all("stdout") == b"x\n"
    again = await ask(url, "POST", (*SPDY, V4))
    assert (again.status, again.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert "works once" in again.body


async def test_a_token_is_for_what_it_was_given_for(served: Node) -> None:
    url = await served.exec_url("echo", "x")
    assert (await ask(url.replace("/exec/", "/attach/"), "POST", (*SPDY, V4))).status == 404
    assert (await ask(url.replace("/exec/", "/portforward/"), "POST", (*SPDY, V4))).status == 404
    client = await remote(url, "stdout")
    assert await client.all("stdout") == b"x\n"


@pytest.mark.parametrize("path", ["/", "/exec", "/exec/", "/exec/short", "/exec/12345678/x", "/run/12345678"])
async def test_nothing_is_elsewhere(served: Node, path: str) -> None:
    base = (await served.exec_url("echo")).partition("/exec/")[0]
    answer = await ask(base + path, "GET", WEBSOCKET)
    assert answer.status == 404
    assert "nothing is here" in answer.body


async def test_what_cannot_be_agreed_on_is_said_and_the_url_still_works(served: Node) -> None:
    url, forward = await served.exec_url("echo", "x"), await served.forward_url()
    websocket = (UPGRADE, ("upgrade", "websocket"), KEY)
    version = ("sec-websocket-version", "13")
    for asked, method, headers, status, words in [
        (url, "PUT", (*SPDY, V4), 405, "only GET and POST"),
        (url, "POST", (), 426, "SPDY/3.1 or WebSocket"),
        (url, "POST", (("upgrade", "SPDY/3.1"), V4), 426, "SPDY/3.1 or WebSocket"),
        (url, "POST", (UPGRADE, ("upgrade", "h2c")), 426, "SPDY/3.1 or WebSocket"),
        (url, "POST", (*SPDY, ("x-stream-protocol-version", "v9.x")), 403, "v9.x; v4.channel.k8s.io, v3."),
        (forward, "POST", (*SPDY, V4), 403, "portforward.k8s.io are"),
        (url, "POST", WEBSOCKET, 405, "GET"),
        (url, "GET", websocket, 426, "version 13"),
        (url, "GET", (*websocket, ("sec-websocket-version", "8")), 426, "version 13"),
        (url, "GET", (*websocket[:2], version), 400, "Sec-WebSocket-Key"),
        (url, "GET", (*websocket[:2], version, ("sec-websocket-key", "c2hvcnQ=")), 400, "16 bytes"),
        (url, "GET", (*WEBSOCKET, ("sec-websocket-protocol", "chat")), 403, "chat; v5.channel"),
        (forward, "GET", (*WEBSOCKET, ("sec-websocket-protocol", "v5.channel.k8s.io")), 403, "portforward"),
        (forward, "GET", WEBSOCKET, 400, "needs ports"),
    ]:
        answer = await ask(asked, method, headers)
        assert (answer.status, words in answer.body) == (status, True), (headers, answer.body)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    refused = await ask(url, "POST", (*SPDY, ("x-stream-protocol-version", "v9")))
    assert "x-accepted-stream-protocol-versions" in refused.headers
    client = await remote(url, "stdout")
    assert await client.all("stdout") == b"x\n"


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ((("x-stream-protocol-version", "v9, v3.channel.k8s.io ,v4.channel.k8s.io"),), "v3.channel.k8s.io"),
        (
            (("X-Stream-Protocol-Version", "v9"), ("X-Stream-Protocol-Version", "channel.k8s.io")),
            "channel.k8s.io",
        ),
    ],
)
async def test_the_clients_first_choice_that_is_known_is_taken(
    served: Node, offers: tuple[tuple[str, str], ...], chosen: str
) -> None:
    session = Session(client=True)
    headers = await upgrade(await served.exec_url("echo"), session, "POST", (*SPDY, *offers))
    assert headers["x-stream-protocol-version"] == chosen
    assert (headers["connection"], headers["upgrade"]) == ("Upgrade", "SPDY/3.1")
    session.abort()


async def test_the_handshake_of_the_rfc(served: Node) -> None:
    made = Channels("v4.channel.k8s.io", client=True)
    headers = await upgrade(await served.exec_url("echo"), made.socket, "GET", WEBSOCKET)
    # RFC 6455, section 1.3, whose key is the one that is sent.
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-protocol" not in headers


# HTTP


async def exchange(served: Node, sent: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    host, _, port = served.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


async def test_a_head_that_is_too_long_is_refused(served: Node) -> None:
    await served.server.listen()
    answer = await exchange(served, b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 4_000_000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_body_is_refused(served: Node) -> None:
    await served.server.listen()
    answer = await exchange(
        served, b"POST /exec/12345678 HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123456789"
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_is_no_http_is_told_so(served: Node) -> None:
    await served.server.listen()
    answer = await exchange(served, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"no HTTP request" in answer


async def test_what_comes_right_behind_the_request_is_not_lost(served: Node) -> None:
    url = await served.exec_url("cat", stdin=True, stdout=True)
    path = url.partition(served.server.address)[2]
    head = [f"GET {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in WEBSOCKET)]
    head.append("sec-websocket-protocol: v5.channel.k8s.io")
    frames = Connection(wsproto.ConnectionType.CLIENT)
    sent = frames.send(BytesMessage(b"\x00at once")) + frames.send(BytesMessage(b"\xff\x00"))
    host, _, port = served.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*head, "", ""]).encode() + sent)
    answer = b""
    while b"Success" not in answer:
        answer += (part := await reader.read(1 << 16))
        assert part
    writer.close()
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\x01at once" in answer


async def test_who_asks_slowly_is_left(served: Node) -> None:
    served.server._connections.limits = Limits(head=0.2)
    await served.server.listen()
    assert (await exchange(served, b"GET /exec/12345678 HT")).startswith(b"HTTP/1.1 408 ")
    assert await exchange(served, b"") == b""


async def test_several_requests_on_one_connection(served: Node) -> None:
    await served.server.listen()
    request = b"GET / HTTP/1.1\r\nhost: x\r\n"
    answer = await exchange(served, request + b"\r\n" + request + b"connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 404 ") == 2


async def test_the_answer_to_head_has_no_body(served: Node) -> None:
    await served.server.listen()
    head = b"HEAD / HTTP/1.1\r\nhost: x\r\n"
    answer = await exchange(served, head + b"\r\n" + head + b"connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 404 ") == 2
    assert b"content-length: 0" not in answer, "it says what GET would have got"
    assert answer.endswith(b"\r\n\r\n")


async def test_a_target_that_is_none_is_told_so(served: Node) -> None:
    await served.server.listen()
    answer = await exchange(served, b"GET //[ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


# Addresses and TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it has signed for a server and a client."""
    path = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=path, check=True, capture_output=True, timeout=60)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-x509")
    openssl(*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *signed)
    return path


async def test_tls(tmp_path: Path, certificates: Path) -> None:
    config: dict[str, Any] = {
        "tls_cert": str(certificates / "server.pem"),
        "tls_key": str(certificates / "server.key"),
    }
    trust = client_context(certificates / "ca.pem")
    async with node(tmp_path, **config) as served, asyncio.timeout(60):
        url = await served.exec_url("pump", str(3 << 20))
        assert url.startswith("https://127.0.0.1:")
        client = await channels(url, ssl=trust)
        assert len(await client.all(1)) == 3 << 20
        session = await spdy(await served.forward_url(), "portforward.k8s.io", ssl=trust)
        _, data = await pair(session, 7, "0")
        await data.write(b"through")
        await data.close()
        assert await everything(data) == b"through"
        await session.close()
        # Plain HTTP is not answered.
        with pytest.raises(ConnectionError):
            assert await exchange(served, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == b""
            raise ConnectionError


async def test_clients_need_a_certificate_where_an_authority_is_configured(
    tmp_path: Path, certificates: Path
) -> None:
    config: dict[str, Any] = {
        "tls_cert": str(certificates / "server.pem"),
        "tls_key": str(certificates / "server.key"),
        "tls_client_ca": str(certificates / "ca.pem"),
    }
    trust = client_context(certificates / "ca.pem")
    async with node(tmp_path, **config) as served, asyncio.timeout(60):
        with pytest.raises((OSError, h11.RemoteProtocolError)):
            await channels(await served.exec_url("echo", "x"), ssl=trust)
        trust.load_cert_chain(certificates / "client.pem", certificates / "client.key")
        client = await channels(await served.exec_url("echo", "x"), ssl=trust)
        assert await client.all(1) == b"x\n"


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({"tls_cert": "/c"}, InvalidArgument, "streaming.tls_cert: needs streaming.tls_key"),
        ({"tls_client_ca": "/c"}, InvalidArgument, "streaming.tls_client_ca: needs streaming.tls_cert"),
        ({"base_url": "node:80"}, InvalidArgument, "streaming.base_url"),
        ({"base_url": "https://node/?x"}, InvalidArgument, "streaming.base_url"),
        ({"idle_timeout": 0}, InvalidArgument, "streaming.idle_timeout"),
        ({"creation_timeout": -1}, InvalidArgument, "streaming.creation_timeout"),
        ({"tls_cert": "/nowhere", "tls_key": "/nowhere"}, FailedPrecondition, "/nowhere.*No such file"),
        ({"address": "192.0.2.1"}, FailedPrecondition, "192.0.2.1 port 0.*streaming"),
        ({"port": 70000}, FailedPrecondition, "70000"),
    ],
)
async def test_a_configuration_that_cannot_be_is_refused(
    tmp_path: Path, config: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        async with node(tmp_path, **config) as served:
            await served.server.listen()


async def test_what_is_configured_fails_at_the_start_and_the_default_does_not_listen(tmp_path: Path) -> None:
    async with node(tmp_path, address="192.0.2.1") as served:
        LazyServer(served.runtime)
        with pytest.raises(FailedPrecondition, match=r"192\.0\.2\.1"):
            await served.runtime.listen()
    (tmp_path / "other").mkdir()
    async with node(tmp_path / "other") as served:
        lazy = LazyServer(served.runtime)
        await served.runtime.listen()
        assert lazy.address == ""
        url = await served.exec_url("echo", "x")
        client = await remote(url, "stdout")
        assert await client.all("stdout") == b"x\n"
        await lazy.close()


async def test_a_port_that_is_taken(tmp_path: Path, served: Node) -> None:
    await served.server.listen()
    port = int(served.server.address.rpartition(":")[2])
    (tmp_path / "other").mkdir()
    async with node(tmp_path / "other", port=port) as other:
        with pytest.raises(FailedPrecondition, match=f"port {port}"):
            await other.exec_url("echo")


async def test_any_address_is_reached_at_loopback(tmp_path: Path) -> None:
    async with node(tmp_path, address="0.0.0.0") as served:
        url = await served.exec_url("echo", "x")
        assert url.startswith("http://127.0.0.1:")
        assert served.server.address.startswith("0.0.0.0:")


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
async def test_streams_in_plain_words_beyond_loopback_are_warned_of(
    tmp_path: Path, certificates: Path, caplog: pytest.LogCaptureFixture, address: str, tls: bool
) -> None:
    config: dict[str, Any] = {"address": address}
    if tls:
        config["tls_cert"] = str(certificates / "server.pem")
        config["tls_key"] = str(certificates / "server.key")
    async with node(tmp_path, **config) as served:
        await served.server.listen()
    warned = "0.0.0.0 without TLS" in caplog.text
    assert warned == (address == "0.0.0.0" and not tls), caplog.text


async def test_ipv6(tmp_path: Path) -> None:
    async with node(tmp_path, address="::1") as served:
        url = await served.exec_url("echo", "x")
        assert url.startswith("http://[::1]:")
        client = await remote(url, "stdout")
        assert await client.all("stdout") == b"x\n"


async def test_a_base_url_of_a_proxy(tmp_path: Path) -> None:
    async with node(tmp_path, base_url="https://node1.example:10350/cri/") as served:
        url = await served.exec_url("echo", "x")
        assert url.startswith("https://node1.example:10350/cri/exec/")
        for prefix in ("/cri", ""):
            url = await served.exec_url("echo", "x")
            token = url.rpartition("/")[2]
            client = await remote(f"http://{served.server.address}{prefix}/exec/{token}", "stdout")
            assert await client.all("stdout") == b"x\n"


# Time-outs, stopping, and what is left


async def test_a_session_that_nobody_uses_is_ended(tmp_path: Path) -> None:
    async with node(tmp_path, idle_timeout=0.3) as served, asyncio.timeout(60):
        executing = await remote(await served.exec_url("hang"), "stdout")
        forwarding = await spdy(await served.forward_url(), "")
        await asyncio.wait([executing.session.closed, forwarding.closed])
        await served.engine.hung_up.wait()
        socket = (await channels(await served.exec_url("hang"))).socket
        await socket.closed


async def test_bytes_in_either_direction_keep_a_session(tmp_path: Path) -> None:
    async with node(tmp_path, idle_timeout=2.0) as served, asyncio.timeout(60):
        client = await remote(await served.exec_url("cat", stdin=True, stdout=True), "stdin", "stdout")
        other = await channels(await served.exec_url("hang"))
        while not other.socket.closed.done():
            await client.streams["stdin"].write(b"x")
            assert await client.streams["stdout"].read() == b"x"
            await asyncio.wait([other.socket.closed], timeout=0.1)
        assert not client.session.closed.done()
        client.session.abort()


async def test_the_kernel_looks_for_hosts_that_have_vanished(served: Node) -> None:
    client = await remote(await served.exec_url("hang"), "stdout")
    (connection,) = served.server._connections.all
    found = connection.transport.get_extra_info("socket")
    asked = [found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
        asked.append(found.getsockopt(socket.IPPROTO_TCP, option))
    assert asked == [1, 15, 15, 4]
    client.session.abort()


async def test_stopping_ends_sessions_in_order(served: Node) -> None:
    speaking = await remote(await served.exec_url("hang"), "stdout")
    in_channels = await channels(await served.exec_url("hang"))
    forwarding = await tunnel(await served.forward_url())
    error, _ = await pair(forwarding, 20, "0")
    while served.engine.running < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    waiting = await served.exec_url("echo")
    await served.server.close()
    assert served.engine.running == 0
    status = await speaking.status()
    assert (status["reason"], status["message"]) == ("ServiceUnavailable", "podwright is stopping")
    assert await speaking.session.closed is None
    assert json.loads(await in_channels.all(3))["message"] == "podwright is stopping"
    await everything(error)
    await asyncio.wait([forwarding.closed])
    with pytest.raises(OSError):
        await ask(waiting)
    with pytest.raises(FailedPrecondition, match="closed"):
        await served.exec_url("echo")


async def test_stopping_does_not_wait_for_clients_that_read_nothing(served: Node) -> None:
    client = await remote(await served.exec_url("pump", str(1 << 40)), "stdout")
    await client.streams["stdout"].read()
    pipe = client.session._pipe
    assert pipe is not None
    pipe.pause_reading()
    # One without windows: what waits for it waits in this process.
    in_channels = await channels(await served.exec_url("pump", str(1 << 40)))
    await in_channels.read(1)
    in_channels.socket.transport.pause_reading()
    connections = served.server._connections.all
    while max(each.transport.get_write_buffer_size() for each in connections) < len(CHUNK):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        await served.server.close()
    assert served.engine.running == 0


async def test_nothing_is_left_of_sessions(served: Node) -> None:
    """However they end: tasks, file descriptors and objects are as many as before."""

    async def one_of_each() -> None:
        client = await remote(await served.exec_url("echo", "x"), "stdout")
        await client.status()
        client = await remote(await served.exec_url("hang"), "stdout")
        await served.engine.started.wait()
        client.session.abort()
        in_channels = await channels(await served.exec_url("cat", stdin=True, stdout=True))
        await in_channels.channels.outlet(0).close()
        await in_channels.all(3)
        in_channels = await channels(await served.exec_url("hang"))
        in_channels.socket.transport.abort()
        session = await spdy(await served.forward_url(), "portforward.k8s.io")
        _, data = await pair(session, 13, "0")
        await everything(data)
        await pair(session, 19, "1")
        await session.open({"streamtype": "error", "port": "7", "requestid": "half"})
        session.abort()
        session = await tunnel(await served.forward_url())
        await pair(session, 7, "0")
        session.abort()
        assert (await ask(await served.exec_url("echo"))).status == 426

    async def back_to(limit: tuple[int, ...]) -> None:
        """Timers of a few seconds may still hold some of it."""
        async with asyncio.timeout(30):
            while any(now > most for now, most in zip(_counted(), limit, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    for _ in range(3):
        await one_of_each()
    while served.server._connections.all or served.engine.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    before = _counted()
    for _ in range(20):
        await one_of_each()
    await back_to(before)


def _counted() -> tuple[int, int, int]:
    """Tasks, file descriptors, and objects of the streaming room."""
    gc.collect()
    objects = [each for each in gc.get_objects() if "podwright.streaming" in str(type(each).__module__)]
    return len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())), len(objects)


async def test_the_log_says_who_and_what_and_no_secrets(
    served: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = await served.exec_url("echo", "a secret")
    client = await remote(url, "stdout")
    await client.status()
    await client.session.closed
    session = await spdy(await served.forward_url(), "portforward.k8s.io")
    await pair(session, 99, "0")
    session.abort()
    while served.server._connections.all:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == "podwright.streaming"]
    (line,) = [line for line in lines if line.startswith("exec")]
    assert line.startswith(f"exec in container {served.container} for 127.0.0.1:")
    assert "SPDY v4.channel.k8s.io: exit code 0 after 0." in line
    assert any(
        line.startswith(f"port-forward to pod {served.pod}") and "1 connections" in line for line in lines
    )
    assert "secret" not in caplog.text
    assert url.rpartition("/")[2] not in caplog.text
