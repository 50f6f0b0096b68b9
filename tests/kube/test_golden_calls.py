"""What a real kubelet asked its runtime for each recorded Pod, in order and word for word, what it told, and
what status it came to: podwright's worker does the same on a fake node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podwright.kube.files import pod_cgroups
from podwright.spec.linux import mounts
from tests.kube import golden
from tests.kube.golden_play import Differences, play
from tests.kube.golden_stage import staged

NO_ID_MAPS = "the fake node has no id-mapped mounts; what is asked is compared in test_golden_requests"
NOT_RUN: dict[str, str] = {
    "proc-mount": NO_ID_MAPS,
    "user-namespace": NO_ID_MAPS,
}
"""Cases that do not run here, and why."""

SCRIPTS: dict[str, dict[str, Any]] = {
    "hook-exec": {"containers": [{"exec": [{"command": "sh -c echo post > /dev/shm/hook"}]}]},
    # Loopback: there nobody listens, while elsewhere a gateway might answer.
    "probe-grpc-fails": {"addresses": {"ipv4": "127.88.0.0/16"}},
    "sidecar": {"containers": [{"exec": [{"command": "test -e /dev/shm/ready"}]}]},
    "pull-fails": {
        "images": [
            {
                "reference": "registry.test/no-such:1",
                "error": {
                    "code": "NotFound",
                    "message": 'failed to pull and unpack image "registry.test/no-such:1": failed to resolve'
                    " image: registry.test/no-such:1: not found",
                },
            }
        ]
    },
    "oom-killed": {"containers": [{"exit": {"after": 0.5, "oom": True}}]},
    "start-fails": {
        "containers": [
            {
                "match": {"container": "main"},
                "start_error": "failed to create containerd task: failed to create shim task: OCI runtime"
                " create failed: runc create failed: unable to start container process: exec:"
                ' "/no/such/binary": stat /no/such/binary: no such file or directory',
            }
        ]
    },
}
"""What the fake node is told beside the images: what only real programs, kernels and registries would do."""


WITH_USERS = ("registry.test/app:1", "registry.test/nameduser:1")
"""Their containers' users are not compared: the fake node's images have no groups of users."""
DIFFERENCES = Differences(images_without_users=WITH_USERS, ends=False)
"""Ends: traps of programs are not played; test_golden_status has what is left."""


@pytest.fixture(autouse=True)
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """What listens at the ports of pods, for there is no network to them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a client that only looks whether somebody is there
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    connect = asyncio.open_connection

    async def redirected(*_: object, **options: Any) -> Any:
        return await connect("127.0.0.1", port, **options)

    monkeypatch.setattr(asyncio, "open_connection", redirected)
    yield
    server.close()
    await server.wait_closed()


@pytest.fixture(autouse=True)
def no_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods have cgroups of their own in what is asked, but none is made; and images are mounted in the fake
    node as empty directories."""
    monkeypatch.setattr(mounts, "shows_image", lambda _: False)
    monkeypatch.setattr(mounts, "_check", lambda *_: None)
    for name in ("make", "update", "remove"):
        monkeypatch.setattr(pod_cgroups, name, lambda *_: None)


@pytest.mark.parametrize("case", golden.CASES)
async def test_the_same_is_asked_told_and_reported_as_by_a_kubelet(case: str, tmp_path: Path) -> None:
    if case in NOT_RUN:
        pytest.skip(NOT_RUN[case])
    async with staged(case, tmp_path, SCRIPTS.get(case)) as stage:
        await play(stage, DIFFERENCES)
