"""Pods and what a runtime has of them, for tests of the rules: written short."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import msgspec
import yaml

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Pod
from podwright.kube.requests.container import container_hash
from podwright.kube.state.pod_state import HASH_ANNOTATION, Seen, SeenContainer
from podwright.wire import cri_pb2 as cri

SECOND = 1_000_000_000
RUNNING, EXITED = cri.CONTAINER_RUNNING, cri.CONTAINER_EXITED
CREATED, UNKNOWN = cri.CONTAINER_CREATED, cri.CONTAINER_UNKNOWN


def pod(spec: str, *, name: str = "p", more: str = "") -> Manifest:
    """`spec`: the YAML below "spec:", indented by two."""
    text = f"metadata:\n  name: {name}\n  namespace: default\n  uid: u\n{more}spec:\n{spec}"
    # Not read as a manifest is: the rules must hold for what no check has seen.
    return Manifest(msgspec.convert(yaml.safe_load(text), Pod), "test")


def simple(policy: str = "Always", *names: str) -> Manifest:
    return pod(f"  restartPolicy: {policy}\n" + containers(*(names or ("main",))))


def containers(*names: str, field: str = "containers", more: str = "") -> str:
    lines = "".join(f"  - {{name: {name}, image: 'i:1'{more}}}\n" for name in names)
    return f"  {field}:\n{lines}"


@dataclass
class Node:
    """A runtime's memory of one pod, made by hand."""

    manifest: Manifest
    clock: int = 0
    sandboxes: list[cri.PodSandboxStatus] = field(default_factory=list)
    containers: list[SeenContainer] = field(default_factory=list)

    def sandbox(
        self, attempt: int = 0, *, ready: bool = True, ip: str = "10.0.0.2", host: bool = False
    ) -> Node:
        self.clock += 1
        status = cri.PodSandboxStatus(
            id=f"sandbox-{attempt}", created_at=self.clock,
            state=cri.SANDBOX_READY if ready else cri.SANDBOX_NOTREADY,
            metadata=cri.PodSandboxMetadata(name="p", namespace="default", uid="u", attempt=attempt),
            network=cri.PodSandboxNetworkStatus(ip=ip),
        )  # fmt: skip
        if host:
            status.linux.namespaces.options.network = cri.NODE
        self.sandboxes.insert(0, status)
        return self

    def container(
        self,
        name: str,
        state: cri.ContainerState = RUNNING,
        code: int = 0,
        *,
        attempt: int = 0,
        reason: str = "",
        sandbox: str = "",
        hash: str | None = None,
    ) -> Node:
        self.clock += 1
        spec = self.manifest.container(name)
        if hash is None:
            hash = container_hash(spec) if spec is not None else ""
        status = cri.ContainerStatus(
            id=f"{name}-{attempt}", state=state, exit_code=code, created_at=self.clock,
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            started_at=0 if state == CREATED else self.clock * SECOND,
            finished_at=self.clock * SECOND + 1 if state == EXITED else 0,
            reason=reason or ("" if state != EXITED else "Error" if code else "Completed"),
            image=cri.ImageSpec(image="i:1"), image_ref="i@sha256:1", image_id="sha256:2",
            annotations={HASH_ANNOTATION: hash} if hash else {},
        )  # fmt: skip
        self.containers.insert(0, SeenContainer(status, sandbox or self.sandboxes[0].id))
        return self

    def end(self, container_id: str, code: int = 0, state: cri.ContainerState = EXITED) -> Node:
        self.containers = [
            _ended(one, code, state) if one.id == container_id else one for one in self.containers
        ]
        return self

    def without(self, ids: Iterable[str]) -> Node:
        gone = set(ids)
        self.containers = [one for one in self.containers if one.id not in gone]
        return self

    @property
    def seen(self) -> Seen:
        return Seen(tuple(self.sandboxes), tuple(self.containers))


def _ended(one: SeenContainer, code: int, state: cri.ContainerState) -> SeenContainer:
    status = cri.ContainerStatus()
    status.CopyFrom(one.status)
    status.state, status.exit_code = state, code
    status.reason = "Error" if code else "Completed"
    status.finished_at = status.started_at + SECOND
    return replace(one, status=status)
