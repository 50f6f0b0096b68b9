"""`podwright serve --engine fake` and `podwright fake`, as a kubelet's developer uses them from a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from podwright.testing import Client, FakeServer
from podwright.testing.client import beside
from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as stubs
from tests.testing import requests

RUNTIME: Any = stubs.RuntimeServiceStub

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  containers:
  - {name: main, image: "nginx:1.25"}
  - {name: side, image: envoy}
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="podwright-cli-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., FakeServer]]:
    servers = []

    def start(*options: str) -> FakeServer:
        server = FakeServer(directory, *options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start: Callable[..., FakeServer]) -> FakeServer:
    return start("--clock", "virtual", "--seed", "7")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def podwright(directory: Path) -> Run:
    """Run the program with the options that lead to the server in `directory`."""

    def run(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        places = ("--root", directory / "root", "--run", directory / "run")
        server = ("--socket", directory / "podwright.sock")
        return subprocess.run(
            [sys.executable, "-m", "podwright", *map(str, (*places, *server)), *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def printed(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def rows(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The cells of a table without its head."""
    return [line.split(None, 4) for line in printed(done).splitlines()[1:]]


def run_pod(podwright: Run, directory: Path) -> None:
    (directory / "pod.yaml").write_text(POD)
    done = podwright("run", "-d", str(directory / "pod.yaml"))
    assert done.returncode == 0, done.stderr


def test_calls_are_listed_as_they_came(server: FakeServer, podwright: Run, directory: Path) -> None:
    run_pod(podwright, directory)
    table = printed(podwright("fake", "calls", "--pod", "web")).splitlines()
    assert table[0].split() == ["NUMBER", "TIME", "RPC", "SUBJECT", "MS", "OUTCOME"]
    seen = [(*line.split()[2:4], line.split()[5]) for line in table[1:]]
    story = [
        ("RunPodSandbox", "web", "ok"),
        ("PullImage", "nginx:1.25", "ok"),
        ("StartContainer", "web/main", "ok"),
        ("StartContainer", "web/side", "ok"),
    ]
    assert seen[0] == story[0] and [one for one in seen if one in story] == story
    one = podwright("fake", "calls", "--rpc", "Create*", "--container", "side", "-o", "json")
    found = json.loads(printed(one))
    assert found["calls"][0]["request"]["config"]["metadata"]["name"] == "side"
    assert printed(podwright("fake", "calls", "--limit", "1")).count("\n") == 2
    assert printed(podwright("fake", "calls", "--clear")) == ""
    assert printed(podwright("fake", "calls")).count("\n") == 1


def test_pulls_tell_who_pulled(server: FakeServer, podwright: Run) -> None:
    podwright("pull", "redis")
    podwright("pull", "--creds-stdin", "nginx", input="bob:hunter2\n")
    table = printed(podwright("fake", "pulls")).splitlines()
    assert [line.split()[1:3] for line in table[1:]] == [["redis", "(anonymous)"], ["nginx", "bob"]]
    assert "hunter2" not in printed(podwright("fake", "pulls", "-o", "json"))


def test_containers_end_sandboxes_break_and_state_shows_it(
    server: FakeServer, podwright: Run, directory: Path
) -> None:
    run_pod(podwright, directory)
    assert printed(podwright("fake", "exit", "web/main", "--code", "3")) == ""
    printed(podwright("fake", "exit", "web/side", "--oom"))
    printed(podwright("fake", "lose", "shop/web"))
    head, _, _, *lines = printed(podwright("fake", "state")).splitlines()
    assert head.startswith("server up, 0 crashes; virtual clock at 2025-01-01T00:00:00.0")
    assert [" ".join(line.split()[1:]) for line in lines] == [
        "shop/web - lost stopped",
        "shop/web main exited (3) exited",
        "shop/web side exited (137) exited",
    ]
    done = podwright("fake", "exit", "web/main")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("podwright: container web/main (") and done.stderr.endswith(
        "does not run\n"
    )
    assert json.loads(printed(podwright("fake", "state", "-o", "json")))["pods"][0]["name"] == "web"


def test_time_is_advanced(server: FakeServer, podwright: Run) -> None:
    assert printed(podwright("fake", "advance", "1h30m")).startswith("2025-01-01T01:30:00.")
    done = podwright("fake", "advance", "soon")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "'soon' is no time" in done.stderr


def test_faults_are_added_listed_and_removed(server: FakeServer, podwright: Run, directory: Path) -> None:
    arguments = ("RunPodSandbox", "--error", "ResourceExhausted", "--message", "no room", "--pod", "w*")
    assert printed(podwright("fake", "add-fault", *arguments)) == "1\n"
    printed(podwright("fake", "add-fault", "ImageFsInfo", "--latency", "20ms", "--count", "0"))
    printed(podwright("fake", "add-fault", "event.*", "--lose", "--skip", "3"))
    table = printed(podwright("fake", "faults")).splitlines()
    assert [" ".join(line.split()) for line in table[1:]] == [
        "1 RunPodSandbox ResourceExhausted: no room pod=w* 0/1",
        "2 ImageFsInfo latency 0.02s - 0",
        "3 event.* lost - 0/1",
    ]
    (directory / "pod.yaml").write_text(POD)
    done = podwright("run", "-d", str(directory / "pod.yaml"))
    assert done.returncode != 0 and "no room" in done.stderr
    printed(podwright("fake", "rm-fault", "2"))
    assert [line[0] for line in rows(podwright("fake", "faults"))] == ["3"]
    printed(podwright("fake", "rm-fault", "--all"))
    assert rows(podwright("fake", "faults")) == []
    assert podwright("fake", "rm-fault").returncode == 2
    done = podwright("fake", "add-fault", "RunPodSandbx", "--crash", "before")
    assert done.returncode == 1 and "did you mean 'RunPodSandbox'?" in done.stderr


def test_scenarios_are_applied(server: FakeServer, podwright: Run, directory: Path) -> None:
    file = directory / "scenario.yaml"
    file.write_text("network_error: cut\ncontainers:\n- exit: {after: 5s}\n")
    printed(podwright("fake", "apply", str(file)))
    printed(podwright("fake", "apply", "--change", "-", input="network_error: torn\n"))
    assert "network_error: torn" in printed(podwright("fake", "scenario"))
    assert "after: 5.0" in printed(podwright("fake", "scenario"))
    assert podwright("status").returncode == 1
    done = podwright("fake", "apply", "-", input="netwrk_error: cut\n")
    assert done.returncode == 1 and "netwrk_error" in done.stderr and done.stderr.count("\n") == 1
    file.write_text("seed: [1")
    done = podwright("fake", "apply", str(file))
    assert done.returncode == 1 and done.stderr.startswith(f"podwright: {file}: is not YAML: ")
    printed(podwright("fake", "reset"))
    assert podwright("status").returncode == 0


def test_the_server_crashes_and_starts_again(server: FakeServer, podwright: Run, directory: Path) -> None:
    run_pod(podwright, directory)
    channel = grpc.insecure_channel(f"unix:{server.socket}")
    stub = RUNTIME(channel)
    assert stub.Version(cri.VersionRequest()).runtime_name == "podwright"
    printed(podwright("fake", "crash"))
    # The same channel finds the server again.
    assert stub.ListPodSandbox(cri.ListPodSandboxRequest(), wait_for_ready=True, timeout=20).items
    assert "running" in printed(podwright("ps"))
    printed(podwright("fake", "crash", "--downtime", "30s"))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Version(cri.VersionRequest(), timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    done = podwright("ps")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"podwright: no server at {server.socket}: the server of this fake node is down: `podwright --root="
    )
    assert "fake restart` starts it" in done.stderr
    assert printed(podwright("fake", "state")).startswith("server down, 2 crashes;")
    printed(podwright("fake", "advance", "30s"))
    assert stub.Version(cri.VersionRequest(), wait_for_ready=True, timeout=20).version
    printed(podwright("fake", "crash", "--containers", "lose"))
    assert "exited (255)" in printed(podwright("ps", "-a"))
    printed(podwright("fake", "restart"))
    assert printed(podwright("fake", "state")).startswith("server up, 3 crashes;")
    channel.close()


@pytest.mark.parametrize(("when", "pods"), [("before", 0), ("after", 1)])
def test_a_crash_in_the_middle_of_a_call_as_its_client_sees_it(
    server: FakeServer, podwright: Run, when: str, pods: int
) -> None:
    printed(podwright("fake", "add-fault", "RunPodSandbox", "--crash", when))
    with grpc.insecure_channel(f"unix:{server.socket}") as channel:
        stub = RUNTIME(channel)
        with pytest.raises(grpc.RpcError) as broken:
            stub.RunPodSandbox(requests.pod(), timeout=20)
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
        answer = stub.ListPodSandbox(cri.ListPodSandboxRequest(), wait_for_ready=True, timeout=20)
        assert len(answer.items) == pods


@pytest.mark.parametrize(("when", "downtime"), [("before", "0s"), ("after", "0s"), ("after", "500ms")])
@pytest.mark.parametrize("rpc", ["RunPodSandbox", "CreateContainer", "StartContainer"])
def test_a_run_goes_on_when_the_server_crashes_in_the_middle_of_a_call(
    start: Callable[..., FakeServer], podwright: Run, directory: Path, rpc: str, downtime: str, when: str
) -> None:
    server = start()
    server.control.post("/v1/faults", on=rpc, crash=when, downtime=downtime, count=1)
    (directory / "pod.yaml").write_text(POD)
    done = podwright("run", "-d", str(directory / "pod.yaml"))
    assert (done.returncode, "did not start" in done.stderr) == (0, False), done.stderr
    state = json.loads(printed(podwright("fake", "state", "-o", "json")))
    [pod] = state["pods"]
    assert [(one["name"], one["state"]) for one in pod["containers"]] == [
        ("main", "running"),
        ("side", "running"),
    ]
    assert state["crashes"] == 1


def test_a_pod_that_another_run_has_left_is_taken_over(
    server: FakeServer, podwright: Run, directory: Path
) -> None:
    file = directory / "pod.yaml"
    file.write_text(POD.replace("namespace: shop", "namespace: shop, uid: same"))
    first, second = (podwright("run", "-d", str(file)) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0) and first.stdout == second.stdout != ""
    assert printed(podwright("ps")).count("running") == 2


def test_a_reset_takes_the_files_of_pods_that_run_has_made(
    server: FakeServer, podwright: Run, directory: Path
) -> None:
    run_pod(podwright, directory)
    [made] = (directory / "root/pods").iterdir()
    assert made.is_dir() and list((directory / "root/logs").rglob("0.log"))
    foreign = directory / "root/pods/of_somebody_else"
    foreign.mkdir()
    printed(podwright("fake", "reset"))
    assert list((directory / "root/pods").iterdir()) == [foreign]
    foreign.rmdir()
    run_pod(podwright, directory)
    printed(podwright("fake", "reset"))
    assert not any((directory / "root/pods").iterdir())


def test_the_same_seed_gives_the_same_ids(directory: Path) -> None:
    seen = []
    for name in ("one", "two"):
        (directory / name).mkdir()
        with (
            FakeServer(directory / name, "--seed", "7") as server,
            grpc.insecure_channel(f"unix:{server.socket}") as channel,
        ):
            stub = RUNTIME(channel)
            seen.append([stub.RunPodSandbox(requests.pod(each)).pod_sandbox_id for each in ("web", "db")])
    assert seen[0] == seen[1] and len({*seen[0]}) == 2


def test_a_signal_ends_a_server_that_is_down(start: Callable[..., FakeServer]) -> None:
    server = start()
    server.control.post("/v1/crash", downtime="10m")
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 4, "it does not wait for the end of the downtime, nor drain"
    assert not server.socket.exists() and not beside(server.socket).exists()


def test_a_server_started_again_by_hand_finds_its_pods_as_after_a_reboot(
    start: Callable[..., FakeServer], podwright: Run, directory: Path
) -> None:
    first = start()
    run_pod(podwright, directory)
    assert first.stop() == 0
    start()
    table = printed(podwright("pods"))
    assert "not ready" in table and "web" in table
    assert printed(podwright("ps", "-a")).count("exited (255)") == 2


def test_options_of_the_fake_engine_are_refused_for_another(podwright: Run, directory: Path) -> None:
    file = directory / "scenario.yaml"
    file.write_text("{}")
    for option, value in (
        ("--scenario", str(file)),
        ("--control", "/tmp/c.sock"),
        ("--seed", "7"),
        ("--clock", "virtual"),
    ):
        done = podwright("serve", "--engine", "oci", option, value)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "add --engine fake" in done.stderr or "needs root" in done.stderr
    done = podwright("serve", "--engine", "fake", "--scenario", "/nowhere.yaml")
    words = "podwright: /nowhere.yaml: cannot be read: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, words)
    done = podwright("serve", "--engine", "foke")
    assert done.returncode == 2
    assert "'foke' is not one of 'oci', 'containerd', 'docker', 'fake'" in done.stderr
    done = podwright("serve", "--engine", "fake", "--control", str(directory / "podwright.sock"))
    assert done.returncode == 1 and "podwright.sock is where the CRI is served" in done.stderr


def test_the_control_socket_may_be_elsewhere(
    start: Callable[..., FakeServer], podwright: Run, directory: Path
) -> None:
    start("--control", str(directory / "c"))
    assert Client(directory / "c").get("/v1/state")["server"] == "up"
    second = ("--root", str(directory / "second"), "--socket", str(directory / "second.sock"))
    done = podwright(*second, "serve", "--engine", "fake", "--control", str(directory / "c"))
    assert done.returncode == 1 and done.stderr.endswith("stop it, or choose another --control\n")
    assert printed(podwright("fake", "--control", str(directory / "c"), "state")).startswith("server up")
    done = podwright("fake", "state")
    assert done.returncode == 1
    assert done.stderr == (
        f"podwright: no fake node is controlled at {directory}/podwright.control.sock:"
        " there is no such socket; `podwright serve --engine fake` starts one\n"
    )


def test_help_names_every_command_of_fake(podwright: Run) -> None:
    text = printed(podwright("fake"))
    commands = ["apply", "scenario", "calls", "pulls", "faults", "add-fault", "rm-fault", "exit", "lose"]
    for command in (*commands, "advance", "crash", "restart", "state", "reset"):
        assert f" {command} " in text
    assert "--downtime" in printed(podwright("fake", "crash", "--help"))
