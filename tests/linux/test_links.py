"""Network interfaces: only the one that is meant goes."""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
from collections.abc import Callable

import pytest

from podwright.linux import links, syscalls
from podwright.linux.threads import run_in_fresh_thread

pytestmark = pytest.mark.root


def in_network(body: Callable[[], None]) -> None:
    """Run it in a network namespace of its own, with a pair "one" and "two" and a bridge "three"."""

    def enter() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        for command in ("one type veth peer name two", "three type bridge"):
            subprocess.run(["ip", "link", "add", *command.split()], check=True)
        body()

    run_in_fresh_thread(enter)


def address(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        siocgifhwaddr = 0x8927
        answer = fcntl.ioctl(control, siocgifhwaddr, struct.pack("16s24x", name.encode()))
    return ":".join(f"{byte:02X}" for byte in answer[18:24])


def names() -> set[str]:
    return {name for _, name in socket.if_nameindex()} & {"one", "two", "three"}


def test_a_pair_goes_by_one_of_its_ends() -> None:
    def body() -> None:
        assert links.remove_veth("one", address("one")) is True
        assert names() == {"three"}
        assert links.remove_veth("one", "02:00:00:00:00:01") is False

    in_network(body)


def test_what_only_has_the_name_stays() -> None:
    def body() -> None:
        assert links.remove_veth("one", address("two")) is False
        assert links.remove_veth("three", address("three")) is False
        assert names() == {"one", "two", "three"}

    in_network(body)


def test_the_system_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        mac = address("one")
        monkeypatch.setattr(links, "_RTM_DELLINK", 1 << 15)  # a request that nobody knows
        with pytest.raises(OSError, match="removing interface one: "):
            links.remove_veth("one", mac)
        assert names() == {"one", "two", "three"}

    in_network(body)
