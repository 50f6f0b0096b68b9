"""Probes over time: delays, periods, thresholds and who waits for whom, on a clock turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from podwright.clock import VirtualClock
from podwright.errors import DeadlineExceeded, PodwrightError
from podwright.kube.life.events import Recorder
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node as Machine
from podwright.kube.node import PodFacts
from podwright.kube.probes.prober import Prober
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.wire import cri_pb2 as cri
from tests.kube.seen_pods import RUNNING, Node, pod

GOOD, BAD = 0, 1
Answers = Callable[[str, int], int | None]


class Commands:
    """A runtime in which the commands of probes are run: the first word is the probe's name. None hangs."""

    def __init__(self, clock: VirtualClock, answers: Answers) -> None:
        self.clock = clock
        self.answers = answers
        self.asked: list[tuple[str, float]] = []
        """Names, with the seconds since the beginning."""
        self.under_way = 0

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        name = request.cmd[0]
        before = sum(one == name for one, _ in self.asked)
        self.asked.append((name, round(self.clock.monotonic(), 3)))
        code = self.answers(name, before)
        self.under_way += 1
        try:
            if code is None:
                async with self.clock.timeout(request.timeout):
                    await asyncio.Event().wait()
        except TimeoutError:
            raise DeadlineExceeded("too long") from None
        finally:
            self.under_way -= 1
        assert code is not None
        if code < 0:
            raise PodwrightError("cannot be run")
        return cri.ExecSyncResponse(exit_code=code, stdout=b"said\n")

    def at(self, name: str) -> list[float]:
        return [when for one, when in self.asked if one == name]


class Pod:
    """One pod whose containers are probed."""

    def __init__(self, manifest: Manifest, answers: Answers) -> None:
        self.clock = VirtualClock()
        self.node = Node(manifest).sandbox()
        self.runtime = Commands(self.clock, answers)
        self.results = Results()
        self.recorder = Recorder(self.clock)
        self.prober = Prober(
            manifest, self.runtime, Machine(), self.clock, self.results, self.recorder,  # type: ignore[arg-type]
        )  # fmt: skip

    def sync(self, *, deleting: bool = False) -> None:
        self.prober.sync(self.node.seen, PodFacts(ips=("10.0.0.2",)), deleting=deleting)

    def run(self, name: str = "main", attempt: int = 0) -> None:
        self.sync()
        self.node.container(name, RUNNING, attempt=attempt)
        self.sync()

    def found(self, kind: Kind, container_id: str = "main-0") -> Outcome | None:
        return self.results.get(kind, container_id)

    def events(self) -> list[tuple[str, str, int]]:
        return [(one.reason, one.message, one.count) for one in self.recorder.events]


@asynccontextmanager
async def probed(answers: Answers, field: str = "containers", **probes: str) -> AsyncIterator[Pod]:
    """A pod with one container; `probes`: "startup", "liveness", "readiness" to the fields of a probe."""
    lines = "".join(
        f", {kind}Probe: {{exec: {{command: [{kind}]}}, {more}}}" for kind, more in probes.items()
    )
    sidecar = ", restartPolicy: Always" if field == "initContainers" else ""
    other = "  containers: [{name: other, image: 'i:1'}]\n" if sidecar else ""
    one = Pod(pod(f"  {field}:\n  - {{name: main, image: 'i:1'{sidecar}{lines}}}\n{other}"), answers)
    try:
        yield one
    finally:
        await one.prober.close()
        assert one.runtime.under_way == 0, "nothing of a probe is left"


def always(code: int | None) -> Answers:
    return lambda _name, _before: code


async def test_a_probe_begins_after_its_delay_and_asks_each_period() -> None:
    async with probed(always(GOOD), liveness="initialDelaySeconds: 3, periodSeconds: 4") as one:
        one.run()
        assert one.found(Kind.LIVENESS) is Outcome.SUCCESS, "who lives is innocent until asked"
        await one.clock.advance(12)
    assert one.runtime.at("liveness") == [3, 7, 11]


async def test_without_numbers_the_apis_hold() -> None:
    async with probed(always(BAD), liveness="") as one:
        one.run()
        await one.clock.advance(19)
        assert one.found(Kind.LIVENESS) is Outcome.SUCCESS
        await one.clock.advance(1)
        assert one.found(Kind.LIVENESS) is Outcome.FAILURE
        await one.clock.advance(60)
    assert one.runtime.at("liveness") == [0, 10, 20], "what failed is asked no more"
    assert one.events() == [("Unhealthy", "Liveness probe failed: said\n", 3)]
    assert one.recorder.events[0].object.endswith("containers{main}")


async def test_thresholds_count_answers_in_a_row() -> None:
    answers = [BAD, BAD, GOOD, BAD, GOOD, GOOD, BAD, BAD, BAD]
    async with probed(
        lambda _, before: answers[before],
        readiness="periodSeconds: 1, successThreshold: 2, failureThreshold: 3",
    ) as one:
        one.run()
        assert one.found(Kind.READINESS) is Outcome.FAILURE
        history = []
        for _ in answers:
            await one.clock.advance(0.5)
            history.append(one.found(Kind.READINESS) is Outcome.SUCCESS)
            await one.clock.advance(0.5)
    assert history == [False, False, False, False, False, True, True, True, False]


async def test_the_startup_probe_goes_before_the_others() -> None:
    async with probed(
        lambda name, before: BAD if name == "startup" and before < 2 else GOOD,
        startup="periodSeconds: 2, failureThreshold: 5",
        liveness="periodSeconds: 3",
        readiness="periodSeconds: 10",
    ) as one:
        one.run()
        assert one.found(Kind.STARTUP) is Outcome.UNKNOWN
        await one.clock.advance(3.9)
        assert one.found(Kind.STARTUP) is Outcome.UNKNOWN and one.found(Kind.READINESS) is Outcome.FAILURE
        await one.clock.advance(3)
        assert one.found(Kind.STARTUP) is Outcome.SUCCESS
    assert one.runtime.at("startup") == [0, 2, 4], "once it has succeeded it is asked no more"
    assert one.runtime.at("readiness") == [4], "at once, not at its next beat"
    assert one.runtime.at("liveness") == [6]


async def test_a_startup_probe_that_fails_keeps_the_others_silent() -> None:
    async with probed(
        always(BAD), startup="periodSeconds: 1, failureThreshold: 2", readiness="periodSeconds: 1"
    ) as one:
        one.run()
        await one.clock.advance(9)
        assert one.found(Kind.STARTUP) is Outcome.FAILURE
    assert (one.runtime.at("startup"), one.runtime.at("readiness")) == ([0, 1], [])
    assert one.events() == [("Unhealthy", "Startup probe failed: said\n", 2)]


async def test_a_restarted_container_is_asked_anew() -> None:
    async with probed(always(BAD), liveness="periodSeconds: 1, failureThreshold: 1") as one:
        one.run()
        await one.clock.advance(0.5)
        assert one.found(Kind.LIVENESS) is Outcome.FAILURE
        one.node.end("main-0", 137)
        one.run(attempt=1)
        assert one.found(Kind.LIVENESS) is None, "nobody asks the old one"
        assert one.found(Kind.LIVENESS, "main-1") is Outcome.SUCCESS
        await one.clock.advance(0.1)
        assert one.found(Kind.LIVENESS, "main-1") is Outcome.FAILURE


async def test_a_probe_that_hangs_fails_after_its_time_and_misses_beats() -> None:
    async with probed(
        always(None), liveness="periodSeconds: 1, timeoutSeconds: 3, failureThreshold: 2"
    ) as one:
        one.run()
        await one.clock.advance(20)
        assert one.found(Kind.LIVENESS) is Outcome.FAILURE
    assert one.runtime.at("liveness") == [0, 4]
    text = 'Liveness probe failed: command timed out: "liveness" timed out after 3s'
    assert one.events() == [("Unhealthy", text, 2)]


async def test_a_probe_under_way_ends_with_its_container() -> None:
    async with probed(always(None), readiness="timeoutSeconds: 1000") as one:
        one.run()
        await one.clock.advance(1)
        assert one.runtime.under_way == 1
        one.node.end("main-0")
        one.sync()
        await one.clock.advance(1)
        assert one.runtime.under_way == 0
        assert one.found(Kind.READINESS) is None
    assert one.events() == [], "it was not the container that failed"


async def test_what_cannot_be_asked_counts_for_nothing() -> None:
    async with probed(always(-1), liveness="periodSeconds: 1, failureThreshold: 1") as one:
        one.run()
        await one.clock.advance(2)
        assert one.found(Kind.LIVENESS) is Outcome.SUCCESS
    text = (
        "Liveness probe errored and resulted in unknown state: rpc error: code = Unknown desc = cannot be run"
    )
    assert one.events() == [("Unhealthy", text, 3)]


async def test_of_a_pod_that_is_deleted_only_readiness_is_asked() -> None:
    every = "periodSeconds: 1"
    async with probed(always(GOOD), startup=every, liveness=every, readiness=every) as one:
        one.run()
        await one.clock.advance(1.5)
        one.sync(deleting=True)
        assert [one.found(kind) for kind in Kind] == [None, None, Outcome.SUCCESS]
        asked = len(one.runtime.asked)
        await one.clock.advance(2)
        assert {name for name, _ in one.runtime.asked[asked:]} == {"readiness"}


async def test_sidecars_are_probed_as_well() -> None:
    async with probed(always(GOOD), "initContainers", startup="periodSeconds: 1") as one:
        one.run()
        await one.clock.advance(1)
        assert one.found(Kind.STARTUP) is Outcome.SUCCESS


async def test_a_container_that_ran_before_we_came_has_its_delay_behind_it() -> None:
    async with probed(always(GOOD), liveness="initialDelaySeconds: 60") as one:
        one.node.container("main")
        one.node.containers[0].status.started_at = one.clock.now() - 55 * 10**9
        one.sync()
        await one.clock.advance(6)
    assert one.runtime.at("liveness") == [5]


async def test_every_change_wakes_who_waits_and_a_repetition_does_not() -> None:
    async with probed(always(GOOD), readiness="periodSeconds: 1") as one:
        one.run()
        one.results.changed.clear()
        await one.clock.advance(0.5)
        assert one.results.changed.is_set()
        one.results.changed.clear()
        await one.clock.advance(5)
        assert not one.results.changed.is_set()
    assert len(one.runtime.asked) == 6
