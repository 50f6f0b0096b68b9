"""A pod's life on the fake node: what is started again, what is tried again, how it ends, what another
process finds, and what whoever watches is told.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from podwright import errors
from podwright.engines.fake.values import Span
from podwright.errors import Unimplemented
from podwright.kube.life.outcome import PodOutcome
from podwright.kube.life.runner import PodRun, run_pods
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import VolumeMount
from podwright.kube.node import Node
from podwright.kube.state import records
from podwright.kube.state.pod_state import look
from podwright.logs.lines import Line
from podwright.testing import FakeNode, Fault
from podwright.wire import cri_pb2 as cri

IMAGE = "example.test/web:1"
FOREVER = "trap 'exit 0' TERM; echo up; sleep 10000 & wait"
DEAF = "trap '' TERM; echo up; sleep 10000 & wait; sleep 10000"


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
    """A fake node, and time that passes whenever there is nothing else to do."""

    def __init__(self, root: Path, fake: FakeNode) -> None:
        self.fake = fake
        self.node = Node(root=root / "node")
        self.ear = Ear()
        self.runs: list[PodRun] = []

    def pod(self, *programs: str, init: tuple[str, ...] = (), policy: str = "Never", **spec: Any) -> Manifest:
        def container(name: str, program: str) -> dict[str, Any]:
            return {"name": name, "image": IMAGE, "command": ["sh", "-c", program]}

        tree = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "uid": "web-uid"},
            "spec": {
                "restartPolicy": policy,
                "initContainers": [container(f"i{n}", one) for n, one in enumerate(init)],
                "containers": [container(f"c{n}", one) for n, one in enumerate(programs)],
                **spec,
            },
        }
        return manifest.from_dict(tree)

    def run(self, made: Manifest, runtime: Any = None) -> PodRun:
        run = PodRun(
            runtime or self.fake.cri, made, self.node, reporter=self.ear, clock=self.fake.world.clock
        )
        self.runs.append(run)
        return run

    def worker(self, made: Manifest) -> PodWorker:
        return PodWorker(self.fake.cri, made, self.node, clock=self.fake.world.clock)

    async def outcome(self, made: Manifest, **options: Any) -> PodOutcome:
        outcome: PodOutcome = await self.ended(asyncio.create_task(self.run(made).run(**options)))
        return outcome

    async def ended(self, task: asyncio.Task[Any]) -> Any:
        await self.until(task.done)
        return task.result()

    async def until(self, condition: Callable[[], bool], limit: float = 2000, step: float = 0.5) -> None:
        """Let time pass, in seconds, until `condition` holds."""
        passed = 0.0
        while not condition():
            for _ in range(10):
                await asyncio.sleep(0.001)
                if condition():
                    return
            assert passed < limit, (self.asked(), self.ear.events)
            await self.fake.advance(step)
            passed += step

    def asked(self) -> list[str]:
        """ "CreateContainer c0:1": what changed something, in order."""
        found, names = [], {}
        for call in self.fake.calls:
            request = call.request
            if call.rpc == "CreateContainer":
                name = f"{request.config.metadata.name}:{request.config.metadata.attempt}"
                if call.response is not None:
                    names[call.response.container_id] = name
            elif call.rpc in ("StartContainer", "StopContainer", "RemoveContainer"):
                name = names.get(request.container_id, request.container_id)
            elif call.rpc in ("RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "PullImage"):
                name = ""
            else:
                continue
            found.append(f"{call.rpc} {name}".strip())
        return found

    def started(self, name: str) -> Callable[[], bool]:
        return lambda: f"StartContainer {name}" in self.asked()


@asynccontextmanager
async def _stage(root: Path, scenario: dict[str, Any] | None = None) -> AsyncIterator[Stage]:
    images = {"items": [{"reference": IMAGE, "present": True, "config": {"Cmd": ["sh"]}}]}
    async with FakeNode({"images": images, **(scenario or {})}, root=root / "fake", seed=3) as fake:
        yield Stage(root, fake)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with _stage(tmp_path) as made:
        yield made


def codes(outcome: PodOutcome) -> list[int | None]:
    return [one.exit_code for one in outcome.containers]


async def test_init_containers_end_one_by_one_before_containers_start_in_order(stage: Stage) -> None:
    outcome = await stage.outcome(stage.pod("exit 0", "exit 0", init=("exit 0", "exit 0")))
    names = ("i0:0", "i1:0", "c0:0", "c1:0")
    made = [f"{call} {name}" for name in names for call in ("CreateContainer", "StartContainer")]
    assert stage.asked()[:10] == ["RunPodSandbox", *made, "StopPodSandbox"]
    assert sorted(stage.asked()[10:]) == [
        *sorted(f"RemoveContainer {one}" for one in names),
        "RemovePodSandbox",
    ]
    assert (outcome.exit_code, outcome.error, codes(outcome)) == (0, "", [0, 0, 0, 0])
    assert not list(stage.node.root.glob("*/*"))


async def test_every_last_line_is_reported(stage: Stage) -> None:
    await stage.outcome(stage.pod("echo c0; printf rest", "echo c1; exit 1", init=("echo i0",)))
    assert sorted(stage.ear.lines) == ["c0", "c1", "i0", "rest"]


async def test_the_output_of_attempts_comes_in_their_order(stage: Stage) -> None:
    program = "echo begin; echo end; exit 1"
    task = asyncio.create_task(stage.run(stage.pod(program, policy="Always")).run())
    await stage.until(stage.started("c0:3"))
    stage.runs[0].stop()
    await stage.ended(task)
    assert stage.ear.lines == ["begin", "end"] * 4


async def test_the_first_failure_in_the_manifests_order_is_the_exit_code(stage: Stage) -> None:
    outcome = await stage.outcome(stage.pod("exit 0", "exit 7", "exit 3"))
    assert (outcome.exit_code, codes(outcome)) == (7, [0, 7, 3])


async def test_a_failed_init_container_ends_the_pod(stage: Stage) -> None:
    outcome = await stage.outcome(stage.pod("exit 0", init=("exit 4", "exit 0")))
    assert not [one for one in stage.asked() if "i1" in one or "c0" in one]
    assert (outcome.exit_code, codes(outcome)) == (4, [4, None, None])
    assert "init container 'i0' failed with exit code 4" in outcome.error


async def test_only_the_newest_dead_attempt_is_kept(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod("exit 1", policy="Always")).run())
    await stage.until(stage.started("c0:3"))
    await stage.until(lambda: "RemoveContainer c0:2" in stage.asked())
    assert "RemoveContainer c0:3" not in stage.asked()
    directory = stage.runs[0].directory
    assert sorted(directory.kept_attempts("c0")) == [3]
    stage.runs[0].stop()
    await stage.ended(task)


async def test_the_back_off_doubles_after_a_restart_at_once(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod("exit 1", policy="Always")).run())
    await stage.until(stage.started("c0:5"))
    stage.runs[0].stop()
    await stage.ended(task)
    starts = [call.started / 1e9 for call in stage.fake.calls.of("StartContainer")]
    waits = [after - before for before, after in pairwise(starts)]
    assert [round(one / 10) * 10 for one in waits] == [0, 10, 20, 40, 80]


async def test_a_container_that_ran_for_long_begins_its_back_off_anew(stage: Stage) -> None:
    made = stage.pod("exit 1", policy="Always")
    made.containers[0].command = ["sh", "-c", "sleep 700; exit 1"]
    task = asyncio.create_task(stage.run(made).run())
    await stage.until(stage.started("c0:3"), 4000, 20)
    stage.runs[0].stop()
    await stage.ended(task)
    starts = [call.started / 1e9 for call in stage.fake.calls.of("StartContainer")]
    assert all(after - before < 765 for before, after in pairwise(starts))


async def test_a_pod_that_always_restarts_runs_until_it_is_stopped(stage: Stage) -> None:
    made = stage.pod("exit 0", FOREVER, policy="Always", terminationGracePeriodSeconds=5)
    task = asyncio.create_task(stage.run(made).run())
    await stage.until(lambda: stage.started("c0:1")() and "up" in stage.ear.lines)
    stage.runs[0].stop()
    outcome = await stage.ended(task)
    stops = stage.fake.calls.of("StopContainer")
    assert [call.request.timeout for call in stops] == [5]
    assert (outcome.exit_code, outcome.error) == (0, "")


async def test_kill_does_not_wait_for_the_grace_period(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod(DEAF)).run())
    await stage.until(lambda: "up" in stage.ear.lines)
    stage.runs[0].stop()
    await stage.until(lambda: "StopContainer c0:0" in stage.asked())
    before = stage.fake.world.clock.monotonic()
    stage.runs[0].kill()
    outcome = await stage.ended(task)
    assert stage.fake.world.clock.monotonic() - before < 10
    assert codes(outcome) == [137]


async def test_stop_during_the_back_off_does_not_wait_for_it(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod("exit 1", policy="Always")).run())
    await stage.until(stage.started("c0:4"))
    before = stage.fake.world.clock.monotonic()
    stage.runs[0].stop()
    outcome = await stage.ended(task)
    assert outcome.exit_code == 1 and stage.asked()[-1] == "RemovePodSandbox"
    assert stage.fake.world.clock.monotonic() - before < 10


async def test_stop_during_a_creation_waits_for_it_and_removes_what_it_made(stage: Stage) -> None:
    stage.fake.faults.add(Fault(on="RunPodSandbox", latency=Span(3), count=1))
    task = asyncio.create_task(stage.run(stage.pod(FOREVER)).run())
    await stage.until(lambda: "RunPodSandbox" in stage.asked())
    stage.runs[0].stop()
    await stage.ended(task)
    assert stage.asked() == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]


async def test_cancellation_removes_everything(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod(DEAF)).run())
    await stage.until(lambda: "up" in stage.ear.lines)
    task.cancel()
    await stage.until(task.done)
    assert task.cancelled()
    assert stage.asked()[-2:] == ["RemoveContainer c0:0", "RemovePodSandbox"]
    assert not list(stage.node.root.glob("*/*"))


async def test_the_deadline_ends_the_pod_as_a_failure(stage: Stage) -> None:
    outcome = await stage.outcome(stage.pod(FOREVER, activeDeadlineSeconds=3))
    assert outcome.error.startswith("DeadlineExceeded: Pod was active")
    assert "StopContainer c0:0" in stage.asked()


async def test_what_the_runtime_refuses_is_tried_again(stage: Stage) -> None:
    for on in ("RunPodSandbox", "CreateContainer", "StopPodSandbox", "RemoveContainer"):
        stage.fake.inject_error(on, errors.Unavailable("busy"), count=1)
    outcome = await stage.outcome(stage.pod("exit 3"), keep=True)
    assert (outcome.exit_code, outcome.error) == (3, "")
    assert [stage.asked().count(one) for one in ("RunPodSandbox", "StopPodSandbox")] == [2, 2]
    told = {(one.reason, one.message) for one in stage.runs[0].worker.events}  # type: ignore[union-attr]
    assert (
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: rpc error: code = Unavailable desc = busy",
    ) in told
    assert ("Failed", "Error: busy") in told


async def test_a_program_that_cannot_be_started_has_ended_with_128(tmp_path: Path) -> None:
    script = {"containers": [{"match": {"container": "c0"}, "start_error": "no such program"}]}
    async with _stage(tmp_path, script) as stage:
        outcome = await stage.outcome(stage.pod("x", "exit 0"))
        assert codes(outcome) == [128, 0]
        assert "c0: Error: no such program" in stage.ear.events


async def test_keep_leaves_the_stopped_sandbox_and_its_logs(stage: Stage) -> None:
    await stage.outcome(stage.pod("echo here"), keep=True)
    assert stage.asked()[-1] == "StopPodSandbox"
    assert b"here" in stage.runs[0].directory.log("c0", 0).read_bytes()
    await stage.runs[0].remove()
    assert not stage.runs[0].directory.path.exists()


async def test_detach_returns_when_all_are_started_and_stops_nothing(stage: Stage) -> None:
    outcome = await stage.outcome(stage.pod(FOREVER, FOREVER, init=("exit 0",)), detach=True)
    assert stage.asked()[-1] == "StartContainer c1:0"
    assert all(one.id for one in outcome.containers) and outcome.error == ""


async def test_detach_gives_up_what_cannot_be_started(stage: Stage) -> None:
    made = stage.pod("exit 0", FOREVER)
    made.containers[0].image, made.containers[0].imagePullPolicy = "example.test/none:1", "Never"
    outcome = await stage.outcome(made, detach=True)
    assert outcome.error.startswith("container 'c0': ErrImageNeverPull: ") and outcome.exit_code == 1
    assert stage.asked()[-1] == "RemovePodSandbox"


async def test_another_worker_takes_over_what_it_finds(stage: Stage) -> None:
    made = stage.pod(FOREVER, "exit 1", policy="Always", init=("exit 0",))
    first = stage.worker(made)
    life = asyncio.create_task(first.run())
    await stage.until(stage.started("c1:1"))
    life.cancel()
    await asyncio.wait({life})
    before = stage.asked()
    second = stage.worker(stage.pod(FOREVER, "exit 1", policy="Always", init=("exit 0",)))
    life = asyncio.create_task(second.run())
    await stage.until(stage.started("c1:2"))
    more = stage.asked()[len(before) :]
    assert not [one for one in more if "c0" in one or "i0" in one or "Sandbox" in one]
    assert {one.reason for one in second.events} >= {"Created", "Started"}
    assert (
        next(one for one in second.events if one.object.endswith("{c0}") and one.reason == "Started").count
        == 1
    )
    second.delete()
    await stage.ended(life)
    await second.remove()


async def test_a_pod_is_followed_on_a_runtime_that_tells_no_events(stage: Stage) -> None:
    class Mute:
        def __getattr__(self, name: str) -> Any:
            return getattr(stage.fake.cri, name)

        async def get_container_events(self, _: cri.GetEventsRequest) -> AsyncIterator[Any]:
            raise Unimplemented("no events")
            yield

    task = asyncio.create_task(stage.run(stage.pod("sleep 5; exit 2"), Mute()).run())
    outcome = await stage.ended(task)
    assert outcome.exit_code == 2
    assert stage.fake.world.clock.monotonic() < 15


async def test_an_end_before_events_are_told_is_seen(stage: Stage) -> None:
    class Late:
        def __getattr__(self, name: str) -> Any:
            return getattr(stage.fake.cri, name)

        async def get_container_events(self, request: cri.GetEventsRequest) -> AsyncIterator[Any]:
            await stage.fake.world.clock.sleep(1000)
            async for event in stage.fake.cri.get_container_events(request):
                yield event

    task = asyncio.create_task(stage.run(stage.pod("sleep 0.7; exit 2"), Late()).run())
    outcome = await stage.ended(task)
    assert outcome.exit_code == 2
    # Seconds later at most, not with the next resync.
    assert stage.fake.world.clock.monotonic() < 30


async def test_status_events_and_manifest_can_be_read_from_elsewhere(stage: Stage) -> None:
    worker = stage.worker(stage.pod(FOREVER))
    life = asyncio.create_task(worker.run())
    await stage.until(lambda: worker.status.phase == "Running" and worker.idle.is_set())
    directory = worker.directory
    assert records.read_status(directory) == worker.status
    assert [one.reason for one in records.read_events(directory)] == ["Pulled", "Created", "Started"]
    pod = records.read_manifest(directory)
    assert pod is not None and pod.metadata is not None and pod.metadata.name == "web"
    worker.delete()
    await stage.ended(life)
    assert records.read_events(directory)[-1].reason == "Killing"
    await worker.remove()


async def test_a_log_that_grows_is_rotated_and_read_to_its_end(stage: Stage) -> None:
    stage.node = Node(root=stage.node.root, container_log_max_size=2000, container_log_max_files=3)
    program = "for i in $(seq 60); do echo line $i; seq 100 110; sleep 1; done"
    await stage.outcome(stage.pod(program), keep=True)
    assert [one for one in stage.ear.lines if one.startswith("line")] == [f"line {n}" for n in range(1, 61)]
    logs = sorted(path.name for path in stage.runs[0].directory.logs("c0").iterdir())
    # At least; the pod may have ended in the middle of a rotation.
    assert logs[0] == "0.log" and 2 <= len(logs) <= 3 and logs[1].endswith(".gz")
    with gzip.open(stage.runs[0].directory.logs("c0") / logs[1]) as old:
        assert b"line" in old.read()
    await stage.runs[0].remove()


async def test_a_volume_follows_the_manifest_of_its_pod(stage: Stage) -> None:
    items = [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]
    volumes = [{"name": "v", "downwardAPI": {"items": items}}]

    def pod(label: str) -> Manifest:
        made = stage.pod(FOREVER, volumes=volumes)
        made.containers[0].volumeMounts = [VolumeMount(name="v", mountPath="/v")]
        assert made.pod.metadata is not None
        made.pod.metadata.labels = {"app": label}
        return made

    worker = stage.worker(pod("one"))
    life = asyncio.create_task(worker.run())
    await stage.until(lambda: worker.status.phase == "Running")
    worker.update(pod("two"))
    file = worker.directory.volume("downward-api", "v") / "app"
    await stage.until(lambda: file.read_text() == "two")
    seen = await look(stage.fake.cri, worker.manifest.uid)
    assert [one.attempt for one in seen.containers] == [0]
    worker.delete()
    await stage.ended(life)
    await worker.remove()


async def test_nothing_is_kept_of_attempts_that_are_gone(stage: Stage) -> None:
    stage.node = Node(root=stage.node.root, max_backoff=1)
    worker = stage.worker(stage.pod("exit 1", policy="Always"))
    life = asyncio.create_task(worker.run())

    def remembered() -> list[int]:
        pod = worker.pod
        return [len(one) for one in (pod.messages, pod.ended, pod.started, pod.actuated)]

    await stage.until(lambda: "StartContainer c0:30" in stage.asked())
    # The newest and the one before it; one more while that is being removed.
    assert all(1 <= count <= 3 for count in remembered()), remembered()
    worker.kill()
    await stage.ended(life)
    await worker.remove()


async def test_links_to_logs_that_are_gone_go_when_a_run_begins(stage: Stage, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    stage.node = Node(root=stage.node.root, legacy_logs=links)
    (links / "lost_default_c-0.log").symlink_to(stage.node.logs / "default_lost_uid/c/0.log")
    await stage.outcome(stage.pod("exit 0"), keep=True)
    assert [one.name.partition("-")[0] for one in links.iterdir()] == ["web_default_c0"]
    await stage.runs[0].remove()


async def test_several_pods_run_side_by_side(stage: Stage) -> None:
    one, two = stage.pod("exit 0"), stage.pod("exit 2")
    assert two.pod.metadata is not None
    two.pod.metadata.name, two.pod.metadata.uid = "other", "other-uid"
    outcomes = await stage.ended(asyncio.create_task(run_pods([stage.run(one), stage.run(two)])))
    assert [one.exit_code for one in outcomes] == [0, 2]


async def test_the_end_of_the_log_stands_in_for_a_termination_message(stage: Stage) -> None:
    made = stage.pod("echo last words; exit 1")
    made.containers[0].terminationMessagePolicy = "FallbackToLogsOnError"
    assert (await stage.outcome(made)).containers[0].message == "last words\n"


async def test_run_as_non_root_is_enforced_with_the_images_user(stage: Stage) -> None:
    task = asyncio.create_task(stage.run(stage.pod("exit 0", securityContext={"runAsNonRoot": True})).run())
    await stage.until(lambda: any("runAsNonRoot" in one for one in stage.ear.events))
    stage.runs[0].stop()
    outcome = await stage.ended(task)
    assert "container has runAsNonRoot and image will run as root" in outcome.error
    assert outcome.exit_code == 1
