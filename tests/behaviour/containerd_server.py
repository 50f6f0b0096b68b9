"""The server with the containerd engine: on a containerd of this session, with the oci engine's network and
registries."""

from __future__ import annotations

import shutil
from pathlib import Path

from podwright.linux import mounts
from tests.behaviour.oci_server import OciServer
from tests.behaviour.stage import Network, OpenRegistry
from tests.containerd.daemon import Daemon


class ContainerdServer(OciServer):
    engine = "containerd"

    def __init__(self, root: Path, network: Network, registry: OpenRegistry, daemon: Daemon) -> None:
        super().__init__(root, network, registry)
        self.daemon = daemon
        runtimes = {name: each.path for name, each in daemon.handlers.items()}
        handlers = "".join(f'[handlers.{name}]\npath = "{path}"\n' for name, path in runtimes.items())
        self.config.write_text(
            f'{self.config.read_text()}[containerd]\nendpoint = "{daemon.endpoint}"\n{handlers}'
        )

    def runs(self, container: str) -> bool:
        tasks = (line.split() for line in self.daemon.ctr("tasks", "list").splitlines())
        return any(id == container and status == "RUNNING" for id, _, status in tasks)

    def reboot(self) -> None:
        self.kill9()
        self.daemon.power_off()
        for cgroup in self.cgroups():
            Path(cgroup).rmdir()
        mounts.unmount_below(self.run)
        shutil.rmtree(self.run)
        self.daemon.restart()
        self.start()

    def leftovers(self) -> dict[str, object]:
        pods = self.processes()
        if self.is_serving:
            # The log writer stays for the next container, and goes with the server.
            pods = {pid: line for pid, line in pods.items() if "podwright.logs.writer" not in line}
        return {
            **super().leftovers(),
            "processes": pods,
            "records of containerd": [each.id for each in self.daemon.containers()],
            "tasks of containerd": self.daemon.ctr("tasks", "list").splitlines()[1:],
            "mounts of containerd": [each.target for each in mounts.mounts_below(self.daemon.state)],
        }
