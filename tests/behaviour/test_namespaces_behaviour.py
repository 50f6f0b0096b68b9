"""Which namespaces a pod and its containers share, with each other and with the host."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, alive, namespace, rejected


@pytest.mark.kernel
def test_containers_of_a_pod_share_network_ipc_and_hostname(client: Client) -> None:
    pod = client.pod(hostname="together")
    one, two = pod.run(), pod.run()
    for kind in ("net", "ipc"):
        assert namespace(one.pid, kind) == namespace(two.pid, kind) != namespace("self", kind)
    assert namespace(one.pid, "pid") != namespace(two.pid, "pid")
    assert namespace(one.pid, "mnt") != namespace(two.pid, "mnt")
    for each in (one, two):
        assert each.sh("hostname; cat /etc/hostname") == "together\ntogether"
        assert namespace(each.pid, "uts") != namespace("self", "uts")


@pytest.mark.kernel
def test_containers_of_a_pod_share_one_uts_namespace(client: Client) -> None:
    pod = client.pod()
    assert namespace(pod.run().pid, "uts") == namespace(pod.run().pid, "uts")


@pytest.mark.kernel
def test_own_pid_namespace_shows_only_own_processes(client: Client) -> None:
    container = client.pod(pid=cri.CONTAINER).run()
    assert container.sh("readlink /proc/1/exe") == "/bin/busybox" or container.sh(
        "cat /proc/1/comm"
    ).startswith("sleep")


@pytest.mark.kernel
def test_a_shared_pid_namespace_outlives_its_containers(client: Client) -> None:
    pod = client.pod(pid=cri.POD)
    first, second = pod.run(), pod.run("/bin/sleep", "54321")
    assert namespace(first.pid, "pid") == namespace(second.pid, "pid") != namespace("self", "pid")
    assert "sleep 54321" in first.sh("ps")
    assert first.sh("cat /proc/1/comm") not in ("sleep", "busybox")
    second.stop()
    assert second.status().exit_code == 137
    assert first.exec("true").code == 0
    assert pod.status().state == cri.SANDBOX_READY


@pytest.mark.kernel
def test_the_shared_first_process_reaps_orphans(client: Client) -> None:
    container = client.pod(pid=cri.POD).run()
    container.sh("(sleep 0.05 & ) ; true")
    deadline = time.monotonic() + 10
    while "Z" in container.sh("cat /proc/[0-9]*/stat 2>/dev/null | awk '{print $3}'; true"):
        assert time.monotonic() < deadline


@pytest.mark.kernel
def test_host_pid_namespace(client: Client) -> None:
    container = client.pod(pid=cri.NODE).run()
    assert namespace(container.pid, "pid") == namespace("self", "pid")
    assert container.sh(f"cat /proc/{os.getpid()}/stat | cut -d' ' -f1") == str(os.getpid())


@pytest.mark.kernel
def test_stopping_in_the_hosts_pid_namespace_ends_every_process(client: Client) -> None:
    container = client.pod(pid=cri.NODE).shell("sleep 54322 & echo $!; wait")
    container.await_output("\n")
    child = int(container.output().split()[0])
    assert alive(child)
    container.stop(0)
    container.remove()
    assert not alive(child)


@pytest.mark.kernel
def test_joining_another_containers_pid_namespace(client: Client) -> None:
    pod = client.pod()
    target = pod.run("/bin/sleep", "54323")
    joined = pod.run(pid=cri.TARGET, target=target.id)
    assert namespace(joined.pid, "pid") == namespace(target.pid, "pid")
    assert "sleep 54323" in joined.sh("ps")
    assert joined.config.linux.security_context.namespace_options.target_id == target.id


def test_a_bad_target_is_refused(client: Client) -> None:
    pod, other = client.pod(), client.pod()
    elsewhere = other.run()
    with rejected(StatusCode.INVALID_ARGUMENT):
        pod.create("/bin/true", pid=cri.TARGET, target=elsewhere.id)
    with rejected(StatusCode.NOT_FOUND):
        pod.create("/bin/true", pid=cri.TARGET, target="f" * 64)
    ended = pod.run("/bin/true").ended()
    with rejected(StatusCode.FAILED_PRECONDITION):
        pod.create("/bin/true", pid=cri.TARGET, target=ended.id)


def test_a_target_that_ended_is_found_at_start(client: Client) -> None:
    pod = client.pod()
    target = pod.run()
    joined = pod.create("/bin/true", pid=cri.TARGET, target=target.id)
    target.stop()
    with rejected(StatusCode.FAILED_PRECONDITION, target.id):
        joined.start()


@pytest.mark.kernel
def test_the_end_of_a_target_ends_those_that_joined_it(client: Client) -> None:
    pod = client.pod()
    target = pod.run()
    created = pod.create("/bin/true", pid=cri.TARGET, target=target.id)
    running = pod.run(pid=cri.TARGET, target=target.id)
    target.stop()
    # The kernel ends them together with the namespace's first process; the report may still be on its way.
    assert created.ended().status().exit_code == 137
    assert running.ended().status().exit_code == 137


@pytest.mark.kernel
def test_host_ipc(client: Client) -> None:
    container = client.pod(ipc=cri.NODE).run()
    assert namespace(container.pid, "ipc") == namespace("self", "ipc")
    marker = f"podwright-{os.getpid()}"
    container.sh(f"echo x > /dev/shm/{marker}")
    assert Path(f"/dev/shm/{marker}").exists()
    container.sh(f"rm /dev/shm/{marker}")


@pytest.mark.kernel
def test_shared_memory_is_the_pods(client: Client) -> None:
    pod = client.pod()
    one, two = pod.run(), pod.run()
    one.sh("echo shared > /dev/shm/note")
    assert two.sh("cat /dev/shm/note") == "shared"
    assert not Path("/dev/shm/note").exists()
    [line] = [row for row in one.sh("cat /proc/self/mounts").splitlines() if " /dev/shm " in row]
    kind, options = line.split()[2], line.split()[3].split(",")
    assert kind == "tmpfs" and {"rw", "nosuid", "nodev", "noexec", "size=65536k"} <= set(options)
    assert one.sh("stat -c %a /dev/shm") == "1777"


@pytest.mark.kernel
def test_a_dead_pause_process_makes_the_sandbox_not_ready(client: Client) -> None:
    pod = client.pod(pid=cri.POD)
    container = pod.run()
    status = container.sh("grep NSpid /proc/1/status")
    assert status
    # The pause process is the first process of the namespace that the containers share.
    inside = namespace(container.pid, "pid")
    pids = [
        int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit() and _in_namespace(e.name, inside)
    ]
    pause = next(p for p in pids if _number_inside(p) == 1)
    os.kill(pause, 9)
    container.ended()
    deadline = time.monotonic() + 10
    while pod.status().state != cri.SANDBOX_NOTREADY:
        assert time.monotonic() < deadline, "the sandbox still says that it is ready"
        time.sleep(0.02)


def _in_namespace(pid: str, inode: str) -> bool:
    try:
        return namespace(pid, "pid") == inode
    except OSError:
        return False


def _number_inside(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[-1]) for line in status if line.startswith("NSpid"))


def _mapped(*, inside: int = 0, times: int = 1, mode: int = cri.POD) -> cri.UserNamespace:
    ids = [cri.IDMapping(host_id=200_000 + 1000 * n, container_id=inside, length=1000) for n in range(times)]
    return cri.UserNamespace(mode=mode, uids=ids, gids=ids)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        _mapped(times=2),
        _mapped(times=0),
        _mapped(inside=1),
        _mapped(mode=cri.NODE),
        _mapped(mode=cri.CONTAINER),
        _mapped(mode=cri.TARGET),
    ],
    ids=["two", "none", "no-root", "node", "container", "target"],
)
def test_user_namespaces_that_cannot_be_are_refused(client: Client, asked: cri.UserNamespace) -> None:
    config = client.pod_config()
    config.linux.security_context.namespace_options.userns_options.CopyFrom(asked)
    with rejected(StatusCode.INVALID_ARGUMENT, "userns_options"):
        client.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))


def test_a_pod_with_ids_of_its_own_has_not_the_hosts_processes(client: Client) -> None:
    for kind, config in (
        ("pid", client.pod_config(pid=cri.NODE)),
        ("ipc", client.pod_config(ipc=cri.NODE)),
    ):
        config.linux.security_context.namespace_options.userns_options.CopyFrom(_mapped())
        with rejected(StatusCode.INVALID_ARGUMENT, f"namespace_options.{kind}"):
            client.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
