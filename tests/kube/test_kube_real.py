"""Recorded cases on real containers, looked at from inside: what was asked for is what they have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import podwright as library
from podwright.kube.life.outcome import PodOutcome
from podwright.kube.life.runner import PodRun
from podwright.kube.manifests import manifest
from podwright.kube.node import observe
from podwright.library import Runtime
from podwright.logs.lines import Line
from podwright.wire import cri_pb2 as cri
from tests.kube import golden
from tests.kube.conftest import IMAGE, Command

pytestmark = pytest.mark.root


class Ear:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def event(self, pod: str, container: str, text: str) -> None:
        self.events.append((container, text))

    def output(self, pod: str, container: str, line: Line) -> None: ...


@asynccontextmanager
async def case(command: Command, name: str) -> AsyncIterator[tuple[Runtime, PodRun, Ear]]:
    """The case's pod, on an image that is here."""
    text = (golden.GOLDEN / f"{name}.yaml").read_text().replace("registry.test/busybox:1", IMAGE)
    (made,) = manifest.parse(text, name)
    for container in made.all_containers():
        container.imagePullPolicy = "Never"  # "latest" would be looked for in a registry
    ear = Ear()
    async with library.open(command.root, command.run_directory) as runtime:
        node = await observe(runtime.cri, runtime.config)
        yield runtime, PodRun(runtime.cri, made, node, reporter=ear), ear


async def ended(command: Command, name: str) -> tuple[PodOutcome, Ear]:
    async with case(command, name) as (_, run, ear), asyncio.timeout(60):
        return await run.run(), ear


async def inside(command: Command, name: str, *script: str) -> str:
    """What a script writes in the pod's only container, once that is ready."""
    async with case(command, name) as (runtime, run, _), asyncio.timeout(60):
        task = asyncio.create_task(run.run())
        while run.worker is None or not _ready(run):
            assert not task.done()
            await asyncio.sleep(0.05)
        (container,) = run.worker.seen.containers
        request = cri.ExecSyncRequest(container_id=container.id, cmd=["sh", "-c", *script])
        answer = await runtime.cri.exec_sync(request)
        run.stop()
        assert (await task).error == ""
        return answer.stdout.decode()


def _ready(run: PodRun) -> bool:
    conditions = run.worker.status.conditions or [] if run.worker is not None else []
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


async def test_config_maps_are_files_in_the_container(podwright: Command) -> None:
    script = "ls /all /some/etc/app; stat -Lc %a /some/other; cat /some/etc/app/main.conf"
    seen = await inside(podwright, "configmap-volume", script)
    assert seen.split() == ["/all:", "app.conf", "blob", "other", "/some/etc/app:", "main.conf", "600", "a=1"]


async def test_a_probed_container_becomes_ready_under_its_name(podwright: Command) -> None:
    assert await inside(podwright, "probe-exec", "hostname") == "probe-exec\n"


async def test_sidecars_are_stopped_in_reverse_when_the_work_is_done(podwright: Command) -> None:
    outcome, ear = await ended(podwright, "sidecar-job")
    assert (outcome.exit_code, outcome.error) == (0, "")
    order = [container for container, text in ear.events if text == "Container started"]
    assert order == ["log", "proxy", "main"]
    ends = {one.name: one.seconds for one in outcome.containers}
    assert ends["main"] < ends["proxy"] < ends["log"]


async def test_a_failed_container_is_started_again_and_finds_its_volume(podwright: Command) -> None:
    outcome, _ = await ended(podwright, "restart-on-failure")
    assert [(one.name, one.exit_code, one.restarts) for one in outcome.containers] == [
        ("second-try", 0, 1),
        ("fine", 0, 0),
    ]


async def test_last_words_are_read_from_files_and_logs(podwright: Command) -> None:
    outcome, _ = await ended(podwright, "termination-message")
    assert {one.name: one.message for one in outcome.containers} == {
        "own-path": "own\n",
        "default-path": "in the file\n",
        "from-log": "line 1\nline 2\n",
        "empty-file": "",
    }


async def test_a_program_that_does_not_exist_ends_a_pod_that_is_never_restarted(podwright: Command) -> None:
    async with case(podwright, "start-fails") as (runtime, run, ear), asyncio.timeout(60):
        run.manifest.spec.restartPolicy = "Never"
        del run.manifest.spec.containers[1]
        outcome = await run.run(keep=True)
        assert [(one.name, one.exit_code, one.reason) for one in outcome.containers] == [
            ("main", 128, "StartError")
        ]
        assert [text for _, text in ear.events if "/no/such/binary" in text]
        assert run.worker is not None and run.worker.status.phase == "Failed"
        await run.remove()
        assert not (await runtime.cri.list_containers(cri.ListContainersRequest())).containers
