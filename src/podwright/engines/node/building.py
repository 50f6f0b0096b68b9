"""The spec of a container that is being made: its parts are looked up and made, the rules build it, the
site's hooks adjust it, and what its runtime cannot do is done for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from podwright.engines.base import Container, Json
from podwright.engines.node import labels, mapped_mounts
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.parts import ImageFiles, Made
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests, hook_target
from podwright.engines.node.runtimes import Runtime, Runtimes
from podwright.engines.node.user_namespaces import IdMaps
from podwright.hooks.running import Hooks
from podwright.linux import cgroups
from podwright.spec.inputs import ContainerInput, HostFacts
from podwright.spec.linux.build import Built
from podwright.spec.linux.user import User
from podwright.steps import step

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a request becomes a spec."""

    request: Callable[[HostFacts, Made], Awaitable[ContainerInput]]
    build: Callable[[ContainerInput, HostFacts], Built]


@dataclass(frozen=True, slots=True)
class Drawn:
    spec: dict[str, Json]
    """Some parts are shared with other specs: encode it, do not edit it in place."""
    user: User
    host_user: tuple[int, int] | None
    """The same as the host has it, in a pod with a user namespace."""


class Building:
    def __init__(
        self,
        places: Places,
        runtimes: Runtimes,
        volumes: ImageMounts,
        requests: Requests,
        hooks: Hooks,
        levels: labels.Levels,
        alive: Callable[[Container], bool],
    ) -> None:
        self._places = places
        self._runtimes = runtimes
        self._volumes = volumes
        self._requests = requests
        self._hooks = hooks
        self._levels = levels
        self._alive = alive

    async def draw(
        self,
        container: Container,
        runtime: Runtime,
        rules: Rules,
        files: ImageFiles,
        ids: IdMaps | None,
        made: list[Path],
    ) -> Drawn:
        """Errors as `spec.build.build_container`, and those of what is made for it; directories made on the
        host are appended to `made`."""
        facts = self._requests.facts(container.config)
        parts = Made(container, files, self._places, self._alive, self._volumes, self._levels, made, ids)
        with step("spec"):
            built = rules.build(await rules.request(facts, parts), facts)
        for warning in built.warnings:
            log.info("container %s: %s", container.id, warning)
        user = built.user
        host_user = ids.to_host(user.uid, user.gid) if ids is not None else None
        spec = built.spec
        if self._hooks.adjusts:
            with step("hooks"):
                spec = await self._hooks.adjust(spec, hook_target(container, runtime))
        if built.relabels:
            with step("relabel"):
                await asyncio.to_thread(labels.relabel, built.relabels)
        if ids is not None and (
            mapped_mounts.misread(spec, runtime) or not await self._runtimes.maps_ids(runtime.handler)
        ):
            spec = mapped_mounts.show(self._places.mapped_mounts(container.id), spec, ids)
        return Drawn(_writable(spec, runtime), user, host_user)


def unlimited_quota_fails(resources: Mapping[str, Json], runtime: Runtime) -> bool:
    """Whether `runtime` cannot write the CPU quota "unlimited" that is in `linux.resources` of a spec: some
    crun write it unsigned, and cgroup v1 refuses that. A new cgroup has no quota anyway."""
    quota = (resources.get("cpu") or {}).get("quota") or 0
    return bool(quota < 0 and runtime.kind == "crun" and cgroups.layout().version == 1)


def _writable(spec: dict[str, Json], runtime: Runtime) -> dict[str, Json]:
    """Without limits that are none and that `runtime` cannot write."""
    limits = (spec.get("linux") or {}).get("resources") or {}
    if not unlimited_quota_fails(limits, runtime):
        return spec
    cpu = {name: value for name, value in limits["cpu"].items() if name != "quota"}
    return {**spec, "linux": {**spec["linux"], "resources": {**limits, "cpu": cpu}}}
