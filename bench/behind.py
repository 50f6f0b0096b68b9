"""podwright on a daemon of its own: a containerd without its CRI plugin, or a Docker Engine. What serves is
podwright and that daemon then, and both are counted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
from abc import abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import grpc
from google.protobuf.empty_pb2 import Empty

from bench.daemons import Podwright, ctr_import, until
from bench.docker_api import DockerApi
from bench.stage import IMAGE
from podwright.wire.containerd import version_pb2_grpc

END_SECONDS = 30.0
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_UNNEEDED = (
    "io.containerd.grpc.v1.cri",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("btrfs", "zfs", "devmapper", "aufs")),
    *("io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"),
)


class Behind:
    """A daemon that keeps everything below `root`."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.socket = root / "d.sock"
        self._log = (root / "daemon.log").open("ab")
        self.process = subprocess.Popen(
            self.prepare(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        try:
            until(self._ready, f"{type(self).__name__} did not become ready")
            self.load_images()
        except BaseException:
            self.close()
            raise

    def servers(self) -> list[int]:
        return [self.process.pid]

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    @abstractmethod
    def prepare(self) -> Sequence[str]: ...

    @abstractmethod
    def answers(self) -> bool: ...

    @abstractmethod
    def load_images(self) -> None: ...

    def _ready(self) -> bool:
        if self.process.poll() is not None:
            words = (self.root / "daemon.log").read_text(errors="replace")[-4000:]
            raise RuntimeError(f"{type(self).__name__} ended with {self.process.returncode}:\n{words}")
        return self.socket.exists() and self.answers()


class BareContainerd(Behind):
    """The same containerd as the peer's, without CRI."""

    def __init__(self, root: Path, image: Path) -> None:
        self._image = image
        super().__init__(root)

    def prepare(self) -> Sequence[str]:
        config = self.root / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}/daemon"\nstate = "{self.root}/state"\n'
            f"disabled_plugins = {json.dumps(_UNNEEDED)}\n"
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        return [shutil.which("containerd") or "/usr/bin/containerd", "--config", str(config)]

    def answers(self) -> bool:
        options = (("grpc.default_authority", "localhost"),)
        with grpc.insecure_channel(f"unix:{self.socket}", options=options) as channel:
            try:
                version_pb2_grpc.VersionStub(channel).Version(Empty(), timeout=5)  # type: ignore[no-untyped-call]
            except grpc.RpcError:
                return False
        return True

    def load_images(self) -> None:
        ctr_import(self.socket, self._image, self._log)


class Dockerd(Behind):
    """A Docker Engine without networks of its own; its containerd is its child."""

    def __init__(self, root: Path, rootfs: Path) -> None:
        self._rootfs = rootfs
        super().__init__(root)

    @property
    def api(self) -> DockerApi:
        return DockerApi(self.socket)

    def prepare(self) -> Sequence[str]:
        config = self.root / "daemon.json"
        config.write_text("{}")
        return [
            shutil.which("dockerd", path=_SEARCH) or "/usr/sbin/dockerd",
            *(f"--data-root={self.root / 'daemon'}", f"--exec-root={self.root / 'x'}"),
            *(f"--pidfile={self.root / 'pid'}", f"--host=unix://{self.socket}", f"--config-file={config}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *("--ip-masq=false", "--exec-opt=native.cgroupdriver=cgroupfs", "--group=root"),
        ]

    def servers(self) -> list[int]:
        found = (self.root / "x" / "containerd" / "containerd.pid").read_text()
        return [self.process.pid, int(found)]

    def answers(self) -> bool:
        try:
            self.api.call("GET", "/_ping")
        except (OSError, RuntimeError):
            return False
        return True

    def load_images(self) -> None:
        """The stage's root file system under IMAGE's name."""
        raw = BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            tar.add(self._rootfs, arcname=".")
        repository, _, tag = IMAGE.rpartition(":")
        changes = "&".join(f"changes={quote(each)}" for each in ("ENV PATH=/bin", 'CMD ["/bin/sh"]'))
        query = f"fromSrc=-&repo={quote(repository, safe='')}&tag={tag}&{changes}"
        self.api.call("POST", f"/images/create?{query}", raw.getvalue())


class _On(Podwright):
    """Its socket is served by podwright; `behind` is what that works on."""

    behind: Behind

    def servers(self) -> list[int]:
        return [self.process.pid, *self.behind.servers()]

    def close(self) -> None:
        super().close()
        self.behind.close()

    def load_images(self) -> None:
        self.image = IMAGE

    def _begin(self, behind: Behind, settings: str) -> Sequence[str]:
        self.behind = behind
        self.settings = settings
        try:
            return super().prepare()
        except BaseException:
            behind.close()
            raise


class OnContainerd(_On):
    """With runc, as the peer has it."""

    def prepare(self) -> Sequence[str]:
        behind = BareContainerd(self.root, self.stage.image_archive)
        return self._begin(
            behind,
            f'engine = "containerd"\ndefault_handler = "runc"\n[containerd]\nendpoint = "{behind.socket}"\n',
        )


class OnDocker(_On):
    def prepare(self) -> Sequence[str]:
        behind = Dockerd(self.root, self.stage.rootfs)
        return self._begin(behind, f'engine = "docker"\n[docker]\nendpoint = "unix://{behind.socket}"\n')
