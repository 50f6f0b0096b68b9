"""What the pieces that carry a pod through its life have in common: the pod, its node, and what is remembered
of it between two rounds. Remembered is only what the runtime cannot be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from podwright.api import Cri
from podwright.clock import Clock
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life.backoff import Backoff
from podwright.kube.life.events import Recorder
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer, ResourceRequirements
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.results import Results
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.kube.state.status import Waiting
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.failures import ImageError
    from podwright.kube.life.images import Images

T = TypeVar("T")


async def _nobody_reads(container: str, attempt: int) -> None:
    pass


@dataclass(slots=True)
class PodContext:
    runtime: Cri
    manifest: Manifest
    node: Node
    directory: PodDirectory
    clock: Clock
    recorder: Recorder
    images: Images
    crashes: Backoff
    """Of containers, by `crash_key`."""
    mounts: Backoff
    """Of the pod's volumes, by "volumes"."""
    results: Results
    """What the probes have found out."""
    facts: PodFacts = field(default_factory=PodFacts)
    mounted: bool = False
    """Its volumes have been made."""
    sandbox_resources: cri.LinuxContainerResources | None = None
    """What the runtime was last told that the pod has as a whole."""
    generation: int = 1
    """How many manifests it has had (metadata.generation)."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    """Why the last start of a container failed, by name."""
    messages: dict[str, str] = field(default_factory=dict)
    """Termination messages, by container id."""
    sandbox_config: cri.PodSandboxConfig | None = None
    """Of the sandbox there is."""
    volume_images: dict[str, str] = field(default_factory=dict)
    """The references of the images of image volumes, by volume."""
    volume_faults: dict[str, ImageError] = field(default_factory=dict)
    """Why such an image is not there, by volume."""
    actuated: dict[str, ResourceRequirements] = field(default_factory=dict)
    """The resources that containers were made with or last changed to, by id."""
    started: set[str] = field(default_factory=set)
    """Ids of the containers that this process has started."""
    ended: dict[str, int] = field(default_factory=dict)
    """When those were first seen to have ended, by our clock, in nanoseconds since the epoch."""
    read_out: Callable[[str, int], Awaitable[None]] = _nobody_reads
    """Awaited before the log of a container's attempt goes."""
    impatient: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: nobody waits for grace periods any more."""
    creations: set[asyncio.Task[object]] = field(default_factory=set)

    @property
    def title(self) -> str:
        """ "name_namespace(uid)", as messages of the kubelet name a pod."""
        return f"{self.manifest.name}_{self.manifest.namespace}({self.manifest.uid})"

    def crash_key(self, container: AnyContainer) -> str:
        """What is changed in the manifest begins its back-off anew."""
        return f"{container.name}|{container.image}|{container.resources!r}"

    def ended_at(self, container: SeenContainer) -> int:
        """When it ended, in nanoseconds since the epoch; by our clock if this process has started it, for a
        runtime's clock may be another one."""
        if container.id not in self.started:
            return container.status.finished_at
        return self.ended.setdefault(container.id, self.clock.now())

    def forget_others(self, seen: Seen) -> None:
        """What is remembered of containers that the runtime has no more is needed no more."""
        there = {one.id for one in seen.containers}
        for known in (self.messages, self.actuated, self.ended):
            for gone in known.keys() - there:
                del known[gone]
        self.started &= there

    async def unbroken(self, creation: Coroutine[object, object, T]) -> T:
        """Let a creation come to its end even when the round is cancelled: a runtime may go on with it, and
        what it makes must be there to be found."""
        task: asyncio.Task[T] = asyncio.get_running_loop().create_task(creation)
        self.creations.add(task)
        task.add_done_callback(self.creations.discard)
        return await asyncio.shield(task)

    async def created(self) -> None:
        """All creations of cancelled rounds have ended."""
        while self.creations:
            await asyncio.wait(set(self.creations))
