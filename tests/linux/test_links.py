"""Interfaces are deleted by name, and an absent one is no error."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from pathlib import Path

import pytest

from podwright.linux import links, namespaces


def _bridge_comes_and_goes() -> tuple[bool, bool, bool]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x89A0, b"pwtestbr".ljust(16, b"\0"))  # SIOCBRADDBR
    there = "pwtestbr" in {name for _, name in socket.if_nameindex()}
    return there, links.delete("pwtestbr"), links.delete("pwtestbr")


@pytest.mark.root
async def test_an_interface_is_deleted_once(tmp_path: Path) -> None:
    pin = tmp_path / "net"
    await namespaces.create_pinned({"net": pin})
    try:
        assert await namespaces.inside(pin, "net", _bridge_comes_and_goes) == (True, True, False)
    finally:
        namespaces.unpin(pin)


@pytest.mark.root
async def test_an_interface_that_cannot_go_is_an_error(tmp_path: Path) -> None:
    pin = tmp_path / "net"
    await namespaces.create_pinned({"net": pin})
    try:
        with pytest.raises(OSError, match="deleting the interface: Operation not supported"):
            await namespaces.inside(pin, "net", lambda: links.delete("lo"))
    finally:
        namespaces.unpin(pin)
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
