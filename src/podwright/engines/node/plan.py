"""What an engine of this kernel would make of a request, without making anything: no directory, mount, copy
or lock. What runs the containers, and where images are, is the engine's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from podwright.config import Config
from podwright.engines.base import Container, Explanation, Image, Sandbox
from podwright.engines.node import user_namespaces
from podwright.engines.node.foreseen import Foreseen, SeenImages
from podwright.engines.node.labels import Levels
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests, cgroups_path, check_sandbox, hook_target
from podwright.engines.node.runtimes import Runtime, Runtimes
from podwright.errors import FailedPrecondition
from podwright.hooks.running import Hooks
from podwright.spec.inputs import HostFacts
from podwright.spec.linux import mounts as mount_rules
from podwright.spec.linux.build import Built, build_container
from podwright.spec.linux.sysctls import sandbox_sysctls


class PlannedRuntimes(Runtimes, Protocol):
    """Handlers, also those that cannot work here."""

    def get(self, name: str, /) -> Runtime:
        """Errors as `Engine.check_handler`."""

    def as_configured(self, name: str, /) -> Runtime:
        """As it would be if it could work here; not to be run."""


class NodePlan:
    """An engines.base.Planner, but for the pod's own process (`_pause`)."""

    name = ""

    def __init__(
        self,
        config: Config,
        places: Places,
        runtimes: PlannedRuntimes,
        images: SeenImages,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._images = images
        self._facts = facts
        self._requests = requests
        self._hooks = hooks
        self._levels = Levels(places, facts, config.spec.selinux_category_range)

    def check_handler(self, name: str) -> None:
        if name and name not in self._config.handlers:
            self._runtimes.get(name)

    async def recursive_read_only(self, handler: str) -> bool:
        return await self._runtimes.recursive_read_only(handler)

    def runs_here(self, handler: str) -> bool:
        return not self._runtime(handler)[0].sandboxed

    async def find_image(self, reference: str) -> Image | None:
        return await self._images.find(reference)

    async def explain_container(self, container: Container, to_come: Sequence[str] = ()) -> Explanation:
        await check_sandbox(self._places, self._runtimes, container.sandbox)
        runtime, warnings = self._runtime(container.sandbox.handler)
        facts = self._requests.facts(container.config)
        parts = Foreseen(container, self._places, self._images, self._levels, to_come)
        await parts.look()
        built = await self._built(container, runtime, facts, parts)
        if ids := user_namespaces.id_maps(self._places, container.sandbox):
            ids.to_host(built.user.uid, built.user.gid)
        origins = dict(built.origins)
        if parts.unknown_names:
            origins["process.user"] = f"image: the number of {parts.unknown_names} is not known here"
        spec = built.spec
        if self._hooks.adjusts:
            spec = await self._hooks.adjust(spec, hook_target(container, runtime), origins)
        return Explanation(spec, origins, (*warnings, *parts.warnings, *_warnings(built)))

    async def explain_sandbox(self, sandbox: Sandbox) -> Explanation | None:
        await check_sandbox(self._places, self._runtimes, sandbox)
        sandbox_sysctls(sandbox.config, self._facts.policy)
        cgroups_path(self._config, sandbox, sandbox.id)
        runtime, warnings = self._runtime(sandbox.handler)
        made = await self._pause(sandbox, runtime, warnings)
        if made is None:
            return None
        origins, spec = dict(made.origins), made.spec
        if self._hooks.adjusts:
            spec = await self._hooks.adjust(spec, hook_target(sandbox, runtime), origins)
        return Explanation(spec, origins, (*warnings, *_warnings(made)))

    async def _built(
        self, container: Container, runtime: Runtime, facts: HostFacts, parts: Foreseen
    ) -> Built:
        wanted = mount_rules.lookups(container.config, self._facts.policy)
        request = await self._requests.container(container, runtime, wanted, facts, parts)
        return build_container(request, facts, explain=True)

    async def _pause(self, sandbox: Sandbox, runtime: Runtime, warnings: list[str]) -> Built | None:
        """The spec of the process that holds the pod together, None when it needs none; what has to be said
        of it is added to `warnings`."""
        raise NotImplementedError

    def _runtime(self, handler: str) -> tuple[Runtime, list[str]]:
        """The handler's runtime; one that cannot work here can still be explained."""
        try:
            return self._runtimes.get(handler), []
        except FailedPrecondition as error:
            return self._runtimes.as_configured(handler), [str(error)]


def _warnings(built: Built) -> Iterator[str]:
    yield from built.warnings
    for each in built.relabels:
        yield f"{each.field}: {each.path} would be relabelled as {each.label}"
