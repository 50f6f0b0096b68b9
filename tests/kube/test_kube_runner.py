"""The order of a pod's life: sandbox, init containers, containers, restarts, stop, removal."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import PodwrightError
from podwright.kube import manifest
from podwright.kube.backoff import RestartDelays, restarts
from podwright.kube.outcome import PodOutcome
from podwright.kube.runner import PodRun, run_pods
from podwright.logs.lines import Line
from tests.kube.crumbs import CrumbCri

IMAGE = "example.test/web:1"


class Ear:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.lines: list[str] = []

    def event(self, pod: str, container: str, text: str) -> None:
        self.events.append(f"{container}: {text}")

    def output(self, pod: str, container: str, line: Line) -> None:
        self.lines.append(line.text.decode())


class Stage:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.cri = CrumbCri()
        self.cri.add_image(IMAGE)
        self.ear = Ear()
        self.slept: list[float] = []

    def pod(self, *programs: str, init: tuple[str, ...] = (), policy: str = "Never", **spec: Any) -> PodRun:
        def container(name: str, program: str) -> dict[str, Any]:
            return {"name": name, "image": IMAGE, "args": [program]}

        tree = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web"},
            "spec": {
                "restartPolicy": policy,
                "initContainers": [container(f"i{n}", one) for n, one in enumerate(init)],
                "containers": [container(f"c{n}", one) for n, one in enumerate(programs)],
                **spec,
            },
        }
        return self.run_of(manifest.from_dict(tree))

    def run_of(self, made: manifest.Manifest) -> PodRun:
        return PodRun(self.cri.api, made, self.root, reporter=self.ear, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def codes(outcome: PodOutcome) -> list[int | None]:
    return [one.exit_code for one in outcome.containers]


async def test_init_containers_end_one_by_one_before_containers_start_in_order(stage: Stage) -> None:
    outcome = await stage.pod("exit 0", "exit 0", init=("exit 0", "exit 0")).run()
    assert stage.cri.calls == [
        "run sandbox",
        "create i0:0",
        "start i0:0",
        "create i1:0",
        "start i1:0",
        "create c0:0",
        "start c0:0",
        "create c1:0",
        "start c1:0",
        "stop sandbox",
        "remove sandbox",
    ]
    assert (outcome.exit_code, outcome.error, codes(outcome)) == (0, "", [0, 0, 0, 0])
    assert not (stage.root / "pods").exists()


async def test_every_last_line_is_reported(stage: Stage) -> None:
    await stage.pod("exit 0", "exit 1", init=("exit 0",)).run()
    assert sorted(stage.ear.lines) == ["hello from c0:0", "hello from c1:0", "hello from i0:0"]


async def test_the_first_failure_in_the_manifests_order_is_the_exit_code(stage: Stage) -> None:
    outcome = await stage.pod("exit 0", "exit 7", "exit 3").run()
    assert (outcome.exit_code, codes(outcome)) == (7, [0, 7, 3])


async def test_a_failed_init_container_ends_the_pod(stage: Stage) -> None:
    outcome = await stage.pod("exit 0", init=("exit 4", "exit 0")).run()
    assert "create i1:0" not in stage.cri.calls and "create c0:0" not in stage.cri.calls
    assert (outcome.exit_code, codes(outcome)) == (4, [4, None, None])
    assert "init container 'i0' failed with exit code 4" in outcome.error
    assert stage.cri.calls[-2:] == ["stop sandbox", "remove sandbox"]


async def test_an_init_container_is_tried_again_until_it_succeeds(stage: Stage) -> None:
    outcome = await stage.pod("exit 0", init=("exit 1,exit 1,exit 0",), policy="OnFailure").run()
    assert [one for one in stage.cri.calls if "i0" in one] == [
        "create i0:0",
        "start i0:0",
        "create i0:1",
        "start i0:1",
        "remove i0:0",
        "create i0:2",
        "start i0:2",
        "remove i0:1",
    ]
    assert (outcome.exit_code, stage.slept, outcome.containers[0].restarts) == (0, [10.0], 2)


async def test_restarts_count_in_attempt_annotation_and_log_name(stage: Stage) -> None:
    outcome = await stage.pod("exit 1,exit 0", policy="OnFailure").run()
    config = stage.cri.configs["c0:1"]
    assert config.metadata.attempt == 1
    assert config.log_path == "c0/1.log"
    assert config.annotations["io.kubernetes.container.restartCount"] == "1"
    assert outcome.exit_code == 0
    assert stage.ear.lines == ["hello from c0:0", "hello from c0:1"]


async def test_back_off_doubles(stage: Stage) -> None:
    run = stage.pod("exit 1,exit 1,exit 1,exit 1,exit 1,run", policy="Always")
    task = asyncio.create_task(run.run())
    await stage.cri.called("start c0:5")
    run.stop()
    await task
    assert stage.slept == [10, 20, 40, 80]


async def test_a_pod_that_always_restarts_runs_until_it_is_stopped(stage: Stage) -> None:
    run = stage.pod("exit 0,run", "run", policy="Always", terminationGracePeriodSeconds=5)
    task = asyncio.create_task(run.run())
    await stage.cri.called("start c0:1")
    run.stop()
    outcome = await task
    stops = sorted(one for one in stage.cri.calls if one.startswith("stop c"))
    assert stops == ["stop c0:1 5", "stop c1:0 5"]
    assert (outcome.exit_code, codes(outcome), outcome.error) == (143, [143, 143], "")


async def test_kill_does_not_wait_for_the_grace_period(stage: Stage) -> None:
    run = stage.pod("deaf")
    task = asyncio.create_task(run.run())
    await stage.cri.called("start c0:0")
    run.stop()
    await stage.cri.called("stop c0:0 30")
    run.kill()
    outcome = await task
    assert "stop c0:0 0" in stage.cri.calls
    assert codes(outcome) == [137]


async def test_stop_during_the_back_off_does_not_wait_for_it(stage: Stage) -> None:
    run = stage.pod("exit 1", policy="Always")
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    run._sleep = sleep
    task = asyncio.create_task(run.run())
    await asleep.wait()
    run.stop()
    outcome = await task
    assert outcome.exit_code == 1 and stage.cri.calls[-1] == "remove sandbox"


async def test_stop_during_a_creation_waits_for_it_and_removes_what_it_made(stage: Stage) -> None:
    run = stage.pod("run")
    going, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: str) -> None:
        if call == "run sandbox":
            going.set()
            await go_on.wait()

    stage.cri.before = hold
    task = asyncio.create_task(run.run())
    await going.wait()
    run.stop()
    await asyncio.sleep(0)
    go_on.set()
    await task
    assert stage.cri.calls == ["run sandbox", "stop sandbox", "remove sandbox"]


async def test_cancellation_removes_everything(stage: Stage) -> None:
    task = asyncio.create_task(stage.pod("deaf").run())
    await stage.cri.called("start c0:0")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.cri.calls[-2:] == ["stop sandbox", "remove sandbox"]
    assert not (stage.root / "pods").exists()


async def test_the_deadline_ends_the_pod_as_a_failure(stage: Stage) -> None:
    outcome = await stage.pod("run", activeDeadlineSeconds=1).run()
    assert outcome.error == "DeadlineExceeded: it was active for 1 s"
    assert "stop c0:0 30" in stage.cri.calls


async def test_a_program_that_cannot_be_started_has_ended_with_128(stage: Stage) -> None:
    outcome = await stage.pod("unstartable", "exit 0").run()
    assert codes(outcome) == [128, 0]
    assert (outcome.containers[0].reason, outcome.containers[0].message) == ("StartError", "no such program")
    assert "c0: did not start: no such program" in stage.ear.events


async def test_a_container_that_cannot_be_created_ends_the_pod(stage: Stage) -> None:
    stage.cri.fail["create c1:0"] = PodwrightError("disk full")
    outcome = await stage.pod("run", "run").run()
    assert outcome.error == "container 'c1': disk full"
    assert "stop c0:0 30" in stage.cri.calls and stage.cri.calls[-1] == "remove sandbox"


async def test_a_restart_that_cannot_be_created_ends_the_pod(stage: Stage) -> None:
    stage.cri.fail["create c0:1"] = PodwrightError("disk full")
    outcome = await stage.pod("exit 3", "run", policy="Always").run()
    assert outcome.error == "container 'c0': disk full"
    assert (outcome.exit_code, stage.cri.calls[-1]) == (3, "remove sandbox")


async def test_a_stop_that_fails_is_told_and_the_sandbox_still_goes(stage: Stage) -> None:
    run = stage.pod("run")
    stage.cri.fail["stop c0:0 30"] = PodwrightError("no answer")
    task = asyncio.create_task(run.run())
    await stage.cri.called("start c0:0")
    run.stop()
    outcome = await task
    assert outcome.error == "no answer"
    assert stage.cri.calls[-2:] == ["stop sandbox", "remove sandbox"]
    assert not run.directory.path.exists()


async def test_keep_leaves_the_stopped_sandbox_and_its_logs(stage: Stage) -> None:
    run = stage.pod("exit 0")
    await run.run(keep=True)
    assert stage.cri.calls[-1] == "stop sandbox"
    assert run.directory.log("c0", 0).exists()
    await run.remove()
    assert not run.directory.path.exists()


async def test_detach_returns_when_all_are_started_and_stops_nothing(stage: Stage) -> None:
    outcome = await stage.pod("run", "run").run(detach=True)
    assert stage.cri.calls[-1] == "start c1:0"
    assert [one.id for one in outcome.containers] == ["c0:0", "c1:0"]
    assert sorted(stage.ear.lines) == ["hello from c0:0", "hello from c1:0"]


@pytest.mark.parametrize(
    ("policy", "present", "pulls", "error"),
    [
        ("IfNotPresent", True, 0, ""),
        ("IfNotPresent", False, 1, ""),
        ("Always", True, 1, ""),
        ("Never", True, 0, ""),
        ("Never", False, 0, "ErrImageNeverPull"),
    ],
)
async def test_pull_policies(stage: Stage, policy: str, present: bool, pulls: int, error: str) -> None:
    run = stage.pod("exit 0")
    run.manifest.containers[0].imagePullPolicy = policy
    if not present:
        stage.cri.images.clear()
    outcome = await run.run()
    assert stage.cri.calls.count(f"pull {IMAGE}") == pulls
    assert error in outcome.error and bool(error) == bool(outcome.error)


async def test_run_as_non_root_is_enforced_with_the_images_user(stage: Stage) -> None:
    outcome = await stage.pod("exit 0", securityContext={"runAsNonRoot": True}).run()
    assert "container has runAsNonRoot and image will run as root" in outcome.error
    assert outcome.exit_code == 1


async def test_several_pods_run_side_by_side(stage: Stage, tmp_path: Path) -> None:
    other = Stage(tmp_path / "other")
    outcomes = await run_pods([stage.pod("exit 0"), other.pod("exit 2")])
    assert [one.exit_code for one in outcomes] == [0, 2]


async def test_the_end_of_the_log_stands_in_for_a_termination_message(stage: Stage) -> None:
    run = stage.pod("exit 1")
    run.manifest.containers[0].terminationMessagePolicy = "FallbackToLogsOnError"
    assert (await run.run()).containers[0].message == "hello from c0:0"


@pytest.mark.parametrize(
    ("policy", "code", "init", "again"),
    [
        ("Always", 0, False, True),
        ("Always", 1, False, True),
        ("Always", 0, True, False),
        ("Always", 1, True, True),
        ("OnFailure", 0, False, False),
        ("OnFailure", 1, False, True),
        ("Never", 1, False, False),
        ("Never", 1, True, False),
    ],
)
def test_restart_policies(policy: str, code: int, init: bool, again: bool) -> None:
    assert restarts(policy, code, init=init) is again


@given(st.lists(st.floats(0, 599), min_size=2, max_size=30))
def test_delays_grow_to_the_limit_and_never_beyond(runs: list[float]) -> None:
    delay: float | None = None
    delays = [delay := RestartDelays().delay(delay, ran) for ran in runs]
    assert delays[:2] == [0, 10]
    assert delays == sorted(delays) and delays[-1] <= 300


def test_a_long_run_begins_anew() -> None:
    assert RestartDelays().delay(160, 599) == 300
    assert RestartDelays().delay(160, 600) == 0
