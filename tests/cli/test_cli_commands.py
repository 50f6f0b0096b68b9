"""The commands as a user meets them: the program started as such, before a server with two pods in memory."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.core import TyperGroup

from podwright import errors
from podwright.api import Cri
from podwright.cli.main import app
from podwright.logs import rotation
from podwright.server.calls import Gate
from podwright.server.serve import listening
from podwright.wire import cri_pb2 as cri

MINUTE = 60 * 1_000_000_000


@dataclass
class Done:
    status: int
    stdout: str
    stderr: str


class Node:
    """Two pods: "web" with one container running and one ended, "old" not ready."""

    def __init__(self, logs: Path) -> None:
        self.calls: list[Any] = []
        now = time.time_ns()
        self.pods = [
            cri.PodSandbox(
                id="a" * 64,
                metadata=cri.PodSandboxMetadata(name="web", namespace="default", uid="1"),
                state=cri.SANDBOX_READY,
                created_at=now - 30 * MINUTE,
            ),
            cri.PodSandbox(
                id="b" * 64,
                metadata=cri.PodSandboxMetadata(name="old", namespace="default", uid="2"),
                state=cri.SANDBOX_NOTREADY,
                created_at=now - 90 * MINUTE,
            ),
        ]
        self.containers = [
            _container("c1" * 32, "a" * 64, "http", cri.CONTAINER_RUNNING, now - 20 * MINUTE),
            _container("c2" * 32, "a" * 64, "fetch", cri.CONTAINER_EXITED, now - MINUTE),
        ]
        self.log = logs / "http.log"
        self.log.write_bytes(
            b"2026-01-01T00:00:00.000000001Z stdout F one\n"
            b"2026-01-01T00:00:01.000000000Z stderr F oops\n"
            b"2026-01-01T00:00:02.000000000Z stdout F three\n"
        )

    async def version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        return cri.VersionResponse(
            version="0.1.0", runtime_name="podwright", runtime_version="9.9", runtime_api_version="v1"
        )

    async def status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        return cri.StatusResponse(
            status=cri.RuntimeStatus(
                conditions=[
                    cri.RuntimeCondition(type="RuntimeReady", status=True),
                    cri.RuntimeCondition(
                        type="NetworkReady", reason="NetworkPluginNotReady", message="no configuration"
                    ),
                ]
            ),
            runtime_handlers=[cri.RuntimeHandler(name="crun")],
            info={"handlers": '{"runsc": {"available": false, "reason": "no ptrace here"}}'},
        )

    async def list_pod_sandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        return cri.ListPodSandboxResponse(items=self.pods)

    async def list_containers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        return cri.ListContainersResponse(containers=self.containers)

    async def container_status(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        for one in self.containers:
            if one.id == request.container_id:
                status = cri.ContainerStatus(
                    id=one.id, state=one.state, exit_code=3, log_path=str(self.log), metadata=one.metadata
                )
                info = {"info": '{"pid": 42}'} if request.verbose else {}
                return cri.ContainerStatusResponse(status=status, info=info)
        raise errors.NotFound(f"no container {request.container_id}")

    async def pod_sandbox_status(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        return cri.PodSandboxStatusResponse(status=cri.PodSandboxStatus(id=request.pod_sandbox_id))

    async def exec_sync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        self.calls.append(request)
        return cri.ExecSyncResponse(stdout=b"out\xff\n", stderr=b"err\n", exit_code=7)

    async def exec(self, request: cri.ExecRequest) -> cri.ExecResponse:
        raise errors.Unimplemented("Exec: nobody serves streams here")

    async def port_forward(self, request: cri.PortForwardRequest) -> cri.PortForwardResponse:
        raise errors.Unimplemented("PortForward: nobody serves streams here")

    async def attach(self, request: cri.AttachRequest) -> cri.AttachResponse:
        raise errors.Unimplemented("Attach: nobody serves streams here")

    async def stop_container(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        self.calls.append(request)
        return cri.StopContainerResponse()

    async def remove_container(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        self.calls.append(request)
        return cri.RemoveContainerResponse()

    async def stop_pod_sandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        self.calls.append(request)
        return cri.StopPodSandboxResponse()

    async def remove_pod_sandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        self.calls.append(request)
        return cri.RemovePodSandboxResponse()

    async def list_images(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        return cri.ListImagesResponse(
            images=[
                cri.Image(id="sha256:" + "d" * 64, repo_tags=["localhost/hello:1"], size=4_200_000),
                cri.Image(id="sha256:" + "e" * 64, repo_digests=["x@sha256:" + "f" * 64], size=1),
            ]
        )

    async def image_status(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        if request.image.image == "hello:1":
            return cri.ImageStatusResponse(image=cri.Image(id="sha256:" + "d" * 64))
        return cri.ImageStatusResponse()

    async def remove_image(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        self.calls.append(request)
        return cri.RemoveImageResponse()

    async def pull_image(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        self.calls.append(request)
        return cri.PullImageResponse(image_ref="sha256:" + "d" * 64)


def _container(id: str, pod: str, name: str, state: int, created_at: int) -> cri.Container:
    return cri.Container(
        id=id,
        pod_sandbox_id=pod,
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image="localhost/hello:1"),
        state=cast(Any, state),
        created_at=created_at,
    )


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    house = Node(tmp_path)
    gate = Gate()
    gate.open(cast(Cri, house))
    async with listening(str(tmp_path / "podwright.sock"), gate):
        yield house


Run = Callable[..., Any]


@pytest.fixture
def podwright(tmp_path: Path) -> Run:
    """Run the program with the global options that lead to this test's server."""

    async def run(*arguments: str, input: str = "", **env: str) -> Done:
        options = ["--root", str(tmp_path / "root"), "--run", str(tmp_path)]
        return await program(*options, *arguments, input=input, **env)

    return run


async def program(*arguments: str, input: str = "", **env: str) -> Done:
    async with started(*arguments, **env) as child:
        out, err = await asyncio.wait_for(child.communicate(input.encode()), 60)
    assert child.returncode is not None
    return Done(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


@asynccontextmanager
async def started(*arguments: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from podwright.cli.main import main; main()", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100", **env},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


# Help and wrong usage


async def test_without_a_command_there_is_help() -> None:
    done = await program()
    assert done.status == 0
    for command in ("run", "ps", "pods", "logs", "exec", "stop", "rm", "inspect", "images", "pull", "serve"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("ps", "--bogus"),
        ("stop",),
        ("ps", "-o", "xml"),
        ("serve", "extra"),
        ("logs", "--tail", "x"),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...]) -> None:
    done = await program(*arguments)
    assert done.status == 2
    assert done.stdout == ""
    assert done.stderr.startswith("podwright: ") and done.stderr.count("\n") == 1
    assert "--help" in done.stderr


async def test_a_command_takes_one_line_of_the_help_at_80_columns() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    lines = (await program("--help", COLUMNS="80")).stdout.splitlines()
    panels = lines[next(n for n, line in enumerate(lines) if "─ Pods ─" in line) :]
    rows = [line.strip("│ ").split("  ")[0] for line in panels if line.startswith("│")]
    assert rows == list(group.commands)


async def test_every_command_has_help() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup) and len(group.commands) > 20
    results = await asyncio.gather(*(program(command, "--help") for command in group.commands))
    for command, done in zip(group.commands, results, strict=True):
        assert (command, done.status, done.stderr) == (command, 0, "")


async def test_help_loads_neither_grpc_nor_protobuf() -> None:
    code = (
        "import sys, typer\nfrom podwright.cli.main import app\n"
        "app(['ps', '--help'], standalone_mode=False)\n"
        "print([m for m in ('grpc', 'google.protobuf', 'asyncio', 'msgspec') if m in sys.modules])"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# Errors


async def test_a_named_socket_without_a_server_is_an_error(tmp_path: Path) -> None:
    done = await program("--socket", str(tmp_path / "none"), "ps")
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr == f"podwright: no server at {tmp_path}/none: there is no such socket\n"


async def test_a_bad_configuration_names_the_file_and_the_key(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("lisen = 1\n")
    done = await program("--config", str(tmp_path / "c.toml"), "ps")
    assert done.status == 1
    assert done.stderr.startswith(f"podwright: {tmp_path}/c.toml: ") and "lisen" in done.stderr


# Lists


async def test_ps_shows_what_runs(node: Node, podwright: Run) -> None:
    done = await podwright("ps")
    assert done.stderr == ""
    head, line = done.stdout.splitlines()
    assert head.split() == ["ID", "NAME", "POD", "IMAGE", "STATE", "AGE", "ATTEMPT"]
    assert line.split() == [
        "c1" * 6,
        "http",
        "web",
        "localhost/hello:1",
        "running",
        "20m",
        "0",
    ]


async def test_ps_all_shows_exit_codes(node: Node, podwright: Run) -> None:
    done = await podwright("ps", "-a")
    assert "exited (3)" in done.stdout.splitlines()[1]
    assert len(done.stdout.splitlines()) == 3


async def test_ps_for_programs_is_the_cris_own_message(node: Node, podwright: Run) -> None:
    done = await podwright("ps", "-a", "-o", "json")
    containers = json.loads(done.stdout)["containers"]
    assert [one["metadata"]["name"] for one in containers] == ["fetch", "http"]
    assert containers[1]["state"] == "CONTAINER_RUNNING"


async def test_quiet_prints_whole_ids(node: Node, podwright: Run) -> None:
    assert (await podwright("ps", "-q")).stdout == "c1" * 32 + "\n"
    assert (await podwright("pods", "-q")).stdout == "a" * 64 + "\n" + "b" * 64 + "\n"


async def test_pods_and_images(node: Node, podwright: Run) -> None:
    lines = (await podwright("pods")).stdout.splitlines()
    assert lines[1].split()[:5] == ["a" * 12, "web", "default", "ready", "1/2"]
    assert lines[2].split()[:6] == ["b" * 12, "old", "default", "not", "ready", "0/0"]
    lines = (await podwright("images")).stdout.splitlines()
    assert lines[1].split() == ["d" * 12, "localhost/hello:1", "4.2", "MB"]
    assert lines[2].split() == ["e" * 12, "x@sha256:" + "f" * 64, "1", "B"]


# Names


@pytest.mark.parametrize("word", ["c1" * 32, "c1c1", "http", "web/http", "default/web/http"])
async def test_a_container_is_named_by_id_prefix_or_name(node: Node, podwright: Run, word: str) -> None:
    assert (await podwright("stop", "-t", "3", word)).stdout == "c1" * 32 + "\n"
    assert node.calls == [cri.StopContainerRequest(container_id="c1" * 32, timeout=3)]


async def test_an_ambiguous_prefix_is_refused_with_what_fits(node: Node, podwright: Run) -> None:
    done = await podwright("stop", "c")
    assert done.status == 1
    assert "'c' fits 2 objects" in done.stderr and "web/http" in done.stderr and "web/fetch" in done.stderr
    assert node.calls == []


async def test_an_unknown_name_is_an_error(node: Node, podwright: Run) -> None:
    done = await podwright("logs", "nope")
    assert (done.status, done.stderr) == (1, "podwright: no container has the id or name 'nope'\n")


# Acts


async def test_stopping_a_pod_stops_its_containers_with_grace_first(node: Node, podwright: Run) -> None:
    assert (await podwright("stop", "web")).status == 0
    assert node.calls == [
        cri.StopContainerRequest(container_id="c1" * 32, timeout=10),
        cri.StopPodSandboxRequest(pod_sandbox_id="a" * 64),
    ]


async def test_what_runs_is_removed_only_with_force(node: Node, podwright: Run) -> None:
    done = await podwright("rm", "http")
    assert done.status == 1 and "--force" in done.stderr
    assert node.calls == []
    assert (await podwright("rm", "-f", "http", "old")).status == 0
    assert {type(call).__name__ for call in node.calls} == {
        "RemoveContainerRequest",
        "StopPodSandboxRequest",
        "RemovePodSandboxRequest",
    }


@pytest.mark.parametrize("dashes", [(), ("--",)])
async def test_exec_passes_output_and_status_on(node: Node, podwright: Run, dashes: tuple[str, ...]) -> None:
    done = await podwright("exec", "http", *dashes, "sh", "-c", "exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, "out\ufffd\n", "err\n")
    assert list(node.calls[0].cmd) == ["sh", "-c", "exit 7"]


async def test_exec_that_may_take_some_time_is_one_call(node: Node, podwright: Run) -> None:
    done = await podwright("exec", "--timeout", "3", "http", "true")
    assert (done.status, node.calls[0].timeout) == (7, 3)


async def test_streams_of_a_server_without_streaming_are_an_error(node: Node, podwright: Run) -> None:
    for arguments in (("exec", "-i", "http", "sh"), ("attach", "http"), ("port-forward", "web", ":80")):
        done = await podwright(*arguments)
        assert done.status == 1
        assert done.stderr.startswith("podwright: ") and done.stderr.endswith("nobody serves streams here\n")
    assert node.calls == []


async def test_pull_takes_credentials_from_stdin_or_the_environment(node: Node, podwright: Run) -> None:
    assert (await podwright("pull", "x:1", "--creds-stdin", input="me:a:b\n")).status == 0
    assert (await podwright("pull", "x:1", PODWRIGHT_CREDS="you:secret")).status == 0
    assert (await podwright("pull", "x:1")).stdout == "sha256:" + "d" * 64 + "\n"
    auths = [(call.auth.username, call.auth.password) for call in node.calls]
    assert auths == [("me", "a:b"), ("you", "secret"), ("", "")]
    done = await podwright("pull", "x:1", "--creds-stdin", input="nonsense\n")
    assert done.status == 1 and "user:password" in done.stderr and "nonsense" not in done.stderr


async def test_rmi_of_an_unknown_image_is_an_error(node: Node, podwright: Run) -> None:
    assert (await podwright("rmi", "hello:1")).stdout == "sha256:" + "d" * 64 + "\n"
    done = await podwright("rmi", "bye:1")
    assert (done.status, done.stderr) == (1, "podwright: there is no image 'bye:1'\n")
    assert len(node.calls) == 1


# Looking closer


async def test_logs_keep_the_streams_apart(node: Node, podwright: Run) -> None:
    done = await podwright("logs", "http")
    assert (done.status, done.stdout, done.stderr) == (0, "one\nthree\n", "oops\n")
    done = await podwright("logs", "-t", "--tail", "1", "http")
    assert done.stdout == "2026-01-01T00:00:02.000000000Z three\n"
    done = await podwright("logs", "--since", "2026-01-01T00:00:02Z", "http")
    assert (done.stdout, done.stderr) == ("three\n", "")
    assert (await podwright("logs", "--since", "1h", "http")).stdout == ""
    done = await podwright("logs", "--since", "yesterday", "http")
    assert done.status == 1 and "--since" in done.stderr


async def test_logs_are_one_however_often_they_were_rotated(node: Node, podwright: Run) -> None:
    node.log.rename(f"{node.log}.20260101-000003")
    rotation.compress(f"{node.log}.20260101-000003")
    node.log.write_bytes(b"2026-01-01T00:00:03.000000000Z stdout F four\n")
    assert (await podwright("logs", "http")).stdout == "one\nthree\nfour\n"
    assert (await podwright("logs", "--tail", "2", "http")).stdout == "three\nfour\n"


async def test_the_log_of_the_attempt_before(node: Node, podwright: Run) -> None:
    done = await podwright("logs", "-p", "http")
    assert done.status == 1 and "web/http has no attempt before attempt 0" in done.stderr
    node.containers[0].metadata.attempt = 2
    node.log = node.log.with_name("2.log")
    node.log.write_bytes(b"2026-01-01T00:00:03.000000000Z stdout F now\n")
    for attempt in (0, 1):
        record = b"2026-01-01T00:00:02.000000000Z stdout F attempt %d\n" % attempt
        node.log.with_name(f"{attempt}.log").write_bytes(record)
    assert (await podwright("logs", "--previous", "http")).stdout == "attempt 1\n"
    # One whose container is there is asked where it wrote.
    before = _container("c3" * 32, "a" * 64, "http", cri.CONTAINER_EXITED, node.containers[0].created_at - 1)
    before.metadata.attempt = 1
    node.containers.append(before)
    assert (await podwright("logs", "-p", "web/http")).stdout == "now\n", "all have one log in this node"


async def test_followed_logs_end_with_the_container(node: Node, tmp_path: Path) -> None:
    async with started("--run", str(tmp_path), "logs", "-f", "http") as child:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"one\n"
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"three\n"
        with node.log.open("ab") as log:
            log.write(b"2026-01-01T00:00:03.000000000Z stdout F four\n")
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"four\n"
        node.containers[0].state = cri.CONTAINER_EXITED
        assert await asyncio.wait_for(child.wait(), 30) == 0


async def test_inspect_opens_the_json_in_info(node: Node, podwright: Run) -> None:
    shown = json.loads((await podwright("inspect", "http")).stdout)
    assert shown["info"]["info"] == {"pid": 42}
    both = json.loads((await podwright("inspect", "web", "hello:1")).stdout)
    assert both[0]["status"]["id"] == "a" * 64
    assert both[1]["image"]["id"] == "sha256:" + "d" * 64
    assert (await podwright("inspect", "--type", "image", "web")).status == 1


async def test_status_says_why_and_fails_when_something_is_not_ready(node: Node, podwright: Run) -> None:
    done = await podwright("status")
    assert done.status == 1
    assert "NetworkPluginNotReady: no configuration" in done.stdout
    assert "no ptrace here" in done.stdout


async def test_version_names_both_sides(node: Node, podwright: Run, tmp_path: Path) -> None:
    done = await podwright("version")
    assert f"podwright 9.9, CRI v1, at {tmp_path}/podwright.sock" in done.stdout
    shown = json.loads((await podwright("version", "-o", "json")).stdout)
    assert shown["server"]["runtimeVersion"] == "9.9"


async def test_a_reader_that_leaves_early_is_no_error(node: Node, podwright: Run, tmp_path: Path) -> None:
    shell = f"{sys.executable} -c 'from podwright.cli.main import main; main()' --run {tmp_path} ps -a | true"
    child = await asyncio.create_subprocess_shell(shell, stderr=subprocess.PIPE)
    _, err = await asyncio.wait_for(child.communicate(), 30)
    assert err == b""
