"""The server may die at any instruction: containers run on, and the next one knows everything."""

from __future__ import annotations

import json
import os
import random
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, alive, mount, rejected
from tests.behaviour.oci_server import OciServer
from tests.behaviour.server import Server
from tests.behaviour.stage import until

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


def test_the_socket_is_for_owner_and_group(server: Server) -> None:
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o660


def test_a_second_server_on_the_same_state_is_refused(client: Client, server: Server) -> None:
    second = server.podwright("serve", *server.options)
    assert second.returncode != 0
    assert str(server.lib) in second.stderr or str(server.socket) in second.stderr
    assert "Traceback" not in second.stderr
    client.runtime.Version(cri.VersionRequest())


def test_a_stale_socket_is_replaced(client: Client, server: Server) -> None:
    server.kill9()
    assert server.socket.exists()
    server.start()
    client.runtime.Version(cri.VersionRequest())


def test_calls_before_recovery_has_ended_are_unavailable(client: Client, server: Server) -> None:
    client.pod().run()
    server.kill9()
    server.launch()
    codes = set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            client.runtime.ListContainers(cri.ListContainersRequest(), timeout=5)
            break
        except grpc.RpcError as error:
            codes.add(error.code())
    assert codes <= {StatusCode.UNAVAILABLE}
    server.await_ready()


def test_a_restart_forgets_nothing(client: Client, server: Server) -> None:
    pod = client.pod(labels={"a": "b"}, annotations={"c": "d"}, hostname="kept")
    running, created = pod.run(), pod.create("/bin/echo", "later")
    ended = pod.run("/bin/sh", "-c", "exit 6").ended()
    before = [pod.status(), running.status(), created.status(), ended.status()]
    pid = running.info()["pid"]
    server.restart()
    assert [pod.status(), running.status(), created.status(), ended.status()] == before
    assert running.info()["pid"] == pid
    assert running.exec("hostname").out == "kept\n"
    created.start()
    assert created.ended().output() == "later\n"
    running.stop(0)
    assert running.status().exit_code == 137


def _counting(client: Client, outside: Path) -> tuple[Container, Callable[[], int]]:
    """A container that logs numbers, and how far it has come, by a file in `outside`."""
    aside = COUNT.replace("echo $i;", "echo $i; echo $i > /data/counted;")
    container = client.pod().shell(aside, mounts=[mount(outside, "/data")])
    container.await_output("0\n")
    last = 0

    def counted() -> int:
        nonlocal last
        # Between the opening and the writing the file is empty.
        last = int((outside / "counted").read_text() or last)
        return last

    until((outside / "counted").exists, "the container to count")
    return container, counted


def test_containers_keep_logging_while_the_server_is_dead(
    client: Client, server: Server, outside: Path
) -> None:
    container, counted = _counting(client, outside)
    server.crash()
    before, logged = counted(), len(container.log_lines())
    until(lambda: counted() > before + 20, "the container to go on without a server")
    until(lambda: len(container.log_lines()) > logged + 5, "the log to grow without a server", 1)


def test_no_line_is_lost_while_the_server_is_dead(client: Client, server: Server, outside: Path) -> None:
    container, counted = _counting(client, outside)
    server.crash()
    before = counted()
    until(lambda: counted() > before + 5, "the container to go on without a server")
    server.start()
    before = counted()
    until(lambda: len(container.log_lines()) > before + 5, "the log to grow with the next server")
    numbers = [int(text) for *_, text in container.log_lines()]
    assert numbers == list(range(len(numbers)))


def test_exits_while_the_server_is_dead_are_collected(client: Client, server: Server, outside: Path) -> None:
    # With a PID namespace of their own they would be spared by their own SIGKILL.
    pod = client.pod(pid=cri.POD)
    script = "while [ ! -e /data/go ]; do sleep 0.02; done; echo going; "
    one, other = (
        pod.shell(script + last, mounts=[mount(outside, "/data")]) for last in ("exit 42", "kill -9 $$")
    )
    server.crash()
    (outside / "go").touch()
    until(lambda: not any(server.runs(each.id) for each in (one, other)), "the containers to end")
    ended = time.time_ns()
    server.start()
    for container, code in ((one, 42), (other, 137)):
        status = container.status()
        assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, code, "Error")
        assert status.started_at <= status.finished_at <= ended
        assert container.output() == "going\n"


def test_a_reboot_leaves_what_is_known_and_nothing_that_runs(client: Client, server: Server) -> None:
    pod = client.pod(labels={"kept": "yes"})
    running, created, ended = pod.run(), pod.create("/bin/true"), pod.run("/bin/true").ended()
    before = ended.status()
    server.reboot()
    assert pod.status().state == cri.SANDBOX_NOTREADY
    assert dict(pod.status().labels) == {"kept": "yes"}
    for container in (running, created):
        status = container.status()
        assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 255, "Unknown")
    assert ended.status() == before
    with rejected(StatusCode.FAILED_PRECONDITION):
        pod.create("/bin/true")
    pod.remove()


@pytest.mark.kernel
def test_a_container_whose_supervisor_died_too_is_reported(client: Client, server: OciServer) -> None:
    container = client.pod().run()
    pid = container.pid
    supervisors = [p for p, line in server.processes().items() if container.id in line and p != pid]
    server.kill9()
    for supervisor in supervisors:
        os.kill(supervisor, 9)
    os.kill(pid, 9)
    until(lambda: not alive(pid), "the container to end")
    server.start()
    status = container.ended().status()
    assert status.exit_code in (137, 255)
    assert status.reason in ("Error", "Unknown")
    container.remove()


def test_log_rotation_works_after_a_restart(client: Client, server: Server) -> None:
    container = client.pod().shell(COUNT)
    container.await_output("0\n")
    server.restart()
    container.log_file.rename(container.log_file.with_suffix(".old"))
    client.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container.id))
    until(lambda: container.log_lines(), "lines in the new file")


def test_a_half_done_creation_is_undone(client: Client, server: Server) -> None:
    client.image()
    for delay in (0.005, 0.02, 0.04, 0.06):
        config = client.pod_config(name=f"slow-half-{delay}")
        request = cri.RunPodSandboxRequest(config=config)
        call = server.runtime.RunPodSandbox.future(request)
        time.sleep(delay)
        server.crash()
        call.cancel()
        server.start()
        for sandbox in client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
            # It may have been finished just in time; then it is whole.
            assert sandbox.metadata == config.metadata
        client.close()
        until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}")


def test_a_client_that_goes_away_leaves_nothing_half_made(client: Client, server: Server) -> None:
    for wait in (0.001, 0.01, 0.03, 0.05):
        config = client.pod_config(name=f"slow-left-{wait}")
        try:
            client.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=wait)
        except grpc.RpcError:
            pass
        # The retry gets the sandbox; only when the first answer was under way already, it is told so.
        try:
            client.pod(config)
        except grpc.RpcError as error:
            assert error.code() == StatusCode.ALREADY_EXISTS
        [sandbox] = client.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items
        assert sandbox.state == cri.SANDBOX_READY
        client.close()
    until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}")


def test_removal_is_finished_after_a_crash(client: Client, server: Server) -> None:
    for delay in (0.002, 0.02, 0.05, 0.08):
        pod = client.pod(name=f"slow-removed-{delay}")
        pod.run()
        call = server.runtime.RemovePodSandbox.future(cri.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
        time.sleep(delay)
        server.crash()
        call.cancel()
        server.start()
        pod.remove()
        with rejected(StatusCode.NOT_FOUND):
            pod.status()
        until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}")


def test_a_storm_of_kills_leaves_no_orphan(client: Client, server: Server) -> None:
    """Pods come and go on three clients while the server is killed again and again."""
    chance = random.Random(7)
    client.image()
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            try:
                pod = client.pod()
                container = pod.run()
                container.exec("true")
                pod.stop()
                pod.remove()
            except (grpc.RpcError, ValueError):
                over.wait(0.02)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            time.sleep(chance.uniform(0.1, 1.0))
            server.crash()
            server.start()
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    client.close()
    until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}")
    done = server.podwright("doctor", "-o", "json")
    assert "orphan" not in done.stderr.lower(), done.stderr
    assert json.loads(done.stdout)["orphans"] == []
