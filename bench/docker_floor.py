"""The floor under the docker engine: a pod's two containers by Docker's own API, the CNI plugins called one
after the other, and nothing else: no records, no logs of the CRI's, no CRI."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from bench.behind import Dockerd
from bench.floor import plugins
from bench.pull import Pulled
from bench.stage import IMAGE, PAYLOAD, Stage


class DockerFloor:
    """A side of `bench.measure`, and of `bench.pull`."""

    name = "floor"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._dockerd = Dockerd(stage.root / self.name, stage.rootfs)
        self._api = self._dockerd.api
        self._networks: dict[str, tuple[str, dict[str, Any] | None]] = {}

    def close(self) -> None:
        try:
            for sandbox in list(self._networks):
                self.stop_sandbox(sandbox)
            for each in self._api.call("GET", "/containers/json?all=1"):
                self._api.call("DELETE", f"/containers/{each['Id']}?force=1")
        finally:
            self._api.close()
            self._dockerd.close()

    # A pod's life

    def run_sandbox(self, name: str) -> str:
        sandbox = self._create(PAYLOAD, {"NetworkMode": "none", "IpcMode": "shareable"}, Hostname=name)
        self.start(sandbox)
        pid = self._api.call("GET", f"/containers/{sandbox}/json")["State"]["Pid"]
        netns = f"/proc/{pid}/ns/net"
        self._networks[sandbox] = netns, None
        self._networks[sandbox] = netns, plugins(self._stage, "ADD", sandbox, netns)
        return sandbox

    def create(self, sandbox: str, name: str) -> str:
        return self._in(sandbox, PAYLOAD)

    def start(self, container: str) -> None:
        self._api.call("POST", f"/containers/{container}/start")

    def exec(self, container: str) -> None:
        wanted = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["true"]}
        id = self._api.call("POST", f"/containers/{container}/exec", wanted)["Id"]
        self._api.once("POST", f"/exec/{id}/start", {"Detach": False, "Tty": False})
        code = self._api.call("GET", f"/exec/{id}/json")["ExitCode"]
        if code != 0:
            raise RuntimeError(f"Docker: exec of true gave {code}")

    def stop(self, container: str) -> None:
        self._api.call("POST", f"/containers/{container}/stop?t=0")

    def stop_sandbox(self, sandbox: str) -> None:
        netns, result = self._networks.pop(sandbox)
        plugins(self._stage, "DEL", sandbox, netns, result)
        self._api.call("POST", f"/containers/{sandbox}/kill")

    def remove(self, container: str) -> None:
        self._api.call("DELETE", f"/containers/{container}")

    def remove_sandbox(self, sandbox: str) -> None:
        self._api.call("DELETE", f"/containers/{sandbox}?force=1")

    # Its other rows

    def write_log(self, command: Sequence[str]) -> float:
        """Seconds that a container with Docker's own log takes for `command`."""
        container = self._create(command, {"NetworkMode": "none"})
        began = time.perf_counter()
        self.start(container)
        code = self._api.call("POST", f"/containers/{container}/wait")["StatusCode"]
        took = time.perf_counter() - began
        if code != 0:
            raise RuntimeError(f"Docker: {command} ended with {code}")
        self.remove(container)
        return took

    def pull(self, image: Pulled) -> None:
        name, _, tag = image.reference.rpartition(":")
        said = self._api.once("POST", f"/images/create?fromImage={quote(name, safe='')}&tag={tag}")
        if b'"error"' in said:
            raise RuntimeError(f"Docker: pull of {image.reference}: {said[-500:]!r}")

    def forget(self, image: Pulled) -> None:
        self._api.call("DELETE", f"/images/{quote(image.reference, safe='')}")

    def _in(self, sandbox: str, command: Sequence[str]) -> str:
        joined = f"container:{sandbox}"
        return self._create(
            command,
            {"NetworkMode": joined, "IpcMode": joined, "CpuShares": 102, "Memory": 128 << 20},
        )

    def _create(self, command: Sequence[str], host: dict[str, object], **more: object) -> str:
        wanted = {
            "Image": IMAGE,
            "Cmd": list(command),
            "HostConfig": {"CgroupParent": f"/{self._stage.bridge}", **host},
            **more,
        }
        id: str = self._api.call("POST", "/containers/create", wanted)["Id"]
        return id
