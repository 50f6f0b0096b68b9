"""Programs that cannot be executed: created, failed at the start, ended, and nothing left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import Presence
from podwright.errors import CommandFailed
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import Bench, opened, uncreatable

pytestmark = pytest.mark.root

PROGRAMS = {
    "/no/such": r"/no/such.*[Nn]o such file",
    "no-such": r"no-such.*not found in \$PATH",
    "/etc/passwd": "[Pp]ermission denied",
    "/etc": "[Pp]ermission denied|not permitted",
    "/etc/passwd/x": "[Nn]ot a directory",
}


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_the_start_says_that_a_program_cannot_be_executed(bench: Bench, handler: str) -> None:
    sandbox = await bench.sandbox(handler=handler)
    for program, words in PROGRAMS.items():
        container = await bench.container(sandbox, program, start=False)
        assert (await bench.engine.observe_container(container)).presence is Presence.CREATED
        for _ in range(2):
            with pytest.raises(CommandFailed, match=words):
                await bench.engine.start_container(container)
        await bench.engine.signal_container(container, signal.SIGTERM)
        assert (await bench.engine.observe_container(container)).presence is Presence.CREATED
        await bench.engine.signal_container(container, signal.SIGKILL)
        assert (await bench.exit_of(container)).code == 137
        assert (await bench.engine.observe_container(container)).presence is Presence.EXITED
        await bench.remove(container)
    assert await bench.engine.orphans({sandbox.id}, set()) == []


async def test_a_new_engine_knows_that_it_cannot_be_started(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as old:
        sandbox = await old.sandbox()
        container = await old.container(sandbox, "/no/such", start=False)
        old.sandboxes.clear()
        old.containers.clear()
    async with opened(place, busybox) as new:
        new.sandboxes[sandbox.id], new.containers[container.id] = sandbox, container
        assert (await new.engine.observe_container(container)).presence is Presence.CREATED
        limits = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20)
        await new.engine.update_container(container, limits, None)
        with pytest.raises(CommandFailed, match="/no/such"):
            await new.engine.start_container(container)


async def test_another_failure_is_told_by_the_creation(bench: Bench, tmp_path: Path) -> None:
    sandbox = await bench.sandbox()
    with pytest.raises(CommandFailed):
        await bench.container(sandbox, "/no/such", config=uncreatable(tmp_path), start=False)
