"""Several commands on one state: beside a run that lasts, and after it has left."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.kube.conftest import IMAGE, Command

pytestmark = pytest.mark.root

SLEEP = "trap 'echo bye; exit 0' TERM; echo up; sleep 600 & wait"


def write(path: Path, name: str, command: str) -> Path:
    path.write_text(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  containers:
  - {{name: {name}, image: {IMAGE}, imagePullPolicy: Never, command: [sh, -c, "{command}"]}}
"""
    )
    return path


async def until(stream: asyncio.StreamReader | None, words: str) -> None:
    assert stream is not None
    async with asyncio.timeout(30):
        while line := (await stream.readline()).decode():
            if words in line:
                return
    raise AssertionError(f"no line holds {words!r}")


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode() + err.decode()


async def test_commands_work_beside_a_run(podwright: Command, tmp_path: Path) -> None:
    run = await podwright.start("run", write(tmp_path / "a.yaml", "first", SLEEP))
    try:
        await until(run.stdout, "up")
        # At once, and when it answers: the first waits for its socket.
        for _ in range(2):
            listed = await podwright("ps")
            assert "first" in listed.out and "running" in listed.out, listed.err
        assert (await podwright("exec", "first", "echo", "inside")).out == "inside\n"
        assert (await podwright("logs", "first")).out == "up\n"
        beside = await podwright("run", "-q", write(tmp_path / "b.yaml", "second", "echo two; exit 2"))
        assert (beside.status, beside.out) == (2, "second | two\n"), beside.err
    finally:
        status, said = await end(run)
    assert status == 0 and "bye" in said


async def test_a_run_takes_the_state_over_from_one_that_leaves(podwright: Command, tmp_path: Path) -> None:
    first = await podwright.start("run", write(tmp_path / "a.yaml", "first", SLEEP))
    second = None
    try:
        await until(first.stdout, "up")
        assert (await podwright("ps")).status == 0
        second = await podwright.start("run", write(tmp_path / "b.yaml", "second", SLEEP))
        await until(second.stdout, "up")
        assert (await end(first))[0] == 0
        listed = await podwright("ps")
        assert "second" in listed.out and "first" not in listed.out, listed.err
    finally:
        await end(first)
        if second is not None:
            status, said = await end(second)
    assert status == 0 and "bye" in said, said


async def test_a_run_goes_on_when_its_server_is_started_anew(podwright: Command, tmp_path: Path) -> None:
    manifest = write(
        tmp_path / "a.yaml", "web", "echo up; until [ -e /tmp/end ]; do sleep 0.05; done; exit 7"
    )
    manifest.write_text(manifest.read_text().replace("spec:", "spec:\n  hostNetwork: true"))
    server = await podwright.start("serve")
    await until(server.stdout, "serves")
    run = await podwright.start("run", manifest)
    try:
        await until(run.stdout, "up")
        server.kill()
        await server.communicate()
        server = await podwright.start("serve")
        await until(server.stdout, "serves")
        assert (await podwright("exec", "web", "touch", "/tmp/end")).status == 0
        async with asyncio.timeout(20):
            _, err = await run.communicate()
        assert run.returncode == 7, err.decode()
    finally:
        await end(run)
        await end(server)


async def test_following_a_log_keeps_nobody_from_the_state(podwright: Command, tmp_path: Path) -> None:
    assert (await podwright("run", "-dq", write(tmp_path / "a.yaml", "web", SLEEP))).status == 0
    following = await podwright.start("logs", "-f", "web/web")
    try:
        await until(following.stdout, "up")
        assert "running" in (await podwright("ps")).out
        assert (await podwright("stop", "web/web")).status == 0
        async with asyncio.timeout(15):
            out, err = await following.communicate()
        assert (following.returncode, out, err) == (0, b"bye\n", b"")
    finally:
        if following.returncode is None:
            following.kill()
        assert (await podwright("rm", "-f", "default/web")).status == 0


async def test_short_commands_wait_for_each_other(podwright: Command) -> None:
    done = await asyncio.gather(*(podwright("ps") for _ in range(4)))
    assert [(one.status, one.err) for one in done] == [(0, "")] * 4
