"""Fixtures of the behaviour suite. An engine to come adds its name to ENGINES and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.client import Client
from tests.behaviour.server import Server
from tests.behaviour.stage import Network, Registry, open_network, open_registry, until

ENGINES = ("oci",)
PROGRAMS = ("crun", "conmon", "skopeo", "docker-registry", "catatonit", "ip")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    for item in items:
        if here in item.path.parents and "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))
            elif missing:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with open_network(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("images")) as registry:
        yield registry


@pytest.fixture(scope="session", params=ENGINES)
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    network: Network,
    registry: Registry,
) -> Iterator[Server]:
    """A running server for the whole session; nothing may be left when it has ended."""
    root = tmp_path_factory.mktemp(f"server-{request.param}")
    server = Server(request.param, root, network, [registry.host, "localhost:1"])
    try:
        server.start()
        yield server
        _remove_all(server, registry)
        until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}", 10)
        server.stop()
        assert not server.processes(), "the server has left processes"
    finally:
        if server.process is not None:
            server.kill9()
        server.clean_leftovers()


@pytest.fixture
def client(server: Server, registry: Registry) -> Iterator[Client]:
    """A client; whatever pods the test made are removed when it ends."""
    client = Client(server, registry)
    yield client
    if server.process is None:
        server.start()
    client.close()


def _remove_all(server: Server, registry: Registry) -> None:
    Client(server, registry).close()
