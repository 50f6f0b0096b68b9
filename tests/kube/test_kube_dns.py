"""Resolvers and host names."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.kube.failures import SandboxConfigError
from podwright.kube.manifests import manifest
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node
from podwright.kube.requests import dns

HOST = dns.parse_resolver(
    "# a comment\ndomain old.test\nsearch a.test.\nnameserver 192.0.2.1\n"
    "options gone\noptions ndots:1 edns0\n"
)
ALONE = Node(resolver=HOST)
CLUSTERED = Node(resolver=HOST, cluster_dns=("10.96.0.10",), cluster_domain="cluster.test")


def pod(name: str = "web", **spec: Any) -> Manifest:
    return manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "x:1"}], **spec},
        }
    )


def test_additions_override_options_and_keep_three_servers() -> None:
    additions = {
        "nameservers": ["192.0.2.1", "192.0.2.3", "192.0.2.4"],
        "searches": ["b.test", "a.test"],
        "options": [{"name": "ndots", "value": "5"}, {"name": "rotate"}],
    }
    config = dns.resolver(pod(dnsConfig=additions), Node(resolver=HOST, cluster_dns=("192.0.2.9",)))
    assert list(config.servers) == ["192.0.2.9", "192.0.2.1", "192.0.2.3"]
    assert list(config.searches) == ["a.test", "b.test"]
    assert list(config.options) == ["ndots:5", "rotate"]


@pytest.mark.parametrize(
    ("spec", "node", "servers", "lacks"),
    [
        ({}, CLUSTERED, ["10.96.0.10"], False),
        ({}, ALONE, ["192.0.2.1"], True),
        ({"hostNetwork": True}, CLUSTERED, ["192.0.2.1"], False),
        ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, CLUSTERED, ["10.96.0.10"], False),
        ({"dnsPolicy": "Default"}, CLUSTERED, ["192.0.2.1"], False),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.7"]}}, CLUSTERED, ["192.0.2.7"], False),
    ],
)
def test_policies(spec: dict[str, Any], node: Node, servers: list[str], lacks: bool) -> None:
    assert list(dns.resolver(pod(**spec), node).servers) == servers
    assert dns.lacks_cluster_dns(pod(**spec), node) is lacks


def test_a_cluster_comes_before_the_nodes_own_domains() -> None:
    config = dns.resolver(pod(), CLUSTERED)
    own = ["default.svc.cluster.test", "svc.cluster.test", "cluster.test"]
    assert list(config.searches) == [*own, "a.test"]
    assert list(config.options) == ["ndots:5"]


def test_too_many_domains_are_cut() -> None:
    many = Node(resolver=dns.parse_resolver("search " + " ".join(f"{'d' * 100}{n}.test" for n in range(40))))
    config = dns.resolver(pod(dnsPolicy="Default"), many)
    assert 0 < len(config.searches) < 32
    assert len(" ".join(config.searches)) <= 2048


def test_host_names() -> None:
    assert dns.hostname(pod("a" * 62 + "." + "b" * 20), ALONE) == "a" * 62
    assert dns.hostname(pod(hostname="db", subdomain="s"), CLUSTERED) == "db"
    full = pod(hostname="db", subdomain="s", setHostnameAsFQDN=True)
    assert dns.hostname(full, CLUSTERED) == dns.full_name(full, CLUSTERED) == "db.s.default.svc.cluster.test"
    assert dns.hostname(pod(hostnameOverride="x.y"), CLUSTERED) == "x.y"
    assert dns.full_name(pod(), CLUSTERED) == ""


def test_a_full_name_that_the_kernel_cannot_hold_is_refused() -> None:
    with pytest.raises(SandboxConfigError, match=r"64 characters is the max, 73 characters requested"):
        dns.hostname(pod(hostname="h" * 46, subdomain="s", setHostnameAsFQDN=True), CLUSTERED)


def test_what_is_left_out_is_told() -> None:
    servers = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    searches = [f"{'x' * 60}.test" if not number else f"{number}.test" for number in range(32)]
    found = pod(dnsConfig={"nameservers": servers, "searches": searches})
    nameservers, search = dns.exceeded(found, CLUSTERED)
    assert nameservers == (
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line"
        " is: 10.96.0.10 192.0.2.1 192.0.2.2"
    )
    assert search == (
        "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "
        + " ".join(dns.resolver(found, CLUSTERED).searches)
    )
    assert dns.exceeded(pod(), CLUSTERED) == []
