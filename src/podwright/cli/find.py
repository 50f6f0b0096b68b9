"""What a person means by "web": containers and pods by id, by the beginning of an id, by name.

A container is also named pod/container, a pod namespace/pod. Of several attempts of the same container the
newest is meant. Anything else that fits more than once is refused with the list of what fits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from podwright.errors import InvalidArgument, NotFound
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri

Kind = Literal["container", "pod"]


@dataclass(frozen=True, slots=True)
class Found:
    """A container or a pod."""

    kind: Kind
    id: str
    name: str
    """The container's or the pod's name."""
    pod: str
    """The pod's name."""
    namespace: str
    created_at: int
    state: int
    """A cri.ContainerState or cri.PodSandboxState."""

    @property
    def title(self) -> str:
        return f"{self.pod}/{self.name}" if self.kind == "container" else self.name


async def everything(runtime: Cri) -> tuple[list[cri.Container], dict[str, cri.PodSandbox]]:
    """All containers, and all pods by id."""
    containers, pods = await asyncio.gather(
        runtime.list_containers(cri.ListContainersRequest()),
        runtime.list_pod_sandbox(cri.ListPodSandboxRequest()),
    )
    return list(containers.containers), {pod.id: pod for pod in pods.items}


async def find(runtime: Cri, word: str, kinds: Sequence[Kind] = ("container", "pod")) -> Found:
    """The one container or pod that `word` names.

    NotFound when there is none; InvalidArgument that lists them when there are several.
    """
    return choose(word, [item for item in _items(*await everything(runtime)) if item.kind in kinds], kinds)


async def find_all(
    runtime: Cri, words: Sequence[str], kinds: Sequence[Kind] = ("container", "pod")
) -> list[Found]:
    """What each of `words` names, looked up in one go."""
    items = [item for item in _items(*await everything(runtime)) if item.kind in kinds]
    return [choose(word, items, kinds) for word in words]


def choose(word: str, items: Iterable[Found], kinds: Sequence[Kind] = ("container", "pod")) -> Found:
    """The rule of `find` alone: an exact id beats a name, a name the beginning of an id."""
    items = list(items)
    for fits in (_is_id, _is_name, _is_prefix):
        matches = _newest([item for item in items if fits(item, word)])
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(f"{item.kind} {item.title} ({item.id[:12]})" for item in matches)
            raise InvalidArgument("", f"{word!r} fits {len(matches)} objects: {listed}; use an id")
    raise NotFound(f"no {' or '.join(kinds)} has the id or name {word!r}")


def _items(containers: Iterable[cri.Container], pods: dict[str, cri.PodSandbox]) -> Iterable[Found]:
    for pod in pods.values():
        name, namespace = pod.metadata.name, pod.metadata.namespace
        yield Found("pod", pod.id, name, name, namespace, pod.created_at, pod.state)
    for container in containers:
        pod = pods.get(container.pod_sandbox_id, cri.PodSandbox())
        yield Found(
            kind="container",
            id=container.id,
            name=container.metadata.name,
            pod=pod.metadata.name,
            namespace=pod.metadata.namespace,
            created_at=container.created_at,
            state=container.state,
        )


def _is_id(item: Found, word: str) -> bool:
    return item.id == word


def _is_name(item: Found, word: str) -> bool:
    if item.kind == "pod":
        return word in (item.name, f"{item.namespace}/{item.name}")
    return word in (item.name, f"{item.pod}/{item.name}", f"{item.namespace}/{item.pod}/{item.name}")


def _is_prefix(item: Found, word: str) -> bool:
    return bool(word) and item.id.startswith(word)


def _newest(items: Iterable[Found]) -> list[Found]:
    """The newest attempt of each object."""
    newest: dict[tuple[str, ...], Found] = {}
    for item in sorted(items, key=lambda item: item.created_at):
        newest[item.kind, item.namespace, item.pod, item.name] = item
    return list(newest.values())
