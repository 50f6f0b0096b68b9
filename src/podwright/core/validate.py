"""What a request must have before anything is made for it. Every error names the field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

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
    if len(config.hostname.encode()) > _HOST_NAME_MAX:
        raise InvalidArgument(
            f"{field}.hostname",
            f"{config.hostname!r} is longer than the {_HOST_NAME_MAX} bytes of a host name",
        )
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
        # What is no address would be taken for none: the port would be open on all of them.
        if mapping.host_ip and not _is_address(mapping.host_ip):
            raise InvalidArgument(
                f"{field}.port_mappings[{at}].host_ip", f"{mapping.host_ip!r} is not an IP address"
            )
    if config.log_directory and not config.log_directory.startswith("/"):
        raise InvalidArgument(f"{field}.log_directory", f"{config.log_directory!r} is not an absolute path")
    for name in ("overhead", "resources"):
        resources(getattr(config.linux, name), f"{field}.linux.{name}")


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
    for name in ("command", "args"):
        argv(getattr(config, name), f"{field}.{name}")
    if "\0" in config.working_dir:
        raise InvalidArgument(f"{field}.working_dir", _NUL)
    for at, each in enumerate(config.envs):
        if "\0" in each.key or b"\0" in each.value:
            raise InvalidArgument(f"{field}.envs[{at}]", f"{each.key!r}: {_NUL}")
    resources(config.linux.resources, f"{field}.linux.resources")


def argv(words: Sequence[str], field: str) -> None:
    """What execve(2) can be given."""
    for at, word in enumerate(words):
        if "\0" in word:
            raise InvalidArgument(f"{field}[{at}]", _NUL)


def resources(wanted: cri.LinuxContainerResources, field: str) -> None:
    """Values that no cgroup can hold, by the kernel's bounds (kernel: admin-guide/cgroup-v1, cgroup-v2)."""
    for name, least, most in (
        ("cpu_period", 1_000, 1_000_000),
        ("cpu_quota", 1_000, _MOST),
        ("cpu_shares", 2, 262_144),
        ("memory_limit_in_bytes", 0, _MOST),
        ("memory_swap_limit_in_bytes", 0, _MOST),
    ):
        value = getattr(wanted, name)
        if not value or (value == -1 and name in _UNLIMITED):
            continue
        if not least <= value <= most:
            unlimited = ", nor -1 (unlimited)" if name in _UNLIMITED else ""
            raise InvalidArgument(f"{field}.{name}", f"{value} is not in {least}..{most}{unlimited}")
    if not -1000 <= wanted.oom_score_adj <= 1000:
        raise InvalidArgument(f"{field}.oom_score_adj", f"{wanted.oom_score_adj} is not in -1000..1000")
    limit, swap = wanted.memory_limit_in_bytes, wanted.memory_swap_limit_in_bytes
    if 0 < swap < limit:
        raise InvalidArgument(
            f"{field}.memory_swap_limit_in_bytes",
            f"{swap} is below memory_limit_in_bytes, {limit}: it limits memory and swap together",
        )
    for name in ("cpuset_cpus", "cpuset_mems"):
        text = getattr(wanted, name)
        if text and not all(_range(each) for each in text.split(",")):
            raise InvalidArgument(f"{field}.{name}", f'{text!r} is no list such as "0-2,7"')
    for at, page in enumerate(wanted.hugepage_limits):
        size = _PAGE_SIZE.fullmatch(page.page_size)
        if size is None or int(size[1]).bit_count() != 1:
            raise InvalidArgument(
                f"{field}.hugepage_limits[{at}].page_size", f'{page.page_size!r} is no size such as "2MB"'
            )
        if page.limit > _MOST:
            raise InvalidArgument(f"{field}.hugepage_limits[{at}].limit", f"{page.limit} exceeds {_MOST}")
    for file in wanted.unified:
        # It becomes the name of a file in the container's cgroup.
        if not _UNIFIED.fullmatch(file):
            raise InvalidArgument(f"{field}.unified[{file[:64]}]", "is no file of cgroup v2")
        # cgroup.procs would take a process of the host in, to be killed with the container.
        if file.startswith("cgroup.") and not file.startswith("cgroup.max."):
            raise InvalidArgument(f"{field}.unified[{file[:64]}]", "is no limit: it steers the cgroup itself")


_NUL = "has a zero byte, with which a text ends for the kernel"
_HOST_NAME_MAX = 64
"""sethostname(2)."""
_MOST = (1 << 63) - 1
_UNLIMITED = ("cpu_quota", "memory_limit_in_bytes", "memory_swap_limit_in_bytes")
_PAGE_SIZE = re.compile(r"([1-9][0-9]{0,9})[KMG]B")
_UNIFIED = re.compile(r"[a-z][a-z0-9]*(\.[A-Za-z0-9_]+)+")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _range(text: str) -> bool:
    first, dash, last = text.strip().partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        return False
    return not dash or int(first) <= int(last)


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
