"""What a request asks for and Docker's API has no way to do: each is an error that names its field.

To run a container without what was asked for would look as if it had it.
"""

from __future__ import annotations

from podwright.engines.docker.features import Features
from podwright.errors import RROUnsupported, Unimplemented
from podwright.wire import cri_pb2 as cri

_LINUX = "config.linux"
_SECURITY = f"{_LINUX}.security_context"
_HERE = "use engine 'oci'"


def of_sandbox(config: cri.PodSandboxConfig) -> None:
    """Raises Unimplemented."""
    options = config.linux.security_context.namespace_options
    if options.pid == cri.NamespaceMode.TARGET:
        raise Unimplemented(f"{_SECURITY}.namespace_options.pid: a sandbox cannot have mode TARGET")
    _user_namespace(options)


def of_container(config: cri.ContainerConfig, features: Features) -> None:
    """Raises Unimplemented or RROUnsupported."""
    linux, security = config.linux, config.linux.security_context
    _user_namespace(security.namespace_options)
    if security.capabilities.add_ambient_capabilities:
        raise Unimplemented(f"{_SECURITY}.capabilities.add_ambient_capabilities: Docker gives none; {_HERE}")
    of_resources(linux.resources, features, f"{_LINUX}.resources")
    if config.CDI_devices and not features.cdi:
        raise Unimplemented(
            f"config.CDI_devices: Docker Engine {features.version} has no CDI, or it is switched off;"
            f" it needs 25 or later with the feature cdi, or {_HERE}"
        )
    for place, mount in enumerate(config.mounts):
        _mount(mount, f"config.mounts[{place}]", features)


def of_resources(resources: cri.LinuxContainerResources, features: Features, field: str) -> None:
    """Raises Unimplemented."""
    if features.policy.hugepages:
        for place, each in enumerate(resources.hugepage_limits):
            if each.limit:
                raise Unimplemented(
                    f"{field}.hugepage_limits[{place}]: Docker limits no huge pages; {_HERE}, or set"
                    " spec.hugepages = false"
                )
    if resources.unified and features.cgroup_version != 2:
        raise Unimplemented(f"{field}.unified: this host has cgroup v1")


def _user_namespace(options: cri.NamespaceOption) -> None:
    if options.HasField("userns_options") and options.userns_options.mode == cri.NamespaceMode.POD:
        raise Unimplemented(
            f"{_SECURITY}.namespace_options.userns_options: Docker has one mapping for all its containers,"
            f" none of their own; {_HERE}"
        )


def _mount(mount: cri.Mount, field: str, features: Features) -> None:
    if mount.HasField("image") and mount.image.image:
        raise Unimplemented(f"{field}.image: Docker's API cannot mount images like that; {_HERE}")
    if mount.uidMappings or mount.gidMappings:
        raise Unimplemented(f"{field}.uidMappings: Docker has no id-mapped mounts; {_HERE}")
    if mount.recursive_read_only and not features.recursive_read_only:
        raise RROUnsupported(
            f"{field}.recursive_read_only: Docker Engine {features.version} has none; it needs 25 or later"
        )
