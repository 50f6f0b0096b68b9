"""What a real kubelet asked its runtime for each recorded Pod, in order and word for word, what it told, and
what status it came to: podwright's worker does the same on a fake node.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podwright.kube import pod_cgroups
from podwright.spec.linux import mounts
from tests.kube import golden
from tests.kube.golden_stage import COLLECTED, Stage, read, staged

NO_ID_MAPS = "the fake node has no id-mapped mounts; what is asked is compared in test_golden_requests"
NOT_RUN: dict[str, str] = {
    "proc-mount": NO_ID_MAPS,
    "user-namespace": NO_ID_MAPS,
}
"""Cases that do not run here, and why."""

SCRIPTS: dict[str, dict[str, Any]] = {
    "hook-exec": {"containers": [{"exec": [{"command": "sh -c echo post > /dev/shm/hook"}]}]},
    # Loopback: there nobody listens, while elsewhere a gateway might answer.
    "probe-grpc-fails": {"addresses": {"ipv4": "127.88.0.0/16"}},
    "sidecar": {"containers": [{"exec": [{"command": "test -e /dev/shm/ready"}]}]},
    "pull-fails": {
        "images": [
            {
                "reference": "registry.test/no-such:1",
                "error": {
                    "code": "NotFound",
                    "message": 'failed to pull and unpack image "registry.test/no-such:1": failed to resolve'
                    " image: registry.test/no-such:1: not found",
                },
            }
        ]
    },
    "oom-killed": {"containers": [{"exit": {"after": 0.5, "oom": True}}]},
    "start-fails": {
        "containers": [
            {
                "match": {"container": "main"},
                "start_error": "failed to create containerd task: failed to create shim task: OCI runtime"
                " create failed: runc create failed: unable to start container process: exec:"
                ' "/no/such/binary": stat /no/such/binary: no such file or directory',
            }
        ]
    },
}
"""What the fake node is told beside the images: what only real programs, kernels and registries would do."""


WITH_USERS = ("registry.test/app:1", "registry.test/nameduser:1")
"""Their containers' users are not compared: the fake node's images have no groups of users."""
NO_API = "without an API server a kubelet does not know its node's addresses"
DIFFERENCES: dict[str, dict[str, str]] = {
    "pull-latest": {"containerStatuses.image": "which name of an image is told is the runtime's affair"},
    "seccomp-default-node": {"hostIP": NO_API},
    "static-critical": {"hostIP": NO_API, "podIP": NO_API},
    "static-pod": {"hostIP": NO_API},
    "static-volumes": {"hostIP": NO_API},
}
"""Places of the status that differ, and why."""
RACE = "the kubelet's cache of objects was empty at its first look; here there is no such moment"
OWN_WORDS = "the runtime's own words"
EVENTS: dict[tuple[str, str], str] = {
    ("configmap-volume-missing", 'object "default"/"cvm-nope" not registered'): RACE,
    ("runtime-class-unknown", "Failed to create pod sandbox: rpc error: code = "): OWN_WORDS,
}
"""Events that differ, by a part of their message, and why."""


@pytest.fixture(autouse=True)
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """What listens at the ports of pods, for there is no network to them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a client that only looks whether somebody is there
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    connect = asyncio.open_connection

    async def redirected(*_: object, **options: Any) -> Any:
        return await connect("127.0.0.1", port, **options)

    monkeypatch.setattr(asyncio, "open_connection", redirected)
    yield
    server.close()
    await server.wait_closed()


@pytest.fixture(autouse=True)
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods have cgroups of their own in what is asked, but none is made; and images are mounted in the fake
    node as empty directories."""
    monkeypatch.setattr(mounts, "shows_image", lambda _: False)
    monkeypatch.setattr(mounts, "_check", lambda *_: None)
    for name in ("make", "update", "remove"):
        monkeypatch.setattr(pod_cgroups, name, lambda *_: None)


@pytest.mark.parametrize("case", golden.CASES)
async def test_the_same_is_asked_told_and_reported_as_by_a_kubelet(case: str, tmp_path: Path) -> None:
    if case in NOT_RUN:
        pytest.skip(NOT_RUN[case])
    async with staged(case, tmp_path, SCRIPTS.get(case)) as stage:
        await play(stage)


async def play(stage: Stage) -> None:
    truth = golden.status(stage.case)
    seen: list[dict[str, Any]] = []
    steps: list[str] = []
    side_by_side = any("parallel" in one for one in golden.calls(stage.case))
    for part, step in parts(golden.calls(stage.case)):
        seen += part
        wanted = in_order(seen, side_by_side)
        reached = await stage.until(partial(_asked, stage, side_by_side, wanted))
        if step == "delete":
            if "status" in truth:
                status = alike(stage.case, truth["status"])
                same = await stage.until(partial(_reported, stage, status))
                assert same, differing(alike(stage.case, stage.status()), status)
            stage.worker.delete()
        elif step is not None and "{" in step:
            steps.append(step)
            stage.worker.update(read(stage.case, stage.root, *steps))
        elif step is not None:
            # Whoever stops a sandbox kills what is in it.
            stage.node.exit("main", 137)
            stage.node.lose(stage.worker.manifest.name)
        assert reached, differing(in_order(stage.calls(), side_by_side), wanted)
    assert await stage.until(stage.life.done), "the pod does not end"
    stage.life.result()
    await stage.worker.remove()
    gone, wanted_gone = collected(stage.calls()), collected(golden.calls(stage.case))
    assert wanted_gone <= gone
    # The recording ended before a kubelet's next collection of sandboxes.
    assert {call for call, _ in gone - wanted_gone} <= {"RemovePodSandbox"}
    told = [(one["type"], one["reason"], one.get("object", ""), one["message"]) for one in truth["events"]]
    found, wanted_events = comparable(stage.case, stage.events()), comparable(stage.case, told)
    assert found == wanted_events, differing(found, wanted_events)


def alike(case: str, status: dict[str, Any]) -> dict[str, Any]:
    """The status without what differs on purpose."""
    found = copy.deepcopy(status)
    for one in [*found.get("containerStatuses", []), *found.get("initContainerStatuses", [])]:
        if one["image"] in WITH_USERS:
            one.pop("user", None)
    for place in DIFFERENCES.get(case, {}):
        group, _, key = place.partition(".")
        if key:
            for one in found[group]:
                one.pop(key, None)
        else:
            found.pop(group, None)
    return found


def comparable(case: str, events: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Without what differs on purpose."""
    different = [words for name, words in EVENTS if name == case]
    return sorted_kills([one for one in events if not any(words in one[3] for words in different)])


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


def _asked(stage: Stage, side_by_side: bool, wanted: list[dict[str, Any]]) -> bool:
    return in_order(stage.calls(), side_by_side) == wanted


def _reported(stage: Stage, status: dict[str, Any]) -> bool:
    return alike(stage.case, stage.status()) == status


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
