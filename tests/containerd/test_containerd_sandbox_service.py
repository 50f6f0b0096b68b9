"""Pods that their shim holds, with a containerd that answers as it is told: what is asked of it, platforms,
ends, and what is done when something fails."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwright.config import Config, ContainerdConfig, HandlerConfig
from podwright.engines.base import Container, Exit, Image, SandboxFacts
from podwright.engines.containerd import platforms
from podwright.engines.containerd.sandboxes import of_shim
from podwright.errors import FailedPrecondition, PodwrightError, Unavailable
from podwright.linux import proc
from podwright.spec.inputs import MountSource, NamespacePaths, RootfsFiles
from podwright.wire import cri_pb2 as cri
from podwright.wire.containerd import sandbox_pb2, types_pb2
from tests.containerd.sandbox_bench import POD, OneImage, SandboxBench, configured, opened, unmounted
from tests.containerd.sandbox_double import SandboxDouble, running

pytestmark = pytest.mark.root

WINDOWS = types_pb2.Platform(os="windows", architecture="amd64", os_version="10.0.20348")


@pytest.fixture
async def double(tmp_path: Path) -> AsyncIterator[SandboxDouble]:
    async with running(tmp_path / "c.sock") as started:
        yield started


@pytest.fixture
def config(double: SandboxDouble, tmp_path: Path) -> Iterator[Config]:
    # A shim that nobody starts has to be there all the same.
    shim = tmp_path / "containerd-shim-vm-v2"
    shim.write_text("#!/bin/false\n")
    shim.chmod(0o755)
    handler = HandlerConfig(
        path=str(shim),
        runtime_type=str(shim),
        runtime_config="/etc/vm.toml",
        sandboxer="shim",
        virtual_machine=True,
    )
    containerd = ContainerdConfig(endpoint=str(double.socket))
    with unmounted(tmp_path):
        yield configured(tmp_path, tmp_path / "run", containerd, {"vm": handler}, "vm")


@pytest.fixture
async def bench(config: Config, double: SandboxDouble) -> AsyncIterator[SandboxBench]:
    async with opened(config, OneImage("sha256:chain")) as made:
        yield made
        double.failing.clear()
        await made.clear()
    assert not double.records and not double.snapshots and not double.held


def spec_of(record: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(record.spec.value)
    return spec


async def test_what_the_service_is_asked(bench: SandboxBench, double: SandboxDouble) -> None:
    config = cri.PodSandboxConfig(hostname="held")
    sandbox = await bench.create(bench.wanted(network=POD, config=config))
    id = sandbox.id
    assert [name for name, _ in double.asked[:4]] == [
        "Store.Create",
        "Controller.Create",
        "Controller.Start",
        "Controller.Platform",
    ]
    record = double.records[id]
    assert record.sandboxer == "shim"
    assert record.runtime.name == bench.config.handlers["vm"].runtime_type
    assert record.runtime.options.type_url == "runtimeoptions.v1.Options"
    assert record.labels["podwright.io/root"] == bench.config.root
    assert record.labels["podwright.io/sandbox"] == id
    assert json.loads(record.extensions["podwright.io/metadata"].value)["hostname"] == "held"
    assert spec_of(record)["annotations"]["io.kubernetes.cri.sandbox-id"] == id

    (create,) = double.named("Controller.Create")
    assert isinstance(create, sandbox_pb2.ControllerCreateRequest)
    assert create.sandbox == record
    assert (create.sandboxer, create.netns_path) == ("shim", str(bench.places.pin(id, "net")))
    assert [each.source for each in create.rootfs] == [f"/snapshots/{id}"]
    asked = cri.PodSandboxConfig()
    assert create.options.type_url == "runtime.v1.PodSandboxConfig"
    asked.ParseFromString(create.options.value)
    assert asked == sandbox.config

    await bench.sandboxes.stop(sandbox)
    assert [name for name, _ in double.asked if name.startswith("Controller.S")][-1] == "Controller.Stop"
    await bench.sandboxes.remove(sandbox)
    assert bench.left(sandbox) == []


async def test_the_hosts_network_is_nobodys_namespace(bench: SandboxBench, double: SandboxDouble) -> None:
    await bench.create(bench.wanted())
    (create,) = double.named("Controller.Create")
    assert isinstance(create, sandbox_pb2.ControllerCreateRequest)
    assert create.netns_path == ""


async def test_what_the_shim_says_of_itself_is_noted(bench: SandboxBench, double: SandboxDouble) -> None:
    double.started = sandbox_pb2.ControllerStartResponse(
        pid=os.getpid(), labels={"selinux_label": "x"}, address="ttrpc+unix:///run/vm.sock", version=3
    )
    sandbox = await bench.create(bench.wanted())
    assert sandbox.facts.pid == os.getpid()
    assert sandbox.facts.own == {
        "sandboxer": "shim",
        "platform": "",
        "labels": {"selinux_label": "x"},
        "started": proc.start_time(os.getpid()),
        "address": "ttrpc+unix:///run/vm.sock",
        "version": 3,
    }
    assert of_shim(sandbox)
    info = await bench.sandboxes.info(sandbox)
    assert info["shim"] == {"state": "SANDBOX_READY", "info": {"hypervisor": "of the double"}}
    assert info["containerd"]["sandboxer"] == "shim"
    assert info["metrics"] == "io.containerd.cgroups.v2.Metrics"
    assert info["runtimeSpec"]["annotations"]["io.kubernetes.cri.container-type"] == "sandbox"


@pytest.mark.parametrize(
    "rpc",
    ["Store.Create", "Controller.Create", "Controller.Start", "Controller.Platform", "Controller.Update"],
)
async def test_what_a_failure_left_is_taken_away(
    bench: SandboxBench, double: SandboxDouble, rpc: str
) -> None:
    double.platform = WINDOWS
    double.failing[rpc] = grpc.StatusCode.INTERNAL
    sandbox = bench.wanted()
    with pytest.raises(PodwrightError, match=f"{rpc} fails"):
        await bench.create(sandbox)
    assert not double.records and not double.snapshots and not double.held
    assert bench.left(sandbox) == []


async def test_what_a_cancelled_creation_left_is_taken_away(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    double.slow = True
    sandbox = bench.wanted()
    creation = asyncio.create_task(bench.create(sandbox))
    await asyncio.wait_for(double.asked_to_create.wait(), 30)
    creation.cancel()
    # Until containerd has made it nothing can be undone.
    await asyncio.wait([creation], timeout=0.2)
    double.go.set()
    with pytest.raises(asyncio.CancelledError):
        await creation
    assert not double.records and not double.snapshots and not double.held
    assert bench.left(sandbox) == []


async def test_a_shim_that_knows_no_sandboxes_is_a_mistake_of_the_configuration(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    double.failing["Controller.Create"] = grpc.StatusCode.UNIMPLEMENTED
    sandbox = bench.wanted()
    with pytest.raises(FailedPrecondition, match=r'set handlers\.vm\.sandboxer to "podsandbox"'):
        await bench.create(sandbox)
    assert bench.left(sandbox) == []


async def test_a_containerd_without_the_service_is_told(config: Config, double: SandboxDouble) -> None:
    # 1.7 has the services and a controller, which answers everything with an error.
    double.plugins.remove(("io.containerd.sandbox.controller.v1", "shim"))
    double.plugins.append(("io.containerd.sandbox.controller.v1", "local"))
    async with opened(config, OneImage("sha256:chain")) as bench:
        sandbox = bench.wanted()
        with pytest.raises(FailedPrecondition, match="this containerd has none"):
            await bench.create(sandbox)
        assert not double.asked
        assert bench.left(sandbox) == []


# Platforms


class Parts:
    """Of a container without anything of its own."""

    def users(self) -> RootfsFiles:
        raise AssertionError("the users of such an image are its own system's")

    async def source(self, place: int, wanted: Any) -> MountSource:
        return MountSource(path=f"/shown{wanted.host_path}")

    async def volumes(self, paths: Any) -> dict[str, str]:
        return {path: f"/volumes/{number}" for number, path in enumerate(paths)}

    def namespaces(self) -> NamespacePaths:
        return NamespacePaths(net="/pinned/net", ipc="/pinned/ipc")

    def levels(self) -> tuple[str, str]:
        return "", ""


async def spec_of_a_container(bench: SandboxBench, container: Container) -> dict[str, Any]:
    builder = platforms.of(container.sandbox)
    shim = bench.shims.get(container.sandbox.handler)
    wanted = builder.lookups(container.config, bench.facts.policy)
    request = await builder.request(bench.requests, container, shim, wanted, bench.facts, Parts())
    return builder.build(request, bench.facts).spec


async def test_a_shim_with_windows_gets_specs_of_windows(bench: SandboxBench, double: SandboxDouble) -> None:
    double.platform = WINDOWS
    config = cri.PodSandboxConfig(hostname="win")
    sandbox = await bench.create(bench.wanted(network=POD, config=config))
    assert sandbox.facts.own["platform"] == "windows(10.0.20348)/amd64"
    # Nobody knew before the first one had been started.
    (create,) = double.named("Controller.Create")
    assert isinstance(create, sandbox_pb2.ControllerCreateRequest)
    assert "windows" not in spec_of(create.sandbox)
    (update,) = double.named("Controller.Update")
    assert isinstance(update, sandbox_pb2.ControllerUpdateRequest)
    assert list(update.fields) == ["spec"]
    net = str(bench.places.pin(sandbox.id, "net"))
    for record in (update.sandbox, double.records[sandbox.id]):
        spec = spec_of(record)
        assert spec["windows"]["network"] == {"networkNamespace": net}
        assert spec["annotations"]["io.kubernetes.cri.podsandbox.image-name"] == "podwright.test/pause:1"
        assert "linux" not in spec

    asked = cri.ContainerConfig(command=["cmd.exe"], working_dir="C:\\app")
    asked.windows.security_context.run_as_username = "ContainerUser"
    asked.mounts.add(host_path="/data", container_path="C:\\data")
    asked.mounts.add(host_path="\\\\.\\pipe\\docker", container_path="\\\\.\\pipe\\docker")
    image = Image("sha256:0", (), (), 1, {"Volumes": {"C:\\vol": {}}})
    spec = await spec_of_a_container(bench, Container("c" * 64, "c", sandbox, asked, image, ""))
    assert spec["process"]["args"] == ["cmd.exe"]
    assert spec["process"]["user"]["username"] == "ContainerUser"
    assert spec["windows"]["network"] == {"networkNamespace": "/pinned/net"}
    assert {each["destination"]: each["source"] for each in spec["mounts"]} == {
        "C:\\data": "\\shown\\data",
        "\\\\.\\pipe\\docker": "\\\\.\\pipe\\docker",
        "C:\\vol": "/volumes/0",
    }
    assert "linux" not in spec

    # The next one is made so from the beginning.
    double.asked.clear()
    other = await bench.create(bench.wanted())
    assert "windows" in spec_of(double.records[other.id])
    assert not double.named("Controller.Update")


async def test_a_shim_with_darwin_gets_specs_of_darwin(bench: SandboxBench, double: SandboxDouble) -> None:
    double.platform = types_pb2.Platform(os="darwin", architecture="arm64")
    sandbox = await bench.create(bench.wanted())
    assert sandbox.facts.own["platform"] == "darwin/arm64"
    assert "linux" not in spec_of(double.records[sandbox.id])
    image = Image("sha256:0", (), (), 1, {"Cmd": ["/bin/zsh"], "Volumes": {"/vol": {}}})
    asked = cri.ContainerConfig()
    asked.mounts.add(host_path="/data", container_path="/data")
    spec = await spec_of_a_container(bench, Container("c" * 64, "c", sandbox, asked, image, ""))
    assert spec["process"]["args"] == ["/bin/zsh"]
    assert [each["source"] for each in spec["mounts"]] == ["/shown/data", "/volumes/0"]
    assert "linux" not in spec


async def test_containers_of_linux_name_their_sandbox_to_the_shim(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    double.platform = types_pb2.Platform(os="linux", architecture="amd64")
    sandbox = await bench.create(bench.wanted())
    image = Image("sha256:0", (), (), 1, {"Cmd": ["sh"]})
    parts = Parts()
    parts.users = lambda: RootfsFiles()  # type: ignore[method-assign]
    builder, shim = platforms.of(sandbox), bench.shims.get("")
    assert builder.os == "linux"
    container = Container("c" * 64, "c", sandbox, cri.ContainerConfig(), image, "")
    request = await builder.request(bench.requests, container, shim, [], bench.facts, parts)
    spec = builder.build(request, bench.facts).spec
    assert spec["annotations"]["io.kubernetes.cri.container-type"] == "container"
    assert spec["annotations"]["io.kubernetes.cri.sandbox-id"] == sandbox.id
    assert {"type": "network"} not in spec["linux"]["namespaces"]


async def test_a_platform_without_specs_is_refused(bench: SandboxBench, double: SandboxDouble) -> None:
    double.platform = types_pb2.Platform(os="plan9")
    with pytest.raises(FailedPrecondition, match="unsupported spec platform: plan9"):
        await bench.create(bench.wanted())
    assert not double.records and not double.held


# Ends


async def test_an_end_is_told(bench: SandboxBench, double: SandboxDouble) -> None:
    sandbox = await bench.create(bench.wanted())
    assert await bench.sandboxes.alive(sandbox)
    double.end(sandbox.id, 3)
    assert await bench.exit_of(sandbox) == Exit(sandbox.id, 3, 1_700_000_000_123_456_789, sandbox=True)
    assert not await bench.sandboxes.alive(sandbox)


async def test_an_end_is_told_after_containerd_was_away(bench: SandboxBench, double: SandboxDouble) -> None:
    sandbox = await bench.create(bench.wanted())
    await double.stop()
    with pytest.raises(Unavailable):
        await bench.sandboxes.alive(sandbox)
    with pytest.raises(Unavailable):
        await bench.sandboxes.stop(sandbox)
    await double.start()
    double.end(sandbox.id, 4)
    assert (await bench.exit_of(sandbox)).code == 4


async def test_one_that_went_while_containerd_was_away_has_ended(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    sandbox = await bench.create(bench.wanted())
    await double.stop()
    double._held.pop(sandbox.id)
    await double.start()
    assert (await bench.exit_of(sandbox)).code == 255


async def test_an_end_is_told_to_the_next_podwright(config: Config, double: SandboxDouble) -> None:
    async with opened(config, OneImage("sha256:chain")) as before:
        sandbox = await before.create(before.wanted())
    async with opened(config, OneImage("sha256:chain")) as bench:
        assert await bench.sandboxes.alive(sandbox)
        double.end(sandbox.id, 5)
        assert (await bench.exit_of(sandbox)).code == 5
        await bench.remove(sandbox)
        assert bench.left(sandbox) == []


async def test_a_shim_that_does_not_wait_is_not_believed(bench: SandboxBench, double: SandboxDouble) -> None:
    double.waits_at_once = True
    sandbox = await bench.create(bench.wanted())
    await asyncio.wait_for(double.looked.wait(), 30)
    assert await bench.sandboxes.alive(sandbox)
    assert not bench.told(sandbox)


# Going


async def test_a_stop_that_fails_is_told_and_done_at_the_next_call(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    sandbox = await bench.create(bench.wanted())
    double.failing["Controller.Stop"] = grpc.StatusCode.UNKNOWN
    with pytest.raises(PodwrightError, match=r"Controller\.Stop fails"):
        await bench.sandboxes.stop(sandbox)
    assert double.held == [sandbox.id]
    double.failing.clear()
    await bench.remove(sandbox)
    assert bench.left(sandbox) == []


async def test_a_shim_that_goes_without_an_answer_has_gone(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    sandbox = await bench.create(bench.wanted())
    for rpc in ("Controller.Shutdown", "Controller.Status"):
        double.failing[rpc] = grpc.StatusCode.UNKNOWN  # "ttrpc: closed"
    await bench.remove(sandbox)
    assert not double.records and not double.snapshots
    assert bench.left(sandbox) == []


async def test_one_that_nobody_noted_anything_of_is_removed(
    bench: SandboxBench, double: SandboxDouble
) -> None:
    sandbox = await bench.create(bench.wanted())
    forgotten = replace(sandbox, facts=SandboxFacts())
    for _ in range(2):
        await bench.remove(forgotten)
    assert not double.records and not double.snapshots and not double.held
    assert bench.left(sandbox) == []
