"""One recorded case played again: the pod's worker on a fake node with a virtual clock, with the images and
files that the recordings' README names; and what was asked of the runtime, with the recordings' placeholders.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict

from podwright.kube import volumes
from podwright.kube.manifest import Manifest
from podwright.kube.node import Node
from podwright.kube.objects import TOKEN_SECRET, Secret
from podwright.kube.worker import PodWorker
from podwright.testing import FakeNode
from podwright.testing.calls import Call
from tests.kube import golden

RECORDED = (
    "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "PullImage", "CreateContainer", "StartContainer",
    "StopContainer", "RemoveContainer", "ExecSync", "UpdateContainerResources", "UpdatePodSandboxResources",
    "ReopenContainerLog",
)  # fmt: skip
COLLECTED = ("RemoveContainer", "RemovePodSandbox")
"""Their place is approximate."""
STEP, PATIENCE = 0.5, 30.0
"""Virtual seconds: between two looks, and for a part of a case at most."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIGS: dict[str, dict[str, Any]] = {
    "busybox:1": {"Env": [PATH, "FROM_IMAGE=one"], "Cmd": ["sh"]},
    "busybox:2": {"Env": [PATH, "FROM_IMAGE=two"], "Cmd": ["sh"]},
    "app:1": {
        "Env": [PATH, "FROM_IMAGE=one", "OVERRIDE=image"],
        "Entrypoint": ["/bin/sh", "/srv/run.sh"],
        "Cmd": ["8080"],
        "WorkingDir": "/srv",
        "User": "1234:2345",
    },
    "nameduser:1": {"Env": [PATH], "User": "appuser", "Cmd": ["sh", "-c", "id; exec sleep 3600"]},
    "sig:1": {"Env": [PATH], "StopSignal": "SIGUSR1", "Cmd": ["sleep", "inf"]},
    "data:1": {},
}


def scenario(case: str, extra: dict[str, Any]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for name, config in CONFIGS.items():
        for registry, present in (("registry.test", True), ("other.test", False), ("pull.test", False)):
            items.append(
                {
                    "reference": f"{registry}/{name}",
                    "present": present or (registry == "other.test" and name == "busybox:2"),
                    "config": config,
                    "build": registry,
                }
            )
    items.append({"reference": "other.test/busybox:latest", "config": CONFIGS["busybox:1"]})
    items.append(
        {
            "reference": "private.test/busybox:1",
            "config": CONFIGS["busybox:1"],
            "username": "alice",
            "password": "wonder",
        }
    )
    items = [*extra.pop("images", []), *items]
    app = {"match": {"image": "*/app:1"}, "program": ["sleep", "inf"]}
    return {
        "handlers": {"runc": {}, "secondary": {}},
        "default_handler": "runc",
        "images": {"unknown": "refuse", "items": items},
        "containers": [*extra.pop("containers", []), app],
        **extra,
    }


class Stage:
    """One case that plays."""

    def __init__(self, case: str, node: FakeNode, worker: PodWorker, root: Path) -> None:
        self.case, self.node, self.worker, self.root = case, node, worker, root
        self.life: asyncio.Task[Any] = asyncio.get_running_loop().create_task(worker.run())
        self._words = Words(self)

    async def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Let time pass until `condition` holds; whether it does in the end."""
        passed = 0.0
        while True:
            await self.settle()
            if condition():
                return True
            if passed >= patience or self.life.done():
                return condition()
            await self.node.advance(STEP)
            passed += STEP

    async def settle(self) -> None:
        """What can happen without time passing has happened. Who waits for the clock is not idle either."""
        for _ in range(40):
            await asyncio.sleep(0.001)
            if self.worker.idle.is_set() or self.life.done():
                # Its wake may be on the way.
                await asyncio.sleep(0.002)
                if self.worker.idle.is_set() or self.life.done():
                    return

    def calls(self) -> list[dict[str, Any]]:
        return self._words.calls()

    def events(self) -> list[tuple[str, str, str, str]]:
        return self._words.events()

    def status(self) -> dict[str, Any]:
        return self._words.status(self.worker.status)


@asynccontextmanager
async def staged(case: str, root: Path, extra: dict[str, Any] | None = None) -> AsyncIterator[Stage]:
    """The case with its pod about to begin; at the end nothing of it is left."""
    files(root)
    async with FakeNode(scenario(case, dict(extra or {})), root=root / "state", seed=7) as fake:
        clock, manifest = fake.world.clock, read(case, root)
        worker = PodWorker(
            fake.cri, manifest, node(case, root),
            clock=clock, source="file" if manifest.static else "api",
        )  # fmt: skip
        stage = Stage(case, fake, worker, root)
        try:
            yield stage
        finally:
            if not stage.life.done():
                stage.life.cancel()
                await asyncio.wait({stage.life})
            await asyncio.to_thread(volumes.remove, worker.directory)


def read(case: str, root: Path, *steps: str) -> Manifest:
    """The Pod of the case after the steps; the recordings' files of the host are below `root`."""
    made = golden.read(case, *steps)
    for volume in made.spec.volumes or []:
        if volume.hostPath is not None:
            volume.hostPath.path = volume.hostPath.path.replace("/srv/golden", str(root / "golden"))
    # The recordings' API server issued tokens.
    token = Secret(made.namespace, "token", {"token": b"${GENERATED}"}, TOKEN_SECRET)
    return replace(made, objects=made.objects.adding(token))


def files(root: Path) -> None:
    """What the recordings' node had below /srv/golden."""
    golden = root / "golden"
    (golden / "dir" / "sub").mkdir(parents=True)
    (golden / "shared").mkdir()
    (golden / "file.txt").write_text("golden\n")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(golden, os.O_PATH)
        try:
            made.bind(f"/proc/self/fd/{here}/sock")  # the path itself may be too long for an address
        finally:
            os.close(here)


def node(case: str, root: Path) -> Node:
    return replace(golden.node(case), root=root / "kubelet", pod_logs=root / "logs")


class Words:
    """What was asked and told, in the recordings' words."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._configs: dict[int, dict[str, Any]] = {}

    def calls(self) -> list[dict[str, Any]]:
        found = []
        for call in self._stage.node.calls:
            if call.rpc not in RECORDED:
                continue
            tree = self._tree(call)
            if call.rpc == "RunPodSandbox":
                self._configs[tree["config"]["metadata"].get("attempt", 0)] = tree["config"]
            entry: dict[str, Any] = {"call": call.rpc, "request": tree}
            if call.error is not None:
                entry["error"] = True
            found.append(entry)
        return found

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
        found: dict[str, Any] = self._replaced(tree)
        for attempt, known in self._configs.items():
            if found.get("sandbox_config") == known:
                found["sandbox_config"] = f"${{SANDBOX_CONFIG:{attempt}}}"
        return found

    def _replaced(self, tree: Any, key: str = "") -> Any:
        if isinstance(tree, dict):
            return {name: self._replaced(value, name) for name, value in tree.items()}
        if isinstance(tree, list):
            return [self._replaced(one, key) for one in tree]
        if not isinstance(tree, str):
            return tree
        if key == "kubernetes.io/config.seen":
            return "${TIME}"
        return self.text(tree)

    def text(self, text: str) -> str:
        stage = self._stage
        for path, name in ((stage.root / "kubelet", "KUBELET_ROOT"), (stage.root / "logs", "POD_LOG_DIR")):
            text = text.replace(str(path), f"${{{name}}}")
        text = text.replace(str(stage.root / "golden"), "/srv/golden")
        for id, name in self._ids().items():
            text = text.replace(id, name)
        text = re.sub(r"(/containers/[^/]+)/[0-9a-f]{8}$", r"\1/${RANDOM}", text)
        text = re.sub(r"kube-api-access-[a-z0-9]{5}", "kube-api-access-${RANDOM}", text)
        for ip in stage.worker.pod.facts.ips:
            text = text.replace(ip, ip if ip.startswith("$") else "${POD_IP}")
        return text

    def _ids(self) -> dict[str, str]:
        found = {}
        for call in self._stage.node.calls:
            if call.response is None:
                continue
            if call.rpc == "RunPodSandbox":
                attempt = call.request.config.metadata.attempt
                found[call.response.pod_sandbox_id] = f"${{SANDBOX:{attempt}}}"
            elif call.rpc == "CreateContainer":
                made = call.request.config.metadata
                found[call.response.container_id] = f"${{CONTAINER:{made.name}:{made.attempt}}}"
            elif call.rpc == "ImageStatus" and call.response.HasField("image"):
                image = call.response.image
                for tag in image.repo_tags:
                    found[image.id] = "${IMAGE_ID:" + tag.partition("/")[2] + "}"
        return found

    def events(self) -> list[tuple[str, str, str, str]]:
        return [
            (one.type, one.reason, one.object.removeprefix("spec."), self._event(one.message))
            for one in self._stage.worker.events
        ]

    def _event(self, message: str) -> str:
        message = re.sub(r" in \S+ \(\S+ including waiting\)\.", " in ${DURATION}.", message)
        return self.text(re.sub(r"Image size: \d+ bytes", "Image size: ${SIZE} bytes", message))

    def status(self, status: Any) -> dict[str, Any]:
        tree = msgspec.to_builtins(status)
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
        replaced: dict[str, Any] = self._replaced(found)
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
