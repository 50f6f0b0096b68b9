"""`podwright describe`: all that is known of pods, whoever runs them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from podwright.cli.output import Document
from podwright.cli.pod_records import KnownPod, choose, current, known
from podwright.errors import PodwrightError
from podwright.kube.life.events import Event
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import Container, ObjectMeta, Pod, PodSpec
from podwright.kube.node import Node, PodFacts, look, observe
from podwright.kube.probes.results import Results
from podwright.kube.state.pod_state import UID_LABEL, Seen, SeenContainer
from podwright.kube.state.pod_state import look as look_at
from podwright.kube.state.status import pod_status
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door

KUBERNETES = "io.kubernetes."
"""How the labels and annotations begin that a kubelet adds."""


@dataclass(frozen=True, slots=True)
class Described:
    """One pod, with all that is told of it."""

    pod: Pod
    """With its status, as the API has it."""
    events: Sequence[Event]
    node: str
    noted: bool
    """Podwright keeps it; otherwise only the runtime knows of it."""
    seen: Seen
    note: str = ""
    """Why this may not be the whole truth."""


async def describe(door: Door, words: Sequence[str], form: Document) -> None:
    """Print the pods that `words` mean. NotFound, InvalidArgument."""
    config = door.config()
    root, logs = config.root_path, Path(config.node.pod_logs) if config.node.pod_logs else None
    async with AsyncExitStack() as stack:
        runtime, note = None, ""
        try:
            runtime = await stack.enter_async_context(door.cri())
        except (PodwrightError, OSError) as error:
            if door.socket is not None:
                raise
            note = f"the runtime cannot be asked ({error}); this was noted last"
        sandboxes: Sequence[cri.PodSandbox] = ()
        if runtime is not None:
            sandboxes = (await runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items
        pods = await asyncio.to_thread(known, root, logs, sandboxes)
        chosen = [choose(word, pods) for word in words]
        node = (
            await observe(runtime, config) if runtime is not None else await asyncio.to_thread(look, config)
        )
        found = [await _described(runtime, one, node, note) for one in chosen]
    _print(found, form)


async def _described(runtime: Cri | None, pod: KnownPod, node: Node, note: str) -> Described:
    if pod.noted is None:
        assert runtime is not None, "without a runtime only pods with records are known"
        seen = await _look(runtime, pod)
        return Described(of_runtime(pod, seen, node), (), node.name, False, seen)
    events = await asyncio.to_thread(lambda: pod.events)
    whole = msgspec.structs.replace(pod.noted, apiVersion="v1", kind="Pod")
    assert whole.spec is not None
    whole.spec = msgspec.structs.replace(whole.spec, nodeName=whole.spec.nodeName or node.name)
    if runtime is None:
        whole.status = await asyncio.to_thread(lambda: pod.recorded)
        return Described(whole, events, node.name, True, Seen(), note)
    seen = await look_at(runtime, pod.uid)
    whole.status = await asyncio.to_thread(current, pod, seen, node)
    return Described(whole, events, node.name, True, seen)


# Pods of which only the runtime knows


async def _look(runtime: Cri, pod: KnownPod) -> Seen:
    if any(one.labels.get(UID_LABEL) for one in pod.sandboxes):
        return await look_at(runtime, pod.uid)
    sandboxes = [
        (await runtime.pod_sandbox_status(cri.PodSandboxStatusRequest(pod_sandbox_id=one.id))).status
        for one in pod.sandboxes
    ]
    containers = []
    for sandbox in pod.sandboxes:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=sandbox.id))
        for one in (await runtime.list_containers(request)).containers:
            answer = await runtime.container_status(cri.ContainerStatusRequest(container_id=one.id))
            containers.append(SeenContainer(answer.status, sandbox.id))
    containers.sort(key=lambda one: one.status.created_at, reverse=True)
    return Seen(tuple(sandboxes), tuple(containers))


def of_runtime(pod: KnownPod, seen: Seen, node: Node) -> Pod:
    """What the CRI knows, in the words of the API. Whether containers would be started again it does not."""
    newest = seen.sandboxes[0] if seen.sandboxes else cri.PodSandboxStatus()
    images = {
        one.name: one.status.image.user_specified_image or one.status.image.image for one in seen.containers
    }
    begun = datetime.fromtimestamp(newest.created_at // 1_000_000_000, UTC) if newest.created_at else None
    spec = PodSpec(
        containers=[Container(name=name, image=image) for name, image in sorted(images.items())],
        restartPolicy="Never",
        nodeName=node.name,
        runtimeClassName=newest.runtime_handler or None,
        hostNetwork=newest.linux.namespaces.options.network == cri.NODE or None,
    )
    made = Pod(
        apiVersion="v1",
        kind="Pod",
        metadata=ObjectMeta(
            name=pod.name,
            namespace=pod.namespace,
            uid=pod.uid,
            labels=_own(newest.labels) or None,
            annotations=_own(newest.annotations) or None,
            creationTimestamp=begun,
        ),
        spec=spec,
    )
    made.status = pod_status(
        Manifest(made, "the runtime"),
        seen,
        previous=None,
        waiting={},
        probes=Results(),
        node=node,
        facts=PodFacts(ips=seen.ips() or (node.ips if spec.hostNetwork else ())),
        now=newest.created_at,
        deleting=False,
    )
    spec.restartPolicy = None
    made.status.qosClass = None
    return made


def _own(entries: Any) -> dict[str, str]:
    return {key: value for key, value in entries.items() if not key.startswith(KUBERNETES)}


# Forms


def _print(found: Sequence[Described], form: Document) -> None:
    if form is Document.TEXT:
        from podwright.cli import describe_text

        terminal = sys.stdout.isatty()
        for index, one in enumerate(found):
            print(("\n\n" if index else "") + "\n".join(describe_text.lines(one, terminal=terminal)))
        return
    trees = [msgspec.to_builtins(one.pod) for one in found]
    whole = trees[0] if len(trees) == 1 else {"apiVersion": "v1", "kind": "List", "items": trees}
    if form is Document.JSON:
        print(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        import yaml

        print(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), end="")
