"""What a podwright that was killed has left with a real Docker Engine, and the next one ends: sessions, and
containers that were asked for and come too late."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Container
from podwright.engines.docker import labels
from podwright.engines.docker.sessions import Sessions
from tests.docker.conftest import docker_opened
from tests.docker.daemon import BUSYBOX, Daemon
from tests.docker.room import STAY, Room, docker_id, load_image, opened
from tests.oci.bench import Bench
from tests.oci.clients import PATIENCE, Client

pytestmark = pytest.mark.root

TOLD = "trap 'echo hup >>/tmp/{0}; exit' HUP; echo ready; while :; do sleep 0.1; done"
DEAF = "trap '' HUP; echo ready; while :; do sleep 0.1; done"


@pytest.fixture
async def room(daemon: Daemon, tmp_path: Path) -> AsyncIterator[Room]:
    load_image(daemon, tmp_path / "image")
    async with opened(daemon, tmp_path) as made:
        yield made


async def begin(
    sessions: Sessions, container: Container, script: str, *, tty: bool = False
) -> asyncio.Task[int]:
    client = Client(tty=tty)
    running = asyncio.ensure_future(sessions.exec(container, ["/bin/sh", "-c", script], client.streams))
    await client.stdout.has(b"ready")
    return running


async def test_what_an_earlier_podwright_left_is_hung_up_and_nothing_else(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podwright.engines.docker.strays.HANGUP_GRACE", 0.5)
    container = await room.container(STAY)
    left = [
        await begin(room.sessions, container, TOLD.format("plain")),
        await begin(room.sessions, container, TOLD.format("terminal"), tty=True),
        await begin(room.sessions, container, DEAF),
    ]
    by_hand = await room.docker.call(
        "POST",
        f"/containers/{docker_id(container)}/exec",
        json={"Cmd": ["/bin/sh", "-c", TOLD.format("hand")]},
    )
    await room.docker.call("POST", f"/exec/{by_hand['Id']}/start", json={"Detach": True})
    after = Sessions(room.docker, room.objects, Config())
    try:
        mine = await begin(after, container, TOLD.format("mine"))
        await after.hang_up_strays(container)
        async with asyncio.timeout(PATIENCE):
            # Their clients live here, and hear of the ends.
            codes = await asyncio.gather(*left)
        assert codes[2] == 128 + 9
        listed = (await room.run(container, "/bin/sh", "-c", "cd /tmp; ls"))[1].decode().split()
        assert listed == ["plain", "terminal"]
        assert not mine.done()
        assert (await room.docker.call("GET", f"/exec/{by_hand['Id']}/json"))["Running"]
        mine.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await mine
    finally:
        await after.close()


def make(daemon: Daemon, **labelled: str) -> str:
    body = {"Image": BUSYBOX, "Labels": {labels_by[key]: value for key, value in labelled.items()}}
    made = json.loads(daemon.request("POST", "/containers/create", json.dumps(body).encode()))
    return str(made["Id"])


labels_by = {"id": labels.ID, "owner": labels.OWNER, "type": labels.TYPE}


def there(daemon: Daemon) -> set[object]:
    return {each["Id"] for each in daemon.containers()}


async def test_what_is_made_for_nobody_is_removed(docker_bench: Bench, daemon: Daemon) -> None:
    owner = docker_bench.config.root
    wanted = await docker_bench.container(await docker_bench.sandbox(), "true", start=False)
    others = await asyncio.to_thread(make, daemon, id="a", owner="/another")
    late = await asyncio.to_thread(make, daemon, id="b" * 64, owner=owner)
    try:
        async with asyncio.timeout(PATIENCE):
            while late in await asyncio.to_thread(there, daemon):  # noqa: ASYNC110 - Docker alone knows
                await asyncio.sleep(0.02)
        assert {others, docker_id(wanted)} <= await asyncio.to_thread(there, daemon)
    finally:
        await asyncio.to_thread(daemon.request, "DELETE", f"/containers/{others}")


async def test_what_was_made_to_look_into_an_image_goes_with_the_next_start(
    docker_config: Config, daemon: Daemon
) -> None:
    owner = docker_config.root
    left = await asyncio.to_thread(make, daemon, id="c" * 64, owner=owner, type=labels.LOOKUP)
    # Core shows what it does not know; it has been told to remove it by hand only.
    orphan = await asyncio.to_thread(make, daemon, id="d" * 64, owner=owner, type=labels.CONTAINER)
    async with docker_opened(docker_config) as bench:
        assert {each.name for each in await bench.engine.orphans(set(), set())} == {left, orphan}
        await bench.engine.forget_others(set())
        found = await bench.engine.orphans(set(), set())
        assert {each.name for each in found} == {orphan}
        await bench.engine.remove_orphan(found[0])
