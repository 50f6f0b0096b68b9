"""The built-in network: a bridge with private addresses, for hosts that nobody has configured.

It is an ordinary CNI configuration (bridge, host-local, portmap), except that one masquerade rule serves all
its pods: the bridge plugin makes rules for each, which takes longer than all else and slows down with
their number. Name and addresses are taken when the
first pod needs them: the number in the bridge's name stands for its subnet, and making the bridge is what
reserves both, so that two podwrights cannot choose the same. Once unused all of it can be taken away.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import ipaddress
import secrets
import shutil
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from podwright.errors import ResourceExhausted
from podwright.network import conflist, iptables
from podwright.network.cache import Cache

PREFIX = "podwright"
VERSION = "1.0.0"

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

SUBNETS: tuple[ipaddress.IPv4Network, ...] = tuple(
    ipaddress.IPv4Network(f"{start}.{third}.0/22")
    for third in range(0, 256, 4)
    for start in ("10.213", "172.29", "192.168")
)
"""The subnet of bridge number N is SUBNETS[N]: a thousand pods each, in every private range."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The bridge in use, as it is kept between runs."""

    bridge: str
    subnets: tuple[str, ...]


class DefaultBridge:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "bridge.json"
        self._addresses = directory / "bridge-addresses"
        self._choice: Choice | None = None
        self._lock = asyncio.Lock()

    @property
    def plugin_types(self) -> list[str]:
        """The CNI plugins it is made of."""
        return ["bridge", "host-local", "portmap"]

    async def ensure(self) -> conflist.Network:
        """The configuration; takes a bridge the first time.

        Raises ResourceExhausted when all are taken, CommandFailed when no masquerade rule can be made.
        """
        async with self._lock:
            choice = self._choice
            if choice is None or not _exists(choice.bridge):
                choice = choice or self._stored()
                if choice is None or not _exists(choice.bridge):
                    choice = self._take(choice)
                for subnet in choice.subnets:
                    await iptables.ensure_masquerade(choice.bridge, subnet)
                self._choice = choice
            return network(choice, self._addresses)

    async def remove_if_unused(self, cache: Cache) -> bool:
        """Remove the bridge, its address book and its packet filter rules unless a pod is on it."""
        async with self._lock:
            choice = self._choice or self._stored()
            if choice is None or _ports(choice.bridge):
                return False
            for id in cache.ids():
                entry = cache.read(id)
                if entry is None or entry.network.name == choice.bridge:
                    return False
            # An ADD that had its configuration from `ensure` has written its entry before anything else
            # could run, so none is under way here.
            _delete_bridge(choice.bridge)
            self._choice = None
            self._file.unlink(missing_ok=True)
            shutil.rmtree(self._addresses, ignore_errors=True)
            await iptables.remove_cni_rules(choice.bridge)
            await iptables.remove_unused_portmap_chains()
            return True

    def _stored(self) -> Choice | None:
        try:
            tree = msgspec.json.decode(self._file.read_bytes())
            return Choice(str(tree["bridge"]), tuple(map(str, tree["subnets"])))
        except (OSError, msgspec.DecodeError, KeyError, TypeError):
            return None

    def _take(self, previous: Choice | None) -> Choice:
        """A bridge whose name and subnet are free; `previous` (lost by a reboot) when it still is."""
        routes = host_routes()
        numbers = list(range(len(SUBNETS)))
        if previous is not None and previous.bridge.removeprefix(PREFIX).isdecimal():
            numbers.insert(0, int(previous.bridge.removeprefix(PREFIX)))
        for number in numbers:
            if number >= len(SUBNETS) or overlaps(SUBNETS[number], routes):
                continue
            name = f"{PREFIX}{number}"
            if not _create_bridge(name):
                continue
            if previous is not None and previous.bridge == name:
                return previous
            subnets = (str(SUBNETS[number]), *((str(_unique_local()),) if ipv6_enabled() else ()))
            choice = Choice(name, subnets)
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file.write_bytes(msgspec.json.encode({"bridge": name, "subnets": subnets}))
            except OSError:
                _delete_bridge(name)
                raise
            return choice
        raise ResourceExhausted(
            "no free bridge and subnet for the default network: "
            "put a CNI configuration into the configuration directory"
        )


def network(choice: Choice, address_book: Path) -> conflist.Network:
    """The CNI configuration of a bridge. Its network is named as the bridge, for rules carry that name."""
    return conflist.parse(
        {
            "cniVersion": VERSION,
            "name": choice.bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": choice.bridge,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(address_book),
                        "ranges": [[{"subnet": subnet}] for subnet in choice.subnets],
                        "routes": [
                            {"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in choice.subnets
                        ],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        "the default bridge",
    )


def host_routes() -> list[Subnet]:
    """The destinations of this host's routes, default routes left out."""
    found: list[Subnet] = []
    for line in _lines(Path("/proc/thread-self/net/route"))[1:]:
        fields = line.split()
        # Addresses stand there as the memory of a big-endian word, read by this machine.
        address, mask = (struct.pack("=I", int(fields[column], 16)) for column in (1, 7))
        found.append(ipaddress.IPv4Network((address, bin(int.from_bytes(mask, "big")).count("1"))))
    for line in _lines(Path("/proc/thread-self/net/ipv6_route")):
        target, length = line.split()[:2]
        found.append(ipaddress.IPv6Network((bytes.fromhex(target), int(length, 16)), strict=False))
    return [each for each in found if each.prefixlen > 0]


def overlaps(subnet: Subnet, routes: Iterable[Subnet]) -> bool:
    return any(subnet.version == route.version and subnet.overlaps(route) for route in routes)


def ipv6_enabled() -> bool:
    """Whether interfaces of this host get IPv6 addresses, and rules for them can be made."""
    switches = [Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6") for name in ("all", "default")]
    try:
        off = any(switch.read_text().strip() != "0" for switch in switches)
    except OSError:
        return False
    return not off and shutil.which("ip6tables") is not None


def _unique_local() -> ipaddress.IPv6Network:
    """fdXX:XXXX:XXXX::/64 with forty random bits (RFC 4193)."""
    return ipaddress.IPv6Network((b"\xfd" + secrets.token_bytes(5) + bytes(10), 64))


def _exists(bridge: str) -> bool:
    return Path(f"/sys/class/net/{bridge}/bridge").is_dir() if _own_sysfs() else bridge in _interfaces()


def _ports(bridge: str) -> bool:
    """Whether an interface is attached to the bridge."""
    try:
        return any(Path(f"/sys/class/net/{bridge}/brif").iterdir())
    except OSError:
        return False


def _interfaces() -> Mapping[str, int]:
    return {name: index for index, name in socket.if_nameindex()}


def _own_sysfs() -> bool:
    """Whether /sys shows the network namespace of this process: it shows that of its mounter."""
    try:
        return set(_interfaces()) <= {each.name for each in Path("/sys/class/net").iterdir()}
    except OSError:
        return False


_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCBRADDBR = 0x89A0
_SIOCBRDELBR = 0x89A1
_IFF_UP = 0x1
_IFREQ_FLAGS = struct.Struct("16sh14x")


def _create_bridge(name: str) -> bool:
    """Make the bridge; False when an interface of that name exists. Raises OSError."""
    with _control() as control:
        try:
            fcntl.ioctl(control, _SIOCBRADDBR, name.encode().ljust(16, b"\0"))
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            raise OSError(error.errno, f"making bridge {name}: {error.strerror}") from error
    return True


def _delete_bridge(name: str) -> None:
    """Take the bridge down and away; fine when it is absent. Raises OSError."""
    with _control() as control:
        try:
            request = _IFREQ_FLAGS.pack(name.encode(), 0)
            _, flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, request)[: _IFREQ_FLAGS.size])
            fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(name.encode(), flags & ~_IFF_UP))
            fcntl.ioctl(control, _SIOCBRDELBR, name.encode().ljust(16, b"\0"))
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise OSError(error.errno, f"removing bridge {name}: {error.strerror}") from error


def _control() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
