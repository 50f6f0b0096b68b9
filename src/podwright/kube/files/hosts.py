"""The hosts file of a pod: the kubelet's text, for programs that read it."""

from __future__ import annotations

import os
from pathlib import Path

from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import dns

HOST_FILE = Path("/etc/hosts")
MODE = 0o644

_HEADER = "# Kubernetes-managed hosts file.\n"
_HOST_NETWORK_HEADER = "# Kubernetes-managed hosts file (host network).\n"
_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\n"
    "fe00::1\tip6-allnodes\n"
    "fe00::2\tip6-allrouters\n"
)


def content(manifest: Manifest, node: Node, facts: PodFacts, host_file: bytes) -> bytes:
    """The bytes of the file; on the node's network it continues `host_file`, the node's own."""
    if manifest.spec.hostNetwork:
        return _HOST_NETWORK_HEADER.encode() + host_file + _aliases(manifest).encode()
    names = "\t".join(filter(None, (dns.full_name(manifest, node), dns.short_name(manifest))))
    addresses = "".join(f"{address}\t{names}\n" for address in facts.ips)
    return (_HEADER + _LOCAL + addresses + _aliases(manifest)).encode()


def write(manifest: Manifest, node: Node, facts: PodFacts, directory: PodDirectory) -> None:
    """Write the file in place: containers that run have this very file mounted. Blocks; raises OSError."""
    host_file = HOST_FILE.read_bytes() if manifest.spec.hostNetwork else b""
    text = content(manifest, node, facts, host_file)
    directory.path.mkdir(mode=0o750, parents=True, exist_ok=True)
    fd = os.open(directory.hosts, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    with open(fd, "wb") as file:
        os.fchmod(fd, MODE)
        file.write(text)
        file.truncate()


def _aliases(manifest: Manifest) -> str:
    aliases = manifest.spec.hostAliases or []
    if not aliases:
        return ""
    lines = [f"{alias.ip}\t" + "\t".join(alias.hostnames or []) + "\n" for alias in aliases]
    return "\n# Entries added by HostAliases.\n" + "".join(lines)
