"""dockerd for tests: all of its files below one directory, no bridge, no firewall rules, and its end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket as socketlib
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import h11
import pytest

from podwright.config import DockerConfig
from podwright.engines.docker.api import Docker
from podwright.linux import mounts

START = 60.0
"""Seconds."""

ROOM = 1 << 30
"""Bytes that images and containers may take at most."""

RUNTIMES = ("wrapped", "crun")
"""Names of one and the same: the behaviour suite asks for a handler crun."""
BUSYBOX = "podwright.test/busybox:1"


@dataclass
class Daemon:
    directory: Path
    socket: Path
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def root(self) -> Path:
        return self.directory / "data"

    @asynccontextmanager
    async def docker(self) -> AsyncIterator[Docker]:
        """The engine's own connection with it."""
        docker = Docker(DockerConfig(endpoint=self.endpoint))
        docker.open()
        try:
            yield docker
        finally:
            await docker.close()

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        """For fixtures: one request, the answer's body. Raises AssertionError for a status from 400 on."""
        http = h11.Connection(h11.CLIENT)
        headers = [("Host", "docker"), ("Content-Type", kind), ("Content-Length", str(len(body)))]
        with socketlib.socket(socketlib.AF_UNIX) as stream:
            stream.settimeout(60)
            stream.connect(str(self.socket))
            for part in (
                h11.Request(method=method, target=path, headers=headers),
                *([h11.Data(data=body)] if body else []),
                h11.EndOfMessage(),
            ):
                stream.sendall(http.send(part) or b"")
            status, said = 0, b""
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(stream.recv(1 << 16))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    said += bytes(event.data)
                else:
                    assert isinstance(event, h11.EndOfMessage), f"{method} {path}: {event}"
                    assert status < 400, f"{method} {path}: {status} {said!r}"
                    return said

    def containers(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self.request("GET", "/containers/json?all=1"))
        return found

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


@contextmanager
def running(
    directory: Path, options: Sequence[str] = (), *, images: bool = True, in_memory: bool = False
) -> Iterator[Daemon]:
    """A dockerd that keeps everything below `directory`; a second one may go on where a first has stopped.
    `in_memory` its files are quicker, but tell less of disks."""
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is not installed")
    if in_memory:
        # Docker syncs its files for each container that comes and goes.
        (directory / "data").mkdir(parents=True, exist_ok=True)
        mounts.tmpfs(directory / "data", size=ROOM, mode=0o711, flags=0)
    try:
        started = start(directory, options)
    except BaseException:
        mounts.unmount_below(directory)
        raise
    try:
        if images:
            load_busybox(started)
        yield started
    finally:
        started.stop()
        mounts.unmount_below(directory)


def start(directory: Path, options: Sequence[str] = ()) -> Daemon:
    config = directory / "daemon.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    wrapper = directory / "runc-wrapped"
    wrapper.write_text(_WRAPPER)
    wrapper.chmod(0o755)
    config.write_text(json.dumps({"runtimes": {name: {"path": str(wrapper)} for name in RUNTIMES}}))
    # Paths of sockets are short: the kernel takes 107 bytes, and containerd adds its own to exec-root.
    short = Path("/tmp") / f"pwd-{os.getpid()}-{abs(hash(str(directory))) % 10**8}"
    socket = short / "d.sock"
    short.mkdir(mode=0o700, exist_ok=True)
    log = (directory / "dockerd.log").open("ab")
    process = subprocess.Popen(
        [
            "dockerd",
            *(f"--data-root={directory / 'data'}", f"--exec-root={short / 'x'}"),
            *(f"--pidfile={short / 'pid'}", f"--host=unix://{socket}", f"--config-file={config}"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *("--ip-masq=false", "--exec-opt=native.cgroupdriver=cgroupfs", "--group=root"),
            *options,
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    daemon = _Cleaning(directory, socket, process)
    try:
        _await_socket(daemon)
    except BaseException:
        daemon.stop()
        raise
    return daemon


class _Cleaning(Daemon):
    def stop(self) -> None:
        super().stop()
        short = self.socket.parent
        mounts.unmount_below(short)
        shutil.rmtree(short, ignore_errors=True)


def _await_socket(daemon: Daemon) -> None:
    give_up = time.monotonic() + START
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        while time.monotonic() < give_up:
            # There is nothing to wait for but its end: dockerd tells nobody else that it is ready.
            if select.select([pidfd], [], [], 0.05)[0]:
                words = (daemon.directory / "dockerd.log").read_text()[-2000:]
                raise AssertionError(f"dockerd has ended: {words}")
            if not daemon.socket.exists():
                continue
            try:
                daemon.request("GET", "/_ping")
                return
            except (OSError, AssertionError):
                continue
    finally:
        os.close(pidfd)
    raise AssertionError("dockerd does not answer")


def load_busybox(daemon: Daemon) -> None:
    """The image BUSYBOX: the host's static busybox, with users and groups."""
    raw = BytesIO()
    program = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("proc", 0o755), ("sys", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, content, mode in (
            ("bin/busybox", program, 0o755),
            ("etc/passwd", b"root:x:0:0::/:/bin/sh\napp:x:1001:1002::/home:/bin/sh\n", 0o644),
            ("etc/group", b"root:x:0:\nown:x:1002:\nextra:x:3003:app\n", 0o644),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, BytesIO(content))
        for applet in ("sh", "sleep", "cat", "echo", "id", "ls", "true", "env", "stat", "mount", "hostname"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    repository, _, tag = BUSYBOX.rpartition(":")
    changes = "&".join(
        f"changes={quote(each)}" for each in ("ENV PATH=/bin", 'CMD ["sh"]', "LABEL of-the-image=yes")
    )
    query = f"fromSrc=-&repo={quote(repository, safe='')}&tag={tag}&{changes}"
    daemon.request("POST", f"/images/create?{query}", raw.getvalue(), "application/x-tar")


_WRAPPER = r"""#!/bin/sh
# runc, without what a host without CAP_SYS_RESOURCE cannot give. Runs many times for each container.
next= file=
for word do
    case $next in --bundle) file=$word/config.json ;; --process) file=$word ;; esac
    next=$word
done
case " $* " in *" create "* | *" exec "*)
    sed -i -e 's/,"CAP_SYS_RESOURCE"//g; s/"CAP_SYS_RESOURCE",//g; s/\["CAP_SYS_RESOURCE"\]/[]/g' \
        -e 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$file" ;;
esac
exec runc "$@"
"""
