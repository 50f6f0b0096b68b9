"""What a spec is built from, gathered: the same for a container that is made as for one that is explained.

What has to be made for it, or drawn, comes from a `Parts`: creation makes it, a plan foresees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from podwright.config import Config
from podwright.engines.base import Container, Sandbox
from podwright.engines.node import host, node_files, user_namespaces
from podwright.engines.node.places import Places
from podwright.engines.node.runtimes import Runtime, Runtimes
from podwright.errors import Unimplemented
from podwright.hooks import Target
from podwright.linux import cgroups
from podwright.spec import cdi
from podwright.spec.inputs import (
    ContainerInput,
    HandlerOptions,
    HostFacts,
    ImageConfig,
    MountSource,
    NamespacePaths,
    RootfsFiles,
    SandboxInput,
    SystemFiles,
)
from podwright.spec.linux import cdi as cdi_rules
from podwright.spec.linux import devices, security
from podwright.spec.linux import mounts as mount_rules
from podwright.wire import cri_pb2 as cri

PAUSE = "catatonit"

_NODE = cri.NamespaceMode.NODE
_OPTIONS = "config.linux.security_context.namespace_options"


class Parts(Protocol):
    """What one container needs besides its configuration and the facts of the host."""

    def users(self) -> RootfsFiles:
        """The image's own user databases."""

    async def source(self, place: int, wanted: mount_rules.Lookup) -> MountSource:
        """What is at the source of config.mounts[place]."""

    async def volumes(self, paths: Sequence[str]) -> Mapping[str, str]:
        """The directory on the host for each of the image's volumes."""

    def namespaces(self) -> NamespacePaths:
        """As `namespace_paths`, with the target's PID namespace where there is a target."""

    def levels(self) -> tuple[str, str]:
        """The SELinux levels of the pod and of the container; "" where none is drawn."""


class Requests:
    def __init__(self, config: Config, places: Places, runtimes: Runtimes, facts: HostFacts) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._facts = facts
        self._base_specs = node_files.base_specs(config)

    def facts(self, config: cri.ContainerConfig) -> HostFacts:
        """The host's, with the CDI files and AppArmor profiles as they are now: device plugins write the
        ones at any time, operators load the others."""
        facts = self._facts
        if facts.apparmor:
            facts = replace(facts, apparmor_profiles=host.apparmor_profiles())
        if facts.cdi is not None and cdi.requested(config):
            facts = replace(facts, cdi=node_files.cdi_registry(self._config.spec.cdi_spec_dirs))
        return facts

    def handler(self, runtime: Runtime) -> HandlerOptions:
        """What a handler's configuration says, with the spec that its containers start from."""
        options = node_files.handler_options(self._config, runtime.handler, runtime.sandboxed)
        return replace(options, base_spec=self._base_specs.get(runtime.handler))

    async def container(
        self,
        container: Container,
        runtime: Runtime,
        wanted: Sequence[mount_rules.Lookup],
        facts: HostFacts,
        parts: Parts,
    ) -> ContainerInput:
        """`wanted` is `mount_rules.lookups` of the container's configuration, `facts` what `facts` gave."""
        config, sandbox = container.config, container.sandbox
        image = ImageConfig.parse(container.image.config)
        handler = replace(
            self.handler(runtime),
            recursive_read_only=any(mount.recursive_read_only for mount in config.mounts)
            and await self._runtimes.recursive_read_only(runtime.handler),
            # In a pod with a user namespace the engine can map what the runtime cannot.
            idmapped_mounts=user_namespaces.wanted(sandbox)
            or (
                any(mount.uidMappings for mount in config.mounts)
                and await self._runtimes.maps_ids(runtime.handler)
            ),
        )
        nodes = devices.lookups(config, handler, sandbox.config, facts.policy)
        found = {path: host.devices_at(path) for path in (*nodes.paths, *cdi_rules.lookups(config, facts))}
        profile = security.localhost_path(
            config.linux.security_context, facts.policy, sandbox.config.annotations, config.metadata.name
        )
        pod_level, level = parts.levels()
        return ContainerInput(
            id=container.id,
            config=config,
            sandbox_id=sandbox.id,
            sandbox=sandbox.config,
            image=image,
            cgroups_path=cgroups_path(self._config, sandbox, container.id),
            rootfs_path=str(user_namespaces.rootfs(self._places, container)),
            rootfs=parts.users(),
            namespaces=parts.namespaces(),
            system=system_files(self._places, sandbox),
            handler=handler,
            mount_sources=[await parts.source(place, each) for place, each in enumerate(wanted)],
            devices={path: each for path, each in found.items() if each is not None},
            host_devices=(host.devices_at("/dev") or ()) if nodes.all_host_devices else (),
            volumes=await parts.volumes(mount_rules.volumes_needed(config, image, facts.policy)),
            seccomp_profile=self._profile(profile),
            pod_selinux_level=pod_level,
            selinux_level=level,
        )

    def sandbox(self, sandbox: Sandbox, runtime: Runtime, level: str) -> SandboxInput:
        """For the pause process; `level` is the pod's SELinux level."""
        security_context = sandbox.config.linux.security_context
        profile = security.localhost_path(security_context, self._facts.policy, sandbox.config.annotations)
        return SandboxInput(
            id=sandbox.id,
            config=sandbox.config,
            cgroups_path=cgroups_path(self._config, sandbox, sandbox.id),
            rootfs_path=str(self._places.pause_rootfs),
            args=(f"/{PAUSE}", "-P"),
            namespaces=namespace_paths(self._places, sandbox),
            handler=node_files.handler_options(self._config, runtime.handler, runtime.sandboxed),
            seccomp_profile=self._profile(profile),
            selinux_level=level,
        )

    def _profile(self, path: str) -> bytes | None:
        return host.seccomp_profile(path, self._config.seccomp_root) if path else None


def hook_target(owner: Container | Sandbox, runtime: Runtime) -> Target:
    """What the site's hooks are told of the spec that they may adjust."""
    if isinstance(owner, Sandbox):
        return Target("sandbox", owner.id, owner.config, None, runtime.handler)
    return Target("container", owner.id, owner.sandbox.config, owner.config, runtime.handler)


# What follows from a sandbox's configuration alone


def options(sandbox: Sandbox) -> cri.NamespaceOption:
    return sandbox.config.linux.security_context.namespace_options


async def check_sandbox(places: Places, runtimes: Runtimes, sandbox: Sandbox) -> None:
    """Unimplemented, InvalidArgument or FailedPrecondition for the namespaces that this engine, or the
    handler's runtime, cannot make."""
    if options(sandbox).pid == cri.NamespaceMode.TARGET:
        raise Unimplemented(f"{_OPTIONS}.pid: a sandbox cannot have mode TARGET")
    await user_namespaces.check(places, runtimes, sandbox)


def has_pause(sandbox: Sandbox) -> bool:
    """Whether a process holds the pod's PID namespace."""
    return options(sandbox).pid == cri.NamespaceMode.POD


def own_kinds(sandbox: Sandbox) -> tuple[str, ...]:
    """Namespaces that the pod has for itself. The hostname belongs to the network: with the host's network
    goes the host's name."""
    asked = options(sandbox)
    kinds: tuple[str, ...] = () if asked.network == _NODE else ("net", "uts")
    if asked.ipc != _NODE:
        kinds = (*kinds, "ipc")
    return (*kinds, "user") if user_namespaces.wanted(sandbox) else kinds


def namespace_paths(places: Places, sandbox: Sandbox, pause: int | str = 0) -> NamespacePaths:
    """What containers join; "" where the pod shares the host's. `pause` is the pid of its pause process."""
    own = {kind: str(places.pin(sandbox.id, kind)) for kind in own_kinds(sandbox)}
    return NamespacePaths(
        net=own.get("net", ""),
        ipc=own.get("ipc", ""),
        uts=own.get("uts", ""),
        pid=f"/proc/{pause}/ns/pid" if pause else "",
        user=own.get("user", ""),
    )


def system_files(places: Places, sandbox: Sandbox) -> SystemFiles:
    keep = places.sandbox_root(sandbox.id)
    return SystemFiles(
        hostname=str(keep / "hostname"),
        hosts=str(keep / "hosts"),
        resolv_conf=str(keep / "resolv.conf"),
        shm=str(places.shm(sandbox.id)),
    )


def cgroup_parent(config: Config, sandbox: Sandbox) -> str:
    parent: str = sandbox.config.linux.cgroup_parent
    if parent or config.cgroup_driver == "systemd":
        return parent
    return config.cgroup_parent


def cgroups_path(config: Config, sandbox: Sandbox, id: str) -> str:
    """Of the container or pause process `id`; errors as `cgroups.container_path`."""
    return cgroups.container_path(config.cgroup_driver, cgroup_parent(config, sandbox), id)
