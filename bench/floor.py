"""The bare floor: what a pod costs when the programs are called directly, with nothing around them.

unshare pins the namespaces, the CNI plugins are called one after the other, the root file system is one
overlay mount, crun creates and starts. No records, no logs, no supervisor, no socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.stage import CNI_BIN, PAYLOAD, Stage

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
)
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETUID",
)
NAMESPACES = ("net", "ipc", "uts")

_libc = ctypes.CDLL(None, use_errno=True)


class Floor:
    """The same steps as a CRI client's calls, each done by the shortest way there is."""

    name = "floor"

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._root = stage.root / "floor"
        self._root.mkdir()
        self._crun = shutil.which("crun") or "/usr/bin/crun"
        self._unshare = shutil.which("unshare") or "/usr/bin/unshare"
        self._pids: dict[str, int] = {}
        self._results: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        for pod in list(self._root.iterdir()):
            if pod.name != "state":
                self.stop(pod.name)
                self.stop_sandbox(pod.name)
                self.remove(pod.name)
                self.remove_sandbox(pod.name)

    def run_sandbox(self, name: str) -> str:
        pod = f"{name}-{uuid.uuid4().hex[:12]}"
        home = self._root / pod
        home.mkdir()
        pins = [home / kind for kind in NAMESPACES]
        for pin in pins:
            pin.touch()
        flags = [f"--{kind}={pin}" for kind, pin in zip(NAMESPACES, pins, strict=True)]
        run([self._unshare, *flags, "/bin/busybox", "ip", "link", "set", "lo", "up"])
        self._network("ADD", pod)
        return pod

    def create(self, sandbox: str, name: str) -> str:
        home = self._root / sandbox
        for part in ("upper", "work", "rootfs"):
            (home / part).mkdir()
        options = f"lowerdir={self._stage.rootfs},upperdir={home / 'upper'},workdir={home / 'work'}"
        _mount("overlay", home / "rootfs", "overlay", options)
        (home / "config.json").write_text(json.dumps(self._spec(sandbox)))
        run([*self._oci(), "create", "--bundle", str(home), "--pid-file", str(home / "pid"), sandbox])
        self._pids[sandbox] = int((home / "pid").read_text())
        return sandbox

    def start(self, container: str) -> None:
        run([*self._oci(), "start", container])

    def exec(self, container: str) -> None:
        run([*self._oci(), "exec", container, "true"])

    def stop(self, container: str) -> None:
        pid = self._pids.pop(container, 0)
        if pid:
            ended = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            _wait_readable(ended)
            os.close(ended)

    def stop_sandbox(self, sandbox: str) -> None:
        if sandbox in self._results:
            self._network("DEL", sandbox)
        for kind in NAMESPACES:
            _unmount(self._root / sandbox / kind)

    def remove(self, container: str) -> None:
        run([*self._oci(), "delete", container], check=False)
        _unmount(self._root / container / "rootfs")

    def remove_sandbox(self, sandbox: str) -> None:
        shutil.rmtree(self._root / sandbox)

    def namespace(self, sandbox: str) -> Path:
        """Of a pod's network."""
        return self._root / sandbox / "net"

    def _oci(self) -> list[str]:
        return [self._crun, "--root", str(self._root / "state")]

    def _network(self, command: str, pod: str) -> None:
        result = plugins(self._stage, command, pod, str(self.namespace(pod)), self._results.pop(pod, None))
        if command == "ADD" and result is not None:
            self._results[pod] = result

    def _spec(self, pod: str) -> dict[str, Any]:
        home = self._root / pod
        paths = {"network": "net", "ipc": "ipc", "uts": "uts"}
        return {
            "ociVersion": "1.0.2",
            "process": {
                "args": PAYLOAD,
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
                "capabilities": {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
                },
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
                },
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
                {
                    "destination": "/sys",
                    "type": "sysfs",
                    "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"],
                },
                {
                    "destination": "/sys/fs/cgroup",
                    "type": "cgroup",
                    "source": "cgroup",
                    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
                },
            ],
            "linux": {
                "namespaces": [
                    {"type": "pid"},
                    {"type": "mount"},
                    *({"type": kind, "path": str(home / file)} for kind, file in paths.items()),
                ],
                "cgroupsPath": f"/{self._stage.bridge}/{pod}",
                "resources": {
                    "devices": [{"allow": False, "access": "rwm"}],
                    "cpu": {"shares": 102},
                    "memory": {"limit": 128 << 20},
                },
                "maskedPaths": list(MASKED),
                "readonlyPaths": list(READONLY),
            },
        }


def plugins(
    stage: Stage, command: str, pod: str, netns: str, result: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Call the plugins as libcni would: in order with the result passed on, backwards for DEL. The result of
    the last of them for ADD."""
    network = stage.network(masquerade=True)
    chain: list[dict[str, Any]] = list(network["plugins"])  # type: ignore[call-overload]
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod,
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(CNI_BIN),
        "PATH": os.environ["PATH"],
    }
    for plugin in chain if command == "ADD" else reversed(chain):
        conf = {**plugin, "cniVersion": network["cniVersion"], "name": network["name"]}
        if result is not None:
            conf["prevResult"] = result
        out = run([str(CNI_BIN / plugin["type"])], input=json.dumps(conf).encode(), env=env)
        if command == "ADD":
            result = json.loads(out)
    return result


def run(
    argv: Sequence[str], *, input: bytes = b"", env: Mapping[str, str] | None = None, check: bool = True
) -> bytes:
    """Run `argv` with files in memory for its input and output: no pipes, no threads.

    Raises RuntimeError with the program's words when it fails.
    """
    null = os.open("/dev/null", os.O_RDWR)
    source = null
    if input:
        source = os.memfd_create("input")
        os.write(source, input)
        os.lseek(source, 0, os.SEEK_SET)
    # Only plugins answer on standard output; a container's init would keep a memfd of ours for its life.
    output = os.memfd_create("output")
    errors = os.memfd_create("errors")
    sink = output if input else null
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_DUP2, sink, 1),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ]
        pid = os.posix_spawn(
            argv[0], list(argv), env if env is not None else os.environ, file_actions=actions
        )
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status and check:
            words = _content(errors) + _content(output)
            raise RuntimeError(f"{' '.join(argv)} ended with {status}: {words.decode(errors='replace')}")
        return _content(output)
    finally:
        for fd in {null, source, output, errors}:
            os.close(fd)


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _wait_readable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def _mount(source: str, target: Path, kind: str, options: str) -> None:
    if _libc.mount(source.encode(), bytes(target), kind.encode(), 0, options.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(target))


def _unmount(target: Path) -> None:
    _libc.umount2(bytes(target), 2)
