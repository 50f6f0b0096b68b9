"""Looking into the running containers of a recorded case that plays for real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from podwright.kube.state.pod_state import SeenContainer, look
from podwright.linux import cgroups
from podwright.wire import cri_pb2 as cri
from tests.kube import golden, golden_stage, inside, inside_files
from tests.kube.golden_machine import RealStage
from tests.kube.inside import Inside

KILLED = 137
"""The exit code of who was killed."""


async def faults(stage: RealStage) -> list[str]:
    """What running containers, and the pod as a whole, have otherwise than it was asked."""
    running = [one for one in stage.worker.seen.containers if one.running]
    pids = {one.id: await _pid(stage, one.id) for one in running}
    looked = [await _inside(stage, one, pids) for one in running]
    return await asyncio.to_thread(
        lambda: [*_of_containers(stage, looked), *_of_pod(stage, looked), *_of_logs(stage)]
    )


async def left(stage: RealStage) -> list[str]:
    """What of the pod is still there when it was removed, and what was killed before its time."""
    seen = await look(stage.machine.runtime, stage.uid)
    ids = [*(one.id for one in seen.sandboxes), *(one.id for one in seen.containers)]
    return [*ids, *await asyncio.to_thread(stage.left), *_hurried(stage)]


def _hurried(stage: RealStage) -> Iterator[str]:
    """Whoever does not end by itself has its whole grace period."""
    made = {
        call.response.container_id: call.request.config
        for call in stage.recorder.calls
        if call.rpc == "CreateContainer" and call.response is not None
    }
    codes = {
        one.name: one.state.terminated.exitCode
        for one in stage.worker.status.containerStatuses or []
        if one.state is not None and one.state.terminated is not None
    }
    for call in stage.recorder.calls:
        if call.rpc != "StopContainer":
            continue
        config, grace = made[call.request.container_id], call.request.timeout
        ended_so = codes.get(config.metadata.name) == KILLED
        if ended_so and "app:" not in config.image.user_specified_image and call.seconds < grace:
            yield f"{config.metadata.name} was killed after {call.seconds:.1f} of {grace} s"


def _of_logs(stage: RealStage) -> Iterator[str]:
    """Each attempt has a log of its own; those of earlier ones may be collected just now."""
    names = {one.name for one in stage.worker.seen.containers}
    for one in filter(None, map(stage.worker.seen.container, sorted(names))):
        log = Path(one.status.log_path)
        if log.parts[-2:] != (one.name, f"{one.attempt}.log") or not log.is_file():
            yield f"the log of {one.name}, attempt {one.attempt}, is {log}"


def _of_containers(stage: RealStage, looked: list[Inside]) -> Iterator[str]:
    truth = golden.status(stage.case)
    for one in looked:
        found = [fault for check in (*inside.CHECKS, *inside_files.CHECKS) for fault in check(one)]
        found += inside_files.volumes(one, truth.get("volumes", {}), partial(_words, stage))
        yield from (f"{one.name}: {fault}" for fault in found)
        if "hostsFile" in truth and stage.text(_first_address(one)) != truth["hostsFile"]:
            yield f"{one.name}: /etc/hosts is {one.said['hosts']!r}"


def _words(stage: RealStage, text: str) -> str:
    """The text of a volume's file as the recordings write it."""
    if text == "generated":
        return "${GENERATED}"
    return stage.text(text.replace(stage.worker.pod.facts.seen_at, "${TIME}"))


def _first_address(one: Inside) -> str:
    """The hosts file as of a pod with one address."""
    lines = one.said["hosts"].splitlines(keepends=True)
    return "".join(line for line in lines if line.split("\t")[0] not in one.ips[1:])


def _of_pod(stage: RealStage, looked: list[Inside]) -> Iterator[str]:
    """The limits of the pod's cgroup: a limit of all its containers is one of the pod."""
    manifest = stage.worker.manifest
    names = [one.name for one in manifest.containers]
    asked = [one.resources for one in looked if one.name in names]
    if not looked or manifest.init_containers or len(asked) < len(names):
        return
    linux = looked[0].sandbox.linux
    whole = manifest.spec.resources is not None
    quotas, memories = [one.cpu_quota for one in asked], [one.memory_limit_in_bytes for one in asked]
    quota = sum(quotas) + linux.overhead.cpu_quota if all(one > 0 for one in quotas) else 0
    memory = sum(memories) + linux.overhead.memory_limit_in_bytes if all(memories) else 0
    if whole:
        quota, memory = linux.resources.cpu_quota, linux.resources.memory_limit_in_bytes
    shares = 0 if stage.steps else linux.resources.cpu_shares + linux.overhead.cpu_shares
    yield from inside.differing_limits(
        "cgroup of the pod", linux.cgroup_parent, shares, quota, memory, cgroups.layout()
    )


async def _inside(stage: RealStage, seen: SeenContainer, pids: dict[str, int]) -> Inside:
    calls = [call for call in stage.recorder.calls if call.ended and call.response is not None]
    made = next(
        call.request
        for call in calls
        if call.rpc == "CreateContainer" and call.response.container_id == seen.id
    )
    resources = cri.LinuxContainerResources()
    resources.CopyFrom(made.config.linux.resources)
    for call in calls:
        if call.rpc == "UpdateContainerResources" and call.request.container_id == seen.id:
            resources.MergeFrom(call.request.linux)
    sandbox = next(
        call.request.config
        for call in reversed(calls)
        if call.rpc == "RunPodSandbox" and call.response.pod_sandbox_id == seen.sandbox_id
    )
    answer = await stage.machine.runtime.exec_sync(
        cri.ExecSyncRequest(
            container_id=seen.id, cmd=["sh", "-c", inside.SCRIPT, "sh", *sandbox.linux.sysctls], timeout=60
        )
    )
    assert answer.exit_code == 0, answer.stderr.decode()
    truth = golden.status(stage.case)["status"]
    told = next(
        one
        for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        for one in truth.get(kind, [])
        if one["name"] == seen.name
    )
    name = made.config.image.user_specified_image.rpartition("/")[2]
    return Inside(
        name=seen.name,
        pid=pids[seen.id],
        asked=made.config,
        resources=resources,
        sandbox=sandbox,
        ips=stage.worker.pod.facts.ips,
        image=golden_stage.CONFIGS[name if ":" in name else f"{name}:1"],
        user=told["user"]["linux"],
        ids=stage.worker.pod.facts.user_ids or 0,
        guests=frozenset(
            call.response.container_id
            for call in calls
            if call.rpc == "CreateContainer"
            and call.request.config.linux.security_context.namespace_options.target_id == seen.id
        ),
        siblings={id: pid for id, pid in pids.items() if id != seen.id},
        said=inside.sections(answer.stdout.decode()),
        status=seen.status,
    )


async def _pid(stage: RealStage, container: str) -> int:
    request = cri.ContainerStatusRequest(container_id=container, verbose=True)
    answer = await stage.machine.runtime.container_status(request)
    return int(json.loads(answer.info["info"])["pid"])
