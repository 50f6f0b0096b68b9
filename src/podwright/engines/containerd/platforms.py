"""Which spec a pod's containers get: of the platform that its sandbox's shim says it has, else of this host.

Only a shim that holds its pods together itself (sandboxer "shim") may have another one: a virtual machine
with Windows or Darwin in it. What follows from the platform for the spec is in `podwright.spec`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from podwright.engines.base import Container, Image, Sandbox
from podwright.engines.containerd.objects import GROUP
from podwright.engines.containerd.shims import Shim
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Parts, Requests, namespace_paths
from podwright.spec import darwin
from podwright.spec.build import build_container, build_sandbox
from podwright.spec.darwin import DarwinSandboxInput
from podwright.spec.inputs import (
    ContainerInput,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
    Policy,
    SandboxInput,
)
from podwright.spec.linux import mounts as linux_mounts
from podwright.spec.linux.build import Built
from podwright.spec.linux.mounts import Lookup
from podwright.spec.platforms import Platform, host_network
from podwright.spec.windows import mounts as windows_mounts
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.wire import cri_pb2 as cri

NOTE = "platform"
"""Name of the note in a sandbox's facts."""
ROOTFS = "rootfs"
"""Where a shim mounts what it is given: below its bundle."""

_HERE = Platform("linux")


class Rules(Protocol):
    """What a platform's builder has to be given."""

    def lookups(self, config: cri.ContainerConfig, policy: Policy) -> list[Lookup]:
        """What has to be looked up on this host for config.mounts, in order. InvalidArgument for mounts that
        cannot be."""

    async def container(
        self,
        requests: Requests,
        container: Container,
        shim: Shim,
        wanted: Sequence[Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput: ...

    def sandbox(
        self, requests: Requests, places: Places, sandbox: Sandbox, shim: Shim, level: str, image: Image
    ) -> SandboxInput: ...


@dataclass(frozen=True, slots=True)
class Builder:
    """The way from a request to a spec, on one platform."""

    platform: Platform
    rules: Rules

    @property
    def os(self) -> str:
        """ "linux", "windows" or "darwin"."""
        return self.platform.os

    def lookups(self, config: cri.ContainerConfig, policy: Policy) -> list[Lookup]:
        """As `Rules.lookups`."""
        return self.rules.lookups(config, policy)

    async def request(
        self,
        requests: Requests,
        container: Container,
        shim: Shim,
        wanted: Sequence[Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput:
        """What `build` needs; arguments and errors as `Requests.container`."""
        return await self.rules.container(requests, container, shim, wanted, facts, parts)

    def build(self, request: ContainerInput, facts: HostFacts, *, explain: bool = False) -> Built:
        """Errors as `spec.build.build_container`."""
        return build_container(str(self.platform), request, facts, explain=explain)

    def build_sandbox(
        self,
        requests: Requests,
        places: Places,
        sandbox: Sandbox,
        shim: Shim,
        level: str,
        image: Image,
        facts: HostFacts,
        *,
        explain: bool = False,
    ) -> Built:
        """The spec of what holds the pod together: `image` is the pause image, `level` the pod's SELinux
        level. Errors as `spec.build.build_sandbox`."""
        request = self.rules.sandbox(requests, places, sandbox, shim, level, image)
        built = build_sandbox(str(self.platform), request, facts, explain=explain)
        annotations = {**built.spec.get("annotations", {}), GROUP: sandbox.id}
        origins = {**built.origins, f"annotations[{GROUP}]": "rule: one shim serves all tasks of the pod"}
        return replace(
            built,
            spec={**built.spec, "annotations": annotations},
            origins=origins if explain else built.origins,
        )


def of(sandbox: Sandbox) -> Builder:
    """The builder for containers of a sandbox that has been made."""
    return builder(str(sandbox.facts.own.get(NOTE, "")))


def builder(platform: str) -> Builder:
    """The builder for a platform as `Platform` writes it; "" is this host's. FailedPrecondition for one that
    there is none for."""
    parsed = Platform.parse(platform) if platform else _HERE
    return Builder(parsed, _RULES[parsed.os]())


class _Linux:
    def lookups(self, config: cri.ContainerConfig, policy: Policy) -> list[Lookup]:
        return linux_mounts.lookups(config, policy)

    async def container(
        self,
        requests: Requests,
        container: Container,
        shim: Shim,
        wanted: Sequence[Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput:
        made = await requests.container(container, shim, wanted, facts, parts)
        # Shims find the sandbox of a container by them, and here there is one to be found.
        return replace(made, handler=replace(made.handler, type_annotations=True))

    def sandbox(
        self, requests: Requests, places: Places, sandbox: Sandbox, shim: Shim, level: str, image: Image
    ) -> SandboxInput:
        config = ImageConfig.parse(image.config)
        made = requests.sandbox(sandbox, shim, level)
        return replace(made, rootfs_path=ROOTFS, args=(*config.entrypoint, *config.cmd))


class _Windows:
    def lookups(self, config: cri.ContainerConfig, policy: Policy) -> list[Lookup]:
        return windows_mounts.lookups(config)

    async def container(
        self,
        requests: Requests,
        container: Container,
        shim: Shim,
        wanted: Sequence[Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput:
        image = ImageConfig.parse(container.image.config)
        sandbox = container.sandbox
        hosts = host_network(Platform("windows"), sandbox.config)
        return WindowsContainerInput(
            id=container.id,
            config=container.config,
            sandbox_id=sandbox.id,
            sandbox=sandbox.config,
            image=image,
            rootfs_path=ROOTFS,
            namespaces=NamespacePaths() if hosts else NamespacePaths(net=parts.namespaces().net),
            handler=requests.handler(shim),
            mount_sources=await _sources(parts, wanted),
            volumes=await parts.volumes(windows_mounts.volumes_needed(container.config, image, facts.policy)),
        )

    def sandbox(
        self, requests: Requests, places: Places, sandbox: Sandbox, shim: Shim, level: str, image: Image
    ) -> SandboxInput:
        hosts = host_network(Platform("windows"), sandbox.config)
        net = "" if hosts else namespace_paths(places, sandbox).net
        return WindowsSandboxInput(
            id=sandbox.id,
            config=sandbox.config,
            image=ImageConfig.parse(image.config),
            image_name=name_of(image),
            namespaces=NamespacePaths(net=net),
            handler=requests.handler(shim),
        )


class _Darwin:
    def lookups(self, config: cri.ContainerConfig, policy: Policy) -> list[Lookup]:
        return darwin.lookups(config)

    async def container(
        self,
        requests: Requests,
        container: Container,
        shim: Shim,
        wanted: Sequence[Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput:
        image = ImageConfig.parse(container.image.config)
        return ContainerInput(
            id=container.id,
            config=container.config,
            sandbox_id=container.sandbox.id,
            sandbox=container.sandbox.config,
            image=image,
            cgroups_path="",
            rootfs_path=ROOTFS,
            handler=requests.handler(shim),
            mount_sources=await _sources(parts, wanted),
            volumes=await parts.volumes(darwin.volumes_needed(container.config, image, facts.policy)),
        )

    def sandbox(
        self, requests: Requests, places: Places, sandbox: Sandbox, shim: Shim, level: str, image: Image
    ) -> SandboxInput:
        return DarwinSandboxInput(
            id=sandbox.id,
            config=sandbox.config,
            rootfs_path=ROOTFS,
            image_name=name_of(image),
            handler=requests.handler(shim),
        )


_RULES: Mapping[str, Callable[[], Rules]] = {"linux": _Linux, "windows": _Windows, "darwin": _Darwin}


async def _sources(parts: Parts, wanted: Sequence[Lookup]) -> list[MountSource]:
    """A lookup without a path is for something that may not be looked at: a pipe of Windows."""
    return [
        await parts.source(place, each) if each.host_path or each.image else MountSource(path="")
        for place, each in enumerate(wanted)
    ]


def name_of(image: Image) -> str:
    """The name that people know the image by, its id without one."""
    return next(iter((*image.repo_tags, *image.repo_digests)), image.id)
