"""Sessions of a podwright that was killed, on a real Docker Engine: the next one hangs up those, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Container
from podwright.engines.docker.sessions import Sessions
from tests.docker.daemon import Daemon
from tests.docker.room import STAY, Room, docker_id, load_image, opened
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
