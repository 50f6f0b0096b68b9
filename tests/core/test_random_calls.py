"""Random rows of calls, exits, crashes and waits, against a small model of the CRI's rules.

The model says of each call whether it succeeds, which error it raises otherwise, and what is listed then.
Where a call is cut off half-way it says what may have become of the objects, and learns what did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from podwright.errors import AlreadyExists, FailedPrecondition, NotFound
from podwright.wire import cri_pb2 as cri
from tests.core import invariants
from tests.core.client import Client
from tests.core.driving import DEEP, Run
from tests.core.points import idle
from tests.core.workloads import Ids, Workload

IS_CREATED, RUNS, HAS_EXITED = 0, 1, 2
SCENARIO = {"containers": [{"match": {"container": "stubborn"}, "ignore": ["SIGTERM"]}]}
PODS = st.sampled_from(["a", "b"])
CONTAINERS = st.sampled_from(["main", "stubborn"])
GRACE = st.sampled_from([0, 3])
POINTS = st.integers(0, 12)


@dataclass
class Pod:
    id: str
    ready: bool = True
    containers: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By name: id and state."""


Call = Callable[[Client], Awaitable[object]]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pods: dict[str, Pod] = {}
        self.forgotten: set[str] = set()
        """Ids of what was removed."""
        self.wanted: Call = _nothing
        self.left: set[tuple[str, str]] = set()
        """Pods and names of containers whose client went away."""
        self.exit_codes: dict[str, int] = {}
        self.run_ = Run(Workload("", self._act, scenario=SCENARIO))
        self.wait(self.run_.prepare())

    async def _act(self, client: Client, ids: Ids) -> None:
        await self.wanted(client)

    def wait(self, work: Awaitable[object]) -> object:
        return self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    def call(self, call: Call, expected: type[Exception] | None, *, parked: bool = False) -> None:
        """Carry it out: it succeeds, or raises what is `expected`; an object that is `parked` may be had."""
        self.wanted = call
        raised = self.wait(self.run_.act())
        self.wait(self.run_.settle())
        if expected is None or (parked and raised is None):
            assert raised is None, f"{raised!r}"
        else:
            assert isinstance(raised, expected), f"{raised!r} instead of {expected}"

    # What the rules say

    def _creating(self, pod: str, name: str) -> type[Exception] | None:
        known = self.pods.get(pod)
        if known is None:
            return NotFound
        if not known.ready:
            return FailedPrecondition
        return AlreadyExists if name in known.containers else None

    def _starting(self, pod: Pod, name: str) -> type[Exception] | None:
        return None if pod.ready and pod.containers[name][1] == IS_CREATED else FailedPrecondition

    def _one(self, pod: str, name: str) -> tuple[Pod, str] | None:
        known = self.pods.get(pod)
        return (known, known.containers[name][0]) if known and name in known.containers else None

    # Calls

    @rule(pod=PODS, shared_pid=st.booleans())
    def run_pod(self, pod: str, shared_pid: bool) -> None:
        expected = AlreadyExists if pod in self.pods else None
        self.call(lambda client: client.pod(pod, shared_pid=shared_pid), expected)
        self._learn(pod)

    @rule(pod=PODS, name=CONTAINERS)
    def create(self, pod: str, name: str) -> None:
        id = self.pods[pod].id if pod in self.pods else "f" * 64
        expected = self._creating(pod, name)
        # Of a sandbox that is lost meanwhile it was made before; one that is stopped has none any more.
        parked = (id, name) in self.left and expected is FailedPrecondition
        self.call(lambda client: client.create(id, name), expected, parked=parked)
        self._learn(pod)

    @rule(pod=PODS, name=CONTAINERS)
    def start(self, pod: str, name: str) -> None:
        if (one := self._one(pod, name)) is not None:
            expected = self._starting(one[0], name)
            self.call(lambda client: client.start(one[1]), expected)
            if expected is None:
                one[0].containers[name] = (one[1], RUNS)

    @rule(pod=PODS, name=CONTAINERS, grace=GRACE)
    def stop(self, pod: str, name: str, grace: int) -> None:
        if (one := self._one(pod, name)) is not None:
            self.call(lambda client: client.stop(one[1], grace), None)
            if one[0].containers[name][1] == RUNS:
                one[0].containers[name] = (one[1], HAS_EXITED)
                killed = grace == 0 or name == "stubborn"
                self.exit_codes[one[1]] = 137 if killed else 143

    @rule(pod=PODS, name=CONTAINERS)
    def remove(self, pod: str, name: str) -> None:
        if (one := self._one(pod, name)) is not None:
            self.call(lambda client: client.remove(one[1]), None)
            del one[0].containers[name]
            self.forgotten.add(one[1])

    @rule(pod=PODS)
    def stop_pod(self, pod: str) -> None:
        if (known := self.pods.get(pod)) is not None:
            self.call(lambda client: client.stop_pod(known.id), None)
            known.ready = False
            self.left -= {(known.id, name) for name in ("main", "stubborn")}
            known.containers = {name: (id, HAS_EXITED) for name, (id, _) in known.containers.items()}

    @rule(pod=PODS)
    def remove_pod(self, pod: str) -> None:
        if (known := self.pods.pop(pod, None)) is not None:
            self.call(lambda client: client.remove_pod(known.id), None)
            self.forgotten |= {known.id, *(id for id, _ in known.containers.values())}

    @rule(pod=PODS, name=CONTAINERS)
    def exec(self, pod: str, name: str) -> None:
        if (one := self._one(pod, name)) is not None:
            runs = one[0].containers[name][1] == RUNS
            self.call(lambda client: client.exec(one[1]), None if runs else FailedPrecondition)

    @rule(pod=PODS, name=CONTAINERS, limit=st.integers(1 << 25, 1 << 30))
    def update(self, pod: str, name: str, limit: int) -> None:
        if (one := self._one(pod, name)) is not None:
            self.call(lambda client: client.update(one[1], limit), None)
            status = self.wait(self.run_.node.status(one[1]))
            assert isinstance(status, cri.ContainerStatus)
            assert status.resources.linux.memory_limit_in_bytes == limit

    @precondition(lambda self: self.forgotten)
    @rule(data=st.data())
    def ask_for_what_is_gone(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.forgotten)))
        self.call(lambda client: client.start(id), NotFound)
        self.call(lambda client: client.stop(id), None)
        self.call(lambda client: client.remove(id), None)
        self.call(lambda client: client.stop_pod(id), None)

    # What happens by itself

    @rule(pod=PODS, name=CONTAINERS, code=st.integers(0, 3), down=st.booleans())
    def exits(self, pod: str, name: str, code: int, down: bool) -> None:
        """A program ends, while podwright runs or while it does not."""
        one = self._one(pod, name)
        if one is None or one[0].containers[name][1] != RUNS:
            return
        if down:
            self.run_.node.kill()
        self.run_.node.exit(one[1], code)
        if down:
            self.crash()
        self.wait(idle())
        one[0].containers[name] = (one[1], HAS_EXITED)
        self.exit_codes[one[1]] = code

    @rule(pod=PODS)
    def pause_ends(self, pod: str) -> None:
        if (known := self.pods.get(pod)) is not None and known.ready:
            self.run_.node.sandbox_ends(known.id)
            self.wait(idle())
            known.ready = False

    @rule(seconds=st.sampled_from([1, 60, 121]))
    def time_passes(self, seconds: int) -> None:
        self.wait(self.run_.node.clock.advance(seconds))

    @rule()
    def crash(self) -> None:
        async def crash() -> None:
            await self.run_.crash()
            await self.run_.restart()

        self.wait(crash())

    # Calls that are cut off

    @rule(pod=PODS, name=CONTAINERS, point=POINTS, crash=st.booleans(), what=st.integers(0, 5))
    def cut_off(self, pod: str, name: str, point: int, crash: bool, what: int) -> None:
        """The process dies, or the client goes away, in the middle of a call."""
        known, one = self.pods.get(pod), self._one(pod, name)
        call: Call
        if known is None:
            call = lambda client: client.pod(pod)  # noqa: E731
        elif one is None:
            if self._creating(pod, name) is not None:
                return
            call = lambda client: client.create(known.id, name)  # noqa: E731
            self.left.add((known.id, name))
        elif self._starting(known, name) is None and what == 0:
            call = lambda client: client.start(one[1])  # noqa: E731
        else:
            calls: list[Call] = [
                lambda client: client.stop(one[1]),
                lambda client: client.stop(one[1], 3),
                lambda client: client.remove(one[1]),
                lambda client: client.stop_pod(known.id),
                lambda client: client.remove_pod(known.id),
            ]
            call = calls[what % len(calls)]
        self.wanted = call

        async def cut() -> None:
            if crash:
                self.run_.crash_at(point)
                await self.run_.act()
                await self.run_.crash()
                await self.run_.restart()
            else:
                await self.run_.leave_at(point, return_at_once=False)
                await self.run_.settle()

        self.wait(cut())
        self._learn(pod)

    def _learn(self, pod: str) -> None:
        """What became of `pod`, by a call that may or may not have come to its end."""
        before = self.pods.pop(pod, None)
        sandboxes, containers = self._listed()
        for item in sandboxes:
            if item.metadata.name != pod:
                continue
            ready = item.state == cri.SANDBOX_READY
            assert before is None or (before.id == item.id and before.ready >= ready)
            found = self.pods[pod] = Pod(item.id, ready)
            for each in containers:
                if each.pod_sandbox_id == item.id:
                    found.containers[each.metadata.name] = (each.id, int(each.state))
            old = before.containers if before is not None else {}
            for name, (id, state) in found.containers.items():
                assert old.get(name, (id, IS_CREATED))[0] == id and state >= old.get(name, ("", 0))[1]
            self.forgotten |= {id for name, (id, _) in old.items() if name not in found.containers}
            return
        if before is not None:
            self.forgotten |= {before.id, *(id for id, _ in before.containers.values())}

    def _listed(self) -> tuple[list[cri.PodSandbox], list[cri.Container]]:
        async def both() -> tuple[list[cri.PodSandbox], list[cri.Container]]:
            runtime = self.run_.node.runtime
            sandboxes = await runtime.list_pod_sandbox(cri.ListPodSandboxRequest())
            containers = await runtime.list_containers(cri.ListContainersRequest())
            return list(sandboxes.items), list(containers.containers)

        return self.loop.run_until_complete(both())

    @invariant()
    def lists_say_what_the_rules_say(self) -> None:
        sandboxes, containers = self._listed()
        assert {each.id: each.state == cri.SANDBOX_READY for each in sandboxes} == {
            pod.id: pod.ready for pod in self.pods.values()
        }
        expected = dict(state for pod in self.pods.values() for state in pod.containers.values())
        assert {each.id: int(each.state) for each in containers} == expected
        for id, code in self.exit_codes.items():
            if expected.get(id) == HAS_EXITED:
                status = self.wait(self.run_.node.status(id))
                assert isinstance(status, cri.ContainerStatus) and status.exit_code == code

    @invariant()
    def everything_holds(self) -> None:
        self.wait(invariants.check(self.run_.node, self.run_.account, self.run_.watch))

    def teardown(self) -> None:
        async def end() -> None:
            await invariants.take_apart(self.run_.node, self.run_.client())
            await invariants.check(self.run_.node, self.run_.account, self.run_.watch)
            await self.run_.crash()

        try:
            self.wait(end())
        finally:
            self.loop.close()


async def _nothing(client: Client) -> None:
    pass


TestRandomCalls = Machine.TestCase
TestRandomCalls.settings = settings(
    max_examples=3000 if DEEP else 60,
    stateful_step_count=40,
    derandomize=not DEEP,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
