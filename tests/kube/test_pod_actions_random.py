"""What holds of the next actions for every pod, whatever happens to it: a node acts on them while containers
end, are lost and are removed at random.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.kube.rules.actions import Actions, compute
from podwright.wire import cri_pb2 as cri
from tests.kube.seen_pods import EXITED, UNKNOWN, Node, pod

ROUNDS = 40
"""More than any pod here needs to come to rest."""


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    policy = draw(st.sampled_from(["Always", "OnFailure", "Never"]))
    lines = [f"  restartPolicy: {policy}"]
    init = draw(
        st.lists(st.sampled_from(["", ", restartPolicy: Always", ", restartPolicy: Never"]), max_size=3)
    )
    if init:
        lines.append("  initContainers:")
        lines += [f"  - {{name: i{number}, image: 'i:1'{more}}}" for number, more in enumerate(init)]
    own = st.sampled_from(
        [
            "",
            ", restartPolicy: Never",
            ", restartPolicy: OnFailure",
            ", restartPolicy: Never, restartPolicyRules: "
            "[{action: Restart, exitCodes: {operator: In, values: [42]}}]",
            ", restartPolicy: Never, restartPolicyRules: "
            "[{action: RestartAllContainers, exitCodes: {operator: In, values: [43]}}]",
        ]
    )
    main = draw(st.lists(own, min_size=1, max_size=3))
    lines.append("  containers:")
    lines += [f"  - {{name: c{number}, image: 'i:1'{more}}}" for number, more in enumerate(main)]
    if draw(st.booleans()):
        lines.append("  ephemeralContainers: [{name: dbg, image: 'i:1'}]")
    return pod("\n".join(lines) + "\n")


class Machine:
    """A node that does what it is told, and checks that it may."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.node = Node(manifest)
        self.results = Results()
        self.made: Counter[str] = Counter()
        self.deleting = False

    def decide(self) -> Actions:
        actions = compute(self.manifest, self.node.seen, probes=self.results, deleting=self.deleting)
        again = compute(self.manifest, self.node.seen, probes=self.results, deleting=self.deleting)
        assert actions == again, "the same sight gives the same answer"
        return actions

    def round(self) -> bool:
        """Whether anything was done."""
        actions = self.decide()
        starts = [*actions.init, *actions.start, *actions.ephemeral]
        assert not (self.deleting and (starts or actions.create_sandbox)), "nothing starts in a deleted pod"
        assert not (actions.done and actions), "what is done needs nothing more"
        assert len(set(starts)) == len(starts)
        for one in actions.reset:
            assert one.running == self.is_running(one.container_id)
            self.node.without([one.container_id])
        if actions.kill_pod:
            self.kill_pod()
        for kill in actions.kill:
            assert self.is_running(kill.container_id), "only what may run is killed"
            self.node.end(kill.container_id, 137)
        self.node.without(actions.remove_init)
        if actions.create_sandbox:
            names = {one.name for one in self.manifest.init_containers}
            self.node.without([one.id for one in self.node.containers if one.name in names])
            self.node.sandbox(actions.sandbox_attempt)
        self.check_order(actions)
        for name in starts:
            self.start(name)
        return bool(actions)

    def kill_pod(self) -> None:
        for one in list(self.node.containers):
            if one.running or one.unknown:
                self.node.end(one.id, 137)
        for sandbox in self.node.sandboxes:
            sandbox.state = cri.SANDBOX_NOTREADY

    def start(self, name: str) -> None:
        assert not any(one.name == name and (one.running or one.unknown) for one in self.node.containers), (
            f"two attempts of {name} at a time"
        )
        self.node.container(name, attempt=self.made[name])
        self.made[name] += 1

    def check_order(self, actions: Actions) -> None:
        """Ordinary containers come after all init containers have done their work in this sandbox."""
        active = self.node.seen.active()
        if not actions.start or any(one.name.startswith("c") for one in active):
            return
        for container in self.manifest.init_containers[-1:]:
            newest = next((one for one in active if one.name == container.name), None)
            assert newest is not None
            assert newest.running if self.manifest.is_sidecar(container) else newest.exited

    def is_running(self, container_id: str) -> bool:
        one = self.node.seen.by_id(container_id)
        return one is not None and (one.running or one.unknown)

    def happen(self, event: tuple[str, int, int]) -> None:
        what, which, code = event
        running = [one for one in self.node.containers if one.running]
        if what == "sandbox lost":
            self.kill_pod()
        elif what == "deleted":
            self.deleting = True
        elif what == "removed":
            newest = {one.name: one.id for one in reversed(self.node.containers)}
            old = [one.id for one in self.node.containers if one.exited and one.id not in newest.values()]
            self.node.without(old[:which])
        elif running:
            one = running[which % len(running)]
            if what == "ends":
                self.node.end(one.id, code)
            elif what == "is lost":
                self.node.end(one.id, 255, UNKNOWN)
            else:
                self.results.set(Kind.LIVENESS, one.id, Outcome.FAILURE)

    def rest(self) -> None:
        for _ in range(ROUNDS):
            if not self.round():
                return
        raise AssertionError(f"the pod does not come to rest: {self.decide()}")


EVENTS = st.tuples(
    st.sampled_from(["ends", "ends", "ends", "is lost", "fails", "removed", "sandbox lost", "deleted"]),
    st.integers(0, 4),
    st.sampled_from([0, 0, 1, 42, 43]),
)


@settings(max_examples=200, deadline=None)
@given(manifests(), st.lists(EVENTS, max_size=14))
def test_whatever_happens_a_pod_is_carried_on_by_the_rules(
    manifest: Manifest, events: list[tuple[str, int, int]]
) -> None:
    machine = Machine(manifest)
    machine.rest()
    for event in events:
        machine.happen(event)
        machine.rest()
    if machine.deleting:
        assert machine.decide().done


@settings(max_examples=100, deadline=None)
@given(manifests(), st.lists(EVENTS, max_size=5))
def test_a_pod_whose_containers_succeed_comes_to_its_end_unless_it_always_restarts(
    manifest: Manifest, events: list[tuple[str, int, int]]
) -> None:
    machine = Machine(manifest)
    machine.rest()
    for event in events:
        machine.happen(event)
        machine.rest()
    for _ in range(ROUNDS):
        for one in list(machine.node.containers):
            if one.running and one.name not in [side.name for side in manifest.sidecars]:
                machine.node.end(one.id, 0)
        machine.rest()
        if machine.decide().done:
            break
    always = any(
        (one.restartPolicy or manifest.spec.restartPolicy) == "Always" for one in manifest.containers
    )
    assert machine.decide().done or (always and not machine.deleting)
    if machine.decide().done:
        assert not any(one.running for one in machine.node.containers), "sidecars are stopped as well"


def test_the_machine_would_notice_a_second_attempt() -> None:
    machine = Machine(pod("  containers: [{name: c0, image: 'i:1'}]\n"))
    machine.rest()
    with pytest.raises(AssertionError, match="two attempts of c0"):
        machine.start("c0")
    machine.node.end("c0-0", 1, EXITED)
    assert machine.round()
    assert [one.id for one in machine.node.containers if one.running] == ["c0-1"]
