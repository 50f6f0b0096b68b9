"""Whole calls against a Docker Engine that answers what was recorded: the requests that change something are
those that were recorded, in their order; what else podwright does is said where it is expected."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import json_format

from podwright.engines.base import Presence, SandboxFacts
from podwright.engines.docker import states
from podwright.engines.docker.objects import DOCKER_ID, nanoseconds
from podwright.errors import AlreadyExists, FailedPrecondition, PodwrightError
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.docker.stage import (
    CONTAINER,
    HOLDER,
    SANDBOX,
    holder,
    in_sandbox,
    made,
    ours,
    recorded,
    room,
    running,
    started_container,
)

OTHERS = ("update-pod-resources", "update-runtime-config", "remove-image-in-use")
"""Of another kind than their names say."""

# Pods

_PODS = [
    name
    for name in golden.names("run-pod-*", "pod-conflict-first", "pod-conflict-third")
    # The first is refused, the others have tests of their own.
    if name not in ("run-pod-handler-unknown", "run-pod-cni-fails")
]


@pytest.mark.parametrize("name", _PODS)
async def test_a_pod_is_made_by_the_recorded_requests(name: str, tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "seccomp.json").write_bytes(golden.SECCOMP)
    sandbox = golden.sandbox_of(name, docker_id="")
    profile = sandbox.config.linux.security_context.seccomp
    profile.localhost_ref = profile.localhost_ref.replace("${VOLUMES}", str(tmp_path / "volumes"))
    async with room(name, tmp_path) as here, AsyncExitStack() as undo:
        if not any(each["path"].endswith(f"{SANDBOX}/json") for each in here.docker.exchanges):
            # With the host's network the recorded server does not look at it again.
            here.docker.exchanges.append(running(SANDBOX, tmp_path))
        facts = await here.sandboxes.create(sandbox, undo)
        undo.pop_all()
    # The pull itself is the image service's.
    expected = recorded(name, without=["/images/create"])
    assert here.lines == [each.line for each in expected]
    assert (here.images.pulled != []) == (name == "run-pod-image-absent")
    docker_id = str(facts.own[DOCKER_ID])
    assert f"POST /containers/{docker_id}/start" in here.lines
    on_host = sandbox.config.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE
    netns = f"/proc/{os.getpid()}/ns/net"
    assert here.network.calls == ([] if on_host else [("ADD", sandbox.id, netns)])
    assert facts.ips == (() if on_host else ("10.1.2.3",))
    assert facts.pid == os.getpid()
    if name == "run-pod-dns":
        assert (tmp_path / "containers" / docker_id / "resolv.conf").read_text() == (
            "search gold.svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver 8.8.8.8\n"
            "options ndots:5 timeout:1\n"
        )


@golden.replays("run-pod-cni-fails")
async def test_of_a_pod_without_a_network_nothing_stays(tmp_path: Path) -> None:
    sandbox = golden.sandbox_of("run-pod-cni-fails", docker_id="")
    async with room("run-pod-cni-fails", tmp_path) as here:
        here.network.broken = True
        here.docker.exchanges.append(ours(f"/containers/json?label={sandbox.id}", [{"Id": SANDBOX}]))
        with pytest.raises(FailedPrecondition, match="no such plugin"):
            async with AsyncExitStack() as undo:
                await here.sandboxes.create(sandbox, undo)
    expected = [each.line for each in recorded("run-pod-cni-fails")]
    assert here.lines == [*expected, f"DELETE /containers/{SANDBOX} force=1 v=1"]
    assert [call for call, _, _ in here.network.calls] == ["ADD", "DEL"]


@pytest.mark.parametrize("name", golden.names("pod-stop*", "restart-pod-stop"))
async def test_a_pod_is_stopped_by_the_recorded_requests(name: str, tmp_path: Path) -> None:
    sandbox = golden.sandbox_of("run-pod-host-network" if "host" in name else "run-pod-minimal")
    missing = name == "pod-stop-missing"
    sandbox = replace(sandbox, facts=SandboxFacts(own={DOCKER_ID: HOLDER if missing else SANDBOX}))
    async with room(name, tmp_path) as here:
        await here.sandboxes.stop(sandbox)
    # Nothing is stopped that is not there.
    assert here.lines == ([] if missing else [each.line for each in recorded(name)])
    if "host" in name:
        assert here.network.calls == []
    else:
        # A dead process's number may be another's: without one there is no namespace.
        runs = name in ("pod-stop-with-running-container", "restart-pod-stop")
        netns = f"/proc/{os.getpid()}/ns/net" if runs else ""
        assert here.network.calls == [("DEL", sandbox.id, netns)]


@pytest.mark.parametrize("name", golden.names("pod-remove-*", "restart-pod-remove"))
async def test_a_pod_is_removed_by_the_recorded_request(name: str, tmp_path: Path) -> None:
    id = HOLDER if name == "pod-remove-missing" else SANDBOX
    sandbox = replace(golden.sandbox_of("run-pod-minimal"), facts=SandboxFacts(own={DOCKER_ID: id}))
    async with room(name, tmp_path) as here:
        await here.sandboxes.remove(sandbox)
    # Its containers core has removed before.
    assert here.lines == [recorded(name)[-1].line]


# Names that are taken


@pytest.mark.parametrize("name", ["create-conflict-created", "create-conflict-ghost"])
async def test_who_is_left_over_makes_way(name: str, tmp_path: Path) -> None:
    container = in_sandbox(golden.container_of(name))
    async with room(name, tmp_path) as here, AsyncExitStack() as undo:
        here.docker.exchanges += [made("1" * 64), holder(CONTAINER)]
        here.docker.exchanges.insert(0, made("2" * 64))  # for a look at the image's users
        await here.containers.create(container, undo)
        undo.pop_all()
    lines = here.lines[2:]  # after that look
    expected = [each.line for each in recorded(name)]
    if name == "create-conflict-created":
        # Where the recording gives up with the first error, podwright goes on.
        assert lines == [*expected, expected[0]]
    else:
        assert lines[:2] == expected[:2]
        assert lines[2].startswith(f"{expected[0]}_")
        assert len(lines[2]) == len(expected[2])


@pytest.mark.parametrize("name", ["create-conflict-running"])
async def test_who_runs_keeps_the_name(name: str, tmp_path: Path) -> None:
    container = in_sandbox(golden.container_of(name))
    async with room(name, tmp_path) as here:
        here.docker.exchanges.insert(0, made("2" * 64))
        here.docker.exchanges.append(holder(CONTAINER))
        with pytest.raises(AlreadyExists, match=f"k8s_c_cdup_gold_uid-cdup_0.*{CONTAINER[:12]}"):
            async with AsyncExitStack() as undo:
                await here.containers.create(container, undo)
    assert here.lines[2:] == [each.line for each in recorded(name)]


@pytest.mark.parametrize("name", ["pod-conflict-stopped", "pod-conflict-running"])
async def test_sandboxes_make_way_as_containers_do(name: str, tmp_path: Path) -> None:
    sandbox = golden.sandbox_of(name, docker_id="")
    async with room(name, tmp_path) as here:
        here.docker.exchanges += golden.filled(
            golden.case("pod-conflict-third")["docker"],
            {"SANDBOX_ID": SANDBOX, "PID": str(os.getpid()), "DOCKER_ROOT": str(tmp_path)},
        )
        here.docker.exchanges.append(holder(HOLDER))
        async with AsyncExitStack() as undo:
            if name == "pod-conflict-running":
                with pytest.raises(AlreadyExists):
                    await here.sandboxes.create(sandbox, undo)
            else:
                await here.sandboxes.create(sandbox, undo)
            undo.pop_all()
    tries = [each.line for each in recorded(name)]
    if name == "pod-conflict-stopped":
        tries += [each.line for each in recorded("pod-conflict-third")]
    assert here.lines == tries


async def test_a_name_that_nobody_has_and_docker_keeps_is_given_up(tmp_path: Path) -> None:
    """Docker knows the name and not the container, which cannot even be looked at."""
    container = in_sandbox(golden.container_of("create-conflict-ghost"))
    async with room("create-conflict-ghost", tmp_path) as here, AsyncExitStack() as undo:
        here.docker.exchanges.insert(0, made("2" * 64))
        await here.containers.create(container, undo)
        undo.pop_all()
    first, second = here.lines[2:]
    assert second.startswith(f"{first}_")


# Containers

_STARTS = [name for name in golden.names("start-*") if name != "start-missing"]


@pytest.mark.parametrize("name", _STARTS)
async def test_a_start_is_the_recorded_one(name: str, tmp_path: Path) -> None:
    error = golden.case(name)["cri"].get("error")
    async with room(name, tmp_path) as here:
        # The folder of a log is made.
        if error is None or name == "start-log-dir-missing":
            facts = await here.containers.start(started_container())
            assert facts.own[DOCKER_ID] == CONTAINER
        else:
            words = error["message"].rpartition(": unknown")[0] or error["message"]
            with pytest.raises(PodwrightError) as raised:
                await here.containers.start(started_container())
            told = str(raised.value)
            last = words.rpartition("start container process: ")[2].rpartition("daemon: ")[2]
            assert golden.filled(last, {"SANDBOX_ID": SANDBOX, "VOLUMES": f"{tmp_path}/volumes"}) in told
            assert "OCI runtime create failed" not in told
    assert here.lines == [each.line for each in recorded(name)]


@pytest.mark.parametrize("name", [each for each in golden.names("update-*") if each not in OTHERS])
async def test_limits_are_changed_by_the_recorded_request(name: str, tmp_path: Path) -> None:
    request = golden.case(name)["cri"]["request"]
    resources = cri.LinuxContainerResources()
    json_format.ParseDict(request["linux"], resources)
    # The recorded server left it out without a word; see docs/differences.md.
    resources.ClearField("oom_score_adj")
    async with room(name, tmp_path) as here:
        if name != "update-missing":
            state = {"Running": name != "update-created", "Pid": os.getpid()}
            found = {"Id": CONTAINER, "State": state, "HostConfig": {}}
            here.docker.exchanges.append(ours(f"/containers/{CONTAINER}/json", found))
        await here.containers.update(started_container(), resources)
    # What is not there is not changed, which the recorded server tries.
    expected = recorded(name) if name != "update-missing" else []
    assert [(each.line, each.body) for each in here.docker.changes] == [
        (each.line, each.body) for each in expected
    ]


@pytest.mark.parametrize("name", [each for each in golden.names("remove-*") if each not in OTHERS])
async def test_a_container_is_removed_by_the_recorded_request(name: str, tmp_path: Path) -> None:
    async with room(name, tmp_path) as here:
        await here.containers.remove(started_container())
    # What is gone already is no error here, and asking again does no harm.
    assert here.lines == [f"DELETE /containers/{CONTAINER} force=1 v=1"]
    assert here.lines[: len(recorded(name))] == [each.line for each in recorded(name)]


_STATES = {
    "CONTAINER_CREATED": Presence.CREATED,
    "CONTAINER_RUNNING": Presence.RUNNING,
    "CONTAINER_EXITED": Presence.EXITED,
}


@pytest.mark.parametrize(
    "name",
    [
        each
        for each in golden.names("ctr-status-*", "restart-container-status")
        if each != "ctr-status-missing"
    ],
)
def test_states_are_read_as_recorded(name: str) -> None:
    """The state, code, time and whether memory was short. (CREATED is 0, which the recordings leave out.)"""
    status = golden.case(name)["cri"]["response"]["status"]
    inspected = golden.filled(golden.case(name)["docker"][0]["response"], {"PID": "7"})
    seen = states.observation("c", inspected)
    assert seen.presence is _STATES[status.get("state", "CONTAINER_CREATED")]
    if seen.presence is Presence.EXITED:
        assert seen.exit is not None
        assert seen.exit.code == status.get("exit_code", 0)
        assert seen.exit.oom_killed == (status["reason"] == "OOMKilled")
        at = golden.filled(status["finished_at"].replace(":ns}", "}"), {})
        assert seen.exit.finished_at == nanoseconds(at)
        assert seen.exit.finished_at % 10**9 == 123456789
