"""A CRI client for the tests: nothing but the generated stubs, with names made unique and pods cleaned up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from podwright.wire import cri_pb2 as cri
from podwright.wire import cri_pb2_grpc as rpc
from tests.behaviour.events import Events
from tests.behaviour.server import Server
from tests.behaviour.stage import Registry, until

_numbers = itertools.count(1)
SLEEP = ("/bin/sleep", "2147483")


class Output(NamedTuple):
    code: int
    out: str
    err: str


@dataclass
class Client:
    server: Server
    pods: list[Pod] = field(default_factory=list)

    @property
    def registry(self) -> Registry:
        return self.server.registry

    @property
    def runtime(self) -> Any:
        return self.server.runtime

    @property
    def images(self) -> Any:
        return self.server.images

    def image(self, name: str = "busybox") -> cri.ImageSpec:
        """`name` of the suite's registry, pulled."""
        reference = self.registry.reference(name)
        spec = cri.ImageSpec(image=reference, user_specified_image=reference)
        if not self.images.ImageStatus(cri.ImageStatusRequest(image=spec)).HasField("image"):
            self.images.PullImage(cri.PullImageRequest(image=spec))
        return spec

    def pod_config(
        self,
        name: str = "",
        *,
        namespace: str = "suite",
        attempt: int = 0,
        network: int = cri.POD,
        pid: int = cri.CONTAINER,
        ipc: int = cri.POD,
        privileged: bool = False,
        sysctls: Mapping[str, str] | None = None,
        cgroup_parent: str | None = None,
        **fields: Any,
    ) -> cri.PodSandboxConfig:
        """A sandbox configuration; `fields` go into PodSandboxConfig as they are."""
        name = name or f"pod-{next(_numbers)}"
        directory = self.server.log_directory(f"{namespace}_{name}_{attempt}")
        options = cri.NamespaceOption(network=network, pid=pid, ipc=ipc)  # type: ignore[arg-type]
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(
                name=name, uid=f"uid-{name}", namespace=namespace, attempt=attempt
            ),
            log_directory=str(directory),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=self.server.parent if cgroup_parent is None else cgroup_parent,
                sysctls=sysctls,
                security_context=cri.LinuxSandboxSecurityContext(
                    namespace_options=options, privileged=privileged
                ),
            ),
        )
        config.MergeFrom(cri.PodSandboxConfig(**fields))
        return config

    def pod(self, config: cri.PodSandboxConfig | None = None, *, handler: str = "", **options: Any) -> Pod:
        """Run a sandbox; it is removed when the test ends."""
        config = config or self.pod_config(**options)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        pod = Pod(self, self.runtime.RunPodSandbox(request).pod_sandbox_id, config)
        self.pods.append(pod)
        return pod

    def once(self, *command: str, image: str = "busybox", **options: Any) -> Container:
        """A container in a pod of its own, run to its end."""
        return self.pod().run(*command, image=image, **options).ended()

    @contextmanager
    def events(self) -> Iterator[Events]:
        """What happens from now on, over a connection of its own."""
        with self.server.connect() as channel:
            stream = rpc.RuntimeServiceStub(channel).GetContainerEvents(cri.GetEventsRequest())  # type: ignore[no-untyped-call]
            try:
                stream.initial_metadata()  # comes when the server has begun to tell us
                yield Events(stream)
            finally:
                stream.cancel()

    def close(self) -> None:
        """Remove every pod there is, also those a failed test knows nothing of."""
        for sandbox in self.runtime.ListPodSandbox(cri.ListPodSandboxRequest()).items:
            self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
            self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox.id))
        self.pods.clear()


@dataclass
class Pod:
    client: Client
    id: str
    config: cri.PodSandboxConfig

    @property
    def ip(self) -> str:
        return str(self.status().network.ip)

    def container_config(
        self,
        *command: str,
        name: str = "",
        attempt: int = 0,
        image: str = "busybox",
        pid: int | None = None,
        target: str = "",
        privileged: bool = False,
        resources: Mapping[str, Any] | None = None,
        security: Mapping[str, Any] | None = None,
        env: Mapping[str, str | bytes] | None = None,
        **fields: Any,
    ) -> cri.ContainerConfig:
        """A container configuration; `security` goes into its security context, `fields` into the whole."""
        options = self.config.linux.security_context.namespace_options
        name = name or f"c{next(_numbers)}"
        context: dict[str, Any] = {
            "seccomp": cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)
        }
        context.update(security or {})
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name, attempt=attempt),
            image=self.client.image(image),
            command=list(command),
            log_path=f"{name}_{attempt}.log",
            envs=[cri.KeyValue(key=key, value=_bytes(value)) for key, value in (env or {}).items()],
            linux=cri.LinuxContainerConfig(
                resources=cri.LinuxContainerResources(**(resources or {})),
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(
                        network=options.network,
                        ipc=options.ipc,
                        pid=options.pid if pid is None else pid,  # type: ignore[arg-type]
                        target_id=target,
                    ),
                    privileged=privileged,
                    **context,
                ),
            ),
            **fields,
        )

    def create(self, *command: str, config: cri.ContainerConfig | None = None, **options: Any) -> Container:
        config = config or self.container_config(*command, **options)
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        return Container(self, self.client.runtime.CreateContainer(request).container_id, config)

    def run(self, *command: str, **options: Any) -> Container:
        """A started container; without a command it sleeps."""
        container = self.create(*(command or SLEEP), **options)
        container.start()
        return container

    def shell(self, script: str, **options: Any) -> Container:
        return self.run("/bin/sh", "-c", script, **options)

    def status(self) -> cri.PodSandboxStatus:
        return self.full_status().status

    def full_status(self, *, verbose: bool = False) -> cri.PodSandboxStatusResponse:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.id, verbose=verbose)
        answer: cri.PodSandboxStatusResponse = self.client.runtime.PodSandboxStatus(request)
        return answer

    def stop(self) -> None:
        self.client.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self.id))

    def remove(self) -> None:
        self.client.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self.id))


@dataclass
class Container:
    pod: Pod
    id: str
    config: cri.ContainerConfig

    @property
    def runtime(self) -> Any:
        return self.pod.client.runtime

    def start(self) -> None:
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=self.id))

    def stop(self, timeout: int = 0) -> None:
        self.runtime.StopContainer(cri.StopContainerRequest(container_id=self.id, timeout=timeout))

    def remove(self) -> None:
        self.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=self.id))

    def status(self) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=self.id)
        answer: cri.ContainerStatus = self.runtime.ContainerStatus(request).status
        return answer

    def info(self) -> dict[str, Any]:
        """The verbose status, its JSON texts decoded and joined."""
        request = cri.ContainerStatusRequest(container_id=self.id, verbose=True)
        return decoded(self.runtime.ContainerStatus(request).info)

    @property
    def pid(self) -> int:
        """The host's number of its first process, which has become the container's own program by now."""
        assert self.pod.client.server.kernel, "without a kernel, a number may be anybody's process"
        pid = int(self.info()["pid"])
        if self.status().state == cri.CONTAINER_RUNNING:
            # The runtime's start returns a moment before its process turns into the program.
            until(lambda: not _is_runtime(pid), f"process {pid} to become the container's program")
        return pid

    def ended(self, seconds: float = 20.0) -> Container:
        """Wait for its exit."""
        until(lambda: self.status().state == cri.CONTAINER_EXITED, f"{self.config.command} to end", seconds)
        return self

    def exec(self, *command: str, timeout: int = 0) -> Output:
        request = cri.ExecSyncRequest(container_id=self.id, cmd=command, timeout=timeout)
        answer = self.runtime.ExecSync(request)
        return Output(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def sh(self, script: str) -> str:
        """What `script` prints inside; it must succeed."""
        done = self.exec("/bin/sh", "-c", script)
        assert done.code == 0, f"{script!r} ended with {done.code}: {done.err}"
        return done.out.strip()

    @property
    def log_file(self) -> Path:
        return Path(self.pod.config.log_directory) / self.config.log_path

    def log_lines(self) -> list[tuple[str, str, str, str]]:
        """(time, stream, tag, text) of every line of its log."""
        if not self.log_file.exists():
            return []
        rows = self.log_file.read_text(errors="surrogateescape").split("\n")
        fields = [row.split(" ", 3) for row in rows if row]
        return [(time, stream, tag, text) for time, stream, tag, text in fields]

    def output(self, stream: str = "stdout") -> str:
        """Its log put together again."""
        return "".join(
            text + ("\n" if tag == "F" else "") for _, where, tag, text in self.log_lines() if where == stream
        )

    def await_output(self, text: str) -> None:
        until(lambda: text in self.output(), lambda: f"{text!r} in the log; there is {self.output()!r}")


@contextmanager
def rejected(code: grpc.StatusCode, words: str = "") -> Iterator[None]:
    """The block's call must fail with `code`, and `words` in its message."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    error: Any = caught.value
    assert error.code() == code, f"{error.code()}: {error.details()}"
    assert words.lower() in error.details().lower(), error.details()


def decoded(info: Mapping[str, str]) -> dict[str, Any]:
    """The parts of a verbose status: JSON texts and plain words, those under "info" joined."""
    joined: dict[str, Any] = {}
    for key, text in info.items():
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        joined.update(value if key == "info" else {key: value})
    return joined


def mount(host: Path | str, inside: str, **fields: Any) -> cri.Mount:
    return cri.Mount(host_path=str(host), container_path=inside, **fields)


def status_value(pid: int, key: str) -> str:
    """One field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.partition(":")[2].strip()
    raise KeyError(key)


def namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def alive(pid: int) -> bool:
    try:
        return status_value(pid, "State")[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def words(command: Sequence[str]) -> str:
    return " ".join(command)


def _is_runtime(pid: int) -> bool:
    """Whether execve has not ended yet: its arguments appear last, after the new credentials."""
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return False
    return not program or b"crun" in program or b"runc" in program


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Start `server`, and stop it: nothing may be left of its pods, then nothing of it."""
    try:
        server.start()
        yield
        Client(server).close()
        until(lambda: not any(server.leftovers().values()), lambda: f"nothing left: {server.leftovers()}", 10)
        server.stop()
        until(lambda: not server.processes(), lambda: f"no process left: {server.processes()}", 10)
    finally:
        if server.process is not None:
            server.kill9()
        server.clean_leftovers()
