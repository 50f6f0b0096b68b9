"""Network interfaces: what /proc/net/dev says, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.linux import namespaces
from podwright.stats.interfaces import Interface, Traffic, of_namespaces, parse

TEXT = b"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1020      17    0    0    0     0          0         0     1020      17    0    0    0     0       0          0
  net1:       5       4    3    2    0     0          0         0        9       8    7    6    0     0       0          0
  eth0:18446744073709551615 9123    1    2    0     0          0         0   123456    8000    4    5    0     0       0          0
   a-b:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
"""  # noqa: E501


def test_eth0_is_the_first_and_the_loopback_is_none() -> None:
    assert parse(TEXT) == (
        Interface("eth0", Traffic(2**64 - 1, 9123, 1, 2), Traffic(123456, 8000, 4, 5)),
        Interface("a-b", Traffic(0, 0, 0, 0), Traffic(0, 0, 0, 0)),
        Interface("net1", Traffic(5, 4, 3, 2), Traffic(9, 8, 7, 6)),
    )


def test_a_namespace_with_nothing_but_the_loopback() -> None:
    assert parse(b"".join(TEXT.splitlines(keepends=True)[:3])) == ()


@pytest.mark.root
async def test_namespaces_are_visited_and_those_that_are_gone_left_out(tmp_path: Path) -> None:
    here = Path("/proc/thread-self/net/dev").read_bytes()
    pins = [tmp_path / "one", tmp_path / "two"]
    for pin in pins:
        await namespaces.create_pinned({"net": pin})
    try:
        (tmp_path / "file").touch()
        wanted = {
            "one": str(pins[0]),
            "gone": str(tmp_path / "gone"),
            "no namespace": str(tmp_path / "file"),
            "two": str(pins[1]),
        }
        assert await of_namespaces(wanted) == {"one": (), "two": ()}
        names = [each.name for each in parse(Path("/proc/thread-self/net/dev").read_bytes())]
        assert names == [each.name for each in parse(here)], "this thread has not moved"
    finally:
        for pin in pins:
            namespaces.unpin(pin)
    assert await of_namespaces({}) == {}
