"""When a pod's state is told: while a round goes on for long, why something does not start, and when a
detached run returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podwright.kube.life.runner import PodRun, run_pods
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import (
    ContainerStatus,
    ExecAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
    SleepAction,
)
from podwright.kube.state import records
from podwright.testing import FakeNode
from tests.kube.test_kube_runner import FOREVER, IMAGE, Stage

SLOW = "example.test/slow:1"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    items: list[dict[str, Any]] = [
        {"reference": IMAGE, "present": True, "config": {"Cmd": ["sh"]}},
        {"reference": SLOW, "pull": "60s", "config": {"Cmd": ["sh"]}},
    ]
    async with FakeNode({"images": {"items": items}}, root=tmp_path / "fake", seed=3) as fake:
        yield Stage(tmp_path, fake)


def statuses(worker: PodWorker) -> dict[str, ContainerStatus]:
    return {one.name: one for one in worker.status.containerStatuses or []}


def runs(worker: PodWorker, name: str) -> bool:
    one = statuses(worker).get(name)
    return one is not None and one.state is not None and one.state.running is not None


def slow_second(made: Manifest) -> Manifest:
    made.containers[1].image = SLOW
    return made


async def test_what_runs_is_told_while_another_image_is_pulled(stage: Stage) -> None:
    run = stage.run(slow_second(stage.pod(FOREVER, FOREVER)))
    life = asyncio.create_task(run.run(keep=True))
    await stage.until(lambda: run.worker is not None and runs(run.worker, "c0"), limit=30)
    assert "StartContainer c1:0" not in stage.asked()
    await stage.until(lambda: stage.ear.lines == ["up"], limit=30)

    def is_noted() -> bool:
        noted = records.read_status(run.directory)
        return noted is not None and any(
            one.state is not None and one.state.running is not None for one in noted.containerStatuses or []
        )

    await stage.until(is_noted, limit=30)
    assert "StartContainer c1:0" not in stage.asked()
    run.stop()
    await stage.ended(life)


async def test_a_detached_run_does_not_leave_while_a_hook_runs(stage: Stage) -> None:
    made = stage.pod(FOREVER)
    made.containers[0].lifecycle = Lifecycle(postStart=LifecycleHandler(sleep=SleepAction(seconds=30)))
    run, begun = stage.run(made), stage.fake.world.clock.monotonic()
    outcome = await stage.ended(asyncio.create_task(run.run(detach=True)))
    assert stage.fake.world.clock.monotonic() - begun >= 30
    assert all(one.id for one in outcome.containers)
    await run.remove()


async def test_the_status_says_soon_why_a_container_waits(stage: Stage) -> None:
    worker = stage.worker(stage.pod("exit 3", policy="Always"))
    life = asyncio.create_task(worker.run())

    def crashes() -> bool:
        one = statuses(worker).get("c0")
        waiting = one.state.waiting if one is not None and one.state is not None else None
        return waiting is not None and waiting.reason == "CrashLoopBackOff"

    await stage.until(crashes, limit=60)
    worker.kill()
    await stage.ended(life)
    await worker.remove()


def asking(made: Manifest, program: str) -> Manifest:
    made.containers[0].readinessProbe = Probe(
        exec=ExecAction(command=["sh", "-c", program]), periodSeconds=1, timeoutSeconds=1,
        initialDelaySeconds=5, successThreshold=1, failureThreshold=3,
    )  # fmt: skip
    return made


async def test_a_run_until_ready_returns_when_the_pod_is_ready_and_leaves_it(stage: Stage) -> None:
    run = stage.run(asking(stage.pod(FOREVER), "true"))
    outcome = await stage.ended(asyncio.create_task(run.run(detach=True, until="ready")))
    assert outcome.error == "" and run.worker is not None
    assert statuses(run.worker)["c0"].ready and runs(run.worker, "c0")
    # What others read is that, too, however soon the run left.
    assert records.read_status(run.directory) == run.worker.status
    await run.remove()


async def test_what_fails_is_tried_again_until_somebody_lets_the_run_leave(stage: Stage) -> None:
    made = asking(stage.pod(FOREVER), "false")
    made.containers[0].image = "not/An-Image:1"
    run = stage.run(made)
    life = asyncio.create_task(run.run(keep=True, detach=True, until="ready"))
    await stage.until(lambda: run.worker is not None and "c0" in run.worker.pod.waiting, limit=60)
    assert not life.done()
    run.leave()
    await stage.ended(life)
    await run.remove()


async def test_detached_pods_are_left_when_all_are_as_far(stage: Stage) -> None:
    soon, late = stage.pod("exit 1", policy="Always"), asking(stage.pod(FOREVER), "true")
    assert late.pod.metadata is not None
    late.pod.metadata.name = late.pod.metadata.uid = "late"
    runs_of = [PodRun(stage.fake.cri, one, stage.node, clock=stage.fake.world.clock) for one in (soon, late)]
    done = asyncio.create_task(run_pods(runs_of, keep=True, detach=True, until="ready"))
    runs_of[0].leave()
    await stage.ended(done)
    # It was kept, that is, started again, until the other was ready.
    assert stage.asked().count("StartContainer c0:1") == 1
    for one in runs_of:
        await one.remove()
