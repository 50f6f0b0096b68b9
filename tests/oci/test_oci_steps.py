"""What the oci engine tells of its work, step by step, on real pods."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.errors import CommandFailed
from podwright.steps import Operations, Step
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench, uncreatable

pytestmark = pytest.mark.root


class Told:
    """A watcher."""

    def __init__(self) -> None:
        self.open: list[Step] = []
        self.all: list[Step] = []

    def began(self, step: Step) -> None:
        self.open.append(step)

    def ended(self, step: Step) -> None:
        self.open.remove(step)
        self.all.append(step)

    def named(self, name: str) -> Step:
        [found] = [step for step in self.all if step.name == name]
        return found

    def take(self) -> set[str]:
        """The paths of what has been told since: "cni add/cni plugin"."""
        assert not self.open, "a step that began has ended"
        found = set()
        for step in self.all:
            names, at = [step.name], step.parent
            while at is not None and at.parent is not None:
                names.append(at.name)
                at = at.parent
            if step.parent is not None:
                found.add("/".join(reversed(names)))
        self.all.clear()
        return found


async def test_pods_life_is_told_step_by_step(bench: Bench) -> None:
    operations, told = Operations(), Told()
    operations.watchers = (told,)
    with operations.open("RunPodSandbox"):
        sandbox = await bench.sandbox(network=POD, pid=cri.POD)
    plugin = told.named("cni plugin")
    assert plugin.subject == "bridge ADD"
    assert plugin.parent is not None and plugin.parent.seconds >= plugin.seconds > 0
    assert told.take() == {
        *("namespaces", "pod files", "shm", "cni add", "cni add/cni plugin"),
        *("pause", "pause/runtime create", "pause/runtime start"),
    }

    image = bench.image.id
    mount = cri.Mount(container_path="/data", image=cri.ImageSpec(image=image), readonly=True)
    with operations.open("CreateContainer"):
        container = await bench.container(
            sandbox, "sleep", "1000", config=cri.ContainerConfig(mounts=[mount]), start=False
        )
    assert told.named("image volume").subject == image
    assert told.take() == {"rootfs", "spec", "spec/image volume", "runtime create"}

    with operations.open("StartContainer"):
        await bench.engine.start_container(container)
    assert told.take() == {"runtime start"}
    with operations.open("ExecSync"):
        await bench.exec(container, "true")
    assert told.take() == {"exec"}
    with operations.open("UpdateContainerResources"):
        resources = cri.LinuxContainerResources(cpu_shares=512)
        await bench.engine.update_container(container, resources)
    assert told.take() == {"update limits"}
    with operations.open("RemoveContainer"):
        await bench.remove(container)
    assert told.take() == {"end task", "runtime delete", "unmount", "remove files"}
    with operations.open("RemovePodSandbox"):
        await bench.remove_sandbox(sandbox)
    assert {"cni del", "cni del/cni plugin", "end task", "unmount", "remove files"} <= told.take()


async def test_failed_step_tells_its_error(bench: Bench, tmp_path: Path) -> None:
    operations, told = Operations(), Told()
    operations.watchers = (told,)
    sandbox = await bench.sandbox()
    with pytest.raises(CommandFailed) as caught, operations.open("CreateContainer"):
        await bench.container(sandbox, "true", config=uncreatable(tmp_path))
    assert told.named("runtime create").error is caught.value
    assert told.named("spec").error is None
    assert told.named("CreateContainer").error is caught.value
