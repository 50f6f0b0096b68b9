"""What processes hold open."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from podwright.stats import groups
from podwright.stats.processes import Open, max_open_files, opened


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        process = subprocess.Popen(
            ["sleep", "1000"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[each.fileno() for each in sockets],
        )
        try:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (123, 200))
            yield process
        finally:
            process.kill()
            process.wait()


def test_descriptors_and_sockets(child: subprocess.Popen[bytes]) -> None:
    # The loader still has a library open for a moment.
    deadline = time.monotonic() + 30
    while opened([child.pid]).descriptors != 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert opened([child.pid]) == Open(6, 3)
    assert opened([child.pid, child.pid]) == Open(12, 6)
    assert opened([]) == Open(0, 0)
    assert max_open_files(child.pid) == 123


def test_processes_that_are_gone(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert opened([child.pid]) == Open(0, 0)
    assert max_open_files(child.pid) is None


def test_no_limit_is_the_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "prlimit", lambda pid, which: (resource.RLIM_INFINITY,) * 2)
    assert max_open_files(os.getpid()) == 2**64 - 1


@pytest.mark.parametrize(
    ("kilobytes", "name"),
    [(64, "64KB"), (2048, "2MB"), (524288, "512MB"), (1048576, "1GB"), (16777216, "16GB")],
)
def test_huge_pages_are_named_as_cgroup_files_name_them(kilobytes: int, name: str) -> None:
    assert groups._size_name(kilobytes) == name
