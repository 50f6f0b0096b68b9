"""What was asked of a runtime, what was told and what the pod's status is, in the recordings' words: with
their placeholders, and without what is different every time.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict

from podwright.kube.life.worker import PodWorker
from podwright.testing.calls import Call

RECORDED = (
    "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "PullImage", "CreateContainer", "StartContainer",
    "StopContainer", "RemoveContainer", "ExecSync", "UpdateContainerResources", "UpdatePodSandboxResources",
    "ReopenContainerLog",
)  # fmt: skip
COLLECTED = ("RemoveContainer", "RemovePodSandbox")
"""Their place is approximate."""


class Words:
    """Of one pod, whose calls nobody else makes."""

    def __init__(
        self,
        calls: Iterable[Call],
        worker: PodWorker,
        places: Mapping[str, str],
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        """`places`: what the recordings call these texts, such as paths; `numbers`: the same of numbers."""
        self._calls, self._worker = calls, worker
        self._places, self._numbers = places, numbers or {}
        self._ids: dict[str, str] = {}
        self._configs: dict[int, dict[str, Any]] = {}
        self._ended: dict[int, dict[str, Any] | None] = {}
        """By the numbers of the calls that have ended: what there is to tell of them, None: nothing."""

    def calls(self) -> list[dict[str, Any]]:
        found = (
            self._ended[one.number] if one.number in self._ended else self._entry(one) for one in self._calls
        )
        return [one for one in found if one is not None]

    def _entry(self, call: Call) -> dict[str, Any] | None:
        self._learn(call)
        entry: dict[str, Any] | None = None
        if call.rpc in RECORDED:
            tree = self._tree(call)
            if call.rpc == "RunPodSandbox":
                self._configs[tree["config"]["metadata"].get("attempt", 0)] = tree["config"]
            entry = {"call": call.rpc, "request": tree}
            if call.error is not None:
                entry["error"] = True
        if call.ended:
            self._ended[call.number] = entry
        return entry

    def _tree(self, call: Call) -> dict[str, Any]:
        tree: dict[str, Any] = MessageToDict(call.request, preserving_proto_field_name=True)
        for env in tree.get("config", {}).get("envs", []):
            env["value"] = base64.b64decode(env.get("value", "")).decode()
            if not env["value"]:
                del env["value"]
        config = tree.get("config", {})
        config.get("envs", []).sort(key=lambda one: str(one["key"]))
        for place in (config, tree.get("sandbox_config", {})):
            place.get("dns_config", {}).get("options", []).sort()
        found: dict[str, Any] = self.replaced(tree)
        for attempt, known in self._configs.items():
            if found.get("sandbox_config") == known:
                found["sandbox_config"] = f"${{SANDBOX_CONFIG:{attempt}}}"
        return found

    def replaced(self, tree: Any, key: str = "") -> Any:
        if isinstance(tree, dict):
            return {name: self.replaced(value, name) for name, value in tree.items()}
        if isinstance(tree, list):
            return [self.replaced(one, key) for one in tree]
        if isinstance(tree, int) and not isinstance(tree, bool):
            return self._numbers.get(tree, tree)
        if not isinstance(tree, str):
            return tree
        if key == "kubernetes.io/config.seen":
            return "${TIME}"
        return self.text(tree)

    def text(self, text: str) -> str:
        for known, name in {**self._places, **self._ids}.items():
            # A port's number may be in the middle of another.
            text = re.sub(rf"\b{known}\b", name, text) if known.isdigit() else text.replace(known, name)
        text = re.sub(r"(/containers/[^/]+)/[0-9a-f]{8}$", r"\1/${RANDOM}", text)
        text = re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access-${RANDOM}", text)
        ips = self._worker.pod.facts.ips
        for ip in (",".join(ips), *ips) if ips else ():  # the recordings' pods had one each
            text = text.replace(ip, ip if ip.startswith("$") else "${POD_IP}")
        return text

    def _learn(self, call: Call) -> None:
        """The ids that its answer has."""
        if call.response is None:
            return
        if call.rpc == "RunPodSandbox":
            attempt = call.request.config.metadata.attempt
            self._ids[call.response.pod_sandbox_id] = f"${{SANDBOX:{attempt}}}"
        elif call.rpc == "CreateContainer":
            made = call.request.config.metadata
            self._ids[call.response.container_id] = f"${{CONTAINER:{made.name}:{made.attempt}}}"
        elif call.rpc == "ImageStatus" and call.response.HasField("image"):
            image = call.response.image
            for tag in image.repo_tags:
                self._ids[image.id] = "${IMAGE_ID:" + tag.partition("/")[2] + "}"

    def events(self) -> list[tuple[str, str, str, str]]:
        return [
            (one.type, one.reason, one.object.removeprefix("spec."), self._event(one.message))
            for one in self._worker.events
        ]

    def _event(self, message: str) -> str:
        message = re.sub(r" in \S+ \(\S+ including waiting\)\.", " in ${DURATION}.", message)
        return self.text(re.sub(r"Image size: \d+ bytes", "Image size: ${SIZE} bytes", message))

    def status(self) -> dict[str, Any]:
        tree = msgspec.to_builtins(self._worker.status)
        kept = (
            "phase",
            "reason",
            "message",
            "qosClass",
            "hostIP",
            "podIP",
            "resources",
            "allocatedResources",
        )
        found: dict[str, Any] = {name: tree[name] for name in kept if tree.get(name)}
        found["conditions"] = sorted(
            (
                {key: one[key] for key in ("type", "status", "reason", "message") if one.get(key)}
                for one in tree.get("conditions") or []
            ),
            key=lambda one: one["type"],
        )
        for group in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
            if tree.get(group):
                found[group] = [_container(one) for one in tree[group]]
        replaced: dict[str, Any] = self.replaced(found)
        return replaced


_TIMES = ("startedAt", "finishedAt", "containerID", "imageID", "lastTransitionTime")


def _container(tree: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in tree.items() if value is not None and key not in _TIMES}
    for place in ("state", "lastState"):
        state = {
            kind: {key: value for key, value in one.items() if value not in (None, "") and key not in _TIMES}
            for kind, one in (found.get(place) or {}).items()
            if one is not None
        }
        found.pop(place, None)
        if state:
            found[place] = state
    return found
