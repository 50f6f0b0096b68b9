"""A recorded case seen step by step: what the runtime had of the pod after each call of the kubelet.

The calls say what was made, started, stopped and removed. How containers ended, and what their probes found,
no call says: that is taken from the recorded status, which also says who waits for what. Everything else of a
status is computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import PodStatus
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.results import Kind, Outcome, Results
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.kube.state.status import Failed, Waiting, finished, pod_status, rejected
from podwright.wire import cri_pb2 as cri
from tests.kube import golden

KINDS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
RANDOM = re.compile("kube-api-access-[a-z0-9]{5}$")
COMING = ("ContainerCreating", "PodInitializing")
"""Reasons that nobody has to give."""


@dataclass
class Recorded:
    name: str
    truth: dict[str, Any] = field(init=False)
    calls: list[dict[str, Any]] = field(init=False)
    manifest: Manifest = field(init=False)
    node: Node = field(init=False)
    sandboxes: list[cri.PodSandboxStatus] = field(default_factory=list)
    containers: list[SeenContainer] = field(default_factory=list)
    previous: PodStatus | None = None
    deleting: bool = False
    clock: int = 1_700_000_000

    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth = golden.status(self.name)
        self.calls = golden.calls(self.name)
        self.manifest = golden.read(self.name)
        self.node = golden.node(self.name)
        if self.manifest.static and self.name != "static-in-cluster":
            # Where there is no API server nobody tells a kubelet its node's addresses.
            self.node = replace(self.node, ips=())

    @property
    def seen(self) -> Seen:
        return Seen(tuple(self.sandboxes), tuple(self.containers))

    def settled(self) -> dict[str, Any]:
        """The status when the case had settled, as the recordings write it."""
        truth = self.truth["status"]
        if truth.get("message", "").startswith("Pod was rejected: "):
            message = truth["message"].removeprefix("Pod was rejected: ")
            self.previous = rejected(self.manifest, Failed(truth["reason"], message), self.clock * 10**9)
            return written(self.previous)
        for call in self._until_deletion():
            self._play(call)
            self._look()
        self._end_as(truth, newest_too=True)
        self._look()
        status = self._look(last=truth)
        return written(status)

    def deleted(self) -> dict[str, Any]:
        """What is left of the status when the deletion is complete."""
        self.deleting = True
        for call in self.calls[self._deletion() :]:
            self._play(call)
            if call.get("call") in ("StopContainer", "StopPodSandbox"):
                self._look()
        self._look()
        assert self.previous is not None
        return written(finished(self.manifest, self.previous), brief=True)

    def _until_deletion(self) -> Iterator[dict[str, Any]]:
        yield from self.calls[: self._deletion()]

    def _deletion(self) -> int:
        return next((i for i, one in enumerate(self.calls) if one.get("step") == "delete"), len(self.calls))

    def _look(self, last: dict[str, Any] | None = None) -> PodStatus:
        self.clock += 1
        truth = last or {}
        failed = None
        if last is not None and last.get("reason") == "DeadlineExceeded":
            failed = Failed(last["reason"], last["message"])
        self.previous = pod_status(
            self.manifest, self.seen, previous=self.previous, waiting=_waiting(truth),
            probes=self._probes(truth), node=self.node, facts=PodFacts(), now=self.clock * 10**9,
            deleting=self.deleting, failed=failed,
        )  # fmt: skip
        return self.previous

    def _probes(self, truth: dict[str, Any]) -> Results:
        results = Results()
        for status in _statuses(truth):
            newest = self.seen.container(status["name"])
            if newest is not None and newest.running and status.get("started"):
                results.set(Kind.STARTUP, newest.id, Outcome.SUCCESS)
                ready = Outcome.SUCCESS if status["ready"] else Outcome.FAILURE
                results.set(Kind.READINESS, newest.id, ready)
        return results

    def _play(self, entry: dict[str, Any]) -> None:
        if "step" in entry:
            self._step(entry["step"])
            return
        request, response = entry["request"], entry.get("response")
        self.clock += 1
        match entry["call"]:
            case "RunPodSandbox" if response is not None:
                self._run_sandbox(request, response)
            case "CreateContainer" if response is not None:
                self._create(request, response)
            case "StartContainer":
                self._change(request["container_id"], cri.CONTAINER_RUNNING)
                if response is None:
                    self._end(request["container_id"])
            case "StopContainer":
                self._end(request["container_id"])
            case "UpdateContainerResources":
                linux = ParseDict(request["linux"], cri.LinuxContainerResources())
                self._by_id(request["container_id"]).status.resources.linux.MergeFrom(linux)
            case "StopPodSandbox":
                for one in self.sandboxes:
                    if one.id == request["pod_sandbox_id"]:
                        one.state = cri.SANDBOX_NOTREADY
                for container in self.containers:
                    if container.sandbox_id == request["pod_sandbox_id"] and not container.exited:
                        self._end(container.id)
            case "RemoveContainer":
                self.containers = [one for one in self.containers if one.id != request["container_id"]]
            case "RemovePodSandbox":
                self.sandboxes = [one for one in self.sandboxes if one.id != request["pod_sandbox_id"]]

    def _step(self, step: str) -> None:
        if step.startswith(("patch ", "resize ", "debug ")):
            self.steps.append(step)
            self.manifest = golden.read(self.name, *self.steps)

    def _run_sandbox(self, request: dict[str, Any], response: dict[str, Any]) -> None:
        # Init containers of the former one are removed, and what ran in it has ended.
        config = ParseDict(request["config"], cri.PodSandboxConfig(), ignore_unknown_fields=True)
        status = cri.PodSandboxStatus(
            id=response["pod_sandbox_id"], metadata=config.metadata, state=cri.SANDBOX_READY,
            created_at=self.clock * 10**9,
        )  # fmt: skip
        status.linux.namespaces.options.CopyFrom(config.linux.security_context.namespace_options)
        if not self.manifest.spec.hostNetwork:
            status.network.ip = "${POD_IP}"
        self.sandboxes.insert(0, status)

    def _create(self, request: dict[str, Any], response: dict[str, Any]) -> None:
        config = request["config"]
        name = config["metadata"]["name"]
        plain = [one.name for one in self.manifest.init_containers if not self.manifest.is_sidecar(one)]
        for one in list(self.containers):
            if one.running and (one.name == name or one.name in plain):
                self._end(one.id)
        self.clock += 1
        told = _told(self.truth, name)
        status = cri.ContainerStatus(
            id=response["container_id"],
            metadata=cri.ContainerMetadata(name=name, attempt=config["metadata"].get("attempt", 0)),
            state=cri.CONTAINER_CREATED,
            created_at=self.clock * 10**9,
            image=cri.ImageSpec(image=told.get("image", "")),
            annotations=config["annotations"],
        )
        if "resources" in config.get("linux", {}):
            status.resources.linux.CopyFrom(
                ParseDict(config["linux"]["resources"], cri.LinuxContainerResources())
            )
        if user := told.get("user", {}).get("linux"):
            status.user.linux.uid, status.user.linux.gid = user["uid"], user["gid"]
            status.user.linux.supplemental_groups.extend(user.get("supplementalGroups", []))
        if "stopSignal" in told:
            status.stop_signal = cri.Signal.Value(told["stopSignal"])  # type: ignore[assignment]
        self.containers.insert(0, SeenContainer(status, request["pod_sandbox_id"]))

    def _end_as(self, truth: dict[str, Any], *, newest_too: bool) -> None:
        """Containers end by themselves where the status says so."""
        for status in _statuses(truth):
            newest = self.seen.container(status["name"])
            running = "running" in status["state"]
            if newest is not None and newest.running and not running and newest_too:
                self._end(newest.id)

    def _end(self, container_id: str) -> None:
        one = self._by_id(container_id)
        if one.exited:
            return
        ended = self._how(one)
        self._change(container_id, cri.CONTAINER_EXITED)
        status = self._by_id(container_id).status
        status.exit_code, status.reason = ended.get("exitCode", 0), ended.get("reason", "")
        status.message = ended.get("message", "")

    def _how(self, one: SeenContainer) -> dict[str, Any]:
        """How the attempt ended: the last state of the status for all but the newest."""
        later = [
            entry
            for entry in self.calls
            if entry.get("call") == "CreateContainer"
            and entry["request"]["config"]["metadata"]["name"] == one.name
            and entry["request"]["config"]["metadata"].get("attempt", 0) > one.attempt
        ]
        for section in ("status", "afterDeletion"):
            status = _named(self.truth.get(section, {}), one.name)
            if status is None:
                continue
            if not later and "terminated" in status["state"]:
                return dict(status["state"]["terminated"] or {})
            if "terminated" in status.get("lastState", {}) and (later or "waiting" in status["state"]):
                return dict(status["lastState"]["terminated"] or {})
        return {}

    def _change(self, container_id: str, state: cri.ContainerState) -> None:
        status = self._by_id(container_id).status
        status.state = state
        if state == cri.CONTAINER_RUNNING:
            status.started_at = self.clock * 10**9
        else:
            status.finished_at = self.clock * 10**9

    def _by_id(self, container_id: str) -> SeenContainer:
        return next(one for one in self.containers if one.id == container_id)


def _statuses(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for kind in KINDS for one in truth.get(kind) or []]


def _named(truth: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((one for one in _statuses(truth) if one["name"] == name), None)


def _told(truth: dict[str, Any], name: str) -> dict[str, Any]:
    return _named(truth.get("status", {}), name) or {}


def _waiting(truth: dict[str, Any]) -> dict[str, Waiting]:
    states = {one["name"]: one["state"].get("waiting") for one in _statuses(truth)}
    return {
        name: Waiting(state["reason"], state.get("message", ""))
        for name, state in states.items()
        if state and state["reason"] not in COMING
    }


def written(status: PodStatus, *, brief: bool = False) -> dict[str, Any]:
    """As the recordings write a status; `brief`: as they write what is left after the deletion."""
    tree = {name: value for name, value in _bare(status).items() if value is not None}
    for key in ("startTime", "hostIPs", "podIPs"):
        tree.pop(key, None)
    for condition in tree.get("conditions", []):
        condition.pop("lastTransitionTime", None)
    for kind in KINDS:
        for one in tree.get(kind, []):
            for mount in one.get("volumeMounts", []):
                mount["name"] = RANDOM.sub("kube-api-access-${RANDOM}", mount["name"])
            for key in ("containerID", "imageID"):
                one.pop(key, None)
            for state in ("state", "lastState"):
                for inner in one.get(state, {}).values():
                    for key in ("startedAt", "finishedAt", "containerID"):
                        inner.pop(key, None)
    if not brief:
        return tree
    kept = {key: tree[key] for key in ("phase", "reason", "message") if key in tree}
    for kind in KINDS:
        if tree.get(kind):
            kept[kind] = [
                {key: one[key] for key in ("name", "restartCount", "state", "lastState") if key in one}
                for one in tree[kind]
            ]
    return kept


def _bare(value: object) -> Any:
    """Without the fields that are not set."""
    if isinstance(value, msgspec.Struct):
        pairs = ((name, getattr(value, name)) for name in value.__struct_fields__)
        return {name: _bare(inner) for name, inner in pairs if inner is not None}
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if isinstance(value, dict):
        return {name: _bare(inner) for name, inner in value.items()}
    return value
