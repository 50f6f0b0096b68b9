"""SPDY sessions against a Go server: containerd's, whose containers run in the host's network."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from bench.daemons import Containerd
from bench.stage import open_stage
from podwright.streaming.spdy import Session, Stream
from podwright.streaming.spdy.windows import Kept
from podwright.wire import cri_pb2 as cri
from tests.streaming.spdy_ends import read_all

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="no containerd"),
]


@pytest.fixture(scope="module")
def container() -> Iterator[tuple[Containerd, str]]:
    """A running container with busybox in it."""
    with open_stage() as stage:
        daemon = Containerd(stage)
        try:
            options = cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER)
            config = cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(name="p", uid="u", namespace="spdy"),
                linux=cri.LinuxPodSandboxConfig(
                    cgroup_parent=f"/{stage.bridge}",
                    security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
                ),
            )
            request = cri.RunPodSandboxRequest(config=config)
            sandbox = daemon.runtime.RunPodSandbox(request).pod_sandbox_id
            daemon._sandboxes[sandbox] = config
            found = daemon.create(sandbox, "p")
            daemon.start(found)
            yield daemon, found
        finally:
            daemon.close()


async def connect(url: str) -> Session:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        "X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    session = Session(client=True)
    session.take_over(writer.transport, owner=(reader, writer))
    return session


async def last_words(stream: Stream) -> bytes:
    """A Go server ends its error stream by force."""
    words = b""
    with pytest.raises(ConnectionResetError, match="CANCEL"):
        while data := await stream.read():
            words += data
    return words


@pytest.mark.parametrize("length", [0, 70_000, 30_000_000])
async def test_an_exec_in_containerd_gives_back_what_it_is_sent(
    container: tuple[Containerd, str], length: int
) -> None:
    daemon, found = container
    request = cri.ExecRequest(
        container_id=found, cmd=["sh", "-c", "cat; echo no >&2; exit 3"], stdin=True, stdout=True, stderr=True
    )
    url = (await asyncio.to_thread(daemon.runtime.Exec, request)).url
    question = bytes(range(256)) * (length // 256)

    async def send(stdin: Stream) -> None:
        for at in range(0, len(question), 100_000):
            await stdin.write(question[at : at + 100_000])
        await stdin.close()

    async with asyncio.timeout(100):
        session = await connect(url)
        error, stdin, stdout, stderr = [
            await session.open({"streamtype": name}) for name in ("error", "stdin", "stdout", "stderr")
        ]
        _, answer, said, words = await asyncio.gather(
            send(stdin), read_all(stdout), read_all(stderr), last_words(error)
        )
        await session.close()
    assert answer == question
    assert said == b"no\n"
    assert json.loads(words)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert await session.closed is None
    if length > 1_000_000:
        flow = session._connection._flow
        assert flow.streams_kept is flow.session_kept is Kept.NO
