"""A crowd on the fake engine: pods a minute, lists, events, memory, and a restart. It needs no root.

The floor of a row is a bare gRPC server (`bare`) that is asked the same and sends the same bytes; of memory,
what the configurations take encoded; of a restart, a start with nothing to recover.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import bare, kubelet
from bench.daemons import rss
from bench.raw import Bare, Client, Ours, Server, client
from bench.report import Rows
from podwright.wire import cri_pb2 as cri

CLIENTS, LISTENERS = 8, 10
LISTS = {"list_containers": "ListContainers", "list_pods": "ListPodSandbox"}


@dataclass(frozen=True)
class Size:
    pods: int
    few: int
    """Pods that one client makes; and that are removed and made again while somebody listens."""
    calls: int
    """Of each list."""
    storm: float
    """Seconds of lists without a pause."""


FULL = Size(10_000, 500, 30, 8.0)
QUICK = Size(1_000, 100, 10, 2.0)


def measure(size: Size, rows: Rows) -> None:
    root = Path(tempfile.mkdtemp(prefix="pwbench-", dir="/tmp"))
    try:
        asyncio.run(_measure(root, size, rows))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(root: Path, size: Size, rows: Rows) -> None:
    ours, containers = Ours(root), size.pods * len(kubelet.CONTAINERS)
    restart = f"fake_restart_{_short(containers)}_s"
    try:
        rows.add(restart, "s", "floor", ours.start())
        assert ours.process is not None
        before, crowd = rss(ours.process.pid), Crowd(root / "logs")
        async with client(ours) as asking:
            await asking.ask("PullImage", cri.PullImageRequest(image=cri.ImageSpec(image=kubelet.IMAGE)))
        alone = await crowd.grow(ours, range(size.few), 1)
        together = await crowd.grow(ours, range(size.few, size.pods), CLIENTS)
        grown = rss(ours.process.pid) - before
        bare_server = Bare(root, await _answers(ours, crowd))
        try:
            floors = [await _same_calls(bare_server, size.few, clients) for clients in (1, CLIENTS)]
            for name, rate, floor in zip(("_1_client", ""), (alone, together), floors, strict=True):
                rows.add(f"fake_pods_per_minute{name}", "1/min", "podwright", rate * 60)
                rows.add(f"fake_pods_per_minute{name}", "1/min", "floor", floor * 60)
            sides: dict[str, Server] = {"podwright": ours, "floor": bare_server}
            await _lists(sides, size, rows)
            await _storm(sides, size.storm, rows)
            await _events(ours, crowd, size.few, rows)
            rows.add("fake_events_per_s", "1/s", "floor", await _streamed(bare_server))
        finally:
            bare_server.kill()
        rows.add("fake_kib_per_container", "KiB", "podwright", grown / containers / 1024)
        rows.add("fake_kib_per_container", "KiB", "floor", _encoded(root) / 1024)
        ours.kill()
        rows.add(restart, "s", "podwright", ours.start())
    finally:
        ours.kill()


@dataclass
class Crowd:
    """Pods of three containers, made and removed as a kubelet does it."""

    logs: Path
    pods: dict[int, tuple[str, list[str]]] = field(default_factory=dict)
    """The sandbox and the containers of each pod."""

    async def grow(self, server: Server, numbers: Iterable[int], clients: int) -> float:
        """Pods a second."""
        return await _shared(server, self.up, numbers, clients)

    async def up(self, to: Client, number: int) -> None:
        pod = kubelet.pod(number, self.logs)
        request = cri.RunPodSandboxRequest(config=pod)
        sandbox = (await to.get("RunPodSandbox", request, cri.RunPodSandboxResponse)).pod_sandbox_id
        containers = []
        for name in kubelet.CONTAINERS:
            wanted = cri.CreateContainerRequest(
                pod_sandbox_id=sandbox, config=kubelet.container(number, name), sandbox_config=pod
            )
            id = (await to.get("CreateContainer", wanted, cri.CreateContainerResponse)).container_id
            await to.ask("StartContainer", cri.StartContainerRequest(container_id=id))
            containers.append(id)
        self.pods[number] = sandbox, containers

    async def down(self, to: Client, number: int) -> None:
        sandbox, containers = self.pods.pop(number)
        for id in containers:
            await to.ask("StopContainer", cri.StopContainerRequest(container_id=id, timeout=0))
        await to.ask("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
        for id in containers:
            await to.ask("RemoveContainer", cri.RemoveContainerRequest(container_id=id))
        await to.ask("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))


async def _shared(
    server: Server, work: Callable[[Client, int], Awaitable[None]], numbers: Iterable[int], clients: int
) -> float:
    """Do `work` for each number, `clients` at a time, each with its own connection; how many a second."""
    rest, done = iter(numbers), 0

    async def some(to: Client) -> None:
        nonlocal done
        for number in rest:
            await work(to, number)
            done += 1

    async with AsyncExitStack() as stack:
        connected = [await stack.enter_async_context(client(server)) for _ in range(clients)]
        began = time.perf_counter()
        await asyncio.gather(*map(some, connected))
        return done / (time.perf_counter() - began)


async def _answers(ours: Ours, crowd: Crowd) -> dict[str, bytes]:
    """What the bare server shall send: what ours does."""
    async with client(ours) as asking:
        events = await asking.listen()
        again = min(crowd.pods)
        await crowd.down(asking, again)
        await crowd.up(asking, again)
        answers = {rpc: await asking.ask(rpc, cri.VersionRequest()) for rpc in (*LISTS.values(), "Version")}
        event = await events.read()
        assert isinstance(event, bytes)
        return answers | {"GetContainerEvents": event}


async def _same_calls(server: Server, pods: int, clients: int) -> float:
    """Pods a second that could be made if nothing had to be done for them."""

    async def up(to: Client, number: int) -> None:
        pod = kubelet.pod(number, Path("/logs"))
        await to.ask("RunPodSandbox", cri.RunPodSandboxRequest(config=pod))
        for name in kubelet.CONTAINERS:
            config = kubelet.container(number, name)
            await to.ask("CreateContainer", cri.CreateContainerRequest(config=config, sandbox_config=pod))
            await to.ask("StartContainer", cri.StartContainerRequest(container_id="0" * 64))

    return await _shared(server, up, range(pods), clients)


async def _lists(sides: dict[str, Server], size: Size, rows: Rows) -> None:
    times: dict[tuple[str, str], list[float]] = {(row, side): [] for row in LISTS for side in sides}
    async with AsyncExitStack() as stack:
        asking = {side: await stack.enter_async_context(client(server)) for side, server in sides.items()}
        for number in range(size.calls + 3):
            for row, rpc in LISTS.items():
                for side, to in asking.items():
                    began = time.perf_counter()
                    await to.ask(rpc, cri.ListContainersRequest())
                    if number >= 3:
                        times[row, side].append(time.perf_counter() - began)
    for (row, side), values in times.items():
        count = size.pods * (len(kubelet.CONTAINERS) if row == "list_containers" else 1)
        rows.add(f"fake_{row}_{_short(count)}", "ms", side, statistics.median(values) * 1000)


async def _storm(sides: dict[str, Server], seconds: float, rows: Rows) -> None:
    """How long others wait while one client lists all containers without a pause."""
    for side, server in sides.items():
        async with client(server) as to:
            probe = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.probe", str(server.socket), str(seconds)),
                stdout=asyncio.subprocess.PIPE,
            )
            waiting = asyncio.create_task(probe.communicate())
            while not waiting.done():
                await to.ask("ListContainers", cri.ListContainersRequest())
            rows.add("fake_version_p99_during_lists", "ms", side, float((await waiting)[0]))


async def _events(ours: Ours, crowd: Crowd, churn: int, rows: Rows) -> None:
    """What listeners get while pods come and go: events a second of all of them, and the delay of one."""
    # Created, started, stopped, deleted: of each container, and of the pod itself.
    everything = 4 * (len(kubelet.CONTAINERS) + 1) * churn
    delays: list[int] = []

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(ours)) for _ in range(LISTENERS)]
        streams = [await to.listen() for to in clients]

        async def listen(at: int) -> None:
            for _ in range(everything):
                event = await streams[at].read()
                assert isinstance(event, bytes), "the stream has ended"
                if at == 0:
                    delays.append(time.time_ns() - cri.ContainerEventResponse.FromString(event).created_at)

        listening = [asyncio.create_task(listen(at)) for at in range(LISTENERS)]
        began = time.perf_counter()
        await _shared(ours, crowd.down, range(churn), CLIENTS)
        await crowd.grow(ours, range(churn), CLIENTS)
        async with asyncio.timeout(60):
            await asyncio.gather(*listening)
        took = time.perf_counter() - began
    rows.add("fake_events_per_s", "1/s", "podwright", LISTENERS * everything / took)
    rows.add("fake_event_delay_p99", "ms", "podwright", statistics.quantiles(delays, n=100)[98] / 1e6)


async def _streamed(server: Server) -> float:
    """Messages a second of as many streams that have no reason to wait."""

    async def listen(to: Client, _: int) -> None:
        async for _event in await to.listen():
            pass

    return await _shared(server, listen, range(LISTENERS), LISTENERS) * bare.STREAMED


def _encoded(root: Path) -> float:
    """Bytes of a container's configuration and its share of the pod's."""
    sizes = [kubelet.container(0, name).ByteSize() for name in kubelet.CONTAINERS]
    return (sum(sizes) + kubelet.pod(0, root).ByteSize()) / len(sizes)


def _short(count: int) -> str:
    return f"{count // 1000}k" if count >= 1000 else str(count)
