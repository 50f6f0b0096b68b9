"""Asking real servers on loopback, once, by HTTP, TCP, gRPC and a command."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from podwright.api import Cri
from podwright.clock import SYSTEM
from podwright.errors import DeadlineExceeded, PodwrightError
from podwright.kube.models import HTTPGetAction, HTTPHeader
from podwright.kube.probes import exec as by_exec
from podwright.kube.probes import grpc as by_grpc
from podwright.kube.probes import http as by_http
from podwright.kube.probes import tcp as by_tcp
from podwright.kube.probes.answers import Answer, ProbeError
from podwright.kube.probes.asking import ask
from podwright.kube.requests.ports import resolve
from podwright.wire import cri_pb2 as cri
from tests.kube import listeners
from tests.kube.listeners import ok, redirect
from tests.kube.seen_pods import pod

LIMIT = 30.0
"""Seconds that an answer may take on a busy machine."""
SOON = 0.2
HOST = "127.0.0.1"


def unused_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
    return port


async def get(port: int, path: str = "/", limit: float = LIMIT, **more: Any) -> Answer:
    action = HTTPGetAction(port=port, path=path, **more)
    async with asyncio.timeout(2 * LIMIT):
        return await by_http.ask(action, HOST, port, limit, SYSTEM)


# HTTP


async def test_http_success_is_any_status_from_200_and_the_body_is_told() -> None:
    teapot = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    async with listeners.http({"/ok?x=1": ok(), "/no": teapot}) as server:
        assert await get(server.port, "/ok?x=1") == Answer(True, "fine")
        assert await get(server.port, "/no") == Answer(False, "HTTP probe failed with statuscode: 404")


async def test_http_headers_are_the_probes_own_and_a_kubelets() -> None:
    own = [HTTPHeader(name="Host", value="example.test"), HTTPHeader(name="X-A", value="1")]
    async with listeners.http({"/": ok()}) as server:
        await get(server.port, httpHeaders=own)
        await get(server.port, httpHeaders=[HTTPHeader(name="user-agent", value="")])
    first, second = ([line for line in head.split("\r\n")[1:] if line] for head in server.requests)
    assert {"Host: example.test", "X-A: 1", "User-Agent: kube-probe/1.36", "Accept: */*"} <= set(first)
    assert "Connection: close" in first
    assert f"Host: {HOST}:{server.port}" in second
    assert not any(line.lower().startswith("user-agent") for line in second)


async def test_http_redirects_are_followed_on_the_same_host_only() -> None:
    answers = {
        "/here": redirect("/ok"), "/ok": ok("there"),
        "/away": redirect("http://elsewhere.test/"), "/round": redirect("/round"),
    }  # fmt: skip
    async with listeners.http(answers) as server:
        assert await get(server.port, "/here") == Answer(True, "there")
        away = await get(server.port, "/away")
        assert away == Answer(True, "Probe terminated redirects, Response body: away", warning=True)
        target = f"http://{HOST}:{server.port}/round"
        assert await get(server.port, "/round") == Answer(
            False, f'Get "{target}": stopped after 10 redirects'
        )


async def test_http_keeps_ten_kibibytes_of_a_body_that_never_ends() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20)
    async with listeners.http({"/": endless}) as server:
        answer = await get(server.port)
        assert answer.healthy and len(answer.output) == 10 << 10
        async with asyncio.timeout(LIMIT):
            await server.closed.wait()


async def test_https_is_not_verified_and_plain_http_is_named(tmp_path: Path) -> None:
    async with listeners.http({"/": ok("sealed")}, listeners.self_signed(tmp_path)) as server:
        assert await get(server.port, scheme="HTTPS") == Answer(True, "sealed")
    async with listeners.http({"/": ok()}) as server:
        answer = await get(server.port, scheme="HTTPS")
        target = f"https://{HOST}:{server.port}/"
        words = f'Get "{target}": http: server gave HTTP response to HTTPS client'
        assert answer == Answer(False, words)


async def test_http_without_a_server_is_refused() -> None:
    port = unused_port()
    words = f'Get "http://{HOST}:{port}/": dial tcp {HOST}:{port}: connect: connection refused'
    assert await get(port) == Answer(False, words)


@pytest.mark.parametrize("answer", ["SSH-2.0-nothing\r\n\r\n", ""])
async def test_http_of_something_else_is_a_failure_in_words(answer: str) -> None:
    async with listeners.http({"/": answer}) as server:
        found = await get(server.port)
    assert not found.healthy
    what = "malformed HTTP response" if answer else "EOF"
    assert found.output.startswith(f'Get "http://{HOST}:{server.port}/": ') and what in found.output


async def test_http_that_hangs_fails_in_time_and_leaves_no_connection() -> None:
    async with listeners.http({"/": None}) as server:
        answer = await get(server.port, limit=SOON)
        assert answer.output == (
            f'Get "http://{HOST}:{server.port}/": context deadline exceeded'
            " (Client.Timeout exceeded while awaiting headers)"
        )
        async with asyncio.timeout(LIMIT):
            await server.closed.wait()
        assert server.open == 0


# TCP


async def test_tcp_succeeds_when_somebody_accepts() -> None:
    async with listeners.http({}) as server:
        assert await by_tcp.ask(HOST, server.port, LIMIT, SYSTEM) == Answer(True)
    port = unused_port()
    words = f"dial tcp {HOST}:{port}: connect: connection refused"
    assert await by_tcp.ask(HOST, port, LIMIT, SYSTEM) == Answer(False, words)


async def test_tcp_to_a_server_that_accepts_no_more_times_out() -> None:
    with socket.socket() as full, socket.socket() as first:
        full.bind((HOST, 0))
        full.listen(0)
        port = full.getsockname()[1]
        # One connection fills the queue of a listener that accepts none; the kernel drops what comes then.
        first.connect((HOST, port))
        answer = await by_tcp.ask(HOST, port, SOON, SYSTEM)
        assert answer == Answer(False, f"dial tcp {HOST}:{port}: i/o timeout")


# gRPC


@asynccontextmanager
async def health(answer: bytes | grpc.StatusCode | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A gRPC server whose health service answers so; None: it never does."""
    asked: list[bytes] = []

    async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        asked.append(request)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "not now")
        assert isinstance(answer, bytes)
        return answer

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port, asked
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"\x08\x01", Answer(True, "service healthy")),
        (b"\x08\x02", Answer(False, 'service unhealthy (responded with "NOT_SERVING")')),
        (b"", Answer(False, 'service unhealthy (responded with "UNKNOWN")')),
        (
            grpc.StatusCode.NOT_FOUND,
            Answer(False, "error: health rpc probe failed: rpc error: code = NotFound desc = not now"),
        ),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            Answer(
                False,
                "error: this server does not implement the grpc health protocol"
                " (grpc.health.v1.Health): not now",
            ),
        ),
    ],
)
async def test_grpc_asks_the_health_service(answer: bytes | grpc.StatusCode, expected: Answer) -> None:
    async with health(answer) as (port, asked):
        assert await by_grpc.ask(HOST, port, "some.Service", LIMIT, SYSTEM) == expected
    assert asked == [b"\x0a\x0csome.Service"]


async def test_grpc_that_does_not_answer_or_is_not_there_fails_in_time() -> None:
    async with health(None) as (port, _):
        answer = await by_grpc.ask(HOST, port, "", 1, SYSTEM)
        assert answer.output in (
            "timeout: health rpc did not complete within 1s",
            # On a machine this busy not even the connection came about.
            f'timeout: failed to connect service "{HOST}:{port}" within 1s: context deadline exceeded',
        )
    port = unused_port()
    answer = await by_grpc.ask(HOST, port, "", 1, SYSTEM)
    assert answer == Answer(
        False, f'timeout: failed to connect service "{HOST}:{port}" within 1s: context deadline exceeded'
    )


# Commands


class Commands:
    """A runtime that only runs commands."""

    def __init__(self, *answers: cri.ExecSyncResponse | PodwrightError) -> None:
        self.answers = list(answers)
        self.requests: list[cri.ExecSyncRequest] = []

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, PodwrightError):
            raise answer
        return answer


async def test_a_command_succeeds_with_0_and_its_output_is_told() -> None:
    failed = cri.ExecSyncResponse(stdout=b"not alive\n", stderr=b"at all\n", exit_code=1)
    runtime = Commands(cri.ExecSyncResponse(stdout=b"x" * 20_000), failed, DeadlineExceeded("too long"))
    node = cast(Cri, runtime)
    first, second, third = [await by_exec.ask(node, "id", ["sh", "-c", "true"], 3) for _ in range(3)]
    assert first.healthy and len(first.output) == 10 << 10
    assert second == Answer(False, "not alive\nat all\n")
    assert third == Answer(False, 'command timed out: "sh -c true" timed out after 3s')
    assert [one.timeout for one in runtime.requests] == [3, 3, 3]


async def test_what_cannot_be_run_is_tried_three_times_and_says_nothing_of_the_container() -> None:
    exec_probe = "{exec: {command: [check, $(A), $(B)]}}"
    more = f", env: [{{name: A, value: a}}], livenessProbe: {exec_probe}"
    (container,) = pod(f"  containers:\n  - {{name: main, image: 'i:1'{more}}}\n").containers
    assert container.livenessProbe is not None
    runtime = Commands(*[PodwrightError("no such container")] * 3)
    with pytest.raises(ProbeError, match="rpc error: code = Unknown desc = no such container"):
        await ask(
            container.livenessProbe, container, "id", host=HOST, runtime=runtime, clock=SYSTEM,  # type: ignore[arg-type]
        )  # fmt: skip
    assert [list(one.cmd) for one in runtime.requests] == [["check", "a", "$(B)"]] * 3
    assert {one.timeout for one in runtime.requests} == {1}


def test_a_port_is_a_number_or_the_name_of_one_of_the_containers_ports() -> None:
    ports = "  containers:\n  - {name: main, image: 'i:1', ports: [{name: web, containerPort: 8080}]}\n"
    (container,) = pod(ports).containers
    assert [resolve(container, one) for one in (80, "web", "81")] == [80, 8080, 81]
    for wrong in ("nope", "70000", 0):
        with pytest.raises(ValueError):
            resolve(container, wrong)
