"""What a request must have before anything is made for it. Every error names the field."""

from __future__ import annotations

from collections.abc import Mapping

from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

MAX_LABEL = 4096
"""Bytes of a label's key and value together; longer ones break the peers' stores, so clients avoid them."""


def sandbox_config(config: cri.PodSandboxConfig, field: str = "config") -> None:
    metadata = config.metadata
    for name in ("name", "namespace", "uid"):
        if not getattr(metadata, name):
            raise InvalidArgument(f"{field}.metadata.{name}", "is required")
    _labels(config.labels, f"{field}.labels")
    if config.HasField("windows"):
        raise InvalidArgument(f"{field}.windows", "this node runs Linux pods")
    options = config.linux.security_context.namespace_options
    if options.network not in (cri.POD, cri.NODE):
        raise _mode(
            f"{field}.linux.security_context.namespace_options.network", options.network, "POD or NODE"
        )
    if options.ipc not in (cri.POD, cri.NODE):
        raise _mode(f"{field}.linux.security_context.namespace_options.ipc", options.ipc, "POD or NODE")
    for at, mapping in enumerate(config.port_mappings):
        for name in ("container_port", "host_port"):
            port = getattr(mapping, name)
            if not 0 <= port <= 65535:
                raise InvalidArgument(f"{field}.port_mappings[{at}].{name}", f"{port} is not a port number")
    if config.log_directory and not config.log_directory.startswith("/"):
        raise InvalidArgument(f"{field}.log_directory", f"{config.log_directory!r} is not an absolute path")


def container_config(config: cri.ContainerConfig, field: str = "config") -> None:
    if not config.metadata.name:
        raise InvalidArgument(f"{field}.metadata.name", "is required")
    if not config.image.image:
        raise InvalidArgument(f"{field}.image.image", "is required")
    if config.HasField("windows"):
        raise InvalidArgument(f"{field}.windows", "this node runs Linux pods")
    _labels(config.labels, f"{field}.labels")
    for at, mount in enumerate(config.mounts):
        if not mount.container_path:
            raise InvalidArgument(f"{field}.mounts[{at}].container_path", "is required")
        if not mount.host_path and not mount.image.image:
            raise InvalidArgument(f"{field}.mounts[{at}].host_path", "is required")
    if config.log_path.startswith("/"):
        raise InvalidArgument(
            f"{field}.log_path", f"{config.log_path!r} must be relative to the sandbox's log_directory"
        )
    if ".." in config.log_path.split("/"):
        raise InvalidArgument(f"{field}.log_path", f"{config.log_path!r} leaves the sandbox's log_directory")


def _mode(field: str, mode: int, allowed: str) -> InvalidArgument:
    try:
        name = cri.NamespaceMode.Name(mode)
    except ValueError:
        name = str(mode)
    return InvalidArgument(field, f"{name} is not possible, only {allowed}")


def _labels(labels: Mapping[str, str], field: str) -> None:
    for key, value in labels.items():
        if not key:
            raise InvalidArgument(field, "a label has an empty key")
        if len(key.encode()) + len(value.encode()) > MAX_LABEL:
            raise InvalidArgument(f"{field}[{key[:64]}]", f"key and value exceed {MAX_LABEL} bytes")
