"""Kernel parameters of a pod. They are written inside its new namespaces, so only parameters that a
namespace has of its own may be asked for: anything else would change the host."""

from __future__ import annotations

from podwright.errors import InvalidArgument
from podwright.spec.inputs import Policy
from podwright.spec.linux.namespaces import mappings
from podwright.wire import cri_pb2 as cri

_FIELD = "config.linux.sysctls"
_OPTIONS = "config.linux.security_context.namespace_options"
_IPC = frozenset(
    """
    kernel.auto_msgmni kernel.msg_next_id kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem
    kernel.sem_next_id kernel.shm_next_id kernel.shm_rmid_forced kernel.shmall kernel.shmmax kernel.shmmni
    """.split()  # noqa: SIM905
)


def sandbox_sysctls(config: cri.PodSandboxConfig, policy: Policy) -> dict[str, str]:
    """Name (with dots) and value of everything to set in the pod's namespaces.

    Pods with a network of their own let everybody bind low ports and send pings, unless the request or the
    node's policy says otherwise. Raises InvalidArgument for a parameter that the pod has no namespace for.
    """
    options = config.linux.security_context.namespace_options
    result: dict[str, str] = {}
    if options.network != cri.NamespaceMode.NODE:
        if policy.unprivileged_ports:
            result["net.ipv4.ip_unprivileged_port_start"] = "0"
        # The range must be mapped in the network namespace's user namespace.
        if policy.unprivileged_icmp and mappings(options, _OPTIONS) is None:
            result["net.ipv4.ping_group_range"] = "0 2147483647"
    for key, value in config.linux.sysctls.items():
        name = _dotted(key)
        _check(name, key, options)
        result[name] = value
    return result


def _dotted(key: str) -> str:
    """sysctl(8) takes both "net/ipv4/conf/eth0.1/forwarding" and dots: the first separator decides, and
    with slashes a dot is part of a name."""
    first_dot, first_slash = key.find("."), key.find("/")
    if first_slash == -1 or (first_dot != -1 and first_dot < first_slash):
        return key
    return key.translate({ord("/"): ".", ord("."): "/"})


def _check(name: str, key: str, options: cri.NamespaceOption) -> None:
    field = f"{_FIELD}[{key}]"
    if ".." in name or name.startswith((".", "/")) or name.endswith((".", "/")):
        raise InvalidArgument(field, "is no kernel parameter")
    if name.startswith("net."):
        own, kind = options.network != cri.NamespaceMode.NODE, "network"
    elif name in _IPC or name.startswith("fs.mqueue."):
        own, kind = options.ipc != cri.NamespaceMode.NODE, "IPC"
    elif name == "kernel.domainname":
        own, kind = options.network != cri.NamespaceMode.NODE, "UTS"
    else:
        raise InvalidArgument(field, "has no namespace: it would change the whole host")
    if not own:
        raise InvalidArgument(field, f"the pod shares the host's {kind} namespace: it would change the host")
