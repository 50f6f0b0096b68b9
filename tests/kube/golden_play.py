"""A recorded case played on a stage, with a runtime that is real or not: what was asked of the runtime, in
order and word for word, what was told, and what status the pod came to, beside the recording.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from tests.kube import golden
from tests.kube.golden_words import COLLECTED

NO_API = "without an API server a kubelet does not know its node's addresses"
EVERYWHERE: Mapping[str, Mapping[str, str]] = {
    "pull-latest": {"containerStatuses.image": "which name of an image is told is the runtime's affair"},
    "seccomp-default-node": {"hostIP": NO_API},
    "static-critical": {"hostIP": NO_API, "podIP": NO_API},
    "static-pod": {"hostIP": NO_API},
    "static-volumes": {"hostIP": NO_API},
}
"""Places of the status that differ on every runtime, and why."""
RACE = "the kubelet's cache of objects was empty at its first look; here there is no such moment"
OWN_WORDS = "the runtime's own words"
TOLD_EVERYWHERE: Mapping[tuple[str, str], str] = {
    ("configmap-volume-missing", 'object "default"/"cvm-nope" not registered'): RACE,
    ("runtime-class-unknown", "Failed to create pod sandbox: rpc error: code = "): OWN_WORDS,
}
"""Events that differ on every runtime, by a part of their message, and why."""


class Stage(Protocol):
    """Where a case plays, its pod's worker running as `life`."""

    @property
    def case(self) -> str: ...
    @property
    def worker(self) -> PodWorker: ...
    @property
    def life(self) -> asyncio.Task[Any]: ...

    async def until(self, condition: Callable[[], bool], /) -> bool:
        """Let time pass until it holds; whether it does in the end."""
        ...

    async def lose_sandbox(self) -> None:
        """Somebody else stops it."""
        ...

    def manifest(self, *steps: str) -> Manifest: ...
    def calls(self) -> list[dict[str, Any]]: ...
    def events(self) -> list[tuple[str, str, str, str]]: ...
    def status(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Differences:
    """Of a kind of stage."""

    status: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By case: places in the status, and why."""
    events: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By case and a part of the message: why."""
    images_without_users: tuple[str, ...] = ()
    """Users of their containers are not compared."""
    ends: bool = True
    """What is left after the deletion is compared: programs end there as those of the recordings."""

    def alike(self, case: str, status: dict[str, Any]) -> dict[str, Any]:
        """The status without what differs on purpose."""
        found = copy.deepcopy(status)
        for one in [*found.get("containerStatuses", []), *found.get("initContainerStatuses", [])]:
            if one.get("image") in self.images_without_users:
                one.pop("user", None)
        for place in {**EVERYWHERE.get(case, {}), **self.status.get(case, {})}:
            _cut(found, place.split("."))
        return found

    def comparable(
        self, case: str, events: list[tuple[str, str, str, str]]
    ) -> list[tuple[str, str, str, str]]:
        """Without what differs on purpose."""
        different = [words for name, words in {**TOLD_EVERYWHERE, **self.events} if name == case]
        return sorted_kills([one for one in events if not any(words in one[3] for words in different)])


async def play(
    stage: Stage, differences: Differences, settled: Callable[[], Awaitable[None]] | None = None
) -> None:
    """The whole case, and all of it removed; `settled` is awaited before the pod is deleted."""
    truth = golden.status(stage.case)
    told = differences.comparable(
        stage.case,
        [(one["type"], one["reason"], one.get("object", ""), one["message"]) for one in truth["events"]],
    )
    seen: list[dict[str, Any]] = []
    steps: list[str] = []
    side_by_side = any("parallel" in one for one in golden.calls(stage.case))
    for part, step in parts(golden.calls(stage.case)):
        seen += part
        wanted = in_order(seen, side_by_side)
        reached = await stage.until(partial(_asked, stage, side_by_side, wanted))
        if step == "delete":
            if "status" in truth:
                status = differences.alike(stage.case, truth["status"])
                same = await stage.until(partial(_reported, stage, differences, status))
                found = differences.alike(stage.case, stage.status())
                assert same, differing(found, status, "status")
            assert reached, differing(in_order(stage.calls(), side_by_side), wanted, "calls")
            assert await stage.until(partial(_told, stage, differences, told)), "events that never come"
            if settled is not None:
                await settled()
            stage.worker.delete()
        elif step is not None and "{" in step:
            steps.append(step)
            stage.worker.update(stage.manifest(*steps))
        elif step is not None:
            await stage.lose_sandbox()
        assert reached, differing(in_order(stage.calls(), side_by_side), wanted, "calls")
    assert await stage.until(stage.life.done), "the pod does not end"
    stage.life.result()
    if differences.ends and "afterDeletion" in truth:
        after = differences.alike(stage.case, truth["afterDeletion"])
        left = differences.alike(stage.case, brief(stage.status()))
        assert left == after, differing(left, after, "afterDeletion")
    await stage.worker.remove()
    gone, wanted_gone = collected(stage.calls()), collected(golden.calls(stage.case))
    assert wanted_gone <= gone
    # The recording ended before a kubelet's next collection of sandboxes.
    assert {call for call, _ in gone - wanted_gone} <= {"RemovePodSandbox"}
    heard = differences.comparable(stage.case, stage.events())
    assert heard == told, differing(heard, told, "events")


def brief(status: dict[str, Any]) -> dict[str, Any]:
    """As the recordings tell what is left when the deletion is complete."""
    kept: dict[str, Any] = {key: status[key] for key in ("phase", "reason", "message") if key in status}
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        if kind in status:
            kept[kind] = [
                {key: one[key] for key in ("name", "restartCount", "state", "lastState") if key in one}
                for one in status[kind]
            ]
    return kept


def sorted_kills(events: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Of containers that are stopped together by name, as in the recordings."""
    found: list[tuple[str, str, str, str]] = []
    for event in events:
        place = len(found)
        while (
            event[1] == "Killing"
            and place
            and found[place - 1][1] == "Killing"
            and _name(found[place - 1]) > _name(event)
        ):
            place -= 1
        found.insert(place, event)
    return found


def _name(event: tuple[str, str, str, str]) -> str:
    return event[2].partition("{")[2]


def _cut(tree: Any, place: list[str]) -> None:
    """Take away what is at the place; of lists in each of their elements."""
    if isinstance(tree, list):
        for one in tree:
            _cut(one, place)
    elif isinstance(tree, dict):
        if len(place) == 1:
            tree.pop(place[0], None)
        else:
            _cut(tree.get(place[0]), place[1:])


def _asked(stage: Stage, side_by_side: bool, wanted: list[dict[str, Any]]) -> bool:
    return in_order(stage.calls(), side_by_side) == wanted


def _reported(stage: Stage, differences: Differences, status: dict[str, Any]) -> bool:
    return differences.alike(stage.case, stage.status()) == status


def _told(stage: Stage, differences: Differences, told: list[tuple[str, str, str, str]]) -> bool:
    """All but what the pod's end is told by."""
    heard = differences.comparable(stage.case, stage.events())
    return all(one in heard for one in told if one[1] != "Killing")


def parts(entries: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """The calls up to each step, with the step; and those after the last."""
    part: list[dict[str, Any]] = []
    for entry in entries:
        if "step" in entry:
            yield part, entry["step"]
            part = []
        else:
            part.append(entry)
    yield part, None


def in_order(entries: list[dict[str, Any]], side_by_side: bool) -> list[dict[str, Any]]:
    """The calls whose place is certain, repeated ones once; StopContainer by container where they are
    `side_by_side`."""
    found: list[dict[str, Any]] = []
    for entry in entries:
        one = {"call": entry["call"], "request": entry["request"], "failed": "error" in entry}
        if entry["call"] in COLLECTED or one in found:
            continue
        place = len(found)
        while side_by_side and place and _stops_after(found[place - 1], one):
            place -= 1
        found.insert(place, one)
    return found


def _stops_after(one: dict[str, Any], other: dict[str, Any]) -> bool:
    calls = {one["call"], other["call"]}
    return calls == {"StopContainer"} and one["request"]["container_id"] > other["request"]["container_id"]


def collected(entries: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What was collected sooner or later."""
    return {
        (entry["call"], next(iter(entry["request"].values())))
        for entry in entries
        if entry.get("call") in COLLECTED
    }


def differing(found: Any, wanted: Any, place: str = "") -> str:
    """Where two trees differ, a line each."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = [
            differing(found.get(key, "(absent)"), wanted.get(key, "(absent)"), f"{place}.{key}")
            for key in {**wanted, **found}
        ]
        return "\n".join(filter(None, lines))
    if isinstance(found, list) and isinstance(wanted, list):
        longest = max(len(found), len(wanted))
        pairs = [
            differing(
                found[index] if index < len(found) else "(absent)",
                wanted[index] if index < len(wanted) else "(absent)",
                f"{place}[{index}]",
            )
            for index in range(longest)
        ]
        return "\n".join(filter(None, pairs))
    return "" if found == wanted else f"{place}: {found!r}, a kubelet: {wanted!r}"
