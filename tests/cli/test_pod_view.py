"""How running pods look below their output: pure, from statuses to lines."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from podwright.cli import pod_view
from podwright.cli.pod_view import Row, Shown
from podwright.kube.manifests import manifest
from podwright.kube.models import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    PodCondition,
    PodStatus,
)
from podwright.kube.state.waiting import Waiting

NOW = 1_800_000_000
POD = manifest.from_dict(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "initContainers": [{"name": "setup", "image": "a"}],
            "containers": [{"name": "main", "image": "a"}],
        },
    }
)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def status(name: str, state: ContainerState | None, **more: Any) -> ContainerStatus:
    given = {"ready": False, "restartCount": 0, **more}
    return ContainerStatus(name=name, image="a", imageID="", state=state, **given)


def running(since: int = -12) -> ContainerState:
    return ContainerState(running=ContainerStateRunning(startedAt=at(since)))


def ended(code: int, reason: str = "", message: str | None = None) -> ContainerState:
    return ContainerState(
        terminated=ContainerStateTerminated(
            exitCode=code, reason=reason or None, message=message, startedAt=at(-9), finishedAt=at(-4)
        )
    )


def pod_of(
    main: ContainerStatus,
    *,
    phase: str = "Running",
    ready: bool = False,
    initialized: bool = True,
    waiting: dict[str, Waiting] | None = None,
    **more: Any,
) -> Shown:
    conditions = [
        PodCondition(type=name, status=str(met))
        for name, met in (
            ("PodReadyToStartContainers", True),
            ("Initialized", initialized),
            ("Ready", ready),
        )
    ]
    told = PodStatus(
        phase=phase,
        podIP="10.0.0.7",
        startTime=at(-64),
        conditions=conditions,
        initContainerStatuses=[status("setup", ended(0, "Completed"))],
        containerStatuses=[main],
    )
    given = {"again": {}, "probes": {}, **more}
    return pod_view.shown(POD, told, NOW * 10**9, waiting=waiting or {}, **given)


def plain(*pods: Shown, width: int = 100, height: int = 20) -> list[str]:
    drawn = pod_view.lines(pods, width, height, coloured=False)
    for text, columns in drawn:
        assert len(text) == columns <= width
    return [text for text, _ in drawn]


def test_a_pod_that_is_well() -> None:
    one = pod_of(status("main", running(), ready=True), ready=True)
    assert one.well
    assert plain(one) == [
        "── web · Running · Ready · 10.0.0.7 · 64s ".ljust(100, "─"),
        "  setup   Completed",
        "  main    Running 12s   ready",
    ]


def test_a_container_that_crashes_counts_down_and_says_how_it_ended() -> None:
    one = pod_of(
        status("main", ended(3, "Error", "no such table\n"), restartCount=4),
        waiting={"main": Waiting("CrashLoopBackOff", "back-off 40s restarting failed container=main …")},
        again={"main": 7.6},
    )
    rule, _, main = plain(one)
    assert rule.startswith("── web · Running · Initialized · not Ready · 10.0.0.7")
    assert main == (
        "  main    CrashLoopBackOff 8s   not ready   4 restarts   last: Error (3) after 5s: no such table"
    )


def test_what_the_status_says_of_a_container_that_waits_is_told_with_its_message() -> None:
    state = ContainerState(waiting=ContainerStateWaiting(reason="ErrImagePull", message="no\nsuch image"))
    row = pod_of(status("main", state), phase="Pending").rows[1]
    assert (row.state, row.note, row.tone, row.ready) == ("ErrImagePull", "no\nsuch image", "bad", False)
    assert plain(pod_of(status("main", state)))[-1].endswith("not ready   no such image")


@pytest.mark.parametrize(
    ("reason", "word"), [("ContainerCreating", "Creating"), ("PodInitializing", "Waiting")]
)
def test_what_is_yet_to_come_is_no_complaint(reason: str, word: str) -> None:
    state = ContainerState(waiting=ContainerStateWaiting(reason=reason))
    row = pod_of(status("main", state), initialized=False).rows[1]
    assert (row.state, row.note) == (word, "") and row.tone != "bad"


def test_what_a_probe_complains_of_stands_beside_its_container() -> None:
    one = pod_of(status("main", running()), probes={"main": "Readiness probe failed: statuscode: 503"})
    assert plain(one)[-1] == "  main    Running 12s   not ready   Readiness probe failed: statuscode: 503"
    assert not one.well


def test_the_end_before_stays_to_be_seen() -> None:
    state = status("main", running(), ready=True, restartCount=1, lastState=ended(137, "OOMKilled"))
    assert plain(pod_of(state, ready=True))[-1].endswith("ready   1 restart   before: OOMKilled (137)")


def test_a_pod_that_has_ended_has_no_conditions_and_no_readiness() -> None:
    one = pod_of(status("main", ended(0, "Completed")), phase="Succeeded")
    assert one.conditions == () and one.rows[1].ready is None
    assert plain(one)[0].startswith("── web · Succeeded · 10.0.0.7")


def test_a_pod_that_is_deleted_says_so() -> None:
    assert pod_of(status("main", running()), deleting=True).phase == "Terminating"


def test_what_keeps_the_whole_pod_has_a_line_of_its_own() -> None:
    problem = 'MountVolume.SetUp failed for volume "c" : configmap "gone" not found'
    one = pod_of(status("main", None), phase="Pending", problem=problem)
    assert plain(one)[1] == f"  {problem}"
    assert plain(one, width=40)[1] == f"  {problem}"[:39] + "…"


def test_colours_are_the_states() -> None:
    one = pod_of(status("main", ended(1, "Error")), phase="Failed")
    text = "\n".join(text for text, _ in pod_view.lines([one], 80, 20))
    assert "\x1b[31mFailed\x1b[0m" in text and re.search(r"\x1b\[31m +Error \(1\)", text)


def test_without_utf_8_lines_are_of_ascii() -> None:
    one = pod_of(status("main", running(), ready=True), ready=True)
    drawn = pod_view.lines([one], 60, 20, coloured=False, plain=True)
    assert all(text.isascii() for text, _ in drawn)
    assert drawn[0][0].startswith("-- web | Running | Ready")


@pytest.mark.parametrize("width", [16, 24, 40, 60, 79, 160])
def test_every_width_is_kept_and_the_state_is_never_lost(width: int) -> None:
    one = pod_of(
        status("main", ended(3, "Error"), restartCount=4),
        waiting={"main": Waiting("CrashLoopBackOff")},
        again={"main": 7.6},
    )
    lines = plain(one, width=width)
    assert "Cras" in lines[-1] if width < 40 else "CrashLoopBackOff 8s" in lines[-1]


def test_wide_characters_count_twice_and_nothing_moves_the_cursor() -> None:
    assert pod_view.fitted("界" * 10, 7) == "界界界…"
    assert pod_view.fitted("a\x1b[2Jb\tc\n", 80) == "a [2Jb c"
    assert pod_view.columns("é" + "e\u0301" + "界") == 4


def many(count: int, sick: int) -> list[Shown]:
    well = Row("main", "Running 5s", "good", True)
    return [
        Shown(f"web-{index}", "Running", "good", rows=(Row("main", "Error (1)", "bad", False),))
        if index == sick
        else Shown(f"web-{index}", "Running", "good", rows=(well,))
        for index in range(count)
    ]


def test_pods_that_are_well_give_way_first() -> None:
    lines = plain(*many(4, sick=3), height=5)
    assert len(lines) == 5 and lines[-1] == "  main   Error (1)    not ready"
    assert [line.split()[1] for line in lines[:4]] == ["web-0", "web-1", "web-2", "web-3"]


def test_pods_that_do_not_fit_are_counted() -> None:
    lines = plain(*many(9, sick=0), height=4)
    assert len(lines) == 4 and lines[-1] == "… and 6 more pods: 6 Running"
    assert plain(*many(9, sick=0), height=1) == ["9 pods: 9 Running"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert pod_view.lines([], 80, 10) == []
