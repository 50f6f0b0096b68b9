"""The hosts file of a pod that has names of its own to say (hostAliases, a subdomain). Pure.

A pod without them gets the sandbox's own hosts file from the runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

from podwright.kube import old_translate as translate
from podwright.kube.manifest import Manifest

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost", "ip6-localhost", "ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("fe00::0", "ip6-mcastprefix"),
    ("fe00::1", "ip6-allnodes"),
    ("fe00::2", "ip6-allrouters"),
)


def needed(manifest: Manifest) -> bool:
    return bool(manifest.spec.hostAliases or translate.full_name(manifest))


def content(manifest: Manifest, pod_ips: Sequence[str], host_file: str) -> str:
    """The text of the file; on the host's network it continues `host_file`, the host's own."""
    if manifest.spec.hostNetwork:
        lines = ["# podwright: the host's file, and the pod's own names.", *host_file.splitlines()]
    else:
        names = [one for one in (translate.full_name(manifest), _short(manifest)) if one]
        lines = ["# podwright: the pod's hosts file."]
        lines += ["\t".join(entry) for entry in _LOCAL]
        lines += ["\t".join([address, *names]) for address in pod_ips]
    aliases = manifest.spec.hostAliases or []
    if aliases:
        lines += ["", "# hostAliases"]
        lines += ["\t".join([alias.ip, *(alias.hostnames or [])]) for alias in aliases]
    return "\n".join(lines) + "\n"


def _short(manifest: Manifest) -> str:
    return translate.hostname(manifest).partition(".")[0]
