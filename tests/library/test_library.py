"""The library's objects, and its example, on the embedded engine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import podwright
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.library import Runtime
from podwright.linux import mounts

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parent.parent.parent
IMAGE = "localhost/podwright/busybox:latest"


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    maker = await asyncio.create_subprocess_exec(
        sys.executable, REPOSITORY / "tools" / "busybox_rootfs.py", tmp_path / "rootfs"
    )
    assert await maker.wait() == 0
    async with podwright.open(tmp_path / "root", tmp_path / "run") as runtime:
        await runtime.import_root(tmp_path / "rootfs", IMAGE, {"Cmd": ["sh"], "Env": ["FROM=image"]})
        yield runtime
    assert mounts.mounts_below(tmp_path) == []
    assert list((tmp_path / "root" / "pods").glob("*")) == []


async def test_images_are_found_and_removed(runtime: Runtime) -> None:
    (listed,) = await runtime.images()
    found = await runtime.image(IMAGE)
    assert found is not None and found.id == listed.id
    await runtime.remove_image(IMAGE)
    assert await runtime.image(IMAGE) is None


async def test_images_go_out_and_come_in(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (before,) = await runtime.images()
    assert await runtime.export_image(IMAGE, "oci:out") > before.size / 4
    await runtime.remove_image(IMAGE)
    assert await runtime.import_image("out") == [before]
    (named,) = await runtime.import_image("oci:out", "another:1")
    assert named.id == before.id and "docker.io/library/another:1" in named.repo_tags


async def test_a_container_lives_and_is_looked_at(runtime: Runtime) -> None:
    async with await runtime.run_sandbox("web", labels={"app": "test"}) as sandbox:
        assert await sandbox.ips()
        (listed,) = await runtime.sandboxes()
        assert (listed.id, listed.labels["app"]) == (sandbox.id, "test")
        script = "trap 'exit 9' TERM; echo up $FROM $MORE; printf end; sleep 600 & wait"
        container = await sandbox.run("main", IMAGE, ["sh", "-c", script], env={"MORE": "yes"})
        async for line in container.logs(follow=True):
            assert line.text == b"up image yes"
            break
        result = await container.exec(["sh", "-c", "hostname; id -u >&2; exit 3"])
        assert (result.stdout, result.stderr, result.exit_code) == (b"web\n", b"0\n", 3)
        await container.stop(grace=20)
        assert (await container.wait()).exit_code == 9
        assert [line.text async for line in container.logs(follow=True)] == [b"up image yes", b"end"]
    assert await runtime.sandboxes() == [] and await runtime.containers() == []


async def test_following_a_log_ends_with_the_container(runtime: Runtime) -> None:
    async with await runtime.run_sandbox("web", host_network=True) as sandbox:
        container = await sandbox.run("main", IMAGE, ["sh", "-c", "for i in $(seq 500); do echo $i; done"])
        lines = [int(line.text) async for line in container.logs(follow=True)]
        assert lines == list(range(1, 501))


async def test_a_name_used_again_is_the_next_attempt(runtime: Runtime) -> None:
    async with await runtime.run_sandbox("web", host_network=True) as sandbox:
        first = await sandbox.run("main", IMAGE, ["true"])
        await first.wait()
        second = await sandbox.run("main", IMAGE, ["true"])
        assert (await second.status()).metadata.attempt == 1
        assert second.log.name == "1.log"


async def test_errors_are_podwrights(runtime: Runtime) -> None:
    async with await runtime.run_sandbox("web", host_network=True) as sandbox:
        with pytest.raises(NotFound):
            await sandbox.create("main", "localhost/none:1")
        with pytest.raises(PodwrightError):
            await sandbox.run("main", IMAGE, ["/no/such/program"])
        assert await runtime.containers() == []
    with pytest.raises(InvalidArgument, match="livenesProbe"):
        probed = {"name": "a", "image": "b", "livenesProbe": {"tcpSocket": {"port": 1}}}
        await runtime.run_pod(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [probed]}}
        )


async def test_another_runtime_on_the_same_root_is_refused(runtime: Runtime) -> None:
    with pytest.raises(FailedPrecondition):
        async with podwright.open(runtime.config.root, runtime.config.run):
            pass


async def test_a_pod_runs_from_text(runtime: Runtime) -> None:
    outcome = await runtime.run_pod(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  restartPolicy: Never
  hostNetwork: true
  containers:
  - name: a
    image: {IMAGE}
    imagePullPolicy: Never
    command: [sh, -c, "echo why > /dev/termination-log; exit 4"]
"""
    )
    assert (outcome.exit_code, outcome.containers[0].message) == (4, "why\n")


async def test_cancelling_a_pod_removes_it(runtime: Runtime) -> None:
    started = asyncio.Event()

    class Ear:
        def event(self, pod: str, container: str, text: str) -> None:
            if container and text == "Container started":
                started.set()

        def output(self, pod: str, container: str, line: object) -> None: ...

    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "hostNetwork": True,
            "containers": [
                {"name": "a", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "600"]}
            ],
        },
    }
    task = asyncio.create_task(runtime.run_pod(pod, reporter=Ear()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await runtime.sandboxes() == []


async def test_the_example_works(runtime: Runtime, tmp_path: Path) -> None:
    directory = tmp_path / "example"
    async with podwright.open(directory / "root", directory / "run") as other:
        await other.import_root(tmp_path / "rootfs", IMAGE, {"Cmd": ["sh"]})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        REPOSITORY / "examples" / "library.py",
        env={
            **os.environ,
            "PODWRIGHT_ROOT": str(directory / "root"),
            "PODWRIGHT_RUN": str(directory / "run"),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    lines = out.decode().splitlines()
    assert process.returncode == 0
    assert lines[2:] == [
        "exec: library",
        "log: hello 1",
        "log: hello 2",
        "log: hello 3",
        "exit: 7 (Error)",
        "stopped: 0",
        "pod: 0",
    ]
