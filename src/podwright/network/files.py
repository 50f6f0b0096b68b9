"""The three files every pod has: hostname, hosts and resolv.conf. Pure: text in, text out."""

from __future__ import annotations

from podwright.wire import cri_pb2 as cri


def resolv_conf(dns: cri.DNSConfig | None, host: str) -> str:
    """The pod's resolv.conf: the host's text when the pod says nothing, empty when it says "nothing"."""
    if dns is None:
        return host
    lines = []
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    lines += [f"nameserver {server}" for server in dns.servers]
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "".join(f"{line}\n" for line in lines)


def hostname(requested: str, host: str) -> str:
    """The hostname file; a pod that asks for no name (host network) has the host's."""
    return f"{requested or host}\n"


def hosts(host: str) -> str:
    """The hosts file of a pod whose client brings none: the host's, as CRI implementations agree on."""
    return host


def pod_hosts(name: str, addresses: tuple[str, ...], aliases: dict[str, list[str]] | None = None) -> str:
    """The hosts file that a kubelet would write: the loopback names, the pod itself, its hostAliases
    (address -> names). For pods that run without a kubelet."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *(f"{address}\t{name}" for address in addresses if name),
        *(f"{address}\t{' '.join(names)}" for address, names in (aliases or {}).items()),
    ]
    return "".join(f"{line}\n" for line in lines)
