"""Fixtures of the behaviour suite. An engine to come adds its name, its server and its differences."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.behaviour.client import Client, running
from tests.behaviour.differences import of_engine
from tests.behaviour.fake_server import FakeServer
from tests.behaviour.oci_server import OciServer
from tests.behaviour.server import Server
from tests.behaviour.stage import open_network, open_registry
from tests.behaviour.user import open_user

PROGRAMS = {
    "oci": ("crun", "conmon", "skopeo", "docker-registry", "catatonit", "ip"),
    "containerd": ("containerd", "ctr", "crun", "skopeo", "docker-registry", "catatonit", "ip"),
    "docker": ("dockerd", "runc", "skopeo", "docker-registry", "catatonit", "ip"),
}
"""What engines with a kernel need; theirs are tests of root."""


@contextmanager
def _oci(factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        open_network(factory.mktemp("network")) as network,
        open_registry(factory.mktemp("images")) as images,
    ):
        yield OciServer(factory.mktemp("server-oci"), network, images)


@contextmanager
def _containerd(factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.behaviour.containerd_server import ContainerdServer
    from tests.containerd import daemon

    with (
        open_network(factory.mktemp("network")) as network,
        open_registry(factory.mktemp("images")) as images,
        daemon.running(factory.mktemp("containerd"), images=False) as containerd,
    ):
        yield ContainerdServer(factory.mktemp("server-containerd"), network, images, containerd)


@contextmanager
def _docker(factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Not above: a user's Python has no aiodocker.
    from tests.behaviour.docker_server import DockerServer
    from tests.docker import daemon

    with (
        open_network(factory.mktemp("network")) as network,
        open_registry(factory.mktemp("images")) as images,
        daemon.running(factory.mktemp("dockerd"), images=False, in_memory=True) as dockerd,
    ):
        yield DockerServer(factory.mktemp("server-docker"), network, images, dockerd)


@contextmanager
def _fake(factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_user() as user:
        yield FakeServer(user)


SERVERS: dict[str, Callable[[pytest.TempPathFactory], AbstractContextManager[Server]]] = {
    "oci": _oci,
    "containerd": _containerd,
    "docker": _docker,
    "fake": _fake,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that needs a server is one test for each engine that runs it."""
    if "server" in metafunc.fixturenames:
        markers = {marker.name for marker in metafunc.definition.iter_markers()}
        name = metafunc.function.__name__
        engines = [_engine(each, name) for each in SERVERS if not markers & of_engine(each).groups.keys()]
        metafunc.parametrize("server", engines, indirect=True, scope="session")


def _engine(name: str, test: str) -> object:
    marks: list[pytest.MarkDecorator] = []
    if name in PROGRAMS:
        marks.append(pytest.mark.root)
        missing = [program for program in PROGRAMS[name] if shutil.which(program) is None]
        if os.geteuid() != 0:
            marks.append(pytest.mark.skip(reason="needs root"))
        elif missing:
            marks.append(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
    if reason := of_engine(name).tests.get(test):
        # One that passes is no difference any more, and fails.
        marks.append(pytest.mark.xfail(reason=reason, strict=True))
    return pytest.param(name, id=name, marks=marks)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server for the whole session; nothing may be left when it has ended."""
    with SERVERS[request.param](tmp_path_factory) as server, running(server):
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client; whatever pods the test made are removed when it ends."""
    client = Client(server)
    yield client
    if not server.is_serving:
        server.start()
    client.close()


@pytest.fixture
def outside(server: Server, tmp_path: Path) -> Path:
    """An empty directory outside the containers that the server may use as a volume."""
    return server.volume(tmp_path)
