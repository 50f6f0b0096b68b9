"""Phases, conditions and container states where the recordings have no case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    PodCondition,
    PodStatus,
)
from podwright.kube.node import Node as Machine
from podwright.kube.node import PodFacts
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.kube.requests.quantities import canonical
from podwright.kube.rules.restarts import count, crash_loop
from podwright.kube.state.phase import phase
from podwright.kube.state.status import Failed, Waiting, finished, pod_status
from podwright.wire import cri_pb2 as cri
from tests.kube.seen_pods import EXITED, SECOND, UNKNOWN, Node, containers, pod, simple

INIT = containers("init", field="initContainers")
SIDECAR = containers("side", field="initContainers", more=", restartPolicy: Always")


def state(text: str) -> ContainerStatus:
    """ "main running", "main exit 3", "main waiting", "main waiting after 3"."""
    name, what, *rest = text.split()
    last = None
    if what == "running":
        now = ContainerState(running=ContainerStateRunning())
    elif what == "exit":
        now = ContainerState(terminated=ContainerStateTerminated(exitCode=int(rest[0])))
    else:
        now = ContainerState(waiting=ContainerStateWaiting())
        if rest:
            last = ContainerState(terminated=ContainerStateTerminated(exitCode=int(rest[1])))
    return ContainerStatus(
        name=name, image="", imageID="", ready=False, restartCount=0, state=now, lastState=last,
        started=rest != ["starting"] and what == "running",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "states", "expected"),
    [
        (containers("a"), [], "Pending"),
        (containers("a"), ["a waiting"], "Pending"),
        (containers("a", "b"), ["a running", "b waiting"], "Pending"),
        (containers("a", "b"), ["a running", "b exit 1"], "Running"),
        (containers("a"), ["a exit 1"], "Running"),
        (containers("a"), ["a waiting after 1"], "Running"),
        ("  restartPolicy: OnFailure\n" + containers("a"), ["a exit 1"], "Running"),
        ("  restartPolicy: OnFailure\n" + containers("a"), ["a exit 0"], "Succeeded"),
        ("  restartPolicy: Never\n" + containers("a", "b"), ["a exit 0", "b exit 1"], "Failed"),
        ("  restartPolicy: Never\n" + containers("a", "b"), ["a exit 0", "b exit 0"], "Succeeded"),
        (containers("a", more=", restartPolicy: Never"), ["a exit 0"], "Succeeded"),
        (INIT + containers("a"), ["init running", "a waiting"], "Pending"),
        (INIT + containers("a"), ["init exit 1", "a waiting"], "Pending"),
        ("  restartPolicy: Never\n" + INIT + containers("a"), ["init exit 1", "a waiting"], "Failed"),
        (SIDECAR + containers("a"), ["side running starting", "a waiting"], "Pending"),
        (SIDECAR + containers("a"), ["side running starting", "a running"], "Running"),
        (SIDECAR + containers("a"), ["side exit 1", "a running"], "Running"),
        ("  restartPolicy: Never\n" + SIDECAR + containers("a"), ["side running", "a exit 0"], "Running"),
        ("  restartPolicy: Never\n" + SIDECAR + containers("a"), ["side exit 1", "a exit 0"], "Succeeded"),
    ],
)
def test_the_phase_follows_from_the_containers(spec: str, states: list[str], expected: str) -> None:
    assert phase(pod(spec), [state(one) for one in states], stopped_for_good=False) == expected


def test_a_pod_that_is_stopped_for_good_has_a_final_phase_whatever_its_policy() -> None:
    manifest = simple("Always")
    assert phase(manifest, [state("main exit 0")], stopped_for_good=True) == "Succeeded"
    assert phase(manifest, [state("main exit 9")], stopped_for_good=True) == "Failed"
    assert phase(manifest, [state("main running")], stopped_for_good=True) == "Running"
    static = replace(manifest, static=True)
    assert phase(static, [state("main exit 0")], stopped_for_good=True) == "Running"


def report(node: Node, /, previous: PodStatus | None = None, **more: Any) -> PodStatus:
    defaults: dict[str, Any] = {
        "waiting": {}, "probes": Results(), "node": Machine(ips=("192.0.2.1",)), "facts": PodFacts(),
        "now": 5 * SECOND, "deleting": False,
    }  # fmt: skip
    return pod_status(node.manifest, node.seen, previous=previous, **{**defaults, **more})


def main(status: PodStatus) -> ContainerStatus:
    assert status.containerStatuses is not None
    return status.containerStatuses[0]


def condition(status: PodStatus, kind: str) -> PodCondition:
    return next(one for one in status.conditions or [] if one.type == kind)


def test_a_container_waits_for_its_next_start_with_reason_and_message() -> None:
    node = Node(simple()).sandbox().container("main", EXITED, 7)
    status = main(report(node, waiting={"main": crash_loop(node.manifest, "main", 80)}))
    assert status.state is not None and status.state.waiting is not None
    assert status.state.waiting.reason == "CrashLoopBackOff"
    assert status.state.waiting.message == (
        "back-off 1m20s restarting failed container=main pod=p_default(u)"
    )
    assert status.lastState is not None and status.lastState.terminated is not None
    assert status.lastState.terminated.exitCode == 7


def test_a_reason_to_wait_does_not_count_for_what_will_not_be_started() -> None:
    node = Node(simple("Never")).sandbox().container("main", EXITED, 7)
    status = main(report(node, waiting={"main": Waiting("CrashLoopBackOff")}))
    assert status.state is not None and status.state.terminated is not None


def probed(*kinds: str) -> Manifest:
    probes = "".join(f", {kind}: {{tcpSocket: {{port: 80}}}}" for kind in kinds)
    return pod(containers("main", more=probes))


@pytest.mark.parametrize(
    ("outcomes", "started", "ready"),
    [
        ({}, False, False),
        ({Kind.STARTUP: Outcome.UNKNOWN, Kind.READINESS: Outcome.FAILURE}, False, False),
        ({Kind.STARTUP: Outcome.SUCCESS, Kind.READINESS: Outcome.FAILURE}, True, False),
        ({Kind.STARTUP: Outcome.SUCCESS, Kind.READINESS: Outcome.SUCCESS}, True, True),
    ],
)
def test_probes_decide_of_started_and_ready(
    outcomes: dict[Kind, Outcome], started: bool, ready: bool
) -> None:
    node = Node(probed("startupProbe", "readinessProbe")).sandbox().container("main")
    results = Results()
    for kind, outcome in outcomes.items():
        results.set(kind, "main-0", outcome)
    status = report(node, probes=results)
    assert (main(status).started, main(status).ready) == (started, ready)
    assert condition(status, "Ready").status == str(ready)


def test_while_a_pod_is_deleted_who_ran_counts_as_started_though_nobody_asks_any_more() -> None:
    node = Node(probed("startupProbe")).sandbox().container("main")
    assert main(report(node)).started is False
    assert main(report(node, deleting=True)).ready is True


def test_readiness_gates_keep_a_pod_from_being_ready() -> None:
    manifest = pod("  readinessGates: [{conditionType: example.test/gate}]\n" + containers("main"))
    node = Node(manifest).sandbox().container("main")
    ready = condition(report(node), "Ready")
    assert (ready.status, ready.reason) == ("False", "ReadinessGatesNotReady")
    assert ready.message == (
        'corresponding condition of pod readiness gate "example.test/gate" does not exist.'
    )
    gate = PodCondition(type="example.test/gate", status="False")
    ready = condition(report(node, PodStatus(conditions=[gate])), "Ready")
    assert ready.message == ('the status of pod readiness gate "example.test/gate" is not "True", but False')
    gate.status = "True"
    status = report(node, PodStatus(conditions=[gate]))
    assert condition(status, "Ready").status == "True"
    assert condition(status, "example.test/gate").status == "True", "it is somebody else's and stays"


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    node = Node(simple()).sandbox().container("main")
    first = report(node)
    second = report(node.end("main-0", 1), first, now=9 * SECOND)
    assert condition(second, "PodScheduled").lastTransitionTime == first.startTime
    before, after = (condition(one, "Ready").lastTransitionTime for one in (first, second))
    assert before is not None and after is not None and after > before
    assert second.startTime == first.startTime


def test_a_final_phase_stays_with_its_reason() -> None:
    node = Node(simple()).sandbox().container("main")
    failed = report(node, failed=Failed("DeadlineExceeded", "too long"))
    assert (failed.phase, failed.reason, failed.message) == ("Failed", "DeadlineExceeded", "too long")
    later = report(node.end("main-0", 0), failed)
    assert (later.phase, later.reason) == ("Failed", "DeadlineExceeded")


def test_a_pod_that_has_ended_keeps_its_addresses() -> None:
    node = Node(simple("Never")).sandbox().container("main")
    node.sandboxes[0].network.additional_ips.add(ip="fd00::2")
    before = report(node)
    assert [one.ip for one in before.podIPs or []] == ["10.0.0.2", "fd00::2"]
    node.sandboxes[0].state = cri.SANDBOX_NOTREADY
    after = report(node.end("main-0"), before)
    assert (after.phase, after.podIP, len(after.podIPs or [])) == ("Succeeded", "10.0.0.2", 2)
    assert report(node).podIP is None, "nobody knows it any more"


def test_a_container_that_vanished_while_it_ran_has_been_restarted() -> None:
    node = Node(simple()).sandbox().container("main")
    status = main(report(node.without(["main-0"]), report(Node(simple()).sandbox().container("main"))))
    assert status.restartCount == 1 and status.lastState is not None
    assert status.lastState.terminated is not None
    assert (status.lastState.terminated.exitCode, status.lastState.terminated.reason) == (
        137, "ContainerStatusUnknown",
    )  # fmt: skip


def test_a_container_that_the_runtime_lost_sight_of_has_ended_for_all_we_know() -> None:
    node = Node(simple()).sandbox().container("main")
    before = report(node)
    status = main(report(node.end("main-0", 255, UNKNOWN), before))
    assert status.state is not None and status.state.terminated is not None
    assert (status.state.terminated.exitCode, status.restartCount) == (137, 1)


def test_an_ended_container_that_was_removed_keeps_its_status() -> None:
    node = Node(simple("Never")).sandbox().container("main", EXITED, 3)
    before = report(node)
    status = main(report(node.without(["main-0"]), before))
    assert status.state is not None and status.state.terminated is not None
    assert status.state.terminated.exitCode == 3


def test_messages_of_runtime_and_program_are_told_together() -> None:
    node = Node(simple("Never")).sandbox().container("main", EXITED, 3)
    node.containers[0].status.message = "from the runtime"
    status = main(report(node, messages={"main-0": "from the program"}))
    assert status.state is not None and status.state.terminated is not None
    assert status.state.terminated.message == "from the runtime: from the program"
    assert status.containerID == "podwright://main-0" and status.imageID == "i@sha256:1"
    assert main(report(node, node=Machine(runtime_name="other"))).containerID == "other://main-0"


def test_the_last_status_leaves_nobody_running() -> None:
    node = Node(pod(INIT + containers("main"))).sandbox().container("init")
    last = finished(node.manifest, report(node, deleting=True))
    assert last.phase == "Failed" and last.initContainerStatuses is not None
    init = last.initContainerStatuses[0].state
    assert init is not None and init.terminated is not None
    assert init.terminated.reason == "ContainerStatusUnknown"
    waiting = main(last).state
    assert waiting is not None and waiting.waiting is not None, "it never had its time"


def test_a_pod_that_restarts_in_place_says_so() -> None:
    rule = (
        ", restartPolicy: Never, restartPolicyRules: "
        "[{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]"
    )
    node = Node(pod(containers("main", more=rule))).sandbox().container("main")
    assert condition(report(node), "AllContainersRestarting").status == "False"
    status = report(node.end("main-0", 42), report(node))
    assert condition(status, "AllContainersRestarting").reason == "RestartAllContainersStarted"
    gone = main(report(node.without(["main-0"]), status))
    assert gone.state is not None and gone.state.waiting is not None
    assert (gone.state.waiting.reason, gone.restartCount) == ("RestartingAllContainers", 1)


def test_of_a_pod_that_never_began_the_first_init_container_is_what_failed() -> None:
    spec = containers("one", "two", field="initContainers") + containers("main")
    last = finished(pod(spec), report(Node(pod(spec)).sandbox(), deleting=True))
    states = [one.state for one in last.initContainerStatuses or []]
    assert [one is not None and one.terminated is not None for one in states] == [True, False]


def test_a_pod_stays_initialized_while_a_sidecar_starts_again() -> None:
    node = Node(pod(SIDECAR + containers("main"))).sandbox().container("side", EXITED, 1)
    before = report(node)
    assert condition(before, "Initialized").message == "containers with incomplete status: [side]"
    status = report(node.container("main"))
    assert condition(status, "Initialized").status == "True"
    assert condition(status, "ContainersReady").message == "containers with unready status: [side]"


@pytest.mark.parametrize(
    ("said", "quota", "shares", "limit", "asked"),
    [
        ("cpu: 100m", 20_000, 204, "200m", "200m"),
        ("cpu: 1m", 1_000, 2, "1m", "1m"),
        ("cpu: 1m", 20_000, 204, "200m", "200m"),
        ("cpu: '2'", 150_000, 1536, "1500m", "1500m"),
        ("cpu: '2'", 0, 0, "2", "2"),
    ],
)
def test_a_running_container_tells_what_it_has_where_that_is_not_what_was_said(
    said: str, quota: int, shares: int, limit: str, asked: str
) -> None:
    resources = f", resources: {{limits: {{{said}, memory: 64Mi}}, requests: {{{said}}}}}"
    node = Node(pod(containers("main", more=resources))).sandbox().container("main")
    linux = node.containers[0].status.resources.linux
    linux.cpu_period, linux.cpu_quota, linux.cpu_shares = 100_000, quota, shares
    linux.memory_limit_in_bytes = 32 << 20
    found = main(report(node)).resources
    assert found is not None and found.limits is not None and found.requests is not None
    assert (found.limits["cpu"], found.requests["cpu"]) == (limit, asked)
    assert found.limits["memory"] == "32Mi"


@pytest.mark.parametrize(
    ("written", "canonical_form"),
    [
        ("0.5", "500m"), ("0.1", "100m"), ("1000m", "1"), ("1500m", "1500m"), ("2000", "2k"), ("0", "0"),
        ("1024Ki", "1Mi"), ("1536Mi", "1536Mi"), ("0.5Gi", "512Mi"), ("128M", "128M"), ("1e3", "1e3"),
        ("100Ki", "100Ki"), ("0.5Ki", "512"), (2, "2"), ("12582912", "12582912"), ("0.1n", "1n"),
    ],
)  # fmt: skip
def test_amounts_are_written_as_the_api_does(written: object, canonical_form: str) -> None:
    assert canonical(written) == canonical_form


def test_the_restart_count_goes_on_from_the_runtime_or_from_the_log_files() -> None:
    newest = Node(simple()).sandbox().container("main", EXITED, 1, attempt=4).seen.container("main")
    assert (count(newest, 9), count(None, 3), count(None, None)) == (5, 4, 0)
