"""Docker Engines of several versions: what the newest API that both sides know has is sent, nothing newer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from podwright.config import Config, DockerConfig
from podwright.engines.base import Container
from podwright.engines.docker.api import Docker
from podwright.engines.docker.container_config import Found, create_request
from podwright.engines.docker.host import Host
from podwright.errors import FailedPrecondition, RROUnsupported, Unimplemented
from tests.docker import golden
from tests.docker.double import Double, double


@asynccontextmanager
async def looked(version: str, directory: Path, **info: Any) -> AsyncIterator[tuple[Host, Double]]:
    """A Docker Engine that speaks `version`, and what podwright has learnt of it."""
    told = {"OSType": "linux", "DockerRootDir": str(directory), "Runtimes": {"runc": {}}, **info}
    exchange = {"method": "GET", "path": "/info", "status": 200, "response": told}
    async with double(directory, [exchange]) as served:
        served.version = version
        config = Config(docker=DockerConfig(endpoint=served.endpoint))
        docker = Docker(config.docker)
        docker.open()
        try:
            host = Host(config, docker)
            await host.look()
            yield host, served
        finally:
            await docker.close()


def mount_options(container: Container, host: Host) -> dict[str, Any]:
    body = create_request(container, host.features, golden.OWNER, Found(sandbox="s"))
    (mount,) = body["HostConfig"]["Mounts"]
    assert mount["ReadOnly"] is True
    options: dict[str, Any] = mount.get("BindOptions", {})
    return options


@pytest.mark.parametrize(
    ("version", "spoken", "options"),
    [
        ("1.41", "v1.41", {}),
        ("1.42", "v1.42", {"CreateMountpoint": True}),
        ("1.43", "v1.43", {"CreateMountpoint": True}),
        ("1.44", "v1.44", {"CreateMountpoint": True, "ReadOnlyNonRecursive": True}),
        ("1.52", "v1.44", {"CreateMountpoint": True, "ReadOnlyNonRecursive": True}),
    ],
)
async def test_a_mount_is_told_in_the_words_of_the_version(
    version: str, spoken: str, options: dict[str, Any], tmp_path: Path
) -> None:
    async with looked(version, tmp_path) as (host, served):
        assert served.prefixes == {spoken}
        assert mount_options(golden.container_of("create-mount-ro"), host) == options
        assert {each.recursive_read_only for each in host.handlers()} == {spoken == "v1.44"}


@pytest.mark.parametrize("version", ["1.41", "1.43", "1.44"])
async def test_recursive_read_only_mounts_need_a_new_one(version: str, tmp_path: Path) -> None:
    container = golden.container_of("create-mount-ro")
    container.config.mounts[0].recursive_read_only = True
    async with looked(version, tmp_path, ServerVersion="99.1") as (host, _):
        if version == "1.44":
            options = {"CreateMountpoint": True, "ReadOnlyForceRecursive": True}
            assert mount_options(container, host) == options
        else:
            with pytest.raises(RROUnsupported, match=r"mounts\[0\]\.recursive_read_only: .*99\.1"):
                mount_options(container, host)


async def test_cdi_devices_are_asked_for_where_docker_has_them(tmp_path: Path) -> None:
    container = golden.container_of("create-minimal")
    container.config.CDI_devices.add(name="vendor.com/gpu=0")
    container.config.CDI_devices.add(name="vendor.com/gpu=1")
    async with looked("1.44", tmp_path, CDISpecDirs=["/etc/cdi"]) as (host, _):
        body = create_request(container, host.features, golden.OWNER, Found(sandbox="s"))
    asked = [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=0", "vendor.com/gpu=1"]}]
    assert body["HostConfig"]["DeviceRequests"] == asked


async def test_cdi_devices_are_refused_where_it_has_not(tmp_path: Path) -> None:
    container = golden.container_of("create-minimal")
    container.config.CDI_devices.add(name="vendor.com/gpu=0")
    async with looked("1.44", tmp_path, CDISpecDirs=[], ServerVersion="28.0") as (host, _):
        with pytest.raises(Unimplemented, match=r"config\.CDI_devices: Docker Engine 28\.0"):
            create_request(container, host.features, golden.OWNER, Found(sandbox="s"))


async def test_one_that_takes_only_newer_ones_is_refused(tmp_path: Path) -> None:
    words = "client version 1.44 is too old. Minimum supported API version is 1.60"
    refused = {"method": "GET", "path": "/info", "status": 400, "response": {"message": words}}
    async with double(tmp_path, [refused]) as served:
        served.version = "1.61"
        docker = Docker(DockerConfig(endpoint=served.endpoint))
        docker.open()
        try:
            with pytest.raises(FailedPrecondition, match=r"is 1\.60; podwright speaks .* 1\.41 to 1\.44"):
                await Host(Config(), docker).look()
        finally:
            await docker.close()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"OSType": "windows"}, "no Linux containers"),
        ({"DockerRootDir": "/elsewhere/docker"}, "/elsewhere/docker, which is not on this host"),
    ],
)
async def test_one_that_cannot_be_worked_with_is_refused(
    told: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(FailedPrecondition, match=words):
        async with looked("1.41", tmp_path, **told):
            pass
