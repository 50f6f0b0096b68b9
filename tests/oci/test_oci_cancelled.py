"""Creations cancelled at the steps that a thread does and that nothing can stop half-way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from podwright.engines.node import rootfs
from podwright.engines.oci import runtimes
from podwright.linux import mounts, namespaces
from tests.oci.bench import POD, Bench, opened, processes_with

pytestmark = pytest.mark.root


class Slow:
    """Stands in for a blocking function: says when it has begun, then takes its time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.ended = False

    def __call__(self, *arguments: Any) -> Any:
        self.loop.call_soon_threadsafe(self.begun.set)
        time.sleep(0.3)
        result = self.function(*arguments)
        self.ended = True
        return result


async def cancelled(work: asyncio.Task[Any], slow: Slow) -> None:
    await asyncio.wait_for(slow.begun.wait(), 10)
    work.cancel()
    await asyncio.wait([work])
    assert work.cancelled()
    assert slow.ended, "it was undone while the thread was still at work"


async def test_namespaces_are_gone_with_a_cancelled_sandbox(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(namespaces._create)
    monkeypatch.setattr(namespaces, "_create", slow)
    await cancelled(asyncio.ensure_future(bench.sandbox(network=POD)), slow)
    run = Path(bench.config.run)
    assert not mounts.mounts_below(run / "sandboxes")
    assert not list((run / "sandboxes").iterdir())


async def test_no_volume_is_filled_after_its_container_was_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await bench.sandbox()
    slow = Slow(rootfs.fill_volume)
    monkeypatch.setattr(rootfs, "fill_volume", slow)
    bench.image = replace(bench.image, config={**bench.image.config, "Volumes": {"/etc": {}}})
    await cancelled(asyncio.ensure_future(bench.container(sandbox, "true")), slow)
    assert not list(Path(bench.config.root, "containers").iterdir())


async def test_a_cancelled_creation_holds_no_mount_namespace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await bench.sandbox()
    runtime = bench.engine._runtimes.get("crun")
    if not runtime.hide_unified:
        pytest.skip("crun needs no mount namespace of its own on this host")
    slow = Slow(runtimes._without_unified)
    monkeypatch.setattr(runtimes, "_without_unified", slow)
    await cancelled(asyncio.ensure_future(bench.container(sandbox, "true")), slow)
    assert not [each for each in Path("/proc/self/fd").iterdir() if _target(each).startswith("mnt:")]


async def test_a_supervisor_that_had_no_time_to_write_its_pid_is_found(
    place: Config, busybox: Path, tmp_path: Path
) -> None:
    """Its first process forks, and is killed before it writes the file."""
    slow = tmp_path / "conmon-slow"
    slow.write_text(
        "#!/bin/sh\n"
        'for word; do shift; [ "$word" = --conmon-pidfile ] && { skip=1; continue; }\n'
        '[ "$skip" ] && { skip=; continue; }; set -- "$@" "$word"; done\n'
        'setsid conmon "$@"; sleep 100\n'
    )
    runtime = tmp_path / "crun-slow"
    runtime.write_text('#!/bin/sh\ncase "$*" in *create*) touch "$0.runs"; sleep 1;; esac\nexec crun "$@"\n')
    for each in (slow, runtime):
        each.chmod(0o755)
    handlers = {"crun": HandlerConfig(path=str(runtime))}
    async with opened(msgspec.structs.replace(place, conmon=str(slow), handlers=handlers), busybox) as bench:
        sandbox = await bench.sandbox()
        task = asyncio.ensure_future(bench.container(sandbox, "sleep", "1000"))
        async with asyncio.timeout(10):
            while not (tmp_path / "crun-slow.runs").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not processes_with(str(place.run)), "it would go on making what was undone"


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""
