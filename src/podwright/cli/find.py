"""What a person means by "web": containers and pods by id, by the beginning of an id, by name.

A container is also named pod/container, a pod namespace/pod; where only a container will do, a pod stands for
its only one. Of several attempts or pods of the same name the one that is up is meant, or else the newest.
Anything else that fits more than once is refused with the list of what fits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
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
    sandbox: str = ""
    """The id of a container's pod."""

    @property
    def title(self) -> str:
        return f"{self.pod}/{self.name}" if self.kind == "container" else self.name

    @property
    def is_up(self) -> bool:
        return self.state == (cri.CONTAINER_RUNNING if self.kind == "container" else cri.SANDBOX_READY)


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
    return choose(word, list(items(*await everything(runtime))), kinds)


async def find_all(
    runtime: Cri, words: Sequence[str], kinds: Sequence[Kind] = ("container", "pod")
) -> list[Found]:
    """What each of `words` names, looked up in one go."""
    known = list(items(*await everything(runtime)))
    return [choose(word, known, kinds) for word in words]


def choose(word: str, items: Iterable[Found], kinds: Sequence[Kind] = ("container", "pod")) -> Found:
    """The rule of `find` alone: an exact id beats a name, a name the beginning of an id."""
    everything = list(items)
    wanted = [item for item in everything if item.kind in kinds]
    for fits in (_is_id, _is_name, _is_prefix):
        if matches := _meant([item for item in wanted if fits(item, word)]):
            return _only(word, matches)
    if "pod" not in kinds:
        with suppress(NotFound):
            pod = choose(word, everything, ("pod",))
            inside = _meant([item for item in wanted if item.sandbox == pod.id])
            if not inside:
                raise FailedPrecondition(f"pod {pod.title} ({pod.id[:12]}) has no container")
            return _only(word, inside)
    raise NotFound(f"no {' or '.join(kinds)} has the id or name {word!r}")


def _only(word: str, matches: Sequence[Found]) -> Found:
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(f"{item.kind} {item.title} ({item.id[:12]})" for item in matches)
    raise InvalidArgument("", f"{word!r} fits {len(matches)} objects: {listed}; say POD/CONTAINER, or an id")


def items(containers: Iterable[cri.Container], pods: dict[str, cri.PodSandbox]) -> Iterable[Found]:
    """What there is to find, as `choose` wants it."""
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
            sandbox=container.pod_sandbox_id,
        )


def _is_id(item: Found, word: str) -> bool:
    return item.id == word


def _is_name(item: Found, word: str) -> bool:
    if item.kind == "pod":
        return word in (item.name, f"{item.namespace}/{item.name}")
    return word in (item.name, f"{item.pod}/{item.name}", f"{item.namespace}/{item.pod}/{item.name}")


def _is_prefix(item: Found, word: str) -> bool:
    return bool(word) and item.id.startswith(word)


def _meant(items: Iterable[Found]) -> list[Found]:
    """Of those with the same full name all that are up, or else the newest."""
    named: dict[tuple[str, ...], list[Found]] = {}
    for item in sorted(items, key=lambda item: item.created_at):
        named.setdefault((item.kind, item.namespace, item.pod, item.name), []).append(item)
    return [one for same in named.values() for one in [item for item in same if item.is_up] or same[-1:]]
