"""The pod's network: addresses, ports on the host, host network, both families, files and sysctls."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, namespace, rejected
from tests.behaviour.oci_server import OciServer
from tests.behaviour.stage import free_port, until

SERVE = "exec nc -ll -p 8080 -e echo hello from the pod"
"""One program for all connections, and none that ends when it hears the client's end before its own input."""


def _fetch(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), 5) as connection:
        connection.settimeout(5)
        return connection.recv(100)


def _served(address: str, port: int) -> bool:
    try:
        return _fetch(address, port) == b"hello from the pod\n"
    except OSError:
        return False


def test_every_pod_has_an_address_of_its_own(client: Client) -> None:
    pods = [client.pod() for _ in range(3)]
    addresses = [ipaddress.ip_address(pod.ip) for pod in pods]
    assert len(set(addresses)) == 3
    # It does not change, and nobody gets it while its pod is ready.
    pods[0].stop()
    assert client.pod().ip not in (pods[1].ip, pods[2].ip)
    assert [ipaddress.ip_address(pod.ip) for pod in pods[1:]] == addresses[1:]


@pytest.mark.kernel
def test_a_pod_has_the_address_its_status_tells(client: Client, server: OciServer) -> None:
    pod = client.pod()
    container = pod.run()
    assert f"inet {pod.ip}/" in container.sh("ip addr show eth0")
    assert "127.0.0.1" in container.sh("ip addr show lo")
    assert pod.ip in server.network.allocations()
    assert not pod.status().network.additional_ips


@pytest.mark.kernel
def test_pods_reach_each_other_and_the_host_reaches_them(client: Client) -> None:
    one, two = client.pod(), client.pod()
    one.shell(SERVE)
    until(lambda: _served(one.ip, 8080), "the pod to answer the host")
    assert two.run().sh(f"nc {one.ip} 8080 </dev/null") == "hello from the pod"


@pytest.mark.kernel
def test_containers_reach_each_other_on_loopback(client: Client) -> None:
    pod = client.pod()
    pod.shell(SERVE)
    other = pod.run()
    until(lambda: other.exec("/bin/sh", "-c", "nc 127.0.0.1 8080 </dev/null").code == 0, "an answer")
    assert other.sh("nc 127.0.0.1 8080 </dev/null") == "hello from the pod"


@pytest.mark.kernel
def test_host_ports_lead_into_the_pod(client: Client) -> None:
    port = free_port()
    mapping = cri.PortMapping(protocol=cri.TCP, container_port=8080, host_port=port)
    ignored = cri.PortMapping(protocol=cri.UDP, container_port=9090, host_port=0)
    pod = client.pod(port_mappings=[mapping, ignored])
    pod.shell(SERVE)
    until(lambda: _served("127.0.0.1", port), "the host port to lead to the pod")
    # With what stands before it: an id may have the same digits.
    assert f"--dport {port} " in _nat_rules()
    pod.stop()
    assert not _served("127.0.0.1", port)
    assert f"--dport {port} " not in _nat_rules()


@pytest.mark.kernel
def test_stop_gives_the_address_back(client: Client, server: OciServer) -> None:
    pod = client.pod()
    address = pod.ip
    pod.stop()
    assert address not in server.network.allocations()
    pod.remove()


@pytest.mark.kernel
def test_plugins_learn_the_pods_identity(client: Client, server: OciServer, tmp_path: Path) -> None:
    network = server.network
    record = tmp_path / "calls"
    plugin = server.network.conf_dir.parent / "recorder"
    plugin.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/stdin.$CNI_COMMAND\n"
        f"echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_ARGS >> {record}\n"
        f'[ $CNI_COMMAND = ADD ] && python3 -c "import json; print(json.dumps(json.load(open('
        f"'{tmp_path}/stdin.ADD'))['prevResult']))\"\nexit 0\n"
    )
    plugin.chmod(0o755)
    target = Path("/usr/lib/cni") / f"podwright-recorder-{os.getpid()}"
    tree = json.loads(network.file.read_text())
    tree["plugins"].append({"type": target.name, "capabilities": {"portMappings": True}})
    try:
        shutil.copy(plugin, target)
        network.file.write_text(json.dumps(tree))
        mapping = cri.PortMapping(protocol=cri.TCP, container_port=80, host_port=free_port())
        pod = client.pod(name="known", port_mappings=[mapping])
        pod.stop()
        add, delete = record.read_text().splitlines()
        assert add.startswith(f"ADD {pod.id} eth0 ") and delete.startswith(f"DEL {pod.id} eth0 ")
        arguments = dict(pair.split("=", 1) for pair in add.split()[3].split(";"))
        assert arguments == {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": "suite",
            "K8S_POD_NAME": "known",
            "K8S_POD_INFRA_CONTAINER_ID": pod.id,
            "K8S_POD_UID": "uid-known",
        }
        stdin = json.loads((tmp_path / "stdin.ADD").read_text())
        [port] = stdin["runtimeConfig"]["portMappings"]
        assert (port["protocol"], port["containerPort"]) == ("tcp", 80)
        assert json.loads((tmp_path / "stdin.DEL").read_text())["prevResult"]["ips"]
    finally:
        target.unlink(missing_ok=True)
        network.write()


@pytest.mark.kernel
def test_stop_deletes_the_network_even_when_the_namespace_is_gone(client: Client, server: OciServer) -> None:
    pod = client.pod()
    address = pod.ip
    pins = [m for m in server.mounts() if pod.id in m]
    for pin in pins:
        subprocess.run(["umount", "-l", pin], check=True)
        if Path(pin).is_file():
            Path(pin).unlink()
    pod.stop()
    pod.stop()
    assert address not in server.network.allocations()
    pod.remove()


def test_host_network_has_no_pod_address(client: Client) -> None:
    pod = client.pod(network=cri.NODE)
    assert pod.run().status().state == cri.CONTAINER_RUNNING
    assert pod.ip == ""
    assert pod.status().linux.namespaces.options.network == cri.NODE


@pytest.mark.kernel
def test_host_network_takes_no_address_and_shares_the_hosts_names(client: Client, server: OciServer) -> None:
    before = server.network.allocations()
    container = client.pod(network=cri.NODE).run()
    assert server.network.allocations() == before
    for kind in ("net", "uts"):
        assert namespace(container.pid, kind) == namespace("self", kind)
    assert container.sh("hostname") == socket.gethostname()


@pytest.mark.kernel
def test_both_address_families(client: Client, server: OciServer) -> None:
    network = server.network
    try:
        network.write(dual_stack=True)
        until(lambda: network.file.exists(), "the configuration")
        pod = client.pod()
        status = pod.status().network
        assert "." in status.ip
        [second] = [ip.ip for ip in status.additional_ips]
        assert ":" in second
        assert second in pod.run().sh("ip addr show eth0")
        pod.remove()
        assert second not in network.allocations()
    finally:
        network.write()


@pytest.mark.parametrize(
    ("dns", "text"),
    [
        (cri.DNSConfig(), ""),
        (
            cri.DNSConfig(servers=["10.0.0.10", "fd00::a"], searches=["a.b", "c"], options=["ndots:5"]),
            "search a.b c\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n",
        ),
    ],
)
def test_resolv_conf_is_written_from_the_dns_configuration(
    client: Client, dns: cri.DNSConfig, text: str
) -> None:
    assert client.pod(dns_config=dns).run().exec("cat", "/etc/resolv.conf").out == text


def test_resolv_conf_without_dns_configuration_is_the_hosts(client: Client) -> None:
    host = Path("/etc/resolv.conf")
    text = host.read_text() if host.exists() else ""
    assert client.pod().run().exec("cat", "/etc/resolv.conf").out == text


def test_hosts_file_names_localhost(client: Client) -> None:
    container = client.pod(hostname="web").run()
    assert "127.0.0.1" in container.sh("cat /etc/hosts")
    assert "localhost" in container.sh("cat /etc/hosts")


@pytest.mark.kernel
def test_default_sysctls(client: Client) -> None:
    container = client.pod().run()
    assert container.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0"
    assert container.sh("cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", "2147483647"]


@pytest.mark.kernel
def test_sysctls_of_the_request_win(client: Client) -> None:
    pod = client.pod(
        sysctls={
            "net.ipv4.ip_unprivileged_port_start": "80",
            "net.core.somaxconn": "77",
            "kernel.msgmax": "9000",
        }
    )
    container = pod.run()
    assert container.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "80"
    assert container.sh("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax") == "77\n9000"


@pytest.mark.kernel
def test_sysctls_of_the_host_are_refused(client: Client) -> None:
    before = Path("/proc/sys/net/core/somaxconn").read_text()
    with rejected(StatusCode.INVALID_ARGUMENT, "sysctl"):
        client.pod(network=cri.NODE, sysctls={"net.core.somaxconn": "78"})
    with rejected(StatusCode.INVALID_ARGUMENT, "sysctl"):
        client.pod(sysctls={"vm.swappiness": "1"})
    assert Path("/proc/sys/net/core/somaxconn").read_text() == before


def _nat_rules() -> str:
    return subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout
