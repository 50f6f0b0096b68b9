"""What a request asks for and Docker's API has no way to do, or Docker refuses in words that name no field of
the request: each is an error that names it.

To run a container without what was asked for would look as if it had it.
"""

from __future__ import annotations

import re

from podwright.engines.docker.features import Features
from podwright.engines.node import host
from podwright.errors import InvalidArgument, PodwrightError, RROUnsupported, Unimplemented
from podwright.spec.linux.namespaces import mappings
from podwright.wire import cri_pb2 as cri

_LINUX = "config.linux"
_SECURITY = f"{_LINUX}.security_context"
_HERE = "use engine 'oci'"
_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
"""Of what Docker takes in a container's name."""


def of_sandbox(config: cri.PodSandboxConfig) -> None:
    """Raises Unimplemented or InvalidArgument."""
    for member in ("name", "namespace", "uid"):
        _name(getattr(config.metadata, member), f"config.metadata.{member}")
    options = config.linux.security_context.namespace_options
    if options.pid == cri.NamespaceMode.TARGET:
        raise Unimplemented(f"{_SECURITY}.namespace_options.pid: a sandbox cannot have mode TARGET")
    _user_namespace(options)


def of_container(config: cri.ContainerConfig, features: Features) -> None:
    """Raises Unimplemented, RROUnsupported or InvalidArgument."""
    _name(config.metadata.name, "config.metadata.name")
    for place, variable in enumerate(config.envs):
        if not variable.key:
            raise InvalidArgument(f"config.envs[{place}].key", "is empty; Docker takes no such variable")
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


def device(asked: cri.Device, field: str) -> None:
    """Raises InvalidArgument."""
    found = host.devices_at(asked.host_path)
    if not found:
        why = "no such file or directory" if found is None else "not a device node"
        raise InvalidArgument(f"{field}.host_path", f"{asked.host_path}: {why}")


def of_answer(config: cri.ContainerConfig, error: PodwrightError) -> PodwrightError:
    """What is told of `error`, which Docker answered to the create request: it looks into the image then."""
    if config.working_dir and "cannot mkdir: " in str(error).lower():
        return InvalidArgument("config.working_dir", f"{config.working_dir} is no directory in the image")
    return error


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


def _name(text: str, field: str) -> None:
    if not _NAME.fullmatch(text):
        raise InvalidArgument(
            field,
            f"{text!r}: it becomes part of a Docker container's name, which takes only a-z A-Z 0-9 _ . -",
        )


def _user_namespace(options: cri.NamespaceOption) -> None:
    if mappings(options, f"{_SECURITY}.namespace_options") is not None:
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
