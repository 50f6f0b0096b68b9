"""The server under test: a `podwright serve` process with its own roots, restarted and killed at will.

What is the same for every engine is here. How an engine's server is started, dies and is looked into is in
`oci_server` and `fake_server`.
"""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

import grpc

from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as rpc
from tests.behaviour.stage import Registry, end, until

MESSAGE_LIMIT = 128 << 20


class Server(ABC):
    engine: str
    kernel: bool
    """Whether its containers are processes of this machine's kernel."""
    registry: Registry
    """Where its images come from."""
    parent = ""
    """The cgroup of its pods."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run"
        self.lib = root / "lib"
        self.socket = root / "cri.sock"
        self.logs = root / "logs"
        self.config = root / "config.toml"
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    # Its life

    def start(self) -> None:
        """Start it and wait until recovery has ended."""
        self.launch()
        self.await_ready()

    @property
    def options(self) -> list[str]:
        """Of the command `serve`."""
        return ["--engine", self.engine, "--log-level", "debug"]

    @abstractmethod
    def launch(self) -> None:
        """Start it, or let it come back after `crash`, and do not wait."""

    @abstractmethod
    def podwright(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `podwright` with its configuration, as the user that it runs as, to the end."""

    def await_ready(self) -> None:
        until(self._answers, lambda: f"the server to become ready; its log:\n{self.words()}", 30)

    def stop(self) -> int:
        """End it as an administrator would; its exit status."""
        assert self.process is not None
        self._close_channel()
        process, self.process = self.process, None
        return end(process)

    def kill9(self) -> None:
        """End its process at this very instruction."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        self._close_channel()

    @abstractmethod
    def crash(self) -> None:
        """End what serves at this very instruction, and nothing that it serves: its containers run on."""

    @abstractmethod
    def runs(self, container: str) -> bool:
        """Whether the container with this id has not ended, as the node knows it, not the server."""

    @abstractmethod
    def reboot(self) -> None:
        """End the server and everything that runs, and start it again."""

    @abstractmethod
    def restart(self) -> None:
        """Stop and start what serves; its containers run on."""

    @property
    def is_serving(self) -> bool:
        """Whether nobody has stopped, killed or crashed it."""
        return self.process is not None

    # Ways to speak to it

    @property
    def channel(self) -> grpc.Channel:
        """A connection that ends with the server."""
        if self._channel is None:
            self._channel = self.connect()
        return self._channel

    def connect(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(
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

    @property
    def runtime(self) -> rpc.RuntimeServiceStub:
        return rpc.RuntimeServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def images(self) -> rpc.ImageServiceStub:
        return rpc.ImageServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def words(self, count: int = 6000) -> str:
        """The last characters of its log."""
        log = self.root / "server.log"
        return log.read_text(errors="replace")[-count:] if log.exists() else ""

    # What is around it

    def log_directory(self, name: str) -> Path:
        """A directory for a pod's logs, as a kubelet makes it."""
        directory = self.logs / name
        directory.mkdir(exist_ok=True)
        return directory

    def volume(self, directory: Path) -> Path:
        """`directory`, or another that is new and empty, which the server may read and write."""
        return directory

    @abstractmethod
    def private_registry(self, root: Path) -> AbstractContextManager[Registry]:
        """A registry that gives the image "busybox" to USER with PASSWORD only."""

    @abstractmethod
    def without_network(self) -> AbstractContextManager[str]:
        """Meanwhile the node has no network for pods; what the node must say of it."""

    @abstractmethod
    def broken_network(self) -> AbstractContextManager[str]:
        """Meanwhile giving a pod its network fails; what the error must say."""

    @abstractmethod
    def refusing_update(self) -> AbstractContextManager[object]:
        """Meanwhile the node refuses to set the CPUs "900", after it has set other limits."""

    # What it leaves behind

    @abstractmethod
    def leftovers(self) -> dict[str, object]:
        """Whatever pods have left behind while none exists; every value is empty when all is well."""

    @abstractmethod
    def processes(self) -> dict[int, str]:
        """Processes that the server has started, itself excepted."""

    @abstractmethod
    def clean_leftovers(self) -> None:
        """The last resort after a failed test run: leave the machine as it was."""

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
