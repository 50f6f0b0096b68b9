"""Everything from the command line to the library as a user who may do nothing, on the fake engine.

The user's PATH has no program at all: what runs here needs Python and nothing else.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.behaviour.user import CHECKOUT, User, open_user

HELLO = CHECKOUT / "examples/hello.yaml"
IMAGE = "localhost/podwright/busybox:latest"
SCENARIO = {
    "images": {"unknown": "refuse", "items": [{"reference": IMAGE, "present": True}]},
    # There is no network between fake containers: instead of fetching a page they speak through their volume.
    "containers": [
        {
            "match": {"pod": "hello", "container": "server"},
            "program": [
                "sh",
                "-c",
                'echo "serving"; until [ -e /shared/fetched ]; do sleep 0.02; done; '
                'read -r word < /shared/fetched; echo "the client says: $word"',
            ],
        },
        {
            "match": {"pod": "hello", "container": "client"},
            "program": ["sh", "-c", 'echo "fetched: $(hostname)"; echo done > /shared/fetched'],
        },
    ],
}
LASTING = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "lasting"},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "Never",
                "command": [
                    "sh",
                    "-c",
                    "trap 'exit 0' TERM; echo \"$GREETING\"; while :; do sleep 0.05; done",
                ],
                "env": [{"name": "GREETING", "value": "hello from a user"}],
            }
        ]
    },
}

LIBRARY = """
import asyncio, sys
import podwright

async def main(endpoint, image):
    async with podwright.open(endpoint=endpoint) as runtime:
        async with await runtime.run_sandbox("library") as sandbox:
            container = await sandbox.run("main", image, ["sh", "-c", "echo out; exit 7"])
            status = await container.wait()
            lines = [line.text.decode() async for line in container.logs()]
            print(*lines, status.exit_code, len(await runtime.sandboxes()))
        print(len(await runtime.sandboxes()))

asyncio.run(main(*sys.argv[1:]))
"""

Podwright = Callable[..., str]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with open_user() as user:
        (user.home / "scenario.yaml").write_text(json.dumps(SCENARIO))
        (user.home / "lasting.json").write_text(json.dumps(LASTING))
        (user.home / "hello.yaml").write_text(HELLO.read_text())
        yield user


@pytest.fixture(scope="module")
def server(user: User) -> Iterator[subprocess.Popen[bytes]]:
    """`podwright serve` with the state where it is by default for such a user."""
    with (user.home / "log").open("wb") as log:
        process = user.start(
            ["-m", "podwright", "serve", "--engine", "fake", "--scenario", "scenario.yaml"],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert "serves" in line, (user.home / "log").read_text()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def podwright(user: User, server: subprocess.Popen[bytes]) -> Podwright:
    def run(*arguments: str, status: int = 0) -> str:
        done = user.run("-m", "podwright", *arguments)
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_nobody_here_has_any_privilege(user: User, server: subprocess.Popen[bytes]) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    assert {int(uid) for uid in status["Uid"].split()} == {user.uid} != {0}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["Groups"].split() in ([], [str(user.uid)])


def test_a_manifest_runs_to_its_end(podwright: Podwright) -> None:
    out = podwright("run", "--endpoint", _socket(podwright), "hello.yaml").splitlines()
    assert sorted(out) == [
        "client | fetched: hello",
        "server | serving",
        "server | the client says: done",
    ]
    assert podwright("pods", "-q") == ""


def test_a_pod_is_listed_looked_into_stopped_and_removed(podwright: Podwright) -> None:
    id = podwright("run", "--detach", "lasting.json").splitlines()[0]
    assert podwright("pods", "-q").strip() == id
    [container] = json.loads(podwright("ps", "-o", "json"))["containers"]
    assert (container["metadata"]["name"], container["state"]) == ("main", "CONTAINER_RUNNING")
    assert podwright("logs", "lasting/main") == "hello from a user\n"
    out = podwright("exec", "lasting/main", "sh", "-c", "echo $GREETING; exit 3", status=3)
    assert out == "hello from a user\n"
    podwright("stop", "lasting")
    assert podwright("ps", "-q") == ""
    shown = json.loads(podwright("inspect", "lasting/main"))
    # It caught the signal and ended by itself.
    assert (shown["status"]["state"], shown["status"]["reason"]) == ("CONTAINER_EXITED", "Completed")
    podwright("rm", "lasting")
    assert podwright("pods", "-q") == podwright("ps", "--all", "-q") == ""


def test_the_library_works_at_the_socket(podwright: Podwright, user: User) -> None:
    done = user.run("-c", LIBRARY, _socket(podwright), IMAGE)
    assert (done.returncode, done.stdout) == (0, "out 7 1\n0\n"), done.stderr


def test_status_tells_that_pods_can_run(podwright: Podwright) -> None:
    assert "fake" in podwright("status")


def _socket(podwright: Podwright) -> str:
    """Where the server listens by default."""
    return podwright("version").rpartition(" at ")[2].strip()
