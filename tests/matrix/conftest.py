"""Fixtures of the matrix: one server for all of it, and the handlers that each test runs under."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.client import Client, running
from tests.behaviour.stage import open_registry
from tests.matrix.server import NATIVE, RUNTIMES, MatrixNetwork, MatrixServer, add_images


def _handlers(names: tuple[str, ...]) -> list[object]:
    return [
        pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason="not installed"))
        for name in names
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "handler" in metafunc.fixturenames:
        metafunc.parametrize("handler", _handlers(RUNTIMES))
    elif "native" in metafunc.fixturenames:
        metafunc.parametrize("native", _handlers(NATIVE))
    elif "sandboxed" in metafunc.fixturenames:
        metafunc.parametrize("sandboxed", _handlers(("runsc",)))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MatrixServer]:
    """A running server for all of the matrix; nothing may be left when it has ended."""
    place = tmp_path_factory.mktemp("matrix")
    network = MatrixNetwork(
        place / "net.d",
        place / "ipam",
        f"pwtm{place.stat().st_ino % 10**8}",
        ("10.199.0.0/16", "fd00:77::/64"),
    )
    network.conf_dir.mkdir()
    network.write()
    with open_registry(tmp_path_factory.mktemp("matrix-images")) as registry:
        add_images(registry, place / "images")
        server = MatrixServer(tmp_path_factory.mktemp("server-matrix"), network, registry)
        try:
            with running(server):
                yield server
        finally:
            subprocess.run(["ip", "link", "delete", network.bridge], capture_output=True, check=False)


@pytest.fixture
def client(server: MatrixServer) -> Iterator[Client]:
    """A client; whatever pods the test made are removed when it ends."""
    client = Client(server)
    yield client
    client.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory on a shared mount of its own; the root mount of a machine may be private."""
    folder = tmp_path / "shared"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "pwt", folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    (folder / "sub").mkdir()
    yield folder
    subprocess.run(["umount", "-R", "-l", folder], check=True)
