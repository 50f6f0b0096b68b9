"""User namespaces are pinned with all that they own, or nothing is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwright.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from podwright.linux import mounts, namespaces, proc, spawn, user_namespaces
from podwright.linux.user_namespaces import IdMap

KINDS = ("net", "ipc", "uts", "user")
IDS = [IdMap(0, 400000, 1000)]


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[dict[str, Path]]:
    made = {kind: tmp_path / kind for kind in KINDS}
    yield made
    for pin in made.values():
        namespaces.unpin(pin)
    assert list(tmp_path.iterdir()) == []


async def inside(pins: dict[str, Path], script: str) -> str:
    enter = ["nsenter", *(f"--{kind}={pin}" for kind, pin in pins.items())]
    return (await spawn.check([*enter, "--", "sh", "-c", script], timeout=10)).decode()


@pytest.mark.root
async def test_the_user_namespace_owns_the_others(pins: dict[str, Path]) -> None:
    sysctls = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmni": "77", "kernel.domainname": "d"}
    await user_namespaces.create_pinned(pins, IDS, [IdMap(0, 500000, 10)], hostname="pod-1", sysctls=sysctls)
    own = {kind: proc.ns_inode(f"/proc/self/ns/{kind}") for kind in KINDS}
    assert all(proc.ns_inode(pin) != own[kind] for kind, pin in pins.items())
    assert (await inside(pins, "cat /proc/self/uid_map /proc/self/gid_map")).split() == [
        *("0", "400000", "1000"),
        *("0", "500000", "10"),
    ]
    assert await inside(pins, "id -u; hostname; cat /proc/sys/kernel/shmmni /proc/sys/kernel/domainname") == (
        "0\npod-1\n77\nd\n"
    )
    # Only whoever owns the namespaces may change them, and setgroups is allowed.
    assert await inside(pins, "hostname other && ip link set lo mtu 1400 && hostname") == "other\n"
    assert await inside(pins, "cat /proc/self/setgroups") == "allow\n"
    assert "LOOPBACK,UP" in await inside(pins, "ip link show lo")
    assert os.uname().nodename != "other"


@pytest.mark.root
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sysctls": {"kernel.shmmni": "many"}}, r"sysctls: .*kernel\.shmmni='many'"),
        ({"sysctls": {"net.ipv4.ip_forward": "x"}}, r"sysctls: .*ip_forward"),
        ({"sysctls": {"kernel.panic": "1"}}, r"kernel\.panic belongs to the whole host"),
        ({"uids": [IdMap(0, 2**32 - 5, 10)]}, r"userns_options\.uids: .*0 4294967291 10"),
        ({"gids": [IdMap(0, 1, 5), IdMap(4, 9, 5)]}, r"userns_options\.gids"),
    ],
)
async def test_what_the_kernel_refuses_leaves_nothing(
    pins: dict[str, Path], changed: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await user_namespaces.create_pinned(pins, **{"uids": IDS, "gids": IDS, **changed})  # type: ignore[arg-type]
    assert not any(pin.exists() for pin in pins.values())


@pytest.mark.root
async def test_a_pin_that_is_there_is_kept(pins: dict[str, Path]) -> None:
    pins["uts"].touch()
    with pytest.raises(AlreadyExists, match="uts is there already"):
        await user_namespaces.create_pinned(pins, IDS, IDS)
    assert [kind for kind, pin in pins.items() if pin.exists()] == ["uts"]


@pytest.mark.root
async def test_a_missing_program_is_named(pins: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition, match="unshare is not installed"):
        await user_namespaces.create_pinned(pins, IDS, IDS)
    assert not any(pin.exists() for pin in pins.values())


def test_a_program_that_ends_instead_of_echoing_is_heard() -> None:
    with spawn.echoing(["/bin/sh", "-c", "echo no more >&2; exit 1"], 5) as (pid, words):
        assert (pid, words) == (0, "no more")
    with spawn.echoing(["/bin/cat"], 5) as (pid, words):
        assert proc.alive(pid) and words == ""
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.root
async def test_a_mapped_mount_shows_other_owners(pins: dict[str, Path], tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    await user_namespaces.create_pinned(pins, IDS, IDS)
    for each in (source, target):
        each.mkdir()
    try:
        (source / "file").touch()
        os.chown(source / "file", 5, 6)
        mounts.bind_mapped(source, target, pins["user"])
        shown = (target / "file").stat()
        assert (shown.st_uid, shown.st_gid) == (400005, 400006)
        assert (source / "file").stat().st_uid == 5
    finally:
        mounts.unmount(target)
        (source / "file").unlink()
        source.rmdir()
        target.rmdir()
