"""Pods that their shim holds, with a real containerd that has the sandbox service and a shim that knows it:
the daemon of 2.x with 1.7's shim for runc, where tools/containerd.sh could get them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from podwright.engines.base import Sandbox
from podwright.engines.containerd.api import any_of
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.shims import Shim
from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.wire.containerd import runc_pb2
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import NAMESPACE, NEWER, Daemon, running, search_path
from tests.containerd.sandbox_bench import (
    POD,
    OneImage,
    SandboxBench,
    configured,
    one_image,
    opened,
    unmounted,
)

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
def config(newer: Daemon, tmp_path: Path) -> Iterator[Config]:
    handlers = {
        "holds": HandlerConfig(path=str(SHIM), runtime_type=str(SHIM), sandboxer="shim"),
        "knows-nothing": HandlerConfig(path="runc", sandboxer="shim"),
    }
    with unmounted(tmp_path):
        yield configured(tmp_path, tmp_path / "run", newer.config, handlers, "holds")


@pytest.fixture
async def bench(newer: Daemon, config: Config, image: OneImage) -> AsyncIterator[SandboxBench]:
    async with opened(config, image, search_path(newer.program)) as made:
        yield made
        await made.clear()
    async with asyncio.timeout(30):
        for shim in newer.shims():
            await spawn.exited(shim)


def socket_of(daemon: Daemon, sandbox: Sandbox) -> Path:
    """Where the shim of a sandbox listens: containerd and its shims have one rule for that."""
    name = f"{daemon.socket}/{NAMESPACE}/{sandbox.id}".encode()
    return Path("/run/containerd/s") / hashlib.sha256(name).hexdigest()


def kill(daemon: Daemon, sandbox: Sandbox) -> None:
    """Its shim, which leaves its socket."""
    (shim,) = [each for each in daemon.shims() if sandbox.id in Path(f"/proc/{each}/cmdline").read_text()]
    os.kill(shim, signal.SIGKILL)
    socket_of(daemon, sandbox).unlink()


async def test_a_shim_holds_a_pod(bench: SandboxBench, newer: Daemon) -> None:
    sandbox = await bench.create(bench.wanted(network=POD))
    (shim,) = newer.shims()
    assert socket_of(newer, sandbox).is_socket()
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
        kill(newer, first)
        assert (await before.exit_of(first)).sandbox
        assert not await before.sandboxes.alive(first)
        assert await before.sandboxes.alive(second)
        assert not before.told(second)
        await before.remove(first)
        assert await before.remains(first) == []
    newer.stop()
    newer.restart()
    async with opened(config, image, path) as bench:
        assert await bench.sandboxes.alive(second)
        kill(newer, second)
        assert (await bench.exit_of(second)).sandbox
        assert not await bench.sandboxes.alive(second)
        await bench.remove(second)
        assert await bench.remains(second) == []


async def test_a_shim_without_sandboxes_is_told_and_not_left_behind(
    bench: SandboxBench, newer: Daemon
) -> None:
    sandbox = bench.wanted(handler="knows-nothing")
    with pytest.raises(FailedPrecondition, match=r'set handlers\.knows-nothing\.sandboxer to "podsandbox"'):
        await bench.create(sandbox)
    assert await bench.remains(sandbox) == []
    assert not newer.shims()
    assert not socket_of(newer, sandbox).exists()


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
