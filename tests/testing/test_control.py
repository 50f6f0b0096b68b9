"""The control API: what each route does, what wrong requests get, and that it outlives the CRI server."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.engines.fake.world import FakeSandbox
from podwright.testing import Client, FakeNode
from podwright.testing.client import beside
from podwright.testing.control import controlling
from podwright.testing.http import BODY_LIMIT
from podwright.wire import cri_pb2 as cri
from tests.testing import requests

SCENARIO = {"seed": 7, "default_handler": "fake"}

Ask = Callable[..., Any]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[FakeNode]:
    async with FakeNode(SCENARIO) as node, controlling(node, tmp_path / "c"):
        yield node


@pytest.fixture
def client(tmp_path: Path, node: FakeNode) -> Client:
    return Client(tmp_path / "c")


@pytest.fixture
def ask(client: Client) -> Ask:
    """`await ask("GET", "/v1/state")`, beside the event loop that answers."""

    async def ask(method: str, route: str, body: Any = None) -> Any:
        async with asyncio.timeout(20):
            return await asyncio.to_thread(client.call, method, route, body)

    return ask


def test_the_control_socket_lies_beside_the_cris() -> None:
    assert beside(Path("/run/x/podwright.sock")) == Path("/run/x/podwright.control.sock")
    assert beside(Path("/run/x/cri")) == Path("/run/x/cri.control.sock")


async def test_its_socket_is_closed_to_others(node: FakeNode, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o660
    with pytest.raises(errors.FailedPrecondition, match="another podwright serves at"):
        async with controlling(node, tmp_path / "c"):
            pass


async def test_state_tells_what_is_recorded_and_what_is_there(node: FakeNode, ask: Ask) -> None:
    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    state = await ask("GET", "/v1/state")
    assert (state["server"], state["crashes"], state["clock"]["kind"]) == ("up", 0, "virtual")
    (pod,) = state["pods"]
    (container,) = pod.pop("containers")
    assert (pod["id"], pod["namespace"], pod["name"]) == (sandbox, "default", "web")
    assert (pod["state"], pod["presence"], pod["ips"]) == ("ready", "ready", ["10.88.0.2"])
    assert (container["id"], container["name"], container["image"]) == (id, "main", "nginx")
    assert (container["state"], container["presence"]) == ("running", "running")
    await node.kill(None)
    node.exit(id, 3)
    (pod,) = (await ask("GET", "/v1/state"))["pods"]
    assert (pod["containers"][0]["state"], pod["containers"][0]["presence"]) == ("running", "exited")


async def test_orphans_are_what_no_record_knows(node: FakeNode, ask: Ask) -> None:
    node.world.sandboxes["x"] = FakeSandbox("x")
    assert (await ask("GET", "/v1/state"))["orphans"] == {"pods": ["x"], "containers": []}


async def test_calls_are_found_paged_and_forgotten(node: FakeNode, ask: Ask) -> None:
    for name in ("web", "db", "api"):
        await requests.run_pod(node.cri, name)
    node.inject_error("StopPodSandbox", errors.Unavailable("busy"))
    with pytest.raises(errors.Unavailable):
        await node.cri.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id="x"))

    async def numbers(query: str) -> list[int]:
        return [call["number"] for call in (await ask("GET", f"/v1/calls?{query}"))["calls"]]

    assert await numbers("") == [1, 2, 3, 4]
    assert await numbers("rpc=Run*&pod=?b") == [2]
    assert await numbers("limit=2") == [3, 4]
    assert await numbers("since=1&limit=2") == [2, 3]
    assert await numbers("failed=true") == [4]
    assert await numbers("failed=false&since=2") == [3]
    (call,) = (await ask("GET", "/v1/calls?failed=true"))["calls"]
    assert (call["rpc"], call["outcome"]) == ("StopPodSandbox", "Unavailable: busy")
    assert call["request"] == {"podSandboxId": "x"} and call["response"] is None
    (call,) = (await ask("GET", "/v1/calls?pod=web&messages=false"))["calls"]
    assert call["title"] == "web" and "request" not in call
    await ask("DELETE", "/v1/calls")
    assert await ask("GET", "/v1/calls") == {"total": 4, "dropped": 0, "calls": []}


async def test_no_answer_has_credentials(node: FakeNode, ask: Ask) -> None:
    await node.cri.pull_image(requests.pull("nginx", username="bob", password="hunter2", auth="c2VjcmV0"))
    calls, pulls = await ask("GET", "/v1/calls"), await ask("GET", "/v1/pulls")
    (call,) = calls["calls"]
    assert call["request"]["auth"] == {"username": "bob", "password": "(hidden)", "auth": "(hidden)"}
    (pull,) = pulls["pulls"]
    assert (pull["image"], pull["username"], pull["outcome"]) == ("nginx", "bob", "pulled")
    assert "hunter2" not in json.dumps([calls, pulls]) and "c2VjcmV0" not in json.dumps([calls, pulls])


async def test_the_scenario_is_read_replaced_and_changed(node: FakeNode, ask: Ask) -> None:
    assert (await ask("GET", "/v1/scenario"))["seed"] == 7
    text = b"network_error: cut\ncontainers:\n- exit: {after: 5s, code: 2}\n"
    assert (await ask("PUT", "/v1/scenario", text))["network_error"] == "cut"
    assert node.world.scenario.seed == 0
    changed = await ask("PATCH", "/v1/scenario", {"network_error": None, "seed": 9})
    assert "network_error" not in changed
    assert (node.world.scenario.seed, node.world.scenario.containers[0].exit is not None) == (9, True)
    with pytest.raises(errors.InvalidArgument) as wrong:
        await ask("PATCH", "/v1/scenario", b"containers:\n- exit: {after: soon}\n")
    assert wrong.value.field == "scenario.containers[0].exit.after"
    assert "is no time" in str(wrong.value)
    assert node.world.scenario.seed == 9


async def test_faults_are_added_listed_and_removed(node: FakeNode, ask: Ask) -> None:
    first = await ask("POST", "/v1/faults", {"on": "Version", "error": {"code": "Unavailable"}, "count": 2})
    second = await ask("POST", "/v1/faults", b"on: Run*\nlatency: 5s\nmatch: {pod: web}\n")
    with pytest.raises(errors.Unavailable):
        await node.cri.version(cri.VersionRequest())
    one, two = (await ask("GET", "/v1/faults"))["faults"]
    assert (one["id"], one["struck"], one["scripted"]) == (first["id"], 1, False)
    assert two["fault"] == {"on": "Run*", "match": {"pod": "web"}, "latency": 5.0}
    await ask("DELETE", f"/v1/faults/{second['id']}")
    assert [each["id"] for each in (await ask("GET", "/v1/faults"))["faults"]] == [first["id"]]
    with pytest.raises(errors.NotFound, match="no active fault has the id"):
        await ask("DELETE", f"/v1/faults/{second['id']}")
    with pytest.raises(errors.InvalidArgument, match="id: 'x' is no number"):
        await ask("DELETE", "/v1/faults/x")
    with pytest.raises(errors.InvalidArgument, match="did you mean 'Version'"):
        await ask("POST", "/v1/faults", {"on": "Versoin", "error": {"code": "Unavailable"}})
    await ask("DELETE", "/v1/faults")
    await node.cri.version(cri.VersionRequest())


async def test_containers_end_and_sandboxes_break(node: FakeNode, client: Client, ask: Ask) -> None:
    sandbox = await requests.run_pod(node.cri)
    one = await requests.run_container(node.cri, sandbox, "one")
    two = await requests.run_container(node.cri, sandbox, "two")
    await ask("POST", "/v1/containers/web/one/exit", {"code": 3})
    await asyncio.to_thread(client.exit, "default/web/two", oom=True)
    await node.advance(0)
    assert [(await requests.status(node.cri, id)).exit_code for id in (one, two)] == [3, 137]
    with pytest.raises(errors.FailedPrecondition, match="does not run"):
        await ask("POST", f"/v1/containers/{one}/exit")
    await asyncio.to_thread(client.lose, "default/web")
    await node.advance(0)
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_NOTREADY}
    with pytest.raises(errors.NotFound, match="no pod has the id or name 'db'"):
        await ask("POST", "/v1/pods/db/lose")


async def test_the_clock_is_read_and_advanced(node: FakeNode, ask: Ask) -> None:
    before = await ask("GET", "/v1/clock")
    after = await ask("POST", "/v1/clock/advance", {"seconds": "10m"})
    assert before["kind"] == after["kind"] == "virtual"
    assert (before["now"][11:19], after["now"][11:19]) == ("00:00:00", "00:10:00")
    with pytest.raises(errors.InvalidArgument, match="seconds"):
        await ask("POST", "/v1/clock/advance")


async def test_it_is_there_while_the_server_is_down(node: FakeNode, ask: Ask) -> None:
    await requests.run_pod(node.cri)
    assert await ask("POST", "/v1/crash") == {"server": "up"}
    assert await ask("POST", "/v1/crash", {"downtime": "20s"}) == {"server": "down"}
    with pytest.raises(errors.FailedPrecondition, match="down already"):
        await ask("POST", "/v1/crash")
    assert (await ask("GET", "/v1/state"))["server"] == "down"
    await ask("POST", "/v1/clock/advance", {"seconds": 20})
    async with asyncio.timeout(10):
        await node.started()
    assert (await ask("GET", "/v1/state"))["crashes"] == 2
    assert await ask("POST", "/v1/crash", {"downtime": None, "containers": "lose"}) == {"server": "down"}
    assert await ask("POST", "/v1/restart") == {"server": "up"}
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_NOTREADY}


async def test_a_reset_begins_anew(node: FakeNode, ask: Ask) -> None:
    await requests.run_pod(node.cri)
    await ask("PATCH", "/v1/scenario", {"network_error": "cut"})
    await ask("POST", "/v1/reset")
    assert await ask("GET", "/v1/calls") == {"total": 1, "dropped": 0, "calls": []}
    assert (await ask("GET", "/v1/state"))["pods"] == []
    await requests.run_pod(node.cri)


@pytest.mark.parametrize(
    ("method", "route", "body", "error", "words"),
    [
        ("GET", "/v2/state", None, errors.NotFound, "there is no such route; there are GET /v1/state, "),
        ("PUT", "/v1/clock", None, errors.NotFound, "PUT /v1/clock: only GET can be done here"),
        ("GET", "/v1/calls?limit=0", None, errors.InvalidArgument, "limit: 0 is not above 0"),
        ("GET", "/v1/calls?limit=x", None, errors.InvalidArgument, "limit: "),
        ("GET", "/v1/calls?rcp=x", None, errors.InvalidArgument, "rcp: "),
        ("POST", "/v1/crash", {"containers": "los"}, errors.InvalidArgument, "containers: "),
        ("POST", "/v1/crash", {"downtime": "never"}, errors.InvalidArgument, "downtime: 'never' is no time"),
        ("GET", "/v1/calls?rpc=pullimage", None, errors.InvalidArgument, "did you mean 'PullImage'"),
        ("POST", "/v1/containers/x/exit", {"code": 256}, errors.InvalidArgument, "code: 256 is no exit code"),
        (
            "POST",
            "/v1/faults",
            {"on": "PullImagge", "lose": True},
            errors.InvalidArgument,
            "fault.on: no call",
        ),
        ("POST", "/v1/reset", {"hard": True}, errors.InvalidArgument, "hard: "),
        ("POST", "/v1/crash", b"- 1", errors.InvalidArgument, "body: is list; a mapping is wanted"),
        ("POST", "/v1/crash", b"{", errors.InvalidArgument, "body: is not YAML"),
        ("POST", "/v1/faults", b"{}", errors.InvalidArgument, "fault: "),
    ],
)
async def test_wrong_requests_are_told_what_is_wrong(
    ask: Ask, method: str, route: str, body: Any, error: type[errors.PodwrightError], words: str
) -> None:
    with pytest.raises(error) as caught:
        await ask(method, route, body)
    assert words in str(caught.value)
    assert type(caught.value) is error


# HTTP


async def exchange(path: Path, sent: bytes) -> bytes:
    """What comes back until the server closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def test_several_requests_pass_over_one_connection(node: FakeNode, tmp_path: Path) -> None:
    one = b"GET /v1/clock HTTP/1.1\r\nHost: x\r\n\r\n"
    two = b"POST /v1/crash HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    last = b"GET /v1/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await exchange(tmp_path / "c", one + two + last)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert answer.endswith(b"}\n") and b'"crashes":1' in answer


async def test_what_is_no_http_is_told_so(node: FakeNode, tmp_path: Path) -> None:
    answer = await exchange(tmp_path / "c", b"hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"this is no HTTP request" in answer
    assert await exchange(tmp_path / "c", b"") == b""
    cut = await exchange(tmp_path / "c", b"GET /v1/clock HT")
    assert cut.startswith(b"HTTP/1.1 400 ")


async def test_a_body_beyond_the_limit_is_refused(node: FakeNode, tmp_path: Path) -> None:
    head = f"PUT /v1/scenario HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_LIMIT + 1}\r\n\r\n".encode()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "c"))
    writer.write(head)
    writer.write(b" " * (BODY_LIMIT + 1))
    async with asyncio.timeout(20):
        line = await reader.readline()
    assert line.startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_client_may_ask_before_it_sends_a_body(node: FakeNode, tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "c"))
    writer.write(b"PUT /v1/scenario HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await reader.readline()
        writer.write(b"seed: 3")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert node.world.scenario.seed == 3


async def test_who_says_nothing_does_not_hold_the_end_up(tmp_path: Path) -> None:
    async with FakeNode() as node, asyncio.timeout(10):
        with socket.socket(socket.AF_UNIX) as silent:
            async with controlling(node, tmp_path / "c"):
                silent.connect(str(tmp_path / "c"))
                await asyncio.to_thread(Client(tmp_path / "c").get, "/v1/clock")
            assert await asyncio.to_thread(silent.recv, 1) == b""
    assert not (tmp_path / "c").exists()


async def test_nobody_at_the_socket_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable, match="there is no such socket; `podwright serve --engine fake`"):
        Client(tmp_path / "none").get("/v1/state")
