"""What is to be done next for a pod: the kubelet's rules, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import ResourceRequirements
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.kube.rules.actions import Actions, compute
from podwright.wire import cri_pb2 as cri
from tests.kube.seen_pods import CREATED, EXITED, RUNNING, UNKNOWN, Node, containers, pod, simple

TWO_INITS = containers("one", "two", field="initContainers") + containers("main")
SIDECARS = containers("log", "proxy", field="initContainers", more=", restartPolicy: Always") + containers(
    "main"
)


def decide(node: Node, probes: Results | None = None, **more: Any) -> Actions:
    return compute(node.manifest, node.seen, probes=probes or Results(), **more)


def found(kind: Kind, container_id: str, outcome: Outcome = Outcome.FAILURE) -> Results:
    results = Results()
    results.set(kind, container_id, outcome)
    return results


def killed(actions: Actions) -> list[tuple[str, str]]:
    return [(one.container_id, one.message) for one in actions.kill]


def test_a_new_pod_gets_a_sandbox_and_all_its_containers() -> None:
    actions = decide(Node(simple("Always", "b", "a")))
    assert actions.create_sandbox and not actions.kill_pod
    assert (actions.sandbox_attempt, actions.sandbox_id) == (0, "")
    assert actions.start == ["b", "a"]


def test_of_a_new_pod_with_init_containers_only_the_first_is_started() -> None:
    actions = decide(Node(pod(TWO_INITS)))
    assert actions.create_sandbox and (actions.init, actions.start) == (["one"], [])


def test_a_running_pod_is_left_alone() -> None:
    assert not decide(Node(simple()).sandbox().container("main"))


@pytest.mark.parametrize(
    ("node", "attempt", "replaced"),
    [
        (Node(simple()).sandbox(ready=False), 1, "sandbox-0"),
        (Node(simple()).sandbox().sandbox(1), 2, "sandbox-1"),
        (Node(simple()).sandbox(ip=""), 1, "sandbox-0"),
        (Node(simple()).sandbox(host=True), 1, ""),
        (Node(pod("  hostNetwork: true\n" + containers("main"))).sandbox(), 1, ""),
    ],
    ids=["not ready", "two ready", "no address", "on the host", "not on the host"],
)
def test_a_sandbox_that_does_not_fit_is_replaced(node: Node, attempt: int, replaced: str) -> None:
    actions = decide(node.container("main"))
    assert actions.kill_pod and actions.create_sandbox
    assert (actions.sandbox_attempt, actions.sandbox_id) == (attempt, replaced)
    assert actions.start == ["main"]


def test_on_the_hosts_network_no_address_is_needed() -> None:
    node = Node(pod("  hostNetwork: true\n" + containers("main"))).sandbox(ip="", host=True)
    assert not decide(node.container("main"))


def test_a_lost_sandbox_of_a_pod_that_never_restarts_is_its_end() -> None:
    node = Node(simple("Never")).sandbox(ready=False).container("main", EXITED, 137)
    assert decide(node).done
    node = Node(simple("Never")).sandbox(ready=False)
    assert decide(node).create_sandbox, "nothing was ever made in it"


def test_what_succeeded_is_not_made_again_in_a_new_sandbox() -> None:
    node = Node(simple("OnFailure", "a", "b")).sandbox(ready=False)
    node.container("a", EXITED, 0).container("b", EXITED, 1)
    assert decide(node).start == ["b"]
    assert decide(node.end("b-0", 0)).done


def test_init_containers_run_one_after_the_other() -> None:
    node = Node(pod(TWO_INITS)).sandbox()
    assert decide(node).init == ["one"]
    assert not decide(node.container("one"))
    assert decide(node.end("one-0")).init == ["two"]
    node.container("two")
    actions = decide(node.end("two-0"))
    assert (actions.init, actions.start) == ([], ["main"])


def test_an_init_container_that_was_removed_is_not_run_again() -> None:
    node = Node(pod(TWO_INITS)).sandbox().container("two", EXITED)
    assert decide(node).start == ["main"]
    assert not decide(node.container("main").without(["two-0"]))


def test_the_init_containers_of_another_sandbox_do_not_make_the_pod_initialized() -> None:
    node = Node(pod(TWO_INITS)).sandbox(ready=False).container("main", EXITED, 137).sandbox(1)
    assert decide(node).init == ["one"]


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 1, True), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_a_failed_init_container_is_run_again_unless_the_pod_never_restarts(
    policy: str, code: int, again: bool
) -> None:
    node = Node(pod(f"  restartPolicy: {policy}\n" + TWO_INITS)).sandbox().container("one", EXITED, code)
    actions = decide(node)
    assert (actions.init == ["one"], actions.kill_pod) == (again, not again)


def test_a_pod_that_failed_to_initialize_starts_nothing_any_more() -> None:
    debug = containers("dbg", field="ephemeralContainers")
    node = Node(pod("  restartPolicy: Never\n" + TWO_INITS + debug)).sandbox().container("one", EXITED, 1)
    actions = decide(node)
    assert actions.kill_pod and not (actions.ephemeral or actions.done)


def test_what_init_containers_did_is_the_past_once_the_others_run() -> None:
    node = Node(pod(TWO_INITS)).sandbox().container("one", EXITED, 1).container("two", UNKNOWN)
    assert not decide(node.container("main"))


def test_an_init_container_out_of_memory_has_failed_whatever_its_code() -> None:
    node = Node(pod(TWO_INITS)).sandbox().container("one", EXITED, 0, reason="OOMKilled")
    assert decide(node).init == ["one"]


def test_replaced_attempts_of_init_containers_are_removed() -> None:
    node = Node(pod(TWO_INITS)).sandbox().container("one", EXITED, 1)
    node.container("one", EXITED, 1, attempt=1).container("one", attempt=2)
    assert decide(node).remove_init == ["one-0"], "the newest that ended stays for its log"


def test_a_sidecar_lets_the_next_start_when_its_startup_probe_has_succeeded() -> None:
    probe = ", restartPolicy: Always, startupProbe: {tcpSocket: {port: 80}}"
    manifest = pod(containers("log", field="initContainers", more=probe) + containers("main"))
    node = Node(manifest).sandbox()
    assert decide(node).init == ["log"]
    node.container("log")
    assert not decide(node), "nothing is known yet"
    assert not decide(node, found(Kind.STARTUP, "log-0", Outcome.UNKNOWN))
    assert decide(node, found(Kind.STARTUP, "log-0", Outcome.SUCCESS)).start == ["main"]
    actions = decide(node, found(Kind.STARTUP, "log-0"))
    assert killed(actions) == [("log-0", "Init container log failed startup probe")]
    assert (actions.init, actions.start) == (["log"], [])


def test_sidecars_come_up_in_order_and_are_started_again_beside_the_others() -> None:
    node = Node(pod(SIDECARS)).sandbox().container("log")
    assert decide(node).init == ["proxy"]
    node.container("proxy")
    assert decide(node).start == ["main"]
    node.container("main")
    actions = decide(node.end("log-0").end("proxy-0", 3))
    assert (actions.init, actions.start, actions.kill_pod) == (["log", "proxy"], [], False)


def test_a_sidecar_whose_liveness_probe_fails_is_started_again() -> None:
    more = ", restartPolicy: Always, livenessProbe: {tcpSocket: {port: 80}}"
    manifest = pod(containers("log", field="initContainers", more=more) + containers("main"))
    node = Node(manifest).sandbox().container("log").container("main")
    actions = decide(node, found(Kind.LIVENESS, "log-0"))
    assert killed(actions) == [("log-0", "Init container log failed liveness probe")]
    assert (actions.init, actions.kill[0].reason) == (["log"], "LivenessProbe")


def test_sidecars_do_not_keep_a_pod_alive_whose_work_is_done() -> None:
    node = Node(pod("  restartPolicy: Never\n" + SIDECARS)).sandbox()
    node.container("log").container("proxy", EXITED, 1).container("main")
    assert decide(node).init == ["proxy"]
    actions = decide(node.end("main-0"))
    assert actions.kill_pod and not (actions.init or actions.create_sandbox or actions.done)


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True),
        ("Never", 0, False), ("Never", 1, False),
    ],
)  # fmt: skip
def test_the_pods_policy_decides_of_containers_that_ended(policy: str, code: int, again: bool) -> None:
    actions = decide(Node(simple(policy)).sandbox().container("main", EXITED, code))
    assert (actions.start == ["main"], actions.kill_pod) == (again, not again)


RULES = (
    "  - {name: main, image: 'i:1', restartPolicy: %s, restartPolicyRules: "
    "[{action: Restart, exitCodes: {operator: %s, values: [42, 43]}}]}\n"
)


@pytest.mark.parametrize(
    ("own", "operator", "code", "again"),
    [
        ("Never", "In", 42, True), ("Never", "In", 5, False), ("Never", "NotIn", 5, True),
        ("Never", "NotIn", 43, False), ("OnFailure", "In", 5, True), ("OnFailure", "In", 0, False),
    ],
)  # fmt: skip
def test_rules_come_before_the_containers_policy_and_that_before_the_pods(
    own: str, operator: str, code: int, again: bool
) -> None:
    manifest = pod("  restartPolicy: Never\n  containers:\n" + RULES % (own, operator))
    actions = decide(Node(manifest).sandbox().container("main", EXITED, code))
    assert (actions.start == ["main"]) is again


def test_the_first_rule_that_fits_may_restart_the_whole_pod() -> None:
    manifest = pod(
        containers("init", field="initContainers") + "  containers:\n"
        + (RULES % ("Never", "In")).replace("action: Restart,", "action: RestartAllContainers,")
        + "  - {name: other, image: 'i:1'}\n"
    )  # fmt: skip
    node = Node(manifest).sandbox().container("init", EXITED).container("main").container("other")
    actions = decide(node.end("main-0", 42))
    assert [(one.container_id, one.running) for one in actions.reset] == [
        ("other-0", True), ("init-0", False), ("main-0", False),
    ]  # fmt: skip
    assert not (actions.start or actions.kill_pod)
    assert decide(node.without(["other-0"])).reset, "half done is done to the end"
    assert decide(node.without(["init-0", "main-0"])).init == ["init"]


def test_a_changed_definition_restarts_whatever_the_policy() -> None:
    actions = decide(Node(simple("Never")).sandbox().container("main", hash="0"))
    assert killed(actions) == [("main-0", "Container main definition changed, will be restarted")]
    assert actions.start == ["main"]


@pytest.mark.parametrize("kind", [Kind.LIVENESS, Kind.STARTUP])
def test_a_container_that_failed_its_probe_is_killed_and_started_again(kind: Kind) -> None:
    node = Node(simple("Always", "main", "other")).sandbox().container("main").container("other")
    actions = decide(node, found(kind, "main-0"))
    word = kind.value.lower()
    assert killed(actions) == [("main-0", f"Container main failed {word} probe, will be restarted")]
    assert (actions.start, actions.kill[0].reason) == (["main"], f"{kind.value}Probe")


def test_a_container_that_is_never_restarted_is_only_killed_by_its_probe() -> None:
    node = Node(simple("Never", "main", "other")).sandbox().container("main").container("other")
    actions = decide(node, found(Kind.LIVENESS, "main-0"))
    assert killed(actions) == [("main-0", "Container main failed liveness probe")]
    assert not actions.start and not actions.kill[0].restart
    assert decide(Node(simple("Never")).sandbox().container("main"), found(Kind.LIVENESS, "main-0")).kill_pod


def test_a_probes_answer_of_an_earlier_attempt_means_nothing() -> None:
    node = Node(simple()).sandbox().container("main", EXITED, 1).container("main", attempt=1)
    assert not decide(node, found(Kind.LIVENESS, "main-0"))


def test_a_container_that_was_made_and_not_started_is_made_again() -> None:
    assert decide(Node(simple("Never")).sandbox().container("main", CREATED)).start == ["main"]


def test_a_container_that_the_runtime_lost_sight_of_is_killed_before_another_is_made() -> None:
    actions = decide(Node(simple()).sandbox().container("main", UNKNOWN, 255))
    assert killed(actions) == [("main-0", 'Container is in "unknown" state, try killing it before restart')]
    assert (actions.start, actions.kill[0].reason) == (["main"], "Unknown")


def test_ephemeral_containers_are_started_once_also_while_the_pod_initializes() -> None:
    debug = containers("dbg", field="ephemeralContainers")
    node = Node(pod(TWO_INITS + debug)).sandbox().container("one")
    assert decide(node).ephemeral == ["dbg"]
    assert not decide(node.container("dbg", EXITED, 1)).ephemeral


def limited(memory: str, policy: str = "") -> Manifest:
    resources = f"resources: {{limits: {{cpu: 100m, memory: {memory}}}, requests: {{cpu: 100m}}}}"
    return pod(f"  containers:\n  - {{name: main, image: 'i:1', {resources}{policy}}}\n")


@pytest.mark.parametrize(
    ("policy", "in_place"),
    [
        ("", True),
        (", resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]", True),
        (", resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]", False),
    ],
)
def test_other_resources_are_given_in_place_unless_the_policy_wants_a_restart(
    policy: str, in_place: bool
) -> None:
    node = Node(limited("64Mi", policy)).sandbox().container("main")
    before = limited("32Mi").containers[0].resources or ResourceRequirements()
    actions = decide(node, actuated={"main-0": before})
    if in_place:
        assert [(one.container_id, one.resources) for one in actions.update] == [("main-0", ("memory",))]
        assert not (actions.kill or actions.start)
    else:
        assert killed(actions) == [("main-0", "Container main resize requires restart")]
        assert (actions.start, actions.update) == (["main"], [])


def test_equal_amounts_written_differently_are_no_resize() -> None:
    node = Node(limited("64Mi")).sandbox().container("main")
    before = limited("65536Ki").containers[0].resources or ResourceRequirements()
    assert not decide(node, actuated={"main-0": before})
    assert not decide(node), "nobody knows what it was made with"


@pytest.mark.parametrize("why", [{"deleting": True}, {"ended": True}], ids=str)
def test_a_pod_that_ends_is_stopped_and_nothing_starts(why: dict[str, Any]) -> None:
    debug = containers("dbg", field="ephemeralContainers")
    node = Node(pod(SIDECARS + debug)).sandbox().container("log").container("main", RUNNING)
    actions = decide(node, **why)
    assert actions.kill_pod and not (actions.init or actions.ephemeral or actions.start or actions.done)
    node.end("log-0", 137).end("main-0", 0)
    assert decide(node, **why).kill_pod, "the sandbox is left"
    node.sandboxes[0].state = cri.SANDBOX_NOTREADY
    assert decide(node, **why).done
    assert decide(Node(simple()), **why).done, "there never was anything"
