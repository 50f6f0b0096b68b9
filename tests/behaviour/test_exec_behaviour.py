"""ExecSync: codes, streams, limits, time-outs, and processes that stay behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, rejected

LIMIT = 16 << 20


@pytest.fixture
def container(client: Client) -> Container:
    return client.pod().run()


def test_exec_keeps_the_streams_apart(container: Container) -> None:
    done = container.exec("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    assert done == (7, "out\n", "err\n")


def test_exec_failure_is_an_answer_not_an_error(container: Container) -> None:
    assert container.exec("false").code == 1
    assert container.exec("/bin/sh", "-c", "kill -9 $$").code == 137


def test_exec_of_an_absent_program_tells_so(container: Container) -> None:
    for program in ("/no/such/program", "no-such-program"):
        done = container.exec(program)
        assert (done.code, done.out) == (127, "")
        assert program in done.err
    done = container.exec("/etc/passwd")
    assert (done.code, done.out) == (126, "") and "permission denied" in done.err.lower()


def test_exec_needs_a_command_and_a_running_container(client: Client, container: Container) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT):
        container.exec()
    created = container.pod.create("/bin/true")
    with rejected(StatusCode.FAILED_PRECONDITION):
        created.exec("true")
    ended = container.pod.run("/bin/true").ended()
    with rejected(StatusCode.FAILED_PRECONDITION):
        ended.exec("true")


def test_exec_has_the_containers_environment_user_and_directory(client: Client) -> None:
    container = client.pod().run(
        env={"MINE": "a=b=c"}, working_dir="/usr", security={"run_as_user": cri.Int64Value(value=1000)}
    )
    assert container.sh("echo $MINE $FROM_IMAGE; pwd; id -u") == "a=b=c yes\n/usr\n1000"


def test_exec_timeout_kills_the_whole_group(container: Container) -> None:
    began = time.monotonic()
    with rejected(StatusCode.DEADLINE_EXCEEDED):
        container.exec("/bin/sh", "-c", "sleep 4321 & sleep 4321", timeout=1)
    assert time.monotonic() - began < 8
    assert "4321" not in container.sh("ps | grep '[s]leep 4321' || true")
    assert container.status().state == cri.CONTAINER_RUNNING


def test_exec_within_its_timeout_is_not_disturbed(container: Container) -> None:
    assert container.exec("/bin/sh", "-c", "sleep 0.3; echo done", timeout=30).out == "done\n"


def test_a_daemonised_child_does_not_hold_the_answer(container: Container) -> None:
    began = time.monotonic()
    done = container.exec("/bin/sh", "-c", "sleep 4322 & echo started")
    assert time.monotonic() - began < 10
    assert (done.code, done.out) == (0, "started\n")
    assert "4322" in container.sh("ps | grep '[s]leep 4322'")


def test_exec_output_is_capped_at_16_mib(container: Container) -> None:
    request = cri.ExecSyncRequest(
        container_id=container.id, cmd=["/bin/sh", "-c", "head -c 20000000 /dev/zero; echo end >&2; exit 2"]
    )
    answer = container.runtime.ExecSync(request)
    assert len(answer.stdout) == LIMIT
    assert (answer.stderr, answer.exit_code) == (b"end\n", 2)


def test_exec_output_is_bytes(container: Container) -> None:
    request = cri.ExecSyncRequest(container_id=container.id, cmd=["printf", r"\377\0\200"])
    assert container.runtime.ExecSync(request).stdout == b"\xff\0\x80"


def test_execs_do_not_wait_for_each_other(container: Container) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        outs = list(pool.map(lambda n: container.sh(f"sleep 1; echo {n}"), range(8)))
    assert sorted(outs) == [str(n) for n in range(8)]
    assert time.monotonic() - began < 6


def test_exec_runs_inside_the_containers_limits(client: Client) -> None:
    container = client.pod().run(security={"no_new_privs": True})
    inside = container.sh("grep -E 'NoNewPrivs|CapBnd' /proc/self/status")
    own = container.sh("grep -E 'NoNewPrivs|CapBnd' /proc/1/status")
    assert inside == own
