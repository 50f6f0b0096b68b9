"""The node: what is seen of the machine, and what the configuration says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podwright import config
from podwright.api import Cri
from podwright.errors import InvalidArgument
from podwright.kube import node
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri


def load(tmp_path: Path, text: str) -> config.Config:
    file = tmp_path / "config.toml"
    file.write_text(f'root = "{tmp_path}"\nrun = "{tmp_path}"\n{text}')
    return config.load(file)


def test_without_a_configuration_it_is_this_machine(tmp_path: Path) -> None:
    found = node.look(load(tmp_path, ""))
    assert found.name and found.name == found.name.lower()
    assert found.ips and found.cpus == os.cpu_count()
    assert found.memory == found.allocatable > 1 << 20
    assert (found.cluster_dns, found.cluster_domain, found.legacy_logs) == ((), "", None)
    assert found.logs == tmp_path / "logs"
    assert found.seccomp_root == str(tmp_path / "seccomp")
    assert found.make_cgroups == (os.geteuid() == 0)


def test_the_configuration_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.7\n")
    found = node.look(
        load(
            tmp_path,
            f"""
[node]
name = "n1"
ips = ["192.0.2.1"]
cluster_dns = ["10.96.0.10"]
cluster_domain = "cluster.test"
resolv_conf = "{tmp_path}/resolv.conf"
allowed_unsafe_sysctls = ["kernel.msg*"]
seccomp_default = true
pod_cgroups = false
pod_logs = "/pods"
legacy_logs = "/links"
container_log_max_size = 0
""",
        )
    )
    assert (found.name, found.ips) == ("n1", ("192.0.2.1",))
    assert (found.cluster_dns, found.cluster_domain) == (("10.96.0.10",), "cluster.test")
    assert list(found.resolver.servers) == ["192.0.2.7"]
    assert found.seccomp_default and not found.make_cgroups and not found.log_rotation
    assert (found.logs, found.legacy_logs) == (Path("/pods"), Path("/links"))


def test_no_pod_of_the_fake_engine_gets_a_cgroup(tmp_path: Path) -> None:
    assert not node.look(load(tmp_path, 'engine = "fake"')).make_cgroups


async def test_nor_does_one_of_a_server_with_the_fake_engine(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    async with FakeNode() as fake:
        found = await node.observe(fake.cri, settings)
        assert not found.make_cgroups
        assert "" in found.handlers and found.cgroup_driver == "cgroupfs"
        wanted = msgspec.structs.replace(settings, node=config.NodeConfig(pod_cgroups=True))
        assert (await node.observe(fake.cri, wanted)).make_cgroups


async def test_container_ids_begin_with_the_name_of_their_runtime(tmp_path: Path) -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(fake.cri, name)

        async def version(self, _: cri.VersionRequest) -> cri.VersionResponse:
            return cri.VersionResponse(runtime_name="containerd")

    async with FakeNode() as fake:
        found = await node.observe(cast(Cri, Other()), load(tmp_path, ""))
        assert found.runtime_name == "containerd"
        assert (await node.observe(fake.cri, load(tmp_path, ""))).runtime_name == "podwright"


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="clusterDNS"):
        load(tmp_path, "[node]\nclusterDNS = []")


def test_sizes_of_huge_pages_are_the_kernels(tmp_path: Path) -> None:
    for name in ("hugepages-1048576kB", "hugepages-2048kB", "hugepages-64kB", "other"):
        (tmp_path / name).mkdir()
    assert node.huge_pages(tmp_path) == ("64KB", "2MB", "1GB")
    assert node.huge_pages(tmp_path / "none") == ()


def test_handlers_can_what_they_say() -> None:
    able = cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)
    found = node.Node(handlers={"": able})
    assert found.recursive_read_only("") and found.user_namespaces("")
    assert not found.recursive_read_only("other") and not found.user_namespaces("other")
