"""Pods that their shim holds, with a real containerd that has the sandbox service and a shim that knows it:
the daemon of 2.x with 1.7's shim for runc, where tools/containerd.sh could get them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from podwright.engines.containerd.api import any_of
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.shims import Shim
from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.wire.containerd import runc_pb2
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import NEWER, Daemon, running, search_path
from tests.containerd.sandbox_bench import POD, OneImage, SandboxBench, configured, one_image, opened

pytestmark = pytest.mark.root

SHIM = Path(NEWER["1.7"]).with_name("containerd-shim-runc-v2")
"""The only shim for runc that holds sandboxes: that of 2.x has no service for it any more."""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("a containerd needs root")
    if not SHIM.exists():
        pytest.skip("tools/containerd.sh could not get a containerd 1.7")
    with running(tmp_path_factory.mktemp("newer"), program=NEWER["2"]) as started:
        yield started


@pytest.fixture
async def image(newer: Daemon) -> OneImage:
    return await one_image(newer)


@pytest.fixture
def config(newer: Daemon, tmp_path: Path) -> Config:
    handlers = {
        "holds": HandlerConfig(path=str(SHIM), runtime_type=str(SHIM), sandboxer="shim"),
        "knows-nothing": HandlerConfig(path="runc", sandboxer="shim"),
    }
    return configured(tmp_path, tmp_path / "run", newer.config, handlers, "holds")


@pytest.fixture
async def bench(newer: Daemon, config: Config, image: OneImage) -> AsyncIterator[SandboxBench]:
    async with opened(config, image, search_path(newer.program)) as made:
        yield made
        await made.clear()
    async with asyncio.timeout(30):
        for shim in newer.shims():
            await spawn.exited(shim)


async def test_a_shim_holds_a_pod(bench: SandboxBench, newer: Daemon) -> None:
    sandbox = await bench.create(bench.wanted(network=POD))
    (shim,) = newer.shims()
    assert sandbox.facts.own["sandboxer"] == "shim"
    assert len(sandbox.facts.ips) == 1
    assert await bench.sandboxes.alive(sandbox)
    info = await bench.sandboxes.info(sandbox)
    assert info["containerd"]["labels"]["podwright.io/sandbox"] == sandbox.id
    assert info["runtimeType"] == str(SHIM)
    assert info["cniResult"]["interfaces"]

    await bench.sandboxes.stop(sandbox)
    assert not await bench.sandboxes.alive(sandbox)
    await bench.remove(sandbox)
    assert await bench.remains(sandbox) == []
    await asyncio.wait_for(spawn.exited(shim), 30)


async def test_the_end_of_a_shim_is_told_also_by_the_next_podwright_and_containerd(
    newer: Daemon, config: Config, image: OneImage
) -> None:
    path = search_path(newer.program)
    async with opened(config, image, path) as before:
        first, second = [await before.create(before.wanted()) for _ in range(2)]
        shims = newer.shims()
        os.kill(shims[0], signal.SIGKILL)
        ended = [asyncio.ensure_future(before.exit_of(each)) for each in (first, second)]
        done, waiting = await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        (exit,) = [await each for each in done]
        for each in waiting:
            each.cancel()
        assert exit.sandbox
        gone, other = (first, second) if exit.id == first.id else (second, first)
        assert not await before.sandboxes.alive(gone)
        assert await before.sandboxes.alive(other)
        await before.remove(gone)
        assert await before.remains(gone) == []
    newer.stop()
    newer.restart()
    async with opened(config, image, path) as bench:
        assert await bench.sandboxes.alive(other)
        os.kill(shims[1], signal.SIGKILL)
        assert (await bench.exit_of(other)).sandbox
        assert not await bench.sandboxes.alive(other)
        await bench.remove(other)
        assert await bench.remains(other) == []


async def test_a_shim_without_sandboxes_is_told_and_not_left_behind(
    bench: SandboxBench, newer: Daemon
) -> None:
    sandbox = bench.wanted(handler="knows-nothing")
    with pytest.raises(FailedPrecondition, match=r'set handlers\.knows-nothing\.sandboxer to "podsandbox"'):
        await bench.create(sandbox)
    assert await bench.remains(sandbox) == []


def test_containerd_1_7_cannot_leave_sandboxes_to_shims(tmp_path: Path) -> None:
    """Its controller answers each call with an error of its own event; it has another name, which tells."""
    if os.geteuid() != 0 or not SHIM.exists():
        pytest.skip("tools/containerd.sh could not get a containerd 1.7")

    async def refused(older: Daemon) -> str:
        handler = HandlerConfig(path="runc", sandboxer="shim")
        config = configured(tmp_path, tmp_path / "run", older.config, {"runc": handler}, "runc")
        async with opened(config, OneImage(""), search_path(older.program)) as bench:
            with pytest.raises(FailedPrecondition) as refusal:
                bench.shims.get("")
            return str(refusal.value)

    with running(tmp_path / "older", images=False, program=NEWER["1.7"]) as older:
        assert "io.containerd.sandbox.controller.v1.shim" in asyncio.run(refused(older))


async def test_containers_run_in_a_pod_that_its_shim_holds(
    newer: Daemon, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = msgspec.structs.replace(
        engine_config(newer, tmp_path / "whole", "holds"), handlers=config.handlers
    )
    found = Shims.get

    def get(self: Shims, name: str) -> Shim:
        # This shim is given by its path: that it calls runc, and how this host has that called, is not known.
        options = any_of(runc_pb2.Options(binary_name=newer.handlers["runc"].path))
        return replace(found(self, name), options=options)

    monkeypatch.setattr(Shims, "get", get)
    async with containerd_opened(whole) as bench:
        sandbox = await bench.sandbox()
        (shim,) = newer.shims()
        container = await bench.container(sandbox, "sh", "-c", "echo $$; exec sleep 1000")
        (record,) = newer.containers(f"id=={container.id}")
        assert record.sandbox == sandbox.id
        assert newer.shims() == [shim]
        assert await bench.exec(container, "echo", "here") == "here\n"
        ended = await bench.container(sandbox, "sh", "-c", "echo words; exit 3")
        assert await bench.output(ended) == "words\n"
        assert (await bench.exit_of(ended)).code == 3
        await bench.remove(ended)
        assert await bench.engine.sandbox_alive(sandbox)
        # With the last container this old shim goes, and the pod with it.
        await bench.engine.signal_container(container, signal.SIGKILL)
        assert (await bench.exit_of(container)).code == 137
        await bench.remove(container)
        await bench.remove_sandbox(sandbox)
        await asyncio.wait_for(spawn.exited(shim), 30)
    assert left_over(newer, whole) == []
