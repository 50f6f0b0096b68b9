"""Questions, asked of a whole podwright over a Docker Engine that answers what was recorded: the answers are
the recorded ones but for what docker_differences.toml names under `answers`, with a reason."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from podwright.errors import NotFound, Unimplemented
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.docker.replay import Replay, members, replayed, tree
from tests.oci.clients import PATIENCE

_LISTS = golden.names("list-*", "restart-container-list")
_POD_LISTS = golden.names("pod-list-*", "restart-pod-list")
_MISSING = golden.names(
    "create-sandbox-missing", "start-missing", "ctr-status-missing", "pod-status-missing", "stats-missing"
)
_STATUSES = [
    each
    for each in golden.names("ctr-status-*", "pod-status*", "restart-*-status", "status*", "version")
    # Of a start that failed the record knows why, which only the start itself was told.
    if each not in _MISSING
    and each.partition("after-start-")[2] in ("", "ok", "log-dir-missing")
    and each not in ("ctr-status-device-missing", "ctr-status-mount-rshared")
]
_NODE = golden.names("runtime-config", "update-runtime-config", "image-fs-info")
_STATS = [each for each in golden.names("stats*") if each not in _MISSING]
MORE = golden.table()["more"][0]["cases"]
"""What the recorded server does not do."""


async def answer(replay: Replay) -> Message:
    """Of podwright to the recorded request."""
    method = replay.case["cri"]["method"]
    call = re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()
    request: Message = getattr(cri, f"{method}Request")()
    json_format.ParseDict(replay.asked, request)
    ask: Callable[[Message], Awaitable[Message]] = getattr(replay.runtime, call)
    return await ask(request)


def different(ours: Message, recorded: Any) -> dict[str, tuple[Any, Any]]:
    """By path, without places in lists: what was recorded, and what podwright says. Times of the answer are
    left out, and the log's path, which is the record's."""
    theirs = type(ours)()
    json_format.ParseDict(recorded, theirs)
    told, wanted = members(tree(ours)), members(tree(theirs))
    return {
        re.sub(r"\[\d+\]", "", path): (wanted.get(path), told.get(path))
        for path in sorted(told.keys() | wanted.keys())
        if told.get(path) != wanted.get(path) and not path.endswith(("timestamp", "log_path"))
    }


def compare(name: str, ours: Message, recorded: Any) -> None:
    found = different(ours, recorded)
    explained: set[str] = set()
    for row in golden.table()["answers"]:
        if not any(fnmatchcase(name, each) for each in row["cases"]):
            continue
        for pattern in row["paths"]:
            meant = {path for path in found if fnmatchcase(path, pattern)}
            # A row's first case is one that shows it; the others may.
            assert meant or name != row["cases"][0], f"{pattern}: a row that is not needed any more"
            explained |= meant
    shown = {path: both for path, both in found.items() if path not in explained}
    assert not shown, "recorded, ours"


@pytest.mark.parametrize("name", _LISTS)
async def test_containers_are_listed_as_recorded(name: str, tmp_path: Path) -> None:
    beside = () if name.startswith("restart") else ("list-all",)
    async with replayed(name, tmp_path, beside=beside) as here:
        compare(name, await answer(here), here.case["cri"]["response"])
        # From its records: Docker is not asked.
        assert here.docker.log == []


@pytest.mark.parametrize("name", _POD_LISTS)
async def test_pods_are_listed_as_recorded(name: str, tmp_path: Path) -> None:
    beside = () if name.startswith("restart") else ("pod-list-all",)
    async with replayed(name, tmp_path, beside=beside) as here:
        compare(name, await answer(here), here.case["cri"]["response"])
        assert here.docker.log == []


@pytest.mark.parametrize("name", _STATUSES)
async def test_statuses_are_as_recorded(name: str, tmp_path: Path) -> None:
    more = golden.case("server-start")["docker"] if name.startswith(("status", "version")) else []
    more = golden.filled(more, {"DOCKER_ROOT": str(tmp_path)})
    async with replayed(name, tmp_path, more=more) as here:
        compare(name, await answer(here), here.case["cri"]["response"])
        assert here.docker.changes == []


@pytest.mark.parametrize("name", _MISSING)
async def test_what_is_not_there_is_not_found(name: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path) as here:
        with pytest.raises(NotFound):
            await answer(here)


@pytest.mark.parametrize("name", _NODE)
async def test_the_node_answers_as_recorded(name: str, tmp_path: Path) -> None:
    async with replayed(name, tmp_path) as here:
        compare(name, await answer(here), here.case["cri"]["response"])
        assert here.docker.changes == []


@golden.replays("server-start")
async def test_the_first_requests_are_the_recorded_ones(tmp_path: Path) -> None:
    async with replayed("server-start", tmp_path) as here:
        recorded = [f"{each['method']} {each['path'].removeprefix('/v1.41')}" for each in here.case["docker"]]
        # GET /version says nothing that GET /info does not.
        assert here.opening[:2] == [each for each in recorded if "/version" not in each]


@pytest.mark.parametrize("name", golden.names("images-list-filter*"))
async def test_images_are_filtered_as_recorded(name: str, tmp_path: Path) -> None:
    wanted = golden.case(name)["cri"]["request"]["filter"]["image"]["image"]
    listed = {each["Id"]: each for each in golden.case(name)["docker"][0]["response"]}
    # Podwright asks for the image, not for a list; of both the names are those of that moment.
    more = [
        {**each, "path": f"/v1.41/images/{wanted}/json", "response": {**each["response"], **now}}
        for each in golden.images()
        if (now := listed.get(each["response"]["Id"])) is not None
    ]
    async with replayed(name, tmp_path, more=more) as here:
        compare(name, await answer(here), here.case["cri"]["response"])


# Statistics: the recorded server asks Docker, podwright the kernel, which has the same figures.


@pytest.mark.parametrize("name", _STATS)
async def test_statistics_are_as_recorded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = cgroups.Layout(
        version=1,
        hybrid=False,
        unified=None,
        unified_controllers=frozenset(),
        controllers={each: tmp_path / "cgroup" / each for each in ("memory", "cpuacct", "pids")},
    )
    monkeypatch.setattr(cgroups, "layout", lambda: layout)
    monkeypatch.setattr("podwright.engines.docker.stats.found_cgroup", lambda pid, id: f"/{id}")
    async with replayed(name, tmp_path) as here:
        for exchange in here.case["docker"]:
            if "/stats" in exchange["path"] and exchange["response"]["memory_stats"]:
                _count(exchange["response"], layout)
        layer = tmp_path / "layer"
        layer.mkdir()
        for entry in here.docker.there.values():
            entry["GraphDriver"] = {"Data": {"UpperDir": str(layer)}}
        recorded = here.case["cri"]["response"]
        if "stats" in recorded and isinstance(recorded["stats"], list):
            # What does not run uses nothing, and is left out.
            running = {id for id, entry in here.docker.there.items() if entry["State"]["Running"]}
            recorded["stats"] = [each for each in recorded["stats"] if each["attributes"]["id"] in running]
        compare(name, await answer(here), recorded)
        assert not any("/stats" in each.path for each in here.docker.log)


def _count(answer: Any, layout: cgroups.Layout) -> None:
    """Docker's figures as the kernel's files of that container."""
    memory = answer["memory_stats"]
    for controller, file, content in (
        ("memory", "memory.usage_in_bytes", memory["usage"]),
        ("memory", "memory.stat", "\n".join(f"{key} {value}" for key, value in memory["stats"].items())),
        ("cpuacct", "cpuacct.usage", answer["cpu_stats"]["cpu_usage"]["total_usage"]),
        ("pids", "pids.current", answer["pids_stats"]["current"]),
    ):
        place = layout.controllers[controller] / answer["id"]
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(f"{content}\n")


# What the recorded server does not have


@pytest.mark.parametrize("name", [each for each in MORE if each != "events"])
async def test_what_was_unimplemented_works(name: str, tmp_path: Path) -> None:
    assert golden.case(name)["cri"]["error"]["code"] in ("UNIMPLEMENTED", "UNKNOWN")
    named = "running" if golden.case(name)["cri"]["request"] else ""
    async with replayed(name, tmp_path, beside=["pod-list-all"], state=named) as here:
        told: Any = await answer(here)
        running = {id for id, entry in here.docker.there.items() if entry["State"]["Running"]}
        if name == "metric-descriptors":
            assert "container_cpu_usage_seconds_total" in {each.name for each in told.descriptors}
        elif name == "pod-metrics":
            assert {each.pod_sandbox_id for each in told.pod_metrics} == running
        elif name == "pod-stats-list":
            assert {each.attributes.id for each in told.stats} == running
        elif name == "pod-stats":
            assert told.stats.attributes.id == here.asked["pod_sandbox_id"]
        assert here.docker.changes == []


@golden.replays("events")
async def test_events_come_when_docker_tells_of_ends(tmp_path: Path) -> None:
    async with replayed("events", tmp_path, beside=["list-all"]) as here, asyncio.timeout(PATIENCE):
        events = aiter(here.runtime.get_container_events(cri.GetEventsRequest()))
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        id = next(id for id, entry in here.docker.there.items() if entry["State"]["Running"])
        here.end(id, 3)
        event = await following
    assert (event.container_id, event.container_event_type) == (id, cri.CONTAINER_STOPPED_EVENT)
    [status] = [each for each in event.containers_statuses if each.id == id]
    assert status.exit_code == 3


@golden.replays("checkpoint")
async def test_checkpoints_are_not_there_either(tmp_path: Path) -> None:
    async with replayed("checkpoint", tmp_path, state="running") as here:
        with pytest.raises(Unimplemented):
            await answer(here)
