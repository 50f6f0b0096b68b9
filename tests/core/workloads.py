"""What clients do to a node: each workload is one thing a kubelet asks, and what had to be there before.

`act` is asked for again after a failure or a crash, by a client that takes what is there already for an
answer (`Client.patient`): so each must lead to the same end from wherever it was cut off.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri
from tests.core.client import Client

ARCHIVE: list[Path] = []
"""A checkpoint of a container, which a fixture makes before the first test."""

Ids = dict[str, str]
"""Ids by the names that a workload has given."""


async def nothing(client: Client, ids: Ids) -> None:
    pass


async def a_pod(client: Client, ids: Ids) -> None:
    ids["pod"] = await client.pod()


async def a_created_container(client: Client, ids: Ids) -> None:
    await a_pod(client, ids)
    ids["main"] = await client.create(ids["pod"])


async def a_running_container(client: Client, ids: Ids) -> None:
    await a_created_container(client, ids)
    await client.start(ids["main"])


async def an_exited_container(client: Client, ids: Ids) -> None:
    await a_running_container(client, ids)
    await client.stop(ids["main"])


async def three_containers(client: Client, ids: Ids) -> None:
    """One that runs, one that has exited, one that was never started."""
    await an_exited_container(client, ids)
    ids["running"] = await client.create(ids["pod"], "running")
    await client.start(ids["running"])
    ids["created"] = await client.create(ids["pod"], "created")


async def a_stopped_pod(client: Client, ids: Ids) -> None:
    await a_running_container(client, ids)
    await client.stop_pod(ids["pod"])


async def a_lost_pod(client: Client, ids: Ids) -> None:
    ids["pod"] = await client.pod(shared_pid=True)
    client.node.sandbox_ends(ids["pod"])


@dataclass(frozen=True)
class Workload:
    name: str
    act: Callable[[Client, Ids], Awaitable[None]]
    before: Callable[[Client, Ids], Awaitable[None]] = nothing
    scenario: object = None
    leads_to: dict[str, int | None] = field(default_factory=dict)
    """States at the end, by the names in `Ids`; None: not there any more."""
    tolerates: tuple[str, ...] = ()
    """Steps whose failure no caller hears of: the call tries again by itself, or nobody was promised more."""
    again: bool = True
    """After an error of its own the same call succeeds."""

    def __str__(self) -> str:
        return self.name


async def run_pod(client: Client, ids: Ids) -> None:
    ids["pod"] = await client.pod()


async def run_host_network_pod(client: Client, ids: Ids) -> None:
    ids["pod"] = await client.pod(host_network=True)


async def run_shared_pid_pod(client: Client, ids: Ids) -> None:
    ids["pod"] = await client.pod(shared_pid=True)


async def run_two_containers(client: Client, ids: Ids) -> None:
    await run_pod(client, ids)
    for name in ("one", "two"):
        ids[name] = await client.create(ids["pod"], name)
        await client.start(ids[name])


async def pull_and_create(client: Client, ids: Ids) -> None:
    await client.pull()
    ids["main"] = await client.create(ids["pod"])


async def create(client: Client, ids: Ids) -> None:
    ids["main"] = await client.create(ids["pod"])


async def create_in_the_namespace_of_another(client: Client, ids: Ids) -> None:
    ids["debugger"] = await client.create(ids["pod"], "debugger", target=ids["main"])
    await client.start(ids["debugger"])


async def create_twice_at_once(client: Client, ids: Ids) -> None:
    first, second = await asyncio.gather(client.create(ids["pod"]), client.create(ids["pod"]))
    assert first == second
    ids["main"] = first


async def start(client: Client, ids: Ids) -> None:
    await client.start(ids["main"])


async def start_and_wait(client: Client, ids: Ids) -> None:
    await client.start(ids["main"])
    await client.node.runtime.wait(ids["main"])


async def start_that_fails(client: Client, ids: Ids) -> None:
    try:
        await client.start(ids["main"])
    except Exception as error:
        if "no such program" not in str(error):
            raise


async def stop_with_grace(client: Client, ids: Ids) -> None:
    await client.stop(ids["main"], 10)


async def stop_at_once(client: Client, ids: Ids) -> None:
    await client.stop(ids["main"])


async def stop_twice_at_once(client: Client, ids: Ids) -> None:
    await asyncio.gather(client.stop(ids["main"], 30), client.stop(ids["main"], 3))


async def remove(client: Client, ids: Ids) -> None:
    await client.remove(ids["main"])


async def stop_pod(client: Client, ids: Ids) -> None:
    await client.stop_pod(ids["pod"])


async def remove_pod(client: Client, ids: Ids) -> None:
    await client.remove_pod(ids["pod"])


async def stop_and_remove_pod(client: Client, ids: Ids) -> None:
    await client.stop_pod(ids["pod"])
    await client.remove_pod(ids["pod"])


async def update(client: Client, ids: Ids) -> None:
    await client.update(ids["main"], 1 << 30)
    status = await client.node.status(ids["main"])
    assert status.resources.linux.memory_limit_in_bytes == 1 << 30


async def an_updated_container(client: Client, ids: Ids) -> None:
    await a_running_container(client, ids)
    await client.update(ids["main"], 1 << 29)


async def update_pod(client: Client, ids: Ids) -> None:
    request = cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=ids["pod"])
    request.resources.cpu_shares = 512
    await client.node.runtime.update_pod_sandbox_resources(request)


async def checkpoint(client: Client, ids: Ids) -> None:
    with tempfile.TemporaryDirectory() as directory:
        location = Path(directory) / "checkpoint.tar"
        try:
            await client.checkpoint(ids["main"], str(location))
        except BaseException:
            assert list(location.parent.iterdir()) in ([], [location]), "half an archive is left"
            raise
        assert list(location.parent.iterdir()) == [location]


async def restore(client: Client, ids: Ids) -> None:
    ids["restored"] = await client.create(ids["pod"], "restored", image=str(ARCHIVE[0]))
    await client.start(ids["restored"])


async def exec(client: Client, ids: Ids) -> None:
    await client.exec(ids["main"])


async def reopen_log(client: Client, ids: Ids) -> None:
    await client.reopen_log(ids["main"])


async def whole_life(client: Client, ids: Ids) -> None:
    await run_pod(client, ids)
    if client.patient and (await client.node.sandbox_status(ids["pod"])).state != cri.SANDBOX_READY:
        await client.remove_pod(ids["pod"])
        return
    await create(client, ids)
    try:
        await client.start(ids["main"])
    except NotFound:
        if not client.patient:
            raise  # otherwise the removal was under way that it had asked for before
    await client.stop(ids["main"], 10)
    await client.remove(ids["main"])
    await client.remove_pod(ids["pod"])


READY, NOTREADY = int(cri.SANDBOX_READY), int(cri.SANDBOX_NOTREADY)
IS_CREATED, RUNS, HAS_EXITED = (
    int(cri.CONTAINER_CREATED),
    int(cri.CONTAINER_RUNNING),
    int(cri.CONTAINER_EXITED),
)
IGNORES = {"containers": [{"ignore": ["SIGTERM"]}]}
EXITS = {"containers": [{"exit": {"after": "1s", "code": 3}}]}
KILLED = {"containers": [{"exit": {"after": "1s", "code": 137, "oom": True}}]}
SLOW = {"containers": [{"stopping": "2s"}]}
FAILS = {"containers": [{"start_error": "no such program"}]}

WORKLOADS = [
    Workload("run pod", run_pod, leads_to={"pod": READY}),
    Workload("run host network pod", run_host_network_pod, leads_to={"pod": READY}),
    Workload("run pod with shared pid", run_shared_pid_pod, leads_to={"pod": READY}),
    Workload("run two containers", run_two_containers, leads_to={"pod": READY, "one": RUNS, "two": RUNS}),
    Workload("create", create, a_pod, leads_to={"main": IS_CREATED}),
    Workload("pull and create", pull_and_create, a_pod, leads_to={"main": IS_CREATED}),
    Workload("create twice at once", create_twice_at_once, a_pod, leads_to={"main": IS_CREATED}),
    Workload(
        "create with target",
        create_in_the_namespace_of_another,
        a_running_container,
        leads_to={"debugger": RUNS},
    ),
    Workload("start", start, a_created_container, leads_to={"main": RUNS}, again=False),
    Workload(
        "start, exits", start_and_wait, a_created_container, EXITS, leads_to={"main": HAS_EXITED}, again=False
    ),
    Workload(
        "start, out of memory",
        start_and_wait,
        a_created_container,
        KILLED,
        leads_to={"main": HAS_EXITED},
        again=False,
    ),
    Workload(
        "start fails",
        start_that_fails,
        a_created_container,
        FAILS,
        leads_to={"main": HAS_EXITED},
        tolerates=("signal_container.signal",),
        again=False,
    ),
    Workload("stop with grace", stop_with_grace, a_running_container, SLOW, leads_to={"main": HAS_EXITED}),
    Workload(
        "stop, kill",
        stop_with_grace,
        a_running_container,
        IGNORES,
        leads_to={"main": HAS_EXITED},
        tolerates=("signal_container.signal",),
    ),
    Workload("stop at once", stop_at_once, a_running_container, leads_to={"main": HAS_EXITED}),
    Workload(
        "stop twice at once",
        stop_twice_at_once,
        a_running_container,
        IGNORES,
        leads_to={"main": HAS_EXITED},
        tolerates=("signal_container.signal",),
    ),
    Workload("stop created", stop_at_once, a_created_container, leads_to={"main": IS_CREATED}),
    Workload("remove running", remove, a_running_container, leads_to={"main": None}),
    Workload("remove created", remove, a_created_container, leads_to={"main": None}),
    Workload("remove exited", remove, an_exited_container, leads_to={"main": None}),
    Workload(
        "stop pod",
        stop_pod,
        three_containers,
        leads_to={"pod": NOTREADY, "main": HAS_EXITED, "running": HAS_EXITED, "created": HAS_EXITED},
    ),
    Workload("stop lost pod", stop_pod, a_lost_pod, leads_to={"pod": NOTREADY}),
    Workload(
        "remove pod", remove_pod, three_containers, leads_to={"pod": None, "main": None, "running": None}
    ),
    Workload("remove stopped pod", remove_pod, a_stopped_pod, leads_to={"pod": None, "main": None}),
    Workload("stop and remove pod", stop_and_remove_pod, a_running_container, leads_to={"pod": None}),
    Workload("update created", update, a_created_container, leads_to={"main": IS_CREATED}),
    Workload("update running", update, a_running_container, leads_to={"main": RUNS}),
    Workload("update again", update, an_updated_container, leads_to={"main": RUNS}),
    Workload("update pod", update_pod, a_pod),
    Workload("update exited", update, an_exited_container, leads_to={"main": HAS_EXITED}),
    Workload("checkpoint", checkpoint, a_running_container, leads_to={"main": RUNS}),
    Workload("restore", restore, a_pod, leads_to={"restored": RUNS}, again=False),
    Workload("exec", exec, a_running_container, leads_to={"main": RUNS}),
    Workload("reopen log", reopen_log, a_running_container, leads_to={"main": RUNS}),
    Workload("whole life", whole_life, leads_to={"pod": None, "main": None}),
]
