"""A Docker Engine that goes away under a server that runs, or together with it: what pods become of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, mount, running
from tests.behaviour.docker_server import DockerServer
from tests.behaviour.stage import open_network, open_registry, until
from tests.docker import daemon as docker_daemon
from tests.docker import outage
from tests.docker.daemon import Daemon

pytestmark = pytest.mark.root

COUNT = (
    "trap 'exit 143' TERM; i=0;"
    " while [ ! -e /data/go ]; do echo $i; i=$((i+1)); echo $i > /data/count; sleep 0.05; done; exit 42"
)
LIVE = ("--live-restore",)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerServer]:
    with (
        open_network(tmp_path_factory.mktemp("network")) as network,
        open_registry(tmp_path_factory.mktemp("images")) as images,
        docker_daemon.running(tmp_path_factory.mktemp("dockerd"), images=False, in_memory=True) as docker,
    ):
        server = DockerServer(tmp_path_factory.mktemp("server"), network, images, docker)
        with running(server):
            yield server


@pytest.fixture
def client(server: DockerServer) -> Iterator[Client]:
    client = Client(server)
    yield client
    if not server.is_serving:
        server.start()
    client.close()


@pytest.fixture
def docker(server: DockerServer) -> Daemon:
    return server.daemon


def counting(client: Client, directory: Path) -> Container:
    directory.mkdir()
    container = client.pod().shell(COUNT, mounts=[mount(directory, "/data")])
    container.await_output("0\n")
    return container


def count(directory: Path) -> int:
    return int((directory / "count").read_text() or 0)


def whole(container: Container) -> bool:
    numbers = [int(text) for *_, text in container.log_lines()]
    return numbers == list(range(len(numbers)))


def works_again(client: Client) -> None:
    def ready() -> bool:
        try:
            conditions = client.runtime.Status(cri.StatusRequest()).status.conditions
        except grpc.RpcError:
            return False
        return all(each.status for each in conditions)

    until(ready, "the runtime to be ready")
    assert client.once("/bin/echo", "again").output() == "again\n"


def test_a_restart_of_docker_ends_pods_which_is_seen_and_can_be_cleaned_up(
    client: Client, server: DockerServer, docker: Daemon, tmp_path: Path
) -> None:
    container = counting(client, tmp_path / "data")
    docker.process.terminate()
    docker.process.wait(60)
    [runtime, _] = client.runtime.Status(cri.StatusRequest()).status.conditions
    assert not runtime.status and "no Docker Engine answers" in runtime.message
    outage.start_again(docker)
    container.ended(60)
    status = container.status()
    assert status.exit_code in (137, 143), status
    until(lambda: container.pod.status().state == cri.SANDBOX_NOTREADY, "the pod's end")
    assert whole(container) and len(container.log_lines()) >= count(tmp_path / "data") - 1
    assert len(server.network.allocations()) == 1
    works_again(client)
    container.pod.stop()
    container.pod.remove()


def test_containers_outlive_docker_with_live_restore(
    client: Client, server: DockerServer, docker: Daemon, tmp_path: Path
) -> None:
    docker.process.terminate()
    docker.process.wait(60)
    outage.start_again(docker, LIVE)
    works_again(client)
    stays, goes = counting(client, tmp_path / "stays"), counting(client, tmp_path / "goes")
    pid = stays.pid
    # Both are away when one of the containers ends.
    server.kill9()
    docker.process.terminate()
    docker.process.wait(60)
    (tmp_path / "goes" / "go").touch()
    before = count(tmp_path / "stays")
    until(lambda: count(tmp_path / "stays") > before + 5, "the container to go on without Docker")
    outage.start_again(docker, LIVE)
    server.start()
    assert goes.ended(60).status().exit_code == 42
    assert stays.status().state == cri.CONTAINER_RUNNING and stays.pid == pid
    assert stays.pod.status().state == cri.SANDBOX_READY
    assert stays.exec("true").code == 0
    before = count(tmp_path / "stays")
    until(lambda: len(stays.log_lines()) > before, "the log to go on")
    assert whole(stays) and whole(goes)
    # Docker alone goes, at once: the server that runs finds it again.
    outage.kill(docker)
    outage.start_again(docker, LIVE)
    works_again(client)
    assert stays.status().state == cri.CONTAINER_RUNNING
    (tmp_path / "stays" / "go").touch()
    assert stays.ended(60).status().exit_code == 42


def test_after_a_power_failure_nothing_runs_and_all_is_known(client: Client, server: DockerServer) -> None:
    pod = client.pod()
    running, created = pod.run(), pod.create("/bin/true")
    ended = pod.shell("exit 3").ended().status()
    server.reboot()
    assert pod.status().state == cri.SANDBOX_NOTREADY
    lost = running.status()
    assert (lost.state, lost.exit_code) == (cri.CONTAINER_EXITED, 255)
    assert created.status().state == cri.CONTAINER_CREATED
    with pytest.raises(grpc.RpcError):
        created.start()
    [known] = [
        each
        for each in client.runtime.ListContainers(cri.ListContainersRequest()).containers
        if each.id == ended.id
    ]
    assert known.state == cri.CONTAINER_EXITED
    pod.stop()
    assert not server.network.allocations()
    pod.remove()
    works_again(client)
