"""`podwright run` as people use it, on the embedded engine and at a server's socket."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.kube.conftest import IMAGE, REPOSITORY, Command

pytestmark = pytest.mark.root

EXAMPLES = REPOSITORY / "examples"


def write(path: Path, command: str, policy: str = "Never", more: str = "", name: str = "web") -> Path:
    path.write_text(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: {policy}
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, "{command}"]
{more}
"""
    )
    return path


async def line_of(stream: asyncio.StreamReader | None, words: str) -> str:
    """Read until a line holds `words`."""
    assert stream is not None
    async with asyncio.timeout(30):
        while line := (await stream.readline()).decode():
            if words in line:
                return line
    raise AssertionError(f"no line holds {words!r}")


async def test_hello_prints_the_page_and_ends(podwright: Command) -> None:
    done = await podwright("run", EXAMPLES / "hello.yaml")
    assert done.status == 0, done.err
    assert "client | fetched: Hello from pod hello!\n" in done.out
    assert "server | the client says: done\n" in done.out
    assert "CONTAINER   EXIT CODE   REASON" in done.err


async def test_init_example_restarts_once_and_writes_to_its_volumes(podwright: Command) -> None:
    done = await podwright("run", "--quiet", EXAMPLES / "init.yaml")
    assert done.status == 0, done.err
    assert "groups=1000(app),2000(extra)" in done.out
    assert [line for line in done.out.splitlines() if line.startswith("main")] == [
        "main    | line 1",
        "main    | line 2",
        "main    | line 3",
        "main    | all of it",
    ]
    assert done.err == "main    | failing once\n"


async def test_ctrl_c_stops_gracefully(podwright: Command) -> None:
    process = await podwright.start("run", EXAMPLES / "service.yaml")
    await line_of(process.stdout, "clock |")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"clock | bye" in out


async def test_a_closed_terminal_stops_the_pod(podwright: Command) -> None:
    terminal, other_end = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *podwright.prefix, "run", str(EXAMPLES / "service.yaml"), stdin=other_end, stdout=other_end,
        stderr=other_end, start_new_session=True,
    )  # fmt: skip
    os.close(other_end)
    said = b""
    async with asyncio.timeout(30):
        while b"clock |" not in said:
            said += await asyncio.to_thread(os.read, terminal, 4096)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert await process.wait() == 0
    assert (await podwright("pods", "-q")).out == ""


async def test_a_second_ctrl_c_kills(podwright: Command, tmp_path: Path) -> None:
    manifest = write(tmp_path / "deaf.yaml", "trap '' TERM; echo up; sleep 600")
    process = await podwright.start("run", manifest)
    await line_of(process.stdout, "up")
    process.send_signal(signal.SIGINT)
    await line_of(process.stderr, "stopping")
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(15):
        await process.communicate()
    assert process.returncode == 137


async def test_the_exit_code_and_the_last_line_without_newline_come_through(
    podwright: Command, tmp_path: Path
) -> None:
    done = await podwright("run", write(tmp_path / "a.yaml", "echo out; echo err >&2; printf last; exit 42"))
    assert done.status == 42
    assert done.out == "main | out\nmain | last\n"
    assert "main | err\n" in done.err


async def test_a_manifest_may_come_from_standard_input(podwright: Command, tmp_path: Path) -> None:
    manifest = write(tmp_path / "a.yaml", "echo piped; exit 3")
    process = await asyncio.create_subprocess_exec(
        *podwright.prefix, "run", "-q", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate(manifest.read_bytes())
    assert (process.returncode, out) == (3, b"main | piped\n")


async def test_several_pods_are_named_in_front(podwright: Command, tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "echo 1", name="one")
    two = write(tmp_path / "two.yaml", "echo 2; exit 3", name="two")
    done = await podwright("run", one, two)
    assert sorted(done.out.splitlines()) == ["one/main | 1", "two/main | 2"]
    assert done.status == 3


async def test_a_wrong_manifest_starts_nothing(podwright: Command, tmp_path: Path) -> None:
    manifest = write(tmp_path / "a.yaml", "true", more="    livenesProbe: {tcpSocket: {port: 1}}")
    done = await podwright("run", manifest)
    assert done.status == 1 and done.out == ""
    assert "spec.containers[0].livenesProbe: no such field" in done.err


async def test_a_missing_image_is_waited_for_and_said(podwright: Command, tmp_path: Path) -> None:
    manifest = write(tmp_path / "a.yaml", "true")
    manifest.write_text(manifest.read_text().replace(IMAGE, "localhost/none:1"))
    process = await podwright.start("run", manifest)
    await line_of(process.stderr, 'image "localhost/none:1" is not present')
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert "container 'main': ErrImageNeverPull" in err.decode()
    assert (await podwright("run", "--detach", manifest)).status == 1  # nobody would be there to wait


async def test_detached_pods_go_on_and_are_found(podwright: Command, tmp_path: Path) -> None:
    manifest = write(tmp_path / "a.yaml", "trap 'exit 0' TERM; echo up; sleep 600 & wait")
    done = await podwright("run", "-d", manifest)
    assert done.status == 0, done.err
    sandbox, container = done.out.splitlines()
    assert container.startswith("  main ")
    try:
        listed = await podwright("ps")
        assert "main" in listed.out and "running" in listed.out
    finally:
        removed = await podwright("rm", "--force", sandbox)
    assert removed.status == 0, removed.err


async def test_kept_pods_can_be_looked_at(podwright: Command, tmp_path: Path) -> None:
    done = await podwright("run", "--keep", write(tmp_path / "a.yaml", "echo still here; exit 5"))
    assert done.status == 5
    (log,) = (podwright.root / "logs").glob("default_web_*/main/0.log")
    assert "still here" in log.read_text()
    listed = await podwright("ps", "-a")
    assert "exited (5)" in listed.out
    sandbox = done.err.rsplit("kept sandbox ", 1)[1].split()[0]
    assert (await podwright("rm", sandbox)).status == 0


async def test_a_running_server_is_asked_to_run_the_pod(podwright: Command, tmp_path: Path) -> None:
    server = await podwright.start("serve")
    try:
        await line_of(server.stdout, "serves")
        manifest = write(tmp_path / "a.yaml", "echo served; exit 6", more="  hostNetwork: true")
        done = await podwright("run", manifest)
        assert (done.status, done.out) == (6, "main | served\n"), done.err
    finally:
        if server.returncode is None:
            os.kill(server.pid, signal.SIGTERM)
        await server.communicate()
