"""Logs with limits: real containers whose records go through the log writer, which may be killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, LogsConfig
from podwright.engines.base import Container
from podwright.engines.node import places
from podwright.errors import CommandFailed
from podwright.logs import reader, rotation
from podwright.logs.writing import LogWriter
from tests.oci.bench import Bench, opened, processes_with, uncreatable

pytestmark = pytest.mark.root

COUNTING = "i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done"


def limited(place: Config, **logs: object) -> Config:
    return msgspec.structs.replace(place, logs=LogsConfig(**logs))  # type: ignore[arg-type]


async def texts(container: Container, **how: object) -> list[str]:
    lines = await reader.collect(reader.follow(container.log_path, **how))  # type: ignore[arg-type]
    return [line.text.decode() for line in lines]


async def test_a_log_is_rotated_and_every_line_read(place: Config, busybox: Path) -> None:
    async with opened(limited(place, max_size="16Ki", max_files=200, compress=True), busybox) as bench:
        sandbox = await bench.sandbox()
        container = await bench.container(sandbox, "sh", "-c", COUNTING.format(count=5000))
        await bench.exit_of(container)
        assert await texts(container) == [f"line {n}" for n in range(5000)]
        assert len(rotation.rotated(container.log_path)) > 10
        assert all(each.stat().st_size <= 16 << 10 for each in Path(container.log_path).parent.glob("0.log*"))
        assert await texts(container, tail=1000) == [f"line {n}" for n in range(4000, 5000)]


async def test_a_rate_is_held_and_told(place: Config, busybox: Path) -> None:
    async with opened(limited(place, rate_lines=20), busybox) as bench:
        container = await bench.container(await bench.sandbox(), "sh", "-c", COUNTING.format(count=3000))
        await bench.exit_of(container)
        got = await texts(container)
        assert got[:20] == [f"line {n}" for n in range(20)]
        assert len(got) < 1000 and any(each.startswith("podwright: more than 20 lines") for each in got)


async def test_the_writer_outlives_podwright_and_podwright_the_writer(place: Config, busybox: Path) -> None:
    config = limited(place, max_size="16Ki", max_files=500)
    script = "i=0; until [ -e /tmp/end ]; do echo line $i; i=$((i+1)); done; exit 3"
    async with opened(config, busybox) as bench:
        container = await bench.container(await bench.sandbox(), "sh", "-c", script)
        with_lines = reader.follow(container.log_path, follow=True)
        assert [(await anext(with_lines)).text for _ in range(500)][-1] == b"line 499"
        first = await pid_of(bench)
        # podwright goes, as a crash takes it: nobody says anything to the writer.
        logs = bench.engine._logs
        logs._disconnect()
        logs._release(container.id)
        assert [(await anext(with_lines)).text for _ in range(500)][-1] == b"line 999"
        again = LogWriter(places.Places(config).logs)
        await again.open()
        assert (await again.status())["pid"] == first
        os.kill(first, signal.SIGKILL)
        seen = [int((await anext(with_lines)).text.split()[1]) for _ in range(3000)]
        assert seen == list(range(1000, 4000))
        assert (await again.status())["pid"] != first
        again._closing = True
        await bench.engine.reopen_log(container)
        again._disconnect()
        await bench.exec(container, "touch", "/tmp/end")
        assert (await bench.exit_of(container)).code == 3
        again._release(container.id)
        got = await texts(container)
        assert got == [f"line {n}" for n in range(len(got))] and len(got) >= 4000
        await with_lines.aclose()
        assert not list(places.Places(config).logs.glob("*/"))
        writer = await pid_of(bench)
    assert writer not in processes_with(place.run)


async def pid_of(bench: Bench) -> int:
    pid = (await bench.engine._logs.status())["pid"]
    assert isinstance(pid, int)
    return pid


async def test_a_failed_creation_leaves_no_fifo(place: Config, busybox: Path, tmp_path: Path) -> None:
    config = limited(place, rate_lines=100)
    async with opened(config, busybox) as bench:
        sandbox = await bench.sandbox()
        with pytest.raises(CommandFailed):
            await bench.container(sandbox, "true", config=uncreatable(tmp_path))
        assert not list(places.Places(config).logs.glob("*/"))


async def test_logs_without_limits_have_no_writer(bench: Bench) -> None:
    container = await bench.container(await bench.sandbox(), "echo", "x")
    assert await bench.output(container) == "x\n"
    assert not places.Places(bench.config).logs.exists()
