"""The reference bridge plugin's costly half, done in one go.

The bridge plugin masquerades a pod with seven calls of iptables, each reading the whole table, and undoes
it with as many after it has waited for the pod's interface to go. Here the same rules (same chain, same
comments: the plugin can remove them, and these functions the plugin's) are written by one iptables-restore,
and at the end the rules, the interface and the address go at the same time.

Measured with bridge, host-local and ipMasq: ADD 26 -> 13 ms and half the CPU time, DEL 71 -> 18 ms.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from podwright.errors import PodwrightError
from podwright.linux import links
from podwright.network import iptables
from podwright.network.conflist import Network

log = logging.getLogger(__name__)

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_FOLLOWERS = frozenset({"portmap", "bandwidth"})
"""Plugins that need nothing of the namespace to undo their work."""


def masquerades(network: Network) -> bool:
    """Whether the first plugin would write iptables rules that `make_rules` can write in its place."""
    first = network.plugins[0]
    return (
        first["type"] == "bridge"
        and first.get("ipMasq") is True
        and first.get("ipMasqBackend", "iptables") == "iptables"
        and shutil.which("iptables-restore") is not None
    )


def undoable(network: Network) -> bool:
    """Whether an attachment can be undone without entering its namespace, by `remove` and a DEL that is
    given no namespace."""
    first = network.plugins[0]
    ipam = first.get("ipam")
    return (
        first["type"] == "bridge"
        and not first.get("macspoofchk")
        and isinstance(ipam, Mapping)
        and ipam.get("type") == "host-local"
        and (not first.get("ipMasq") or masquerades(network))
        and all(each["type"] in _FOLLOWERS for each in network.plugins[1:])
    )


async def make_rules(network: Network, id: str, result: Mapping[str, Any]) -> None:
    """Write the masquerade rules of the attachment `id`. Raises CommandFailed."""
    for family, addresses in _families(result).items():
        await iptables.restore(family, _additions(network.name, id, addresses))


async def remove(network: Network, id: str, result: Mapping[str, Any]) -> None:
    """Remove the attachment's host interface and masquerade rules; fine when they are gone.

    Raises OSError when the interface cannot be deleted.
    """
    jobs = [asyncio.to_thread(links.delete, name) for name in _host_interfaces(network, result)]
    if masquerades(network):
        jobs += [_remove_rules(network.name, id, *family) for family in _families(result).items()]
    # All end before an error counts: nothing may still work on an attachment that is given up.
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def chain_name(network: str, id: str) -> str:
    """The chain the plugins make for an attachment: 28 characters are the most that iptables takes."""
    return "CNI-" + hashlib.sha512(f"{network}{id}".encode()).hexdigest()[:24]


async def _remove_rules(network: str, id: str, family: str, addresses: Sequence[Interface]) -> bool:
    try:
        await iptables.restore(family, _removals(network, id, addresses))
    except PodwrightError:
        # Some are gone, or look otherwise: find what is there, which takes longer.
        await iptables.remove_cni_rules(network, id)
    return True


def _families(result: Mapping[str, Any]) -> dict[str, list[Interface]]:
    found: dict[str, list[Interface]] = {}
    for each in result.get("ips") or ():
        address = ipaddress.ip_interface(each["address"])
        found.setdefault(iptables.FAMILIES[address.version == 6], []).append(address)
    return found


def _host_interfaces(network: Network, result: Mapping[str, Any]) -> list[str]:
    return [
        each["name"]
        for each in result.get("interfaces") or ()
        if not each.get("sandbox")
        and str(each.get("name", "")).startswith("veth")
        and each["name"] != network.plugins[0].get("bridge")
    ]


def _additions(network: str, id: str, addresses: Sequence[Interface]) -> list[str]:
    chain, comment = chain_name(network, id), _comment(network, id)
    lines = [f":{chain} - [0:0]"]
    for address in addresses:
        multicast = "ff00::/8" if address.version == 6 else "224.0.0.0/4"
        lines += [
            f"-A {chain} -d {address.network} {comment} -j ACCEPT",
            f"-A {chain} ! -d {multicast} {comment} -j MASQUERADE",
            f"-A POSTROUTING -s {address.ip} {comment} -j {chain}",
        ]
    return lines


def _removals(network: str, id: str, addresses: Sequence[Interface]) -> list[str]:
    chain, comment = chain_name(network, id), _comment(network, id)
    jumps = [f"-D POSTROUTING -s {address.ip} {comment} -j {chain}" for address in addresses]
    return [*jumps, f"-F {chain}", f"-X {chain}"]


def _comment(network: str, id: str) -> str:
    """Both parts are letters, digits, '_', '.' and '-' (the specification's rule): nothing to escape."""
    return f'-m comment --comment "name: \\"{network}\\" id: \\"{id}\\""'
