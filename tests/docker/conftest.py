"""A Docker Engine of the tests' own, real, and podwright on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from podwright.config import CniConfig, Config, DockerConfig
from podwright.core.runtime import Runtime
from podwright.house import open_house
from tests.docker.daemon import Daemon, running

__all__ = ["Daemon"]


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One dockerd for all tests of this process; stopped, and nothing of it left, at the end."""
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine needs root")
    with running(tmp_path_factory.mktemp("docker")) as started:
        yield started


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[ExitStack]:
    """For tests that stop and start one: `own_daemon.enter_context(running(…))`."""
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine needs root")
    with ExitStack() as stack:
        yield stack


def configuration(daemon: Daemon, tmp_path: Path, **settings: object) -> Config:
    """Of a podwright with roots of its own on `daemon`."""
    return Config(
        engine="docker",
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        listen=str(tmp_path / "podwright.sock"),
        cgroup_parent=f"/podwright-{tmp_path.name}-{os.getpid()}",
        docker=DockerConfig(endpoint=daemon.endpoint),
        cni=CniConfig(conf_dir=str(tmp_path / "cni"), cache_dir=str(tmp_path / "cache")),
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture
def docker_config(daemon: Daemon, tmp_path: Path) -> Config:
    return configuration(daemon, tmp_path)


@pytest.fixture
async def docker_runtime(docker_config: Config) -> AsyncIterator[Runtime]:
    """podwright on the tests' Docker Engine. Pods without the host's network need a CNI configuration."""
    async with open_house(docker_config) as runtime:
        yield runtime
