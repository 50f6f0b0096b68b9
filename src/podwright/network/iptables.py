"""Packet filter rules: the default bridge's own, and those that CNI plugins leave behind, found by comment.

The bridge plugin can take its masquerade rules back only while the pod's namespace exists, and the portmap
plugin never removes its own top-level chains.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from collections.abc import Callable, Sequence

from podwright.errors import PodwrightError
from podwright.linux import spawn

log = logging.getLogger(__name__)

TIMEOUT = 30.0
FAMILIES = ("iptables", "ip6tables")
PORTMAP_CHAINS = ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK")


async def ensure_masquerade(bridge: str, subnet: str) -> None:
    """Give packets of `subnet` that leave by another interface than `bridge` the host's address.

    Without the program there is no masquerading, which is only logged. Raises CommandFailed.
    """
    family = FAMILIES[":" in subnet]
    if shutil.which(family) is None:
        log.warning("%s is not installed: pods on %s reach this host only", family, bridge)
        return
    comment = f'name: "{bridge}" id: "{bridge}"'
    rule = ["POSTROUTING", "-s", subnet, "!", "-o", bridge, "-m", "comment", "--comment", comment]
    rule += ["-j", "MASQUERADE"]
    table = [family, "--wait", "10", "-t", "nat"]
    if (await spawn.run([*table, "-C", *rule], timeout=TIMEOUT)).status != 0:
        await spawn.check([*table, "-A", *rule], timeout=TIMEOUT)


async def restore(family: str, commands: Sequence[str]) -> None:
    """Apply iptables-restore lines to the nat table, all or none. Raises CommandFailed."""
    script = "\n".join(["*nat", *commands, "COMMIT", ""])
    await spawn.check(
        [f"{family}-restore", "--wait", "10", "--noflush"], input=script.encode(), timeout=TIMEOUT
    )


async def remove_cni_rules(network: str, id: str = "") -> None:
    """Remove the nat rules that plugins made for `network`, or for one attachment `id` of it."""
    await _rewrite(lambda rules: commands_for_attachments(rules, network, id))


async def remove_unused_portmap_chains() -> None:
    """Remove portmap's top-level chains unless a host port of anybody is still mapped."""
    await _rewrite(commands_for_portmap_chains)


def commands_for_attachments(rules: str, network: str, id: str = "") -> list[str]:
    """iptables-restore lines that remove from an iptables-save text what belongs to the attachments."""
    comment = re.compile(rf'name: "{re.escape(network)}" id: "{re.escape(id) if id else "[^ ]+"}"$')
    removed: list[str] = []
    chains: list[str] = []
    for line in rules.splitlines():
        words = _words(line)
        if "--comment" not in words or not comment.search(words[words.index("--comment") + 1]):
            continue
        if words[1] in chains:
            continue  # goes with its chain
        removed.append("-D" + line[2:])
        target = words[words.index("-j") + 1] if "-j" in words else ""
        if target.startswith("CNI-") and target not in PORTMAP_CHAINS:
            chains.append(target)
    own = {f"-D {chain} " for chain in chains}
    removed = [line for line in removed if not any(line.startswith(start) for start in own)]
    return [*removed, *(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains)]


def commands_for_portmap_chains(rules: str) -> list[str]:
    """iptables-restore lines that remove portmap's top-level chains; none while one is in use."""
    present = [chain for chain in PORTMAP_CHAINS if f":{chain} " in rules]
    appended = [words for line in rules.splitlines() if (words := _words(line))[:1] == ["-A"]]
    if any(
        words[1] == PORTMAP_CHAINS[0] or words[1].startswith(("CNI-DN-", "CNI-SN-")) for words in appended
    ):
        return []
    jumps = [
        "-D" + line[2:]
        for line in rules.splitlines()
        if (words := _words(line))[:1] == ["-A"] and words[1] not in present and words[-1] in present
    ]
    return [*jumps, *(f"-F {chain}" for chain in present), *(f"-X {chain}" for chain in present)]


def _words(line: str) -> Sequence[str]:
    if not line.startswith("-A "):
        return ()
    try:
        return shlex.split(line)
    except ValueError:
        return ()


async def _rewrite(plan: Callable[[str], list[str]]) -> None:
    for family in FAMILIES:
        if shutil.which(f"{family}-save") is None:
            continue
        try:
            rules = (await spawn.check([f"{family}-save", "-t", "nat"], timeout=TIMEOUT)).decode()
            commands = plan(rules)
            if commands:
                await restore(family, commands)
        except PodwrightError as error:
            log.warning("removing rules of vanished pods: %s", error)
