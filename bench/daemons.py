"""The two daemons, each with its own root, state and socket, spoken to through the same gRPC client."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import grpc

from bench.stage import CNI_BIN, IMAGE, PAUSE_IMAGE, PAYLOAD, Stage
from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as rpc

MASKED = [
    *(f"/proc/{name}" for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list")),
    *(f"/proc/{name}" for name in ("timer_stats", "sched_debug", "scsi")),
    "/sys/firmware",
]
READONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]
START_SECONDS = 30.0


class Daemon:
    """A CRI server as the benchmark uses it: the calls of a pod's life, and its processes."""

    name = ""
    image = IMAGE

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.root = stage.root / self.name
        self.root.mkdir()
        self.socket = self.root / "cri.sock"
        self._sandboxes: dict[str, cri.PodSandboxConfig] = {}
        self.log = open(self.root / "log", "wb")  # noqa: SIM115 (closed with the daemon)
        self.process = self._spawn(self.prepare())
        self._channel = grpc.insecure_channel(
            f"unix:{self.socket}",
            options=[("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)],
        )
        self.runtime = rpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.images = rpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]
        try:
            self._await_ready()
            self.load_images()
        except BaseException:
            self.close()
            raise

    def prepare(self) -> Sequence[str]:
        """Write the configuration; the command that starts the daemon."""
        raise NotImplementedError

    def load_images(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Remove every pod, end the daemon and what it left running."""
        if self.process.poll() is None:
            try:
                self._remove_pods()
            except grpc.RpcError as error:
                print(f"{self.name}: pods could not be removed: {error}", file=sys.stderr)
        self._channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        for pid in self.helpers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def servers(self) -> list[int]:
        """The processes that serve, however many pods there are."""
        return [self.process.pid]

    # The calls of a pod's life

    def run_sandbox(self, name: str, parent: str = "") -> str:
        """`parent` is the pod's cgroup parent; one for all pods when it is not given."""
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="bench"),
            hostname=name,
            log_directory=str(self.root / "logs" / name),
            labels={"io.kubernetes.pod.uid": f"uid-{name}", "io.kubernetes.pod.name": name},
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=parent or f"/{self.stage.bridge}",
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=cri.CONTAINER)
                ),
            ),
        )
        (self.root / "logs" / name).mkdir(parents=True, exist_ok=True)
        sandbox: str = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
        self._sandboxes[sandbox] = config
        return sandbox

    def create(
        self,
        sandbox: str,
        name: str,
        command: Sequence[str] = PAYLOAD,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"),
            image=cri.ImageSpec(image=self.image, user_specified_image=IMAGE),
            command=command,
            log_path="main.log",
            annotations=annotations,
            labels={"io.kubernetes.container.name": "main", "io.kubernetes.pod.name": name},
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(cpu_shares=102, memory_limit_in_bytes=128 << 20),
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=cri.CONTAINER),
                    masked_paths=MASKED,
                    readonly_paths=READONLY,
                    seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined),
                ),
            ),
        )
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=config, sandbox_config=self._sandboxes[sandbox]
        )
        container: str = self.runtime.CreateContainer(request).container_id
        return container

    def start(self, container: str) -> None:
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=container))

    def exec(self, container: str) -> None:
        answer = self.runtime.ExecSync(cri.ExecSyncRequest(container_id=container, cmd=["true"]))
        if answer.exit_code != 0:
            raise RuntimeError(f"{self.name}: exec of true gave {answer.exit_code}: {answer.stderr!r}")

    def stop(self, container: str) -> None:
        self.runtime.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))

    def stop_sandbox(self, sandbox: str) -> None:
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))

    def remove(self, container: str) -> None:
        self.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=container))

    def remove_sandbox(self, sandbox: str) -> None:
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox))
        self._sandboxes.pop(sandbox, None)

    # Memory

    def helpers(self) -> list[int]:
        """Processes that exist for pods and are neither the daemon nor a container's own."""
        parents, arguments = _processes()
        mark = f"{self.root}/"
        apart = {*self.servers(), os.getpid()}
        own = {pid for pid, line in arguments.items() if mark in line and pid not in apart}
        found = {pid for pid in arguments if pid not in apart and _descends(pid, own, parents)}
        return [pid for pid in found if PAYLOAD[1] not in arguments[pid].split("\0")]

    def _spawn(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def _await_ready(self) -> None:
        until(self._answers, f"{self.name} did not become ready; its log:\n{self._words()}")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self._words()}")
        try:
            status = self.runtime.Status(cri.StatusRequest(), timeout=2).status
        except grpc.RpcError:
            return False
        return len(status.conditions) >= 2 and all(c.status for c in status.conditions)

    def _words(self) -> str:
        return (self.root / "log").read_text(errors="replace")[-4000:]

    def _remove_pods(self) -> None:
        def end(sandbox: cri.PodSandbox) -> None:
            self.stop_sandbox(sandbox.id)
            self.remove_sandbox(sandbox.id)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(end, self.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=30).items))


class Podwright(Daemon):
    name = "podwright"
    settings = ""
    """Of its configuration: what the engine needs besides."""

    def prepare(self) -> Sequence[str]:
        config = self.root / "config.toml"
        config.write_text(
            f'root = "{self.root}/lib"\n'
            f'run = "{self.root}/run"\n'
            f'listen = "{self.socket}"\n'
            f"{self.settings}"
            "[cni]\n"
            f'conf_dir = "{self.stage.conf_dir}"\n'
            f'bin_dirs = ["{CNI_BIN}"]\n'
            "[logs]\n"
            "allow_annotations = true\n"
        )
        return [str(Path(sys.executable).with_name("podwright")), "--config", str(config), "serve"]

    def load_images(self) -> None:
        spec = cri.ImageSpec(image=f"oci-archive:{self.stage.image_archive}")
        self.image = self.images.PullImage(cri.PullImageRequest(image=spec)).image_ref


class Containerd(Daemon):
    name = "containerd"

    def prepare(self) -> Sequence[str]:
        config = self.root / "config.toml"
        config.write_text(
            f"""version = 2
root = "{self.root}/lib"
state = "{self.root}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # This host grants no CAP_SYS_RESOURCE: a negative score fails.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_BIN}"
    conf_dir = "{self.stage.conf_dir}"
    max_conf_num = 1
"""
        )
        return [shutil.which("containerd") or "/usr/bin/containerd", "--config", str(config)]

    def load_images(self) -> None:
        for archive in (self.stage.image_archive, self.stage.pause_archive):
            ctr_import(self.socket, archive, self.log)
        until(self._knows_image, "containerd's CRI plugin does not see the imported image")

    def _knows_image(self) -> bool:
        spec = cri.ImageSpec(image=IMAGE)
        return bool(self.images.ImageStatus(cri.ImageStatusRequest(image=spec)).HasField("image"))


def ctr_import(socket: Path, archive: Path, log: IO[bytes]) -> None:
    """Into the namespace that CRI servers use."""
    command = ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", str(archive)]
    subprocess.run(command, check=True, stdout=log, stderr=log)


def pss(pid: int) -> int:
    """Proportional set size of `pid` in bytes; 0 when it is gone."""
    return _memory_field(f"/proc/{pid}/smaps_rollup", "Pss:")


def rss(pid: int) -> int:
    """Resident set size of `pid` in bytes; 0 when it is gone."""
    return _memory_field(f"/proc/{pid}/status", "VmRSS:")


def peak(pid: int) -> int:
    """The largest resident set size of `pid` in bytes since `reset_peak`; 0 when it is gone."""
    return _memory_field(f"/proc/{pid}/status", "VmHWM:")


def reset_peak(pid: int) -> None:
    """proc_pid_clear_refs(5): 5 resets the peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """CPU time that `pid` itself has used (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents, _ = _processes()
    return [child for child in parents if child != pid and _descends(child, {pid}, parents)]


def _memory_field(file: str, field: str) -> int:
    try:
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _processes() -> tuple[dict[int, int], dict[int, str]]:
    parents: dict[int, int] = {}
    arguments: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                arguments[int(entry.name)] = (entry / "cmdline").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return parents, arguments


def _descends(pid: int, ancestors: set[int], parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid in ancestors:
            return True
        pid = parents.get(pid, 0)
    return False


def until(holds: Callable[[], bool], message: str) -> None:
    """Look until it `holds`; RuntimeError with `message` after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(message)
        time.sleep(0.05)
