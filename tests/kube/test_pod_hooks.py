"""Hooks of containers, and the arithmetic and order of a pod's end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright.clock import SYSTEM, Clock, VirtualClock
from podwright.errors import PodwrightError
from podwright.kube.failures import HookError
from podwright.kube.life.lifecycle import run_handler
from podwright.kube.models import LifecycleHandler
from podwright.kube.node import PodFacts
from podwright.kube.rules import grace
from podwright.kube.rules.stop_order import prerequisites, to_stop
from podwright.wire import cri_pb2 as cri
from tests.kube import listeners
from tests.kube.listeners import ok, redirect
from tests.kube.seen_pods import Node, containers, pod

MAIN = "  containers:\n  - {name: main, image: 'i:1', ports: [{name: web, containerPort: %d}]}\n"


class Commands:
    def __init__(self, answer: cri.ExecSyncResponse | PodwrightError) -> None:
        self.answer = answer
        self.requests: list[cri.ExecSyncRequest] = []

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        self.requests.append(request)
        if isinstance(self.answer, PodwrightError):
            raise self.answer
        return self.answer


async def run(
    handler: dict[str, Any],
    runtime: Commands | None = None,
    *,
    port: int = 80,
    clock: Clock = SYSTEM,
    facts: PodFacts | None = None,
) -> None:
    manifest = pod(MAIN % port)
    await run_handler(
        msgspec.convert(handler, LifecycleHandler), manifest, manifest.containers[0], "main-0",
        facts=facts or PodFacts(ips=("127.0.0.1",)), runtime=runtime, clock=clock,  # type: ignore[arg-type]
    )  # fmt: skip


async def test_a_command_has_no_time_limit_and_must_end_with_0() -> None:
    runtime = Commands(cri.ExecSyncResponse())
    await run({"exec": {"command": ["sh", "-c", "true"]}}, runtime)
    assert runtime.requests == [cri.ExecSyncRequest(container_id="main-0", cmd=["sh", "-c", "true"])]
    failing = Commands(cri.ExecSyncResponse(exit_code=4, stdout=b"hook broke\n", stderr=b"why"))
    with pytest.raises(HookError) as caught:
        await run({"exec": {"command": ["sh", "-c", "exit 4"]}}, failing)
    assert caught.value.reason == "PostStartHookError"
    assert caught.value.message == (
        'Exec lifecycle hook ([sh -c exit 4]) for Container "main" in Pod "p_default(u)" failed - error: '
        "command 'sh -c exit 4' exited with 4: why, message: \"hook broke\\nwhy\""
    )


async def test_a_command_that_cannot_be_run_fails_the_hook() -> None:
    with pytest.raises(HookError, match="error: rpc error: code = Unknown desc = no such container"):
        await run({"exec": {"command": ["true"]}}, Commands(PodwrightError("no such container")))


async def test_http_goes_to_the_pods_address_and_any_status_will_do() -> None:
    answers = {"/stop?now": "HTTP/1.1 500 No\r\n\r\n", "/": ok()}
    async with listeners.http(answers) as server:
        action = {"path": "/stop?now", "port": "web", "httpHeaders": [{"name": "X-Why", "value": "stop"}]}
        await run({"httpGet": action}, port=server.port)
        await run({"httpGet": {"port": server.port}})
    head = server.requests[0]
    assert head.startswith("GET /stop?now HTTP/1.1\r\n")
    assert "X-Why: stop" in head and "User-Agent: kube-lifecycle/1.36" in head
    assert f"Host: 127.0.0.1:{server.port}" in head


async def test_http_follows_redirects_to_any_host() -> None:
    async with listeners.http({"/": redirect("http://localhost:{port}/there"), "/there": ok()}) as server:
        await run({"httpGet": {"port": server.port}})
    assert [head.split(" ")[1] for head in server.requests] == ["/", "/there"]


async def test_https_falls_back_to_http_without_the_credentials() -> None:
    action = {"scheme": "HTTPS", "httpHeaders": [{"name": "Authorization", "value": "secret"}]}
    async with listeners.http({"/": ok()}) as server:
        await run({"httpGet": {**action, "port": server.port}})
    assert [head[:5] == "GET /" for head in server.requests] == [False, True]
    assert "secret" not in server.requests[1]


async def test_https_is_not_verified(tmp_path: Path) -> None:
    async with listeners.http({"/": ok()}, listeners.self_signed(tmp_path)) as server:
        await run({"httpGet": {"scheme": "HTTPS", "port": server.port}})
    assert len(server.requests) == 1


async def test_http_that_nobody_answers_fails_the_hook() -> None:
    async with listeners.http({}) as server:
        pass
    with pytest.raises(HookError) as caught:
        await run({"httpGet": {"path": "/up", "port": server.port}})
    assert caught.value.message == (
        'HTTP lifecycle hook (/up) for Container "main" in Pod "p_default(u)" failed - error: '
        f'Get "http://127.0.0.1:{server.port}/up": dial tcp 127.0.0.1:{server.port}: '
        "connect: connection refused"
    )
    with pytest.raises(HookError, match='parsing "nope": invalid syntax'):
        await run({"httpGet": {"port": "nope"}})
    with pytest.raises(HookError, match="no address"):
        await run({"httpGet": {"port": 80}}, facts=PodFacts())


async def test_sleep_takes_its_time() -> None:
    clock = VirtualClock()
    hook = asyncio.ensure_future(run({"sleep": {"seconds": 3}}, clock=clock))
    await clock.advance(2.9)
    assert not hook.done()
    await clock.advance(0.1)
    await hook


async def test_a_tcp_socket_is_no_hook_that_a_kubelet_can_run() -> None:
    with pytest.raises(HookError, match="Cannot run handler: invalid handler"):
        await run({"tcpSocket": {"port": 80}})


# The end


def probes(pod_seconds: str, own: str) -> Node:
    more = f", startupProbe: {{exec: {{}}{own}}}, livenessProbe: {{exec: {{}}{own}}}"
    spec = f"  terminationGracePeriodSeconds: {pod_seconds}\n" + containers("main", more=more)
    return Node(pod(spec))


@pytest.mark.parametrize(
    ("reason", "own", "deletion", "expected"),
    [
        ("", "", None, 20),
        ("", ", terminationGracePeriodSeconds: 5", None, 20),
        ("LivenessProbe", "", None, 20),
        ("LivenessProbe", ", terminationGracePeriodSeconds: 5", None, 5),
        ("StartupProbe", ", terminationGracePeriodSeconds: 5", None, 5),
        ("FailedPostStartHook", ", terminationGracePeriodSeconds: 5", None, 20),
        ("LivenessProbe", ", terminationGracePeriodSeconds: 5", 0, 0),
    ],
)
def test_deletion_comes_before_the_probe_and_that_before_the_pod(
    reason: str, own: str, deletion: int | None, expected: int
) -> None:
    manifest = probes("20", own).manifest
    period = grace.period(manifest, manifest.containers[0], reason=reason, deletion=deletion)
    assert period == expected


def test_a_pod_that_says_nothing_has_thirty_seconds() -> None:
    manifest = probes("null", "").manifest
    assert grace.period(manifest, manifest.containers[0]) == 30


@pytest.mark.parametrize(
    ("period", "spent", "timeout"),
    [(10, 3.0, 7), (10, 2.9999999999, 7), (10, 2.9, 8), (3, 2.5, 2), (5, 60, 2)],
)
def test_whole_seconds_are_taken_from_the_grace_period_and_two_are_left(
    period: int, spent: float, timeout: int
) -> None:
    assert grace.timeout(grace.remaining(period, spent)) == timeout


def test_sidecars_are_stopped_after_the_others_the_last_one_first() -> None:
    more = ", restartPolicy: Always"
    spec = containers("log", "proxy", field="initContainers", more=more) + containers("a", "b")
    node = Node(pod(spec + containers("dbg", field="ephemeralContainers"))).sandbox()
    for name in ("log", "proxy", "a", "b", "dbg"):
        node.container(name)
    running = ["log", "proxy", "a", "b", "dbg"]
    assert prerequisites(node.manifest, "log", running) == {"proxy", "a", "b"}
    assert prerequisites(node.manifest, "proxy", running) == {"a", "b"}
    assert prerequisites(node.manifest, "a", running) == set()
    assert prerequisites(node.manifest, "log", ["log", "b"]) == {"b"}
    assert [one.name for one in to_stop(node.end("a-0").seen)] == ["dbg", "b", "proxy", "log"]


def test_an_init_container_waits_for_nobody() -> None:
    spec = containers("init", field="initContainers") + containers("main")
    assert prerequisites(pod(spec), "init", ["init", "main"]) == set()
