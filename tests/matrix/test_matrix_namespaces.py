"""Which namespaces containers have, by the inodes that the kernel gives them; and what belongs to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, namespace, rejected

pytestmark = pytest.mark.root


def own(kinds: tuple[str, ...], pid: int) -> set[str]:
    """Those of `kinds` that are not the host's."""
    return {kind for kind in kinds if namespace(pid, kind) != namespace("self", kind)}


KINDS = ("net", "ipc", "uts", "pid", "mnt")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"net", "ipc", "uts", "pid", "mnt"}),
        ({"network": cri.NODE}, {"ipc", "pid", "mnt"}),
        ({"ipc": cri.NODE}, {"net", "uts", "pid", "mnt"}),
        ({"pid": cri.NODE}, {"net", "ipc", "uts", "mnt"}),
        ({"pid": cri.POD}, {"net", "ipc", "uts", "pid", "mnt"}),
        ({"network": cri.NODE, "ipc": cri.NODE, "pid": cri.NODE}, {"mnt"}),
    ],
    ids=["own", "host-network", "host-ipc", "host-pid", "pod-pid", "host-all"],
)
def test_which_are_the_hosts(
    client: Client, native: str, options: dict[str, Any], expected: set[str]
) -> None:
    pod = client.pod(handler=native, **options)
    one, two = pod.run(), pod.run()
    assert own(KINDS, one.pid) == own(KINDS, two.pid) == expected
    shared = {kind for kind in KINDS if namespace(one.pid, kind) == namespace(two.pid, kind)}
    alone = {"mnt"} if options.get("pid", cri.CONTAINER) != cri.CONTAINER else {"mnt", "pid"}
    assert shared == set(KINDS) - alone
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    assert own(("cgroup",), one.pid) == ({"cgroup"} if v2 else set())
    assert own(("user", "time"), one.pid) == set()


def test_a_privileged_container_has_the_same_but_the_hosts_cgroups(client: Client, native: str) -> None:
    container = client.pod(handler=native, privileged=True).run(privileged=True)
    assert own((*KINDS, "cgroup"), container.pid) == set(KINDS)


def test_a_targets_processes(client: Client, native: str) -> None:
    pod = client.pod(handler=native)
    target = pod.run("/bin/sleep", "76543")
    joined = pod.run(pid=cri.TARGET, target=target.id)
    assert namespace(joined.pid, "pid") == namespace(target.pid, "pid")
    assert namespace(joined.pid, "mnt") != namespace(target.pid, "mnt")
    assert "sleep 76543" in joined.sh("tr '\\0' ' ' < /proc/1/cmdline")


def test_the_pods_sysctls(client: Client, native: str) -> None:
    """Everybody may bind low ports and send pings unless the pod says otherwise; the host's stay."""
    names = ["net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "kernel.shm_rmid_forced"]
    files = [Path("/proc/sys", name.replace(".", "/")) for name in names]
    before = [file.read_text() for file in files]
    script = "; ".join(f"cat {file}" for file in files)
    plain = client.pod(handler=native).run()
    assert plain.sh(script).split("\n")[:2] == ["0", "0\t2147483647"]
    asked = {names[0]: "1000", "net/ipv4/ping_group_range": "1 0", names[2]: "1"}
    given = client.pod(handler=native, sysctls=asked).run()
    assert given.sh(script).split("\n") == ["1000", "1\t0", "1"]
    assert [file.read_text() for file in files] == before


def test_a_user_binds_a_low_port(client: Client, native: str) -> None:
    user = {
        "run_as_user": cri.Int64Value(value=1000),
        "capabilities": cri.Capability(drop_capabilities=["ALL"]),
    }
    container = client.pod(handler=native).shell("timeout 1 nc -l -p 80; echo $?", security=user).ended()
    assert container.output() == "143\n", container.output("stderr")  # nobody called


def test_gvisors_pods(client: Client, sandboxed: str) -> None:
    pod = client.pod(handler=sandboxed, hostname="inside")
    container = pod.run()
    assert container.sh("hostname") == "inside"
    assert container.sh("cat /proc/version") != Path("/proc/version").read_text().strip()
    assert "sleep" in container.sh("cat /proc/1/cmdline | tr '\\0' ' '")
    address = pod.ip
    assert address and address in container.sh("ip addr")


def test_gvisor_has_no_user_namespaces_of_pods(client: Client, sandboxed: str) -> None:
    """A pod that asks for one is not run without. Those of crun and runc: oci/test_oci_userns.py."""
    mapping = cri.IDMapping(host_id=100000, container_id=0, length=65536)
    config = client.pod_config()
    userns = config.linux.security_context.namespace_options.userns_options
    userns.CopyFrom(cri.UserNamespace(mode=cri.POD, uids=[mapping], gids=[mapping]))
    with rejected(StatusCode.FAILED_PRECONDITION, f"userns_options: runtime handler '{sandboxed}' cannot"):
        client.pod(config, handler=sandboxed)
    features = client.runtime.Status(cri.StatusRequest()).runtime_handlers
    assert not any(each.features.user_namespaces for each in features if each.name == sandboxed)
