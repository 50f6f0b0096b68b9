"""Namespaces are pinned complete or not at all, and entering one changes nobody else's thread."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.errors import AlreadyExists, InvalidArgument
from podwright.linux import mounts, namespaces, proc, spawn

KINDS = ("net", "ipc", "uts")


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[dict[str, Path]]:
    made = {kind: tmp_path / kind for kind in KINDS}
    yield made
    for pin in made.values():
        namespaces.unpin(pin)
    assert list(tmp_path.iterdir()) == []


def _own() -> dict[str, int]:
    return {kind: proc.ns_inode(f"/proc/thread-self/ns/{kind}") for kind in KINDS}


@pytest.mark.root
async def test_pins_hold_new_namespaces_with_hostname_loopback_and_sysctls(pins: dict[str, Path]) -> None:
    before = _own()
    sysctls = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net/ipv4/ping_group_range": "0 2147483647",
        "kernel.shmmni": "77",
    }
    await namespaces.create_pinned(pins, hostname="pod-1", sysctls=sysctls)
    inodes = {kind: proc.ns_inode(pin) for kind, pin in pins.items()}
    assert all(inodes[kind] != before[kind] for kind in KINDS)

    assert await namespaces.inside(pins["uts"], "uts", lambda: os.uname().nodename) == "pod-1"
    assert await namespaces.inside(pins["ipc"], "ipc", Path("/proc/sys/kernel/shmmni").read_text) == "77\n"

    def network() -> tuple[str, str, bytes]:
        with (
            socket.create_server(("127.0.0.1", 80)) as server,
            socket.create_connection(("127.0.0.1", 80)) as client,
        ):
            server.accept()[0].sendall(b"lo is up")
            return (
                Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(),
                Path("/proc/sys/net/ipv4/ping_group_range").read_text(),
                client.recv(100),
            )

    assert await namespaces.inside(pins["net"], "net", network) == ("0\n", "0\t2147483647\n", b"lo is up")
    assert _own() == before
    assert await asyncio.to_thread(_own) == before


@pytest.mark.root
async def test_programs_can_be_put_into_a_pin(pins: dict[str, Path]) -> None:
    await namespaces.create_pinned(pins, hostname="pod-2")
    assert await spawn.check(["nsenter", f"--uts={pins['uts']}", "hostname"]) == b"pod-2\n"


@pytest.mark.root
async def test_unpin_is_idempotent(pins: dict[str, Path]) -> None:
    await namespaces.create_pinned(pins)
    for _ in range(2):
        namespaces.unpin(pins["net"])
    assert not pins["net"].exists()


@pytest.mark.root
async def test_only_the_kinds_asked_for_are_made(tmp_path: Path) -> None:
    pin = tmp_path / "uts"
    host = os.uname().nodename
    await namespaces.create_pinned({"uts": pin}, hostname="alone")
    assert os.uname().nodename == host
    assert (
        await namespaces.inside(pin, "uts", lambda: proc.ns_inode("/proc/thread-self/ns/net"))
        == _own()["net"]
    )
    namespaces.unpin(pin)


@pytest.mark.root
@pytest.mark.parametrize(
    ("sysctls", "words"),
    [
        ({"net.ipv4.no_such_thing": "1"}, "does not take net.ipv4.no_such_thing='1': No such file"),
        ({"net.ipv4.ping_group_range": "nonsense"}, "does not take"),
    ],
)
async def test_a_failure_leaves_nothing(pins: dict[str, Path], sysctls: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await namespaces.create_pinned(pins, sysctls=sysctls)
    assert not any(pin.exists() for pin in pins.values())


@pytest.mark.root
async def test_an_existing_pin_is_not_touched(pins: dict[str, Path]) -> None:
    await namespaces.create_pinned({"net": pins["net"]})
    inode = proc.ns_inode(pins["net"])
    with pytest.raises(AlreadyExists, match="net is there already"):
        await namespaces.create_pinned({"uts": pins["uts"], "net": pins["net"]})
    assert proc.ns_inode(pins["net"]) == inode
    assert not pins["uts"].exists()


@pytest.mark.root
async def test_a_cancelled_creation_leaves_nothing(pins: dict[str, Path]) -> None:
    for _ in range(5):
        task = asyncio.create_task(namespaces.create_pinned(pins))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(pin.exists() or mounts.is_mounted(pin) for pin in pins.values())


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("vm.swappiness", KINDS, "belongs to the whole host"),
        ("kernel.hostname", KINDS, "belongs to the whole host"),
        ("net.ipv4.ip_forward", ("ipc", "uts"), "shares with the host"),
        ("kernel.shmmax", ("net",), "shares with the host"),
        ("net/../kernel/panic", KINDS, "not the name of a sysctl"),
        ("net./.ipv4", KINDS, None),
    ],
)
def test_sysctls_of_the_host_are_refused(name: str, kinds: tuple[str, ...], words: str | None) -> None:
    if words is None:
        namespaces.check_sysctl(name, dict.fromkeys(kinds))
        return
    with pytest.raises(InvalidArgument, match=words) as error:
        namespaces.check_sysctl(name, dict.fromkeys(kinds))
    assert error.value.field == "config.linux.sysctls"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.sem", "kernel/sem"),
    ],
)
def test_both_spellings_of_a_sysctl_mean_the_same(name: str, path: str) -> None:
    assert namespaces._sysctl_path(name) == path


async def test_a_hostname_the_kernel_would_refuse_is_an_invalid_argument(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.hostname"):
        await namespaces.create_pinned({"uts": tmp_path / "uts"}, hostname="x" * 65)


async def test_inside_raises_what_the_function_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await namespaces.inside(tmp_path / "absent", "net", lambda: None)
