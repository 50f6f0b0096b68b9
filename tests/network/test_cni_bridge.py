"""Real plugins in a network of their own: the built-in bridge from the first pod to the last trace."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import os
import shutil
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from podwright.linux import namespaces, spawn
from podwright.network import bridge, iptables
from podwright.network.cni import Attachment, Cni
from podwright.wire import cri_pb2 as cri

PLUGINS = [Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni")]

PATIENCE = 60.0
"""Seconds for a connection on a busy machine."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not any((each / "bridge").exists() for each in PLUGINS), reason="needs the CNI plugins"
    ),
]

OwnNetwork = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


async def _nat() -> list[str]:
    text = ""
    for family in iptables.FAMILIES:
        if shutil.which(f"{family}-save"):
            text += (await spawn.check([f"{family}-save", "-t", "nat"])).decode()
    return [line for line in text.splitlines() if line.startswith("-A")]


def _fetch(address: str) -> bytes:
    with socket.create_connection((address, 80), timeout=PATIENCE) as client:
        return client.recv(100)


async def test_nothing_is_made_before_the_first_pod(tmp_path: Path) -> None:
    cni = Cni(tmp_path / "none", PLUGINS, tmp_path / "cache", default_bridge=True)
    await cni.open()
    assert cni.error == ""
    assert not (tmp_path / "cache").exists()
    assert await cni.remove_bridge_if_unused() is False
    await cni.close()


def test_two_pods_reach_each_other_and_nothing_is_left(own_network: OwnNetwork, tmp_path: Path) -> None:
    async def body() -> None:
        cni = Cni(tmp_path / "none", PLUGINS, tmp_path / "cache", default_bridge=True)
        await cni.open()
        before = await _nat()
        pins = [tmp_path / f"net{number}" for number in range(2)]
        pods = []
        for number, pin in enumerate(pins):
            await namespaces.create_pinned({"net": pin})
            ports = [cri.PortMapping(host_port=18080, container_port=80)] if number == 0 else []
            pods.append(Attachment(id=f"pod{number}", netns=str(pin), name=f"p{number}", ports=ports))
        results = [await cni.add(pod) for pod in pods]
        assert [ipaddress.ip_address(result.ips[0]).version for result in results] == [4, 4]
        assert len(results[0].ips) == (2 if bridge.ipv6_enabled() else 1)

        def listen() -> socket.socket:
            made = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
            made.settimeout(PATIENCE)
            return made

        server = await namespaces.inside(pins[0], "net", listen)
        with server:
            for address in results[0].ips:
                reader = namespaces.inside(pins[1], "net", functools.partial(_fetch, address))
                task = asyncio.ensure_future(reader)
                connection, peer = await asyncio.to_thread(server.accept)
                with connection:
                    connection.sendall(b"hello")
                assert await task == b"hello"
                assert ipaddress.ip_address(peer[0].removeprefix("::ffff:")) in map(
                    ipaddress.ip_address, results[1].ips
                )
        assert any("CNI-HOSTPORT-DNAT" in line for line in await _nat())

        await cni.check(pods[1])
        assert await cni.remove_bridge_if_unused() is False
        await cni.delete(pods[0])
        # As after a crash: the pin went first, and something still holds the namespace.
        holder = await namespaces.inside(
            pins[1], "net", lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        )
        try:
            namespaces.unpin(pins[1])
            await cni.delete(pods[1])
            left = await namespaces.inside(Path(f"/proc/self/fd/{holder}"), "net", _interfaces)
            assert left == {"lo"}
        finally:
            os.close(holder)
        for pin in pins:
            namespaces.unpin(pin)
        assert await cni.remove_bridge_if_unused() is True
        assert _interfaces() == {"lo"}
        assert await _nat() == before
        assert [each for each in (tmp_path / "cache").rglob("*") if each.is_file()] == []
        await cni.close()

    own_network(body)


def test_taken_names_and_subnets_are_avoided(own_network: OwnNetwork, tmp_path: Path) -> None:
    async def body() -> None:
        await spawn.check(["ip", "link", "add", "podwright0", "type", "bridge"])
        await spawn.check(["ip", "link", "add", "wide", "up", "type", "bridge"])
        await spawn.check(["ip", "route", "add", "172.16.0.0/12", "dev", "wide"])
        assert ipaddress.ip_network("172.16.0.0/12") in bridge.host_routes()
        first, second = (bridge.DefaultBridge(tmp_path / name) for name in ("first", "second"))
        network = await first.ensure()
        assert network.name == "podwright2"
        assert network.plugins[0]["ipam"]["ranges"][0] == [{"subnet": str(bridge.SUBNETS[2])}]
        assert (await second.ensure()).name == "podwright3"
        assert (await first.ensure()) == network
        again = bridge.DefaultBridge(tmp_path / "first")
        assert (await again.ensure()) == network
        await spawn.check(["ip", "link", "del", "podwright2"])  # a reboot
        assert (await bridge.DefaultBridge(tmp_path / "first").ensure()) == network

    own_network(body)


def test_masquerade_rules_of_a_configured_bridge_go_with_the_namespace_already_gone(
    own_network: OwnNetwork, tmp_path: Path
) -> None:
    async def body() -> None:
        conf = tmp_path / "conf"
        conf.mkdir()
        (conf / "10.conf").write_text(
            '{"cniVersion": "1.0.0", "name": "masq", "type": "bridge", "bridge": "pwtest0", '
            f'"isGateway": true, "ipMasq": true,'
            f'"ipam": {{"type": "host-local", "dataDir": "{tmp_path}/ipam",'
            ' "ranges": [[{"subnet": "10.99.0.0/24"}]]}}'
        )
        cni = Cni(conf, PLUGINS, tmp_path / "cache")
        await cni.open()
        before = await _nat()
        pin = tmp_path / "net"
        await namespaces.create_pinned({"net": pin})
        pod = Attachment(id="gone", netns=str(pin))
        assert (await cni.add(pod)).ips == ("10.99.0.2",)
        assert await _nat() != before
        namespaces.unpin(pin)
        await cni.delete(pod)
        assert await _nat() == before
        await cni.close()

    own_network(body)


MASQUERADED = {
    "type": "bridge",
    "bridge": "pwtest1",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/24"}], [{"subnet": "fd98::/64"}]]},
}


def test_many_pods_at_once_get_different_addresses_and_all_go(
    own_network: OwnNetwork, tmp_path: Path
) -> None:
    async def body() -> None:
        conf = tmp_path / "conf"
        conf.mkdir()
        ipam = {**MASQUERADED["ipam"], "dataDir": str(tmp_path / "ipam")}  # type: ignore[dict-item]
        plugins = [{**MASQUERADED, "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
        (conf / "10.conflist").write_text(
            json.dumps({"cniVersion": "1.0.0", "name": "many", "plugins": plugins})
        )
        cni = Cni(conf, PLUGINS, tmp_path / "cache")
        await cni.open()
        before = await _nat()
        pods = []
        for number in range(8):
            pin = tmp_path / f"net{number}"
            await namespaces.create_pinned({"net": pin})
            ports = [cri.PortMapping(host_port=18000 + number, container_port=80)] if number % 4 == 0 else []
            pods.append(Attachment(id=f"pod{number}", netns=str(pin), ports=ports))
        results = await asyncio.gather(*(cni.add(pod) for pod in pods))
        assert len({address for result in results for address in result.ips}) == 16
        assert len([line for line in await _nat() if "-A POSTROUTING" in line and "id:" in line]) == 16
        await asyncio.gather(*(cni.delete(pod) for pod in pods))
        await iptables.remove_unused_portmap_chains()
        assert await _nat() == before
        assert cni.cached_ids() == set()
        for pod in pods:
            namespaces.unpin(Path(pod.netns))
        await cni.close()

    own_network(body)


def test_the_subnets_are_private_and_disjoint() -> None:
    seen: set[ipaddress.IPv4Network] = set()
    for subnet in bridge.SUBNETS:
        assert subnet.is_private
        assert not bridge.overlaps(subnet, seen)
        seen.add(subnet)
    assert len(f"{bridge.PREFIX}{len(bridge.SUBNETS)}") <= 15
