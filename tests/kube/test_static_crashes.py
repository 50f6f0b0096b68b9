"""A keeper that dies at any of its calls, alone or with the server, is followed by one that brings everything
to where it was going: never two pods of one name, nothing left in the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from podwright.engines.fake.faults import Fault
from podwright.kube.life.events import Event
from tests.kube.static_stage import StaticStage, pod, static_stage

NEW, OLD = "example.test/web:2", "example.test/web:1"
ENGINE_STEPS = (
    "create_sandbox.network", "create_sandbox.ready", "create_container.task", "start_container.started",
    "signal_container.signal", "stop_sandbox.network", "remove_container.rootfs", "remove_sandbox.files",
)  # fmt: skip


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StaticStage]:
    async with static_stage(tmp_path, monkeypatch) as made:
        yield made


def start(stage: StaticStage) -> None:
    stage.write("web.yaml", pod(image=OLD))


def edit(stage: StaticStage) -> None:
    stage.write("web.yaml", pod(image=NEW))


def empty(stage: StaticStage) -> None:
    (stage.directory / "web.yaml").unlink(missing_ok=True)


PHASES: tuple[tuple[Callable[[StaticStage], None], Callable[[StaticStage], bool]], ...] = (
    (start, lambda stage: stage.running("web-n") == [OLD]),
    (edit, lambda stage: stage.running("web-n") == [NEW]),
    (empty, lambda stage: not stage.left()),
)


class Death:
    """At the so many-th moment."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.moment = ""

    def __call__(self, moment: str) -> bool:
        self.left -= 1
        if self.left == 0:
            self.moment = moment
        return self.left == 0


@pytest.mark.parametrize("with_server", [False, True], ids=["alone", "with the server"])
async def test_a_keeper_may_die_at_any_call(stage: StaticStage, with_server: bool) -> None:
    died = []
    for at in range(1, 1000):
        death = Death(at)
        await stage.begin(death)
        for act, reached in PHASES:
            act(stage)
            await stage.until(partial(_dead_or, reached, stage))
            if stage.dead:
                await stage.kill()
                if with_server:
                    await stage.node.crash()
                await stage.begin()
                await stage.until(partial(reached, stage))
                died.append(death.moment)
        await stage.leave()
        assert stage.faults == [] and stage.left() == [], death.moment
        if not death.moment:
            break
    assert {"before run_pod_sandbox", "after stop_container", "after remove_pod_sandbox"} <= set(died)
    assert len(died) >= 26


@pytest.mark.parametrize("step", ENGINE_STEPS)
async def test_a_server_may_die_at_any_step_and_the_keeper_with_it(stage: StaticStage, step: str) -> None:
    await stage.begin()
    for act, reached in PHASES:
        crashes = stage.node.crashes
        stage.node.faults.add(Fault(on=step, crash="before", count=1))
        act(stage)
        await stage.until(partial(_crashed_or, crashes, reached, stage))
        if stage.node.crashes > crashes:
            await stage.kill()
            await stage.node.started()
            await stage.begin()
        await stage.until(partial(reached, stage))
    assert stage.node.crashes >= 1 and stage.faults == []


async def test_a_file_that_changes_while_nobody_looks_is_seen_by_the_next(stage: StaticStage) -> None:
    for image in (OLD, NEW, OLD):
        stage.write("web.yaml", pod(image=image))
        await stage.begin()
        await stage.until(partial(_runs, image, stage))
        await stage.kill()
    empty(stage)
    await stage.begin()
    await stage.until(lambda: not stage.left())


async def test_a_death_in_the_middle_of_an_end_lets_an_old_file_begin_anew(stage: StaticStage) -> None:
    tree = pod(image=OLD)
    tree["spec"]["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 20}}}
    stage.write("web.yaml", tree)
    await stage.begin()
    await stage.until(lambda: stage.running("web-n") == [OLD])
    edit(stage)
    await stage.until(lambda: any(one.reason == "Killing" for one in _events(stage)))
    await stage.kill()
    stage.write("web.yaml", tree)
    await stage.begin()
    await stage.until(lambda: bool(stage.pods) and stage.pods["web-n"].ready)
    assert stage.running("web-n") == [OLD]
    empty(stage)
    await stage.until(lambda: not stage.left())


def _dead_or(reached: Callable[[StaticStage], bool], stage: StaticStage) -> bool:
    return stage.dead or reached(stage)


def _crashed_or(before: int, reached: Callable[[StaticStage], bool], stage: StaticStage) -> bool:
    return stage.node.crashes > before or reached(stage)


def _runs(image: str, stage: StaticStage) -> bool:
    return stage.running("web-n") == [image]


def _events(stage: StaticStage) -> list[Event]:
    assert stage.keeper is not None
    workers = [slot.worker for slot, _ in stage.keeper._slots.values()]
    return [one for worker in workers if worker is not None for one in worker.events]
