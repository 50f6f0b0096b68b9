"""Kernel parameters of a pod. Whoever writes them checks that the pod has a namespace of its own for each:
any other would change the host."""

from __future__ import annotations

from podwright.spec.inputs import Policy
from podwright.spec.linux.namespaces import mappings
from podwright.wire import cri_pb2 as cri

_OPTIONS = "config.linux.security_context.namespace_options"
_SWAPPED = str.maketrans("./", "/.")


def sandbox_sysctls(config: cri.PodSandboxConfig, policy: Policy) -> dict[str, str]:
    """Name (with dots) and value of everything to set in the pod's namespaces.

    Pods with a network of their own let everybody bind low ports and send pings, unless the request or the
    node's policy says otherwise. Raises InvalidArgument for an unsound user namespace.
    """
    options = config.linux.security_context.namespace_options
    result: dict[str, str] = {}
    if options.network != cri.NamespaceMode.NODE:
        if policy.unprivileged_ports:
            result["net.ipv4.ip_unprivileged_port_start"] = "0"
        # The range must be mapped in the network namespace's user namespace.
        if policy.unprivileged_icmp and mappings(options, _OPTIONS) is None:
            result["net.ipv4.ping_group_range"] = "0 2147483647"
    for name, value in config.linux.sysctls.items():
        result[_dotted(name)] = value
    return result


def _dotted(name: str) -> str:
    """ "net/ipv4/conf/eth0.1/forwarding" -> "net.ipv4.conf.eth0/1.forwarding": the first separator decides
    which of the two separates (sysctl(8))."""
    first_dot, first_slash = name.find("."), name.find("/")
    if first_slash == -1 or -1 < first_dot < first_slash:
        return name
    return name.translate(_SWAPPED)
