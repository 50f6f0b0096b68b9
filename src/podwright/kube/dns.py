"""The resolver of a pod: the node's, the cluster's, and the additions of its dnsConfig; host names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    pass

MAX_NAMESERVERS = 3
"""libc reads no more."""


def parse_resolver(text: str) -> cri.DNSConfig:
    """A resolv.conf as a DNSConfig; see resolv.conf(5): the last search line counts."""
    config = cri.DNSConfig()
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["nameserver", server, *_]:
                config.servers.append(server)
            case ["search" | "domain", *searches]:
                del config.searches[:]
                config.searches.extend(searches)
            case ["options", *options]:
                config.options.extend(options)
    return config
