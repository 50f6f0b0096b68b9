"""The server under test: a `podwright serve` process with its own roots, restarted and killed at will.

What it leaves on the host is found here as well: mounts, processes, network namespaces, addresses.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc

from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as rpc
from tests.behaviour.stage import CNI_BIN, Network, end, until

ID = re.compile("[0-9a-f]{64}")
MESSAGE_LIMIT = 128 << 20


class Server:
    def __init__(self, engine: str, root: Path, network: Network, insecure: list[str]) -> None:
        self.engine = engine
        self.root = root
        self.network = network
        self.run = root / "run"
        self.lib = root / "lib"
        self.socket = root / "cri.sock"
        self.logs = root / "logs"
        self.logs.mkdir(parents=True)
        self.config = root / "config.toml"
        self.parent = f"/pwt{os.getpid()}"
        registries = ", ".join(f'"{host}"' for host in insecure)
        self.config.write_text(
            f'root = "{self.lib}"\nrun = "{self.run}"\nlisten = "{self.socket}"\n'
            f'cgroup_parent = "{self.parent}"\n'
            f'[cni]\nconf_dir = "{network.conf_dir}"\nbin_dirs = ["{CNI_BIN}"]\n'
            f"[images]\ninsecure_registries = [{registries}]\n"
        )
        self.program = str(Path(sys.executable).with_name("podwright"))
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def start(self) -> None:
        """Start it and wait until recovery has ended."""
        self.launch()
        self.await_ready()

    def launch(self) -> None:
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)

    def command(self) -> list[str]:
        return [self.program, "--config", str(self.config), "serve", "--engine", self.engine]

    def await_ready(self) -> None:
        until(self._answers, lambda: f"the server to become ready; its log:\n{self.words()}", 30)

    def stop(self) -> int:
        """End it as an administrator would; its exit status."""
        assert self.process is not None
        self._close_channel()
        process, self.process = self.process, None
        return end(process)

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill9(self) -> None:
        """End it at this very instruction."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        self._close_channel()

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                f"unix:{self.socket}",
                options=[
                    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
                    ("grpc.max_send_message_length", MESSAGE_LIMIT),
                    # Every channel to this address would share one back-off after a restart.
                    ("grpc.use_local_subchannel_pool", 1),
                    ("grpc.initial_reconnect_backoff_ms", 50),
                    ("grpc.min_reconnect_backoff_ms", 50),
                    ("grpc.max_reconnect_backoff_ms", 200),
                ],
            )
        return self._channel

    @property
    def runtime(self) -> rpc.RuntimeServiceStub:
        return rpc.RuntimeServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def images(self) -> rpc.ImageServiceStub:
        return rpc.ImageServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def words(self) -> str:
        log = self.root / "server.log"
        return log.read_text(errors="replace")[-6000:] if log.exists() else ""

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
        """Whatever pods have left behind while none exists."""
        return {
            "mounts": [mount for mount in self.mounts() if not mount.startswith(f"{self.lib}/")],
            "processes": self.processes(),
            "addresses": self.network.allocations(),
            "cgroups": self.cgroups(),
            "rules": self.network.rules(),
        }

    def clean_leftovers(self) -> None:
        """The last resort after a failed test run: leave the machine as it was."""
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

    def _answers(self) -> bool:
        assert self.process is not None
        status = self.process.poll()
        assert status is None, f"the server ended with {status}; its log:\n{self.words()}"
        try:
            self.runtime.Status(cri.StatusRequest(), timeout=1)
        except grpc.RpcError:
            return False
        return True

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
