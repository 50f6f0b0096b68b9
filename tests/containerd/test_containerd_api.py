"""How containerd is spoken to: calls that are cut short, a connection that is closed under them, answers that
are larger than a message; a containerd that is played, and a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwright.config import Config, ContainerdConfig
from podwright.engines.base import Sandbox
from podwright.engines.containerd.api import MESSAGE_LIMIT, Containerd
from podwright.engines.containerd.objects import METADATA, Objects
from podwright.engines.containerd.snapshots import Snapshots
from podwright.errors import DeadlineExceeded, InvalidArgument, Unavailable
from podwright.wire import cri_pb2 as cri
from podwright.wire.containerd import (
    containers_pb2,
    containers_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    snapshots_pb2,
    snapshots_pb2_grpc,
)

PATIENCE = 60.0


class Slow(
    snapshots_pb2_grpc.SnapshotsServicer,
    containers_pb2_grpc.ContainersServicer,
    images_pb2_grpc.ImagesServicer,
    events_pb2_grpc.EventsServicer,
):
    """Makes what it is asked to make in its own time, also when nobody waits for it any more, as containerd
    does; of images and events it tells nothing."""

    def __init__(self) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self.made: set[str] = set()

    async def Prepare(self, request: Any, context: Any) -> Any:
        await asyncio.shield(self._make(request.key))
        return snapshots_pb2.PrepareSnapshotResponse()

    async def Create(self, request: Any, context: Any) -> Any:
        await asyncio.shield(self._make(request.container.id))
        return containers_pb2.CreateContainerResponse()

    async def List(self, request: Any, context: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()

    async def Subscribe(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.set()
        await asyncio.Event().wait()
        yield

    async def _make(self, name: str) -> None:
        self.asked.set()
        await self.go_on.wait()
        self.made.add(name)


@asynccontextmanager
async def playing(directory: Path, timeout: float = PATIENCE) -> AsyncIterator[tuple[Slow, Containerd]]:
    slow, server = Slow(), grpc.aio.server()
    snapshots_pb2_grpc.add_SnapshotsServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
    containers_pb2_grpc.add_ContainersServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
    images_pb2_grpc.add_ImagesServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
    events_pb2_grpc.add_EventsServicer_to_server(slow, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{directory}/c.sock")
    await server.start()
    config = ContainerdConfig(endpoint=str(directory / "c.sock"), request_timeout=timeout)
    containerd = Containerd(config)
    containerd.open()
    try:
        yield slow, containerd
    finally:
        await containerd.close()
        await server.stop(None)


async def _snapshot(containerd: Containerd) -> None:
    await Snapshots(containerd).prepare("k", "", "overlayfs")


async def _record(containerd: Containerd) -> None:
    config = Config(root=f"{containerd.endpoint}.d/root", run=f"{containerd.endpoint}.d/run")
    await Objects(containerd, config).put(containers_pb2.Container(id="k"))


@pytest.mark.parametrize("make", [_snapshot, _record])
async def test_who_gives_up_a_creation_knows_that_it_is_over(
    tmp_path: Path, make: Callable[[Containerd], Any]
) -> None:
    async with playing(tmp_path) as (slow, containerd):
        making = asyncio.ensure_future(make(containerd))
        await slow.asked.wait()
        making.cancel()
        # Whoever undoes it now would find nothing to undo.
        done, _ = await asyncio.wait([making], timeout=0.3)
        assert not done and not slow.made
        slow.go_on.set()
        await asyncio.wait([making], timeout=PATIENCE)
        assert making.cancelled() and slow.made == {"k"}


async def _images(containerd: Containerd) -> None:
    await containerd.ask(containerd.images.List, images_pb2.ListImagesRequest(), "its images")


async def _events(containerd: Containerd) -> None:
    async for _ in containerd.listen(
        containerd.events.Subscribe, events_pb2.SubscribeRequest(), "its events", timeout=None
    ):
        pass


async def _content(containerd: Containerd) -> None:
    containerd.converse(containerd.content.Write)


@pytest.mark.parametrize("ask", [_images, _events])
async def test_a_connection_that_is_closed_is_no_cancellation_of_who_uses_it(
    tmp_path: Path, ask: Callable[[Containerd], Any]
) -> None:
    async with playing(tmp_path) as (slow, containerd):
        asking = asyncio.ensure_future(ask(containerd))
        await slow.asked.wait()
        await containerd.close()
        await asyncio.wait([asking], timeout=PATIENCE)
        assert not asking.cancelled()
        assert isinstance(asking.exception(), Unavailable), asking.exception()


@pytest.mark.parametrize("ask", [_images, _events, _content])
async def test_who_asks_after_the_end_is_told_in_the_houses_words(
    tmp_path: Path, ask: Callable[[Containerd], Any]
) -> None:
    async with playing(tmp_path) as (_, containerd):
        await containerd.close()
        with pytest.raises(Unavailable, match="closed"):
            await ask(containerd)


async def test_a_cancellation_stays_one(tmp_path: Path) -> None:
    async with playing(tmp_path) as (slow, containerd):
        asking = asyncio.ensure_future(_images(containerd))
        await slow.asked.wait()
        asking.cancel()
        await asyncio.wait([asking], timeout=PATIENCE)
        assert asking.cancelled()


async def test_a_stream_has_its_time_too(tmp_path: Path) -> None:
    async with playing(tmp_path, timeout=0.2) as (_, containerd):
        with pytest.raises(DeadlineExceeded, match="its events"):
            async for _ in containerd.listen(
                containerd.events.Subscribe, events_pb2.SubscribeRequest(), "its events"
            ):
                pass


def test_labels_of_a_pod_do_not_say_how_its_record_is_treated(tmp_path: Path) -> None:
    objects = Objects(Containerd(ContainerdConfig()), Config(root=str(tmp_path)))
    labels = {
        "app": "web",
        "io.kubernetes.pod.name": "web",
        "podwright.io/root": "/another",
        "podwright.io/kind": "guard",
        "io.cri-containerd.kind": "sandbox",
        "containerd.io/gc.expire": "2001-01-01T00:00:00Z",
        "long": "x" * 4096,
    }
    sandbox = Sandbox("a" * 64, "web", cri.PodSandboxConfig(labels=labels), "")
    record = objects.record(sandbox, {}, "io.containerd.runc.v2", None)
    assert dict(record.labels) == {
        "app": "web",
        "io.kubernetes.pod.name": "web",
        "podwright.io/kind": "sandbox",
        "podwright.io/sandbox": sandbox.id,
    }


def test_a_root_that_is_relative_is_that_of_one_podwright_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the label and is unknown is an orphan."""
    roots = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        roots.append(Objects(Containerd(ContainerdConfig()), Config(root="state", run="run")).root)
    assert roots == [str(tmp_path / name / "state") for name in ("one", "two")]


@pytest.mark.root
async def test_records_of_a_full_node_do_not_fit_into_one_message(api: Containerd, tmp_path: Path) -> None:
    objects = Objects(api, Config(root=str(tmp_path / "root"), run=str(tmp_path / "run")))
    count, size = 18, 1 << 20
    assert count * size > MESSAGE_LIMIT
    ids = [f"{number:064x}" for number in range(count)]
    try:
        for id in ids:
            record = containers_pb2.Container(id=id)
            record.runtime.name = "io.containerd.runc.v2"
            record.spec.type_url, record.spec.value = "spec", b"{}"
            record.extensions[METADATA].value = bytes(size)
            await objects.put(record)
        assert sorted(each.id for each in await objects.list()) == ids
    finally:
        for id in ids:
            await objects.delete(id)


@pytest.mark.root
async def test_a_snapshotter_that_is_gone_takes_no_removal_with_it(api: Containerd) -> None:
    await Snapshots(api).remove("k", "went-with-the-last-upgrade")
    with pytest.raises(InvalidArgument):
        await Snapshots(api).prepare("k", "", "went-with-the-last-upgrade")
