"""Rules of vanished pods are found by their comments, and nobody else's."""

from __future__ import annotations

from podwright.network import iptables

RULES = r"""*nat
:POSTROUTING ACCEPT [0:0]
:CNI-AAA - [0:0]
:CNI-BBB - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-DN-CCC - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"net\" id: \"a1\"" -j CNI-AAA
-A POSTROUTING -s 10.0.0.3/32 -m comment --comment "name: \"net\" id: \"b2\"" -j CNI-BBB
-A POSTROUTING -s 10.0.0.0/8 -m comment --comment "somebody's own" -j MASQUERADE
-A CNI-AAA -d 10.0.0.0/24 -m comment --comment "name: \"net\" id: \"a1\"" -j ACCEPT
-A CNI-BBB ! -d 224.0.0.0/4 -m comment --comment "name: \"net\" id: \"b2\"" -j MASQUERADE
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"a1\"" -j CNI-DN-CCC
-A CNI-DN-CCC -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
COMMIT
"""


def test_one_attachments_rules_and_chains_go() -> None:
    assert iptables.commands_for_attachments(RULES, "net", "a1") == [
        r'-D POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \"net\" id: \"a1\"" -j CNI-AAA',
        r'-D CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"net\" id: \"a1\"" -j CNI-DN-CCC',
        "-F CNI-AAA",
        "-F CNI-DN-CCC",
        "-X CNI-AAA",
        "-X CNI-DN-CCC",
    ]


def test_a_networks_rules_all_go_and_other_networks_stay() -> None:
    commands = iptables.commands_for_attachments(RULES, "net")
    assert {"-X CNI-AAA", "-X CNI-BBB", "-X CNI-DN-CCC"} <= set(commands)
    assert not any("somebody" in command or "requiring" in command for command in commands)
    assert iptables.commands_for_attachments(RULES, "ne") == []
    assert iptables.commands_for_attachments(RULES, "net", "a") == []


def test_portmap_chains_stay_while_a_port_is_mapped() -> None:
    assert iptables.commands_for_portmap_chains(RULES) == []
    idle = "\n".join(line for line in RULES.splitlines() if "CNI-DN-CCC" not in line)
    assert iptables.commands_for_portmap_chains(idle) == [
        "-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        '-D POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
        "-F CNI-HOSTPORT-DNAT",
        "-F CNI-HOSTPORT-MASQ",
        "-X CNI-HOSTPORT-DNAT",
        "-X CNI-HOSTPORT-MASQ",
    ]
    assert iptables.commands_for_portmap_chains("*nat\nCOMMIT\n") == []
