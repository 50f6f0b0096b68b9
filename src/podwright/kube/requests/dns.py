"""The resolver of a pod (the node's, the cluster's, its dnsConfig's additions) and its host names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwright.kube.failures import SandboxConfigError
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.node import Node

MAX_NAMESERVERS = 3
"""libc reads no more."""
MAX_SEARCHES, MAX_SEARCH_TEXT, MAX_SEARCH = 32, 2048, 253
"""How many domains, how many characters in all and in one, the kubelet passes on."""
MAX_HOSTNAME, MAX_LABEL = 64, 63
"""The kernel takes 64 bytes, a DNS label 63."""
CLUSTER_OPTIONS = ("ndots:5",)
DEFAULT_DOMAIN = "cluster.local"
"""What the full names of pods end in where the node says nothing."""


def parse_resolver(text: str) -> cri.DNSConfig:
    """A resolv.conf as a DNSConfig, as a kubelet reads it: of search lines the last one counts, of options
    those of each name; the root domain is no search."""
    config, said = cri.DNSConfig(), dict[str, str]()
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["nameserver", server, *_]:
                config.servers.append(server)
            case ["search", *searches]:
                del config.searches[:]
                config.searches.extend(one.removesuffix(".") for one in searches if one != ".")
            case ["options", *options]:
                said |= {_option(one)[0]: one for one in options}
    config.options.extend(said.values())
    return config


def resolver(manifest: Manifest, node: Node) -> cri.DNSConfig:
    """What the pod's resolv.conf says: by its dnsPolicy, then its dnsConfig, within the limits of libc.

    ClusterFirst on a node without cluster_dns is Default, as with a kubelet that has no clusterDNS.
    """
    config = _merged(manifest, node)
    return cri.DNSConfig(
        servers=config.servers[:MAX_NAMESERVERS], searches=_searches(config), options=config.options
    )


def exceeded(manifest: Manifest, node: Node) -> list[str]:
    """What was left out of the resolver, in the words of the event DNSConfigForming."""
    config, found = _merged(manifest, node), []
    if len(config.servers) > MAX_NAMESERVERS:
        line = " ".join(config.servers[:MAX_NAMESERVERS])
        found.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line"
            f" is: {line}"
        )
    searches = _searches(config)
    if searches != list(config.searches):
        found.append(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line"
            f" is: {' '.join(searches)}"
        )
    return found


def lacks_cluster_dns(manifest: Manifest, node: Node) -> bool:
    """Whether the pod wants a cluster's resolver that the node does not know (event MissingClusterDNS)."""
    return _wants_cluster(manifest) and not node.cluster_dns


def hostname(manifest: Manifest, node: Node) -> str:
    """The pod's host name. SandboxConfigError where a full name is asked for and too long for the kernel."""
    spec = manifest.spec
    full = full_name(manifest, node)
    if not spec.setHostnameAsFQDN or not full:
        return short_name(manifest)
    if len(full) > MAX_HOSTNAME:
        raise SandboxConfigError(
            f"failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long "
            f"({MAX_HOSTNAME} characters is the max, {len(full)} characters requested)"
        )
    return full


def short_name(manifest: Manifest) -> str:
    """The host name without a domain."""
    spec = manifest.spec
    name = spec.hostnameOverride or spec.hostname or manifest.name
    return name if len(name) <= MAX_LABEL else name[:MAX_LABEL].rstrip("-.")


def full_name(manifest: Manifest, node: Node) -> str:
    """The name that a cluster's DNS would give a pod with a subdomain, else ""."""
    spec = manifest.spec
    if not spec.subdomain or spec.hostnameOverride:
        return ""
    domain = node.cluster_domain or DEFAULT_DOMAIN
    return f"{short_name(manifest)}.{spec.subdomain}.{manifest.namespace}.svc.{domain}"


def _merged(manifest: Manifest, node: Node) -> cri.DNSConfig:
    """All that is wanted."""
    config = _base(manifest, node)
    own = manifest.spec.dnsConfig
    if own is None:
        return config
    options = dict(_option(one) for one in config.options)
    options |= {option.name or "": option.value or "" for option in own.options or []}
    return cri.DNSConfig(
        servers=dict.fromkeys([*config.servers, *(own.nameservers or [])]),
        searches=dict.fromkeys([*config.searches, *(own.searches or [])]),
        options=[f"{name}:{value}" if value else name for name, value in options.items()],
    )


def _searches(config: cri.DNSConfig) -> list[str]:
    """Those that fit."""
    found = [one for one in config.searches[:MAX_SEARCHES] if len(one) <= MAX_SEARCH]
    while len(" ".join(found)) > MAX_SEARCH_TEXT:
        found.pop()
    return found


def _base(manifest: Manifest, node: Node) -> cri.DNSConfig:
    config = cri.DNSConfig()
    if manifest.spec.dnsPolicy == "None":
        return config
    config.CopyFrom(node.resolver)
    if _wants_cluster(manifest) and node.cluster_dns:
        domain = node.cluster_domain
        own = [f"{manifest.namespace}.svc.{domain}", f"svc.{domain}", domain] if domain else []
        searches = dict.fromkeys([*own, *config.searches])
        config = cri.DNSConfig(servers=node.cluster_dns, searches=searches, options=CLUSTER_OPTIONS)
    return config


def _wants_cluster(manifest: Manifest) -> bool:
    spec = manifest.spec
    return spec.dnsPolicy == "ClusterFirstWithHostNet" or (
        spec.dnsPolicy == "ClusterFirst" and not spec.hostNetwork
    )


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, value
