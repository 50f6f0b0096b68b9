"""containerd for tests: all of its files below one directory, its own state and socket, and its end, with
that of its shims."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from podwright.config import ContainerdConfig, HandlerConfig
from podwright.linux import mounts
from podwright.wire.containerd import (
    containers_pb2,
    containers_pb2_grpc,
    sandbox_pb2,
    sandbox_pb2_grpc,
    version_pb2_grpc,
)
from tests.oci.bench import TOOLS, processes_with

START = 60.0
"""Seconds."""
NAMESPACE = "k8s.io"
BUSYBOX = "podwright.test/busybox:1"
UNNEEDED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.nri.v1.nri",
    "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
)
RUNTIMES = ("crun", "runc")
RUNC_ROOT = Path("/run/containerd/runc")
"""Where the shims' runtimes note their containers, whatever containerd's state is."""
_BUILD = Path(__file__).parents[2] / "build"
NEWER = {"1.7": str(_BUILD / "containerd-1.7/containerd"), "2": str(_BUILD / "containerd-2/containerd")}
"""Versions beside the host's own, where tools/containerd.sh could get them."""


@dataclass
class Daemon:
    """A containerd that runs. `program` may be one that is not in PATH."""

    directory: Path
    short: Path
    """What has sockets in it: the kernel takes 107 bytes of a path, and containerd adds to ours."""
    program: str
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.short / "c.sock"

    @property
    def endpoint(self) -> str:
        return str(self.socket)

    @property
    def root(self) -> Path:
        return self.directory / "data"

    @property
    def state(self) -> Path:
        """Where the shims' bundles and the roots of containers are."""
        return self.short / "state"

    @property
    def config(self) -> ContainerdConfig:
        return ContainerdConfig(endpoint=self.endpoint, namespace=NAMESPACE)

    @property
    def handlers(self) -> dict[str, HandlerConfig]:
        """crun and runc, as this host can run them."""
        return {each: HandlerConfig(path=str(self.directory / each)) for each in RUNTIMES}

    def shims(self) -> list[int]:
        """The processes of its shims."""
        return [each for each in processes_with(self.endpoint) if _is_shim(each)]

    def containers(self, *filters: str) -> list[containers_pb2.Container]:
        """The records in NAMESPACE, of whoever made them."""
        with grpc.insecure_channel(f"unix:{self.socket}", options=_OPTIONS) as channel:
            stub = containers_pb2_grpc.ContainersStub(channel)  # type: ignore[no-untyped-call]
            metadata = (("containerd-namespace", NAMESPACE),)
            request = containers_pb2.ListContainersRequest(filters=filters)
            return list(stub.List(request, timeout=60, metadata=metadata).containers)

    def sandboxes(self) -> list[str]:
        """The ids in the sandbox store of NAMESPACE; older ones have none."""
        with grpc.insecure_channel(f"unix:{self.socket}", options=_OPTIONS) as channel:
            stub = sandbox_pb2_grpc.StoreStub(channel)  # type: ignore[no-untyped-call]
            metadata = (("containerd-namespace", NAMESPACE),)
            try:
                answer = stub.List(sandbox_pb2.StoreListRequest(), timeout=60, metadata=metadata)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                    return []
                raise
            return [each.sandbox_id for each in answer.list]

    def ctr(self, *arguments: str) -> str:
        """containerd's own client, in NAMESPACE: what it printed. Raises AssertionError when it fails."""
        argv = ["ctr", "--address", self.endpoint, "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def stop(self, *, number: int = signal.SIGTERM) -> None:
        """Signal the daemon alone, and wait; its shims go on."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def restart(self) -> None:
        """Start it again after `stop`."""
        self.process = _spawn(self.program, self.directory)
        _await_answer(self)

    def power_off(self) -> None:
        """End it, its shims, and what runs in them; what a reboot empties is empty then."""
        self.stop(number=signal.SIGKILL)
        bundles = list(self.state.glob("io.containerd.*/*/*"))
        sockets = [socket for each in bundles if (socket := shim_socket(each)) is not None]
        for shim in self.shims():
            for pid in (*_children(shim), shim):
                _kill(pid)
        mounts.unmount_below(self.short)
        for socket in sockets:
            socket.unlink(missing_ok=True)
        for each in bundles:
            shutil.rmtree(RUNC_ROOT / each.parent.name / each.name, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)

    def clear(self) -> None:
        """End all of it, and take its mounts and sockets away."""
        self.stop()
        self.power_off()
        mounts.unmount_below(self.directory)
        shutil.rmtree(self.short, ignore_errors=True)


@contextmanager
def running(directory: Path, *, images: bool = True, program: str = "containerd") -> Iterator[Daemon]:
    """A containerd that keeps everything below `directory`."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    started = start(directory, program)
    try:
        if images:
            import_busybox(started)
        yield started
    finally:
        started.clear()


def start(directory: Path, program: str = "containerd") -> Daemon:
    directory.mkdir(parents=True, exist_ok=True)
    short = Path("/tmp") / f"pwc-{os.getpid()}-{abs(hash(str(directory))) % 10**8}"
    short.mkdir(mode=0o700)
    (directory / "config.toml").write_text(
        "version = 2\n"
        f'root = "{directory / "data"}"\n'
        f'state = "{short / "state"}"\n'
        f"disabled_plugins = {list(UNNEEDED)}\n"
        "[grpc]\n"
        f'address = "{short / "c.sock"}"\n'
    )
    for name in RUNTIMES:
        wrapper = directory / name
        wrapper.write_text(_WRAPPER.replace("PROGRAM", name))
        wrapper.chmod(0o755)
    daemon = Daemon(directory, short, program, _spawn(program, directory))
    try:
        _await_answer(daemon)
    except BaseException:
        daemon.clear()
        raise
    return daemon


def _spawn(program: str, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / "containerd.log").open("ab") as log:
        return subprocess.Popen(
            [program, "--config", str(directory / "config.toml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": search_path(program)},
            start_new_session=True,
        )


def search_path(program: str) -> str:
    """Where a containerd looks for shims: beside itself first, for those are of its version."""
    return f"{Path(shutil.which(program) or program).parent}:{os.environ['PATH']}"


def _await_answer(daemon: Daemon) -> None:
    give_up = time.monotonic() + START
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        while time.monotonic() < give_up:
            # There is nothing to wait for but its end: it tells nobody else that it is ready.
            if select.select([pidfd], [], [], 0.05)[0]:
                words = (daemon.directory / "containerd.log").read_text()[-2000:]
                raise AssertionError(f"{daemon.program} has ended: {words}")
            if daemon.socket.exists() and _answers(daemon.socket):
                return
    finally:
        os.close(pidfd)
    raise AssertionError(f"{daemon.program} does not answer")


def _answers(socket: Path) -> bool:
    with grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        try:
            version_pb2_grpc.VersionStub(channel).Version(Empty(), timeout=5)  # type: ignore[no-untyped-call]
        except grpc.RpcError:
            return False
    return True


def import_busybox(daemon: Daemon, name: str = BUSYBOX) -> None:
    """Import the host's static busybox, with users and groups, and unpack it."""
    root, layout = daemon.directory / "busybox", daemon.directory / "layout"
    subprocess.run([sys.executable, str(TOOLS / "busybox_rootfs.py"), str(root)], check=True)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from oci_image import Layout\n"
        "layout = Layout(Path(sys.argv[3]))\n"
        "config = {'Env': ['PATH=/bin:/usr/bin'], 'Cmd': ['sh'], 'Labels': {'of-the-image': 'yes'}}\n"
        "layout.add(sys.argv[4], [layout.layer(Path(sys.argv[2]))], config)\n"
        "layout.archive(Path(sys.argv[3] + '.tar'))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(TOOLS), str(root), str(layout), name], check=True)
    daemon.ctr("images", "import", f"{layout}.tar")
    shutil.rmtree(root)
    shutil.rmtree(layout)


def _is_shim(pid: int) -> bool:
    return _of(pid, lambda entry: b"containerd-shim" in (entry / "cmdline").read_bytes().split(b"\0")[0])


def _children(pid: int) -> list[int]:
    def born_of(entry: Path) -> bool:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid

    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [each for each in numbers if _of(each, born_of)]


def _of(pid: int, rule: Callable[[Path], bool]) -> bool:
    """False when the process is gone."""
    try:
        return rule(Path("/proc") / str(pid))
    except (OSError, IndexError):
        return False


def _kill(pid: int) -> None:
    """SIGKILL, and wait for the end."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 30)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def shim_socket(bundle: Path) -> Path | None:
    """Shims listen below /run/containerd whatever containerd's state is; a bundle says where, unless its shim
    does not listen yet."""
    for name in ("bootstrap.json", "address"):  # of newer shims and older ones
        try:
            words = (bundle / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            continue
        address = str(json.loads(words)["address"]) if words.startswith("{") else words
        return Path(address.removeprefix("unix://"))
    return None


_OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.enable_http_proxy", 0))
_WRAPPER = """#!/usr/bin/python3 -IS
# PROGRAM, without what a host without CAP_SYS_RESOURCE cannot give, nor the unified hierarchy, which crun
# does not want to see beside the others.
import ctypes, json, os, sys

UNIFIED, NEWNS, PRIVATE = b"/sys/fs/cgroup/unified", 0x20000, 1 << 18

def spare(process):
    process["oomScoreAdj"] = max(0, process.get("oomScoreAdj") or 0)
    for names in (process.get("capabilities") or {}).values():
        names[:] = [each for each in names if each != "CAP_SYS_RESOURCE"]

def called(status):
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

arguments = sys.argv[1:]
if "create" in arguments:
    path = arguments[arguments.index("--bundle") + 1] + "/config.json"
    spec = json.load(open(path))
    spare(spec["process"])
    json.dump(spec, open(path, "w"))
    if "PROGRAM" == "crun" and os.path.isdir(UNIFIED):
        libc = ctypes.CDLL(None, use_errno=True)
        called(libc.unshare(NEWNS))
        called(libc.mount(None, UNIFIED, None, ctypes.c_ulong(PRIVATE), None))
        called(libc.mount(b"tmpfs", UNIFIED, b"tmpfs", ctypes.c_ulong(0), b"size=1m,mode=755"))
elif "exec" in arguments and "--process" in arguments:
    path = arguments[arguments.index("--process") + 1]
    process = json.load(open(path))
    spare(process)
    json.dump(process, open(path, "w"))
os.execvp("PROGRAM", ["PROGRAM", *arguments])
"""
