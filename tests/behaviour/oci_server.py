"""The server with the oci engine: as root, with a CNI network and registries of this session.

What it leaves on the host is found here as well: mounts, processes, cgroups, addresses, firewall rules.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tests.behaviour.server import Server
from tests.behaviour.stage import (
    CNI_BIN,
    Network,
    OpenRegistry,
    Registry,
    open_private_registry,
    own_name,
    until,
)

ID = re.compile("[0-9a-f]{64}")
OWN_CRIU = Path(__file__).parents[2] / "build/criu/criu"
"""What tools/install.sh puts there, for the host's own may be too old for its kernel."""
PROGRAM = str(Path(sys.executable).with_name("podwright"))


class OciServer(Server):
    engine = "oci"
    kernel = True

    def __init__(self, root: Path, network: Network, registry: OpenRegistry) -> None:
        super().__init__(root)
        self.network = network
        self.registry = registry
        self.logs.mkdir(parents=True)
        self.parent = f"/{own_name()}"
        self.config.write_text(
            f'root = "{self.lib}"\nrun = "{self.run}"\nlisten = "{self.socket}"\n'
            f'cgroup_parent = "{self.parent}"\n'
            f'criu = "{OWN_CRIU if OWN_CRIU.exists() else "criu"}"\n'
            f'[cni]\nconf_dir = "{network.conf_dir}"\nbin_dirs = ["{CNI_BIN}"]\n'
            "[logs]\nallow_annotations = true\n"
            f'[images]\ninsecure_registries = ["{registry.host}", "localhost:1"]\n'
        )

    def launch(self) -> None:
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--config", str(self.config), "serve", *self.options],
                stdout=log,
                stderr=log,
            )

    def podwright(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "--config", str(self.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def crash(self) -> None:
        self.kill9()

    def runs(self, container: str) -> bool:
        return any(container in line for line in self.processes().values())

    def reboot(self) -> None:
        # What no other process on this machine would survive; the containers do.
        self.kill9()
        self.start()

    def restart(self) -> None:
        self.stop()
        self.start()

    def private_registry(self, root: Path) -> AbstractContextManager[Registry]:
        assert isinstance(self.registry, OpenRegistry)
        return open_private_registry(root, self.registry.layout)

    @contextmanager
    def without_network(self) -> Iterator[str]:
        try:
            self.network.remove()
            yield str(self.network.conf_dir)
        finally:
            self.network.write()

    @contextmanager
    def broken_network(self) -> Iterator[str]:
        file = self.network.file
        text = file.read_text()
        try:
            file.write_text(text.replace('"portmap"', '"no-such-plugin"'))
            yield "no-such-plugin"
        finally:
            file.write_text(text)

    def refusing_update(self) -> AbstractContextManager[object]:
        return nullcontext()  # the kernel always does

    # What is on the host

    def mounts(self) -> list[str]:
        """Mount points below the server's roots."""
        with open("/proc/self/mountinfo") as table:
            targets = [line.split()[4] for line in table]
        return [target for target in targets if target.startswith(f"{self.root}/")]

    def processes(self) -> dict[int, str]:
        """Processes that name the server's roots or sit in its cgroup, the server excepted."""
        found: dict[int, str] = {}
        own = self.process.pid if self.process is not None else 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == own:
                continue
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                groups = (entry / "cgroup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if line and (f"{self.run}" in line or f"{self.parent}/" in groups):
                found[int(entry.name)] = line
        return found

    def cgroups(self) -> list[str]:
        """Cgroups of pods and containers below the suite's parent; other directories are the client's own."""
        found = Path("/sys/fs/cgroup").glob(f"*{self.parent}/**/")
        return [str(path) for path in found if ID.search(path.name)]

    def leftovers(self) -> dict[str, object]:
        return {
            "mounts": [mount for mount in self.mounts() if not mount.startswith(f"{self.lib}/")],
            "processes": self.processes(),
            "addresses": self.network.allocations(),
            "cgroups": self.cgroups(),
            "rules": self.network.rules(),
        }

    def clean_leftovers(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        until(lambda: not self.processes(), "the last processes to end")
        for target in sorted(self.mounts(), reverse=True):
            subprocess.run(["umount", "-l", target], capture_output=True, check=False)
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*{self.parent}"):
            for folder in sorted([hierarchy, *hierarchy.rglob("*")], reverse=True):
                if folder.is_dir():
                    try:
                        folder.rmdir()
                    except OSError:
                        pass
        shutil.rmtree(self.root, ignore_errors=True)
