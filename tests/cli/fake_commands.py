"""`podwright` at a fake node's server, and Pods for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml

from podwright.testing import FakeServer

PROGRAM = (sys.executable, "-c", "from podwright.cli.main import main; main()")
PATIENCE = 60.0


class Commands:
    """`podwright` at a fake node's server."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.root = server.directory / "root"
        config = server.directory / "config.toml"
        config.write_text("[node]\npod_cgroups = false\n")
        places = ("--config", config, "--root", self.root, "--run", server.directory / "run")
        self.prefix = [*PROGRAM, *map(str, places), "--socket", str(server.socket)]

    def __call__(self, *arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *map(str, arguments)],
            capture_output=True, text=True, input=text, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def pods(self) -> list[str]:
        return [one["name"] for one in self.server.control.get("/v1/state")["pods"]]

    def remove(self) -> None:
        ids = self("pods", "-q").stdout.split()
        if ids:
            done = self("rm", "--force", *ids)
            assert done.returncode == 0, done.stderr


@contextmanager
def commands(server: FakeServer) -> Iterator[Commands]:
    """At the end nothing is left of the pods that they ran."""
    made = Commands(server)
    yield made
    made.remove()
    assert list((made.root / "pods").glob("*")) == []


def pod(name: str, command: Sequence[str], *, policy: str = "Always", **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "app:1", "command": list(command), **container}
    spec = {"restartPolicy": policy, "terminationGracePeriodSeconds": 1, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def text_of(*trees: object) -> str:
    return yaml.safe_dump_all(trees)
