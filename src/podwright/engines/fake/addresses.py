"""The addresses of the pods: which are given out, which are free again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from podwright.errors import ResourceExhausted

FIRST = 2
"""0 is the network's own, 1 the gateway's on most nodes."""


class Addresses:
    """Hands out addresses in order; one that was given back is taken again only after all others."""

    def __init__(self, ranges: tuple[str, ...], held: Iterable[str] = ()) -> None:
        """One range of each family, the preferred one first. `held` are given out already."""
        self.ranges = ranges
        self._networks = [ip_network(each) for each in ranges]
        # The last IPv4 address of a range is for broadcasts.
        self._end = min(each.num_addresses - (each.version == 4) for each in self._networks)
        self._next = FIRST
        self._free: deque[int] = deque()
        self._held = set(held)

    def take(self) -> tuple[str, ...]:
        """An address of each range; ResourceExhausted when all are taken."""
        while self._next < self._end:
            self._next += 1
            found = tuple(str(network[self._next - 1]) for network in self._networks)
            if self._held.isdisjoint(found):
                return found
        if not self._free:
            raise ResourceExhausted(f"all addresses of {' and '.join(self.ranges)} are taken")
        number = self._free.popleft()
        return tuple(str(network[number]) for network in self._networks)

    def given_back(self) -> list[str]:
        """Of the preferred family: those that were given back and are free again."""
        return [str(self._networks[0][number]) for number in self._free]

    def give_back(self, ips: tuple[str, ...]) -> None:
        """Addresses of another range, from before the scenario changed, are fine."""
        self._held.difference_update(ips)
        first = ip_address(ips[0])
        if first in self._networks[0]:
            number = int(first) - int(self._networks[0].network_address)
            # The others are still ahead, and free by themselves.
            if FIRST <= number < self._next:
                self._free.append(number)
