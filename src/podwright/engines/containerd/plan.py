"""What the containerd engine would give to containerd, without giving it: no snapshot, record or task is
made.

Whoever has the engine open explains with its parts; `planned` gives the same from a configuration alone, with
what containerd tells if it answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import msgspec

from podwright.config import Config
from podwright.engines.base import Container, Explanation, Image, Sandbox
from podwright.engines.containerd import platforms
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import Host, Shims
from podwright.engines.containerd.images import Images
from podwright.engines.containerd.objects import GROUP
from podwright.engines.containerd.pause_image import CONFIG
from podwright.engines.containerd.seen_images import SeenImages
from podwright.engines.containerd.shims import SHIM, Shim
from podwright.engines.node import host as node_host
from podwright.engines.node import user_namespaces
from podwright.engines.node.foreseen import Foreseen
from podwright.engines.node.places import Places
from podwright.engines.node.plan import NodePlan
from podwright.engines.node.requests import Requests
from podwright.engines.node.runtimes import Runtime
from podwright.errors import PodwrightError
from podwright.hooks.running import Hooks
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.build import Built

SHORT = 5.0
"""Seconds that a plan waits for one answer of containerd."""


class Plan(NodePlan):
    """Implements engines.base.Planner."""

    name = "containerd"

    def __init__(
        self,
        config: Config,
        places: Places,
        shims: Shims,
        images: SeenImages,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
        host: Host | None = None,
        containerd: Containerd | None = None,
    ) -> None:
        """`host` and `containerd`: to be asked at each question; None: somebody else keeps them open."""
        super().__init__(config, places, shims, images, facts, requests, hooks)
        self._shims = shims
        self._host = host
        self._containerd = containerd

    async def recursive_read_only(self, handler: str) -> bool:
        async with self._connected():
            return await super().recursive_read_only(handler)

    async def find_image(self, reference: str) -> Image | None:
        async with self._connected() as unreachable:
            return None if unreachable else await super().find_image(reference)

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        async with self._connected() as unreachable:
            return _with(unreachable, await super().explain_container(container, to_come))

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        async with self._connected() as unreachable:
            found = await super().explain_sandbox(sandbox)
            return _with(unreachable, found) if found is not None else None

    async def _built(
        self, container: Container, runtime: Runtime, facts: HostFacts, parts: Foreseen
    ) -> Built:
        assert isinstance(runtime, Shim)
        builder = platforms.of(container.sandbox)
        wanted = builder.lookups(container.config, self._facts.policy)
        request = await builder.request(self._requests, container, runtime, wanted, facts, parts)
        return _placed(
            builder.build(request, facts, explain=True),
            container.sandbox,
            runtime,
            mounted=user_namespaces.wanted(container.sandbox),
        )

    async def _pause(self, sandbox: Sandbox, runtime: Runtime, warnings: list[str]) -> Built | None:
        assert isinstance(runtime, Shim)
        built = platforms.of(sandbox).build_sandbox(
            self._requests,
            self._places,
            sandbox,
            runtime,
            self._levels.foreseen_of_pod(sandbox),
            await self._pause_image(warnings),
            self._facts,
            explain=True,
        )
        if user_namespaces.wanted(sandbox):
            # Mounted before its task is made: the kernel lets nobody but us map its layers.
            path = str(self._places.mapped(sandbox.id) / platforms.ROOTFS)
            built = replace(built, spec={**built.spec, "root": {**built.spec["root"], "path": path}})
        return built

    async def _pause_image(self, warnings: list[str]) -> Image:
        name = self._config.containerd.sandbox_image
        if not name:
            return Image("", (), (), 1, CONFIG)
        image = await self._images.find(name)
        if image is None:
            warnings.append(f"containerd.sandbox_image: {name!r} is not here yet; its command is not known")
            return Image("", (), (), 1, {"Entrypoint": ["/pause"]})
        return image

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[str]:
        """What containerd tells is known inside; else why not."""
        if self._host is None or self._containerd is None:
            yield ""
            return
        unreachable = ""
        self._containerd.open()
        try:
            try:
                await self._host.look(make=False)
            except PodwrightError as error:
                unreachable = f"{error}; its shims, snapshotters and images are not known"
            yield unreachable
        finally:
            await self._containerd.close()


@contextmanager
def planned(config: Config, hooks: Hooks) -> Iterator[Plan]:
    """A plan of the containerd engine as `config` describes it; containerd is asked if it answers.
    FailedPrecondition or InvalidArgument when a configured file or value cannot be used."""
    short = min(SHORT, config.containerd.request_timeout)
    containerd = Containerd(msgspec.structs.replace(config.containerd, request_timeout=short))
    places = Places(config)
    facts = node_host.facts(config)
    shims = Shims(config, containerd, places)
    shims.find()
    images = SeenImages(containerd, Images(containerd, config), shims)
    requests = Requests(config, places, shims, facts)
    host = Host(config, containerd, shims)
    yield Plan(config, places, shims, images, facts, requests, hooks, host, containerd)


def _placed(built: Built, sandbox: Sandbox, shim: Shim, *, mounted: bool) -> Built:
    """With what a container's spec says to containerd's shims. `mounted`: the root is ours to mount."""
    spec, origins = dict(built.spec), dict(built.origins)
    if not mounted and "root" in spec:
        spec["root"] = {**spec["root"], "path": platforms.ROOTFS}
        origins["root.path"] = "host: where the shim mounts the snapshot"
    if shim.sandboxer != SHIM:
        spec["annotations"] = {**spec.get("annotations", {}), GROUP: sandbox.id}
        origins[f"annotations[{GROUP}]"] = "rule: one process of containerd's shim serves the whole pod"
    return replace(built, spec=spec, origins=origins)


def _with(warning: str, explanation: Explanation) -> Explanation:
    return replace(explanation, warnings=(warning, *explanation.warnings)) if warning else explanation
