"""FakeNode: what a test can do to a node, and that a crash leaves just what kill -9 leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from podwright import errors
from podwright.api import Cri
from podwright.client import connect
from podwright.config import Config
from podwright.engines.fake.faults import STEPS
from podwright.engines.fake.scenario import ContainerScript, ExitScript, Scenario, parse
from podwright.engines.fake.values import Span
from podwright.engines.streams import Connection, Streams
from podwright.house import open_house
from podwright.streaming import client as streaming
from podwright.testing import FakeNode, Fault
from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as stubs
from tests.oci.clients import Arrived, Sent
from tests.testing import requests

RUNTIME: Any = stubs.RuntimeServiceStub


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    tasks = asyncio.all_tasks()
    async with FakeNode() as node:
        yield node
    # What a crash left of core has ended, too.
    assert asyncio.all_tasks() - {asyncio.current_task()} <= tasks
    assert not Path(node.config.root).exists()


def crash(on: str, when: str = "before", downtime: float = 0) -> Fault:
    assert when in ("before", "after")
    return Fault(on=on, crash=when, downtime=Span(downtime), count=1)  # type: ignore[arg-type]


# What a test can do


async def test_a_container_ends_as_it_is_told(node: FakeNode) -> None:
    web, db = await requests.run_pod(node.cri, "web"), await requests.run_pod(node.cri, "db")
    ids = {
        "web/main": await requests.run_container(node.cri, web),
        "web/side": await requests.run_container(node.cri, web, "side"),
        "db/main": await requests.run_container(node.cri, db),
    }
    node.exit("web/main", 3)
    node.exit("side", oom=True)
    await requests.until(lambda: not any(made.process for made in list(node.world.containers.values())[:2]))
    await node.advance(0)
    assert (await requests.status(node.cri, ids["web/main"])).exit_code == 3
    killed = await requests.status(node.cri, ids["web/side"])
    assert (killed.exit_code, killed.reason) == (137, "OOMKilled")
    assert (await requests.status(node.cri, ids["db/main"])).state == cri.CONTAINER_RUNNING
    with pytest.raises(errors.FailedPrecondition, match=r"container web/main \(.*\) does not run"):
        node.exit(ids["web/main"][:12])
    with pytest.raises(errors.InvalidArgument, match="'main' fits 2 objects"):
        node.exit("main")
    with pytest.raises(errors.NotFound, match="no container has the id or name 'web/no'"):
        node.exit("web/no")
    for code in (-1, 256):
        with pytest.raises(errors.InvalidArgument, match=f"code: {code} is no exit code"):
            node.exit("db/main", code)


async def test_a_sandbox_breaks(node: FakeNode) -> None:
    await requests.run_pod(node.cri)
    node.lose("default/web")
    await node.advance(0)
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_NOTREADY}
    with pytest.raises(errors.FailedPrecondition, match=r"pod web \(.*\) is not ready"):
        node.lose("web")


async def test_time_passes_only_when_it_is_told_to(node: FakeNode) -> None:
    node.scenario("containers:\n- exit: {after: 10m, code: 4}\n")
    id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    await node.advance("9m59s")
    assert (await requests.status(node.cri, id)).state == cri.CONTAINER_RUNNING
    await node.advance(1)
    ended = await requests.status(node.cri, id)
    assert ended.exit_code == 4
    # Each time stamp is a nanosecond after the last.
    assert ended.finished_at - ended.started_at == pytest.approx(600 * 10**9, abs=100)
    with pytest.raises(errors.InvalidArgument, match="time: 'soon' is no time"):
        await node.advance("soon")


async def test_the_machines_time_cannot_be_advanced() -> None:
    async with FakeNode(clock="system") as node:
        with pytest.raises(errors.FailedPrecondition, match="clock"):
            await node.advance("10m")


async def test_a_scenario_may_be_a_file_a_text_or_a_tree(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("network_error: cut\n")
    for scenario in (file, str(file), file.read_text() + "\n", {"network_error": "cut"}):
        async with FakeNode(scenario) as node:
            with pytest.raises(errors.PodwrightError, match="cut"):
                await requests.run_pod(node.cri)
    with pytest.raises(errors.InvalidArgument, match="network_eror"):
        FakeNode({"network_eror": "cut"})
    words: Any = "10m"
    node = FakeNode(Scenario(containers=[ContainerScript(stopping=words)]))
    assert node.world.scenario == parse({"containers": [{"stopping": "10m"}]})
    with pytest.raises(errors.InvalidArgument, match=r"scenario\.containers\[0\]\.exit\.code"):
        FakeNode(Scenario(containers=[ContainerScript(exit=ExitScript(code=256))]))


async def test_the_librarys_objects_work_on_it(node: FakeNode) -> None:
    async with await node.runtime.run_sandbox("web") as sandbox:
        await node.runtime.pull("nginx", username="bob", password="hunter2")
        container = await sandbox.run("main", "nginx")
        waiting = asyncio.create_task(container.wait())
        await node.advance(0)
        node.exit("web/main", 5)
        assert (await waiting).exit_code == 5
    node.calls.assert_pulled("nginx", username="bob", password="hunter2", times=1)
    assert await requests.pods(node.cri) == {}


async def lives(seed: int) -> tuple[list[str], list[str], int]:
    """Ids, outcomes and the time of a life with chances in it."""
    scenario = {
        "faults": [
            {"on": "RunPodSandbox", "probability": 0.4, "error": {"code": "Unavailable"}},
            {"on": "create_sandbox.network", "latency": {"uniform": ["1s", "5s"]}},
        ],
        "containers": [{"exit": {"after": {"exponential": "20s"}, "code": 1}}],
    }
    async with FakeNode(scenario, seed=seed) as node:
        for number in range(8):
            run = asyncio.create_task(requests.run_pod(node.cri, f"pod-{number}"))
            await node.advance("5s")
            if run.exception() is None:
                await requests.run_container(node.cri, run.result())
        await node.advance("30s")
        await node.crash("10s")
        answer = await node.cri.list_containers(cri.ListContainersRequest())
        ended = [(await requests.status(node.cri, each.id)).finished_at for each in answer.containers]
        ids = [each.id for each in answer.containers] + [
            each.id for each in (await node.cri.list_pod_sandbox(cri.ListPodSandboxRequest())).items
        ]
        return ids, [repr(call) for call in node.calls], sum(ended)


async def test_the_same_seed_gives_the_same_ids_and_outcomes() -> None:
    first, second, other = await lives(7), await lives(7), await lives(8)
    assert first == second
    assert any("Unavailable" in outcome for outcome in first[1])
    assert first[0] and not set(first[0]) & set(other[0])
    assert first[2] != other[2]


# Crashes


async def test_containers_go_on_while_the_server_is_down(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    one = await requests.run_container(node.cri, sandbox, "one")
    two = await requests.run_container(node.cri, sandbox, "two")
    await node.kill(None)
    assert node.state == "down"
    with pytest.raises(errors.Unavailable, match="the server crashed"):
        await requests.pods(node.cri)
    with pytest.raises(errors.FailedPrecondition, match="until it is restarted"):
        await node.started()
    with pytest.raises(errors.FailedPrecondition, match="down already"):
        await node.crash()
    node.exit("web/one", 9)
    await node.restart()
    assert (await requests.status(node.cri, one)).exit_code == 9
    assert (await requests.status(node.cri, two)).state == cri.CONTAINER_RUNNING
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_READY}
    assert node.crashes == 1


async def test_a_crash_of_the_machine_takes_containers_and_networks_with_it(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    await node.crash(containers="lose")
    ended = await requests.status(node.cri, id)
    assert (ended.state, ended.exit_code, ended.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_NOTREADY}
    assert len((await node.cri.list_images(cri.ListImagesRequest())).images) == 1
    await node.cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
    await requests.run_container(node.cri, await requests.run_pod(node.cri))


async def test_a_downtime_is_of_the_nodes_clock(node: FakeNode) -> None:
    before = node.world.clock.monotonic()
    await node.crash("30s")
    assert node.world.clock.monotonic() - before == 30
    await node.kill("30s")
    await node.advance("29s")
    assert node.state == "down"
    await node.advance("1s")
    await node.started()
    assert node.is_up


async def test_calls_in_flight_end_at_once_and_nothing_of_them_happens_later(node: FakeNode) -> None:
    node.faults.add(Fault(on="create_sandbox.ready", latency=Span(60), count=1))
    call = asyncio.create_task(requests.run_pod(node.cri))
    await node.advance("10s")
    assert list(node.world.sandboxes)
    await node.kill(None)
    with pytest.raises(errors.Unavailable, match="the server crashed"):
        await call
    assert recorded(node, "sandboxes") == ["creating"]
    half_made = list(node.world.sandboxes)
    assert half_made, "what a killed server has made stays"
    await node.advance("10m")
    assert list(node.world.sandboxes) == half_made
    await node.restart()
    assert not node.world.sandboxes, "recovery undoes a creation whose client never got an id"
    assert node.calls.last("RunPodSandbox").outcome == "Unavailable: the server crashed"


def recorded(node: FakeNode, table: str) -> list[str]:
    """The states in the database."""
    with closing(sqlite3.connect(Path(node.config.root, "podwright.db"))) as database:
        return [state for (state,) in database.execute(f"SELECT state FROM {table}")]


async def test_a_server_that_is_killed_before_it_heard_of_an_exit_has_not_written_it(
    node: FakeNode,
) -> None:
    id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    node.exit("web/main", 3)
    await node.kill(None)
    assert recorded(node, "containers") == ["running"]
    await node.restart()
    assert recorded(node, "containers") == ["exited"]
    assert (await requests.status(node.cri, id)).exit_code == 3


async def test_work_that_outlives_its_call_dies_with_the_server_too(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    node.faults.add(Fault(on="stop_sandbox.network", latency=Span(600), count=1))
    request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
    stop = asyncio.create_task(node.cri.stop_pod_sandbox(request))
    await node.advance("1s")
    stop.cancel()
    async with asyncio.timeout(60):
        await node.kill(None)
    await node.advance("10m")
    assert node.world.sandboxes[sandbox].ready
    await node.restart()
    assert not node.world.sandboxes[sandbox].ready, "recovery finishes a stop that was begun"
    await asyncio.wait([stop])


async def test_a_stream_of_events_ends_with_the_crash(node: FakeNode) -> None:
    stream = node.cri.get_container_events(cri.GetEventsRequest())
    await requests.run_pod(node.cri)
    kinds = [(await anext(stream)).container_event_type for _ in range(2)]
    assert kinds == [cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT]
    await node.crash()
    with pytest.raises(errors.Unavailable, match="the server crashed"):
        await anext(stream)
    assert node.calls.last("GetContainerEvents").outcome == "Unavailable: the server crashed"


async def a_life(node: Cri, logs: str) -> None:
    """Everything that has steps, by a client that tries again when the server was away, and looks for what it
    may have made already."""

    async def insist(call: Any) -> Any:
        while True:
            try:
                return await call()
            except errors.Unavailable:
                await asyncio.sleep(0)

    async def make(call: Any, ids: Any) -> str:
        try:
            return str((await insist(call)).ListFields()[0][1])
        except errors.AlreadyExists:
            (item,) = (await insist(ids)).ListFields()[0][1]
            return str(item.id)

    request, created = requests.pod(), requests.container("")
    request.config.log_directory, created.config.log_path = logs, "main.log"
    request.config.linux.security_context.namespace_options.pid = cri.POD
    sandbox = await make(
        lambda: node.run_pod_sandbox(request), lambda: node.list_pod_sandbox(cri.ListPodSandboxRequest())
    )
    await insist(lambda: node.pull_image(requests.pull()))
    created.pod_sandbox_id = sandbox
    container = await make(
        lambda: node.create_container(created),
        lambda: node.list_containers(cri.ListContainersRequest()),
    )
    try:
        await insist(lambda: node.start_container(cri.StartContainerRequest(container_id=container)))
    except errors.FailedPrecondition:
        pass  # it was started before the crash
    await insist(lambda: node.update_container_resources(_more_memory(container)))
    await insist(lambda: node.exec_sync(cri.ExecSyncRequest(container_id=container, cmd=["true"])))
    await insist(lambda: streaming.exec(node, container, ["httpd", "-p", "80"], Streams(stdout=Arrived())))
    await insist(lambda: streaming.attach(node, container, Streams(stdin=Sent(closed=True))))
    await insist(lambda: _port_forward(node, sandbox))
    await insist(lambda: node.reopen_container_log(cri.ReopenContainerLogRequest(container_id=container)))
    archive = f"{logs}/checkpoint.tar"
    checkpoint = cri.CheckpointContainerRequest(container_id=container, location=archive)
    await insist(lambda: node.checkpoint_container(checkpoint))
    await insist(lambda: node.stop_container(cri.StopContainerRequest(container_id=container, timeout=1)))
    await insist(lambda: node.remove_container(cri.RemoveContainerRequest(container_id=container)))
    restored = requests.container(sandbox, "restored", archive)
    await make(
        lambda: node.create_container(restored), lambda: node.list_containers(cri.ListContainersRequest())
    )
    await insist(lambda: node.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)))
    await insist(lambda: node.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)))
    await insist(lambda: node.remove_image(cri.RemoveImageRequest(image=cri.ImageSpec(image="nginx"))))


async def _port_forward(node: Cri, sandbox: str) -> None:
    async with streaming.forwarding(node, sandbox, [80]) as ports:
        await ports.connect(80, Connection(Sent(closed=True), Arrived()))


def _more_memory(container: str) -> cri.UpdateContainerResourcesRequest:
    resources = cri.LinuxContainerResources(memory_limit_in_bytes=1 << 30)
    return cri.UpdateContainerResourcesRequest(container_id=container, linux=resources)


async def places_of_a_life() -> set[str]:
    places = set()
    async with FakeNode() as node:

        async def note(step: str, _: object) -> None:
            places.add(step)

        node.world.on_step = note
        await a_life(node.cri, node.config.root)
        return places | set(node.calls.names())


PLACES = sorted(asyncio.run(places_of_a_life()))


def test_a_life_comes_by_every_step_that_is_not_of_roll_back_or_recovery() -> None:
    elsewhere = ("undo_", "forget_others", "observe_container", "sandbox_alive", "orphan", "remove_orphan")
    assert [step for step in STEPS if step not in PLACES and not step.startswith(elsewhere)] == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", PLACES)
async def test_a_client_that_tries_again_gets_through_a_crash_anywhere(
    node: FakeNode, place: str, when: str
) -> None:
    node.faults.add(crash(place, when))
    async with asyncio.timeout(20):
        await a_life(node.cri, node.config.root)
        await node.started()
    assert node.crashes == 1
    assert await requests.pods(node.cri) == {}
    assert (node.world.sandboxes, node.world.containers) == ({}, {})


async def test_a_server_may_crash_in_its_recovery(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    await requests.run_container(node.cri, sandbox)
    node.faults.add(crash("create_sandbox.ready"))
    node.faults.add(crash("stop_sandbox.namespaces"))
    node.faults.add(crash("remove_sandbox.files"))
    with pytest.raises(errors.Unavailable):
        await requests.run_pod(node.cri, "two")
    async with asyncio.timeout(20):
        await node.started()
    assert node.crashes == 3
    assert await requests.pods(node.cri) == {"web": cri.SANDBOX_READY}
    assert list(node.world.sandboxes) == [sandbox]


async def test_a_restart_is_a_graceful_end_and_a_new_start(node: FakeNode) -> None:
    sandbox = await requests.run_pod(node.cri)
    id = await requests.run_container(node.cri, sandbox)
    node.faults.add(Fault(on="create_sandbox.ready", latency=Span(60), count=1))
    call = asyncio.create_task(requests.run_pod(node.cri, "two"))
    await node.advance("10s")
    await node.restart()
    with pytest.raises(errors.FailedPrecondition, match="podwright is"):
        await call
    assert list(node.world.sandboxes) == [sandbox], "a server that is asked to end rolls back"
    assert (await requests.status(node.cri, id)).state == cri.CONTAINER_RUNNING
    assert node.crashes == 0


async def test_a_reset_begins_anew(node: FakeNode) -> None:
    await requests.run_container(node.cri, await requests.run_pod(node.cri))
    node.scenario({"network_error": "cut"})
    node.inject_error("Version", errors.NotFound("x"))
    waiting = asyncio.create_task(_events(node.cri))
    await requests.until(lambda: node.calls.of("GetContainerEvents"))
    await node.reset()
    with pytest.raises(errors.Unavailable):
        await waiting
    assert node.calls.names() == []
    await node.cri.version(cri.VersionRequest())
    assert await requests.pods(node.cri) == {}
    assert not (await node.cri.list_images(cri.ListImagesRequest())).images
    await requests.run_pod(node.cri)
    assert node.world.sandboxes


async def _events(node: Cri) -> None:
    async for _ in node.get_container_events(cri.GetEventsRequest()):
        pass


# At a socket


@pytest.mark.parametrize(("when", "left"), [("before", {}), ("after", {"web": cri.SANDBOX_READY})])
async def test_a_client_at_a_socket_sees_its_connection_break(
    node: FakeNode, tmp_path: Path, when: str, left: dict[str, int]
) -> None:
    path = tmp_path / "s"
    node.faults.add(crash("RunPodSandbox", when, downtime=60))
    async with node.serve(path):
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                async with asyncio.timeout(60):
                    await RUNTIME(channel).RunPodSandbox(requests.pod())
            assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(errors.Unavailable, match="nobody listens there any more"):
            async with connect(str(path)):
                pass
        assert path.is_socket()
        await node.advance("60s")
        await node.started()
        async with connect(str(path), timeout=10) as client:
            assert await requests.pods(client) == left
    assert not path.exists()
    assert node.calls.of("RunPodSandbox")[0].outcome == "Unavailable: the server crashed"


async def test_a_client_at_a_socket_in_the_middle_of_a_creation(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "s"
    node.faults.add(crash("create_sandbox.network"))
    async with node.serve(path):
        async with connect(str(path), timeout=10) as client:
            with pytest.raises(errors.Unavailable):
                await requests.run_pod(client)
        await node.started()
        async with connect(str(path), timeout=10) as client:
            assert await requests.pods(client) == {}
            assert not node.world.sandboxes
            await requests.run_pod(client)


async def test_a_restart_lets_calls_at_the_socket_end(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with node.serve(path):
        async with connect(str(path), timeout=10) as client:
            await requests.run_pod(client)
        await node.restart()
        async with connect(str(path), timeout=10) as client:
            assert await requests.pods(client) == {"web": cri.SANDBOX_READY}


async def test_a_reset_keeps_connections(node: FakeNode, tmp_path: Path) -> None:
    async with node.serve(tmp_path / "s"), connect(str(tmp_path / "s"), timeout=10) as client:
        await requests.run_pod(client)
        listening = asyncio.create_task(_events(client))
        await requests.until(lambda: node.calls.of("GetContainerEvents"))
        await node.reset()
        with pytest.raises(errors.Unavailable, match="reset"):
            await listening
        assert await requests.pods(client) == {}


# Its state


async def test_a_state_root_belongs_to_one_engine(tmp_path: Path) -> None:
    oci = Config(root=str(tmp_path / "root"), run=str(tmp_path / "run"), engine="oci")
    async with FakeNode(root=tmp_path / "root") as node:
        await requests.run_pod(node.cri)
    with pytest.raises(errors.FailedPrecondition) as refused:
        async with open_house(oci):
            pass
    assert str(refused.value) == (
        f"{tmp_path}/root has pods of engine 'fake', which engine 'oci' cannot run: remove them, choose"
        " another --root, or go on with engine 'fake'"
    )
    # Those of before there were two engines are oci's.
    with sqlite3.connect(tmp_path / "root/podwright.db") as database:
        database.execute("DROP TABLE owner")
    with pytest.raises(errors.FailedPrecondition, match="pods of engine 'oci', which engine 'fake' cannot"):
        async with FakeNode(root=tmp_path / "root"):
            pass
    with sqlite3.connect(tmp_path / "root/podwright.db") as database:
        database.execute("DELETE FROM sandboxes")
    async with FakeNode(root=tmp_path / "root") as node:
        await requests.run_pod(node.cri)


async def test_after_the_process_has_gone_everything_is_as_after_a_reboot(tmp_path: Path) -> None:
    async with FakeNode(root=tmp_path) as node:
        id = await requests.run_container(node.cri, await requests.run_pod(node.cri))
    async with FakeNode(root=tmp_path) as node:
        assert (await requests.status(node.cri, id)).exit_code == 255
        assert await requests.pods(node.cri) == {"web": cri.SANDBOX_NOTREADY}


async def test_what_no_crash_does_and_what_no_seed_is_are_refused() -> None:
    async with FakeNode() as node:
        burn: Any = "burn"
        with pytest.raises(errors.InvalidArgument, match="containers: 'burn' is none of 'keep' and 'lose'"):
            await node.crash(containers=burn)
        assert node.crashes == 0 and node.is_up
    with pytest.raises(errors.InvalidArgument, match="seed: -1 is negative"):
        FakeNode(seed=-1)
