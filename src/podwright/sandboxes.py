"""A sandbox for programs: containers are created in it, ports reached, all of it saved and removed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from podwright.containers import Container
from podwright.errors import PodwrightError
from podwright.kube.files.directory import PodDirectory
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.engines.streams import Connection
    from podwright.processes import PodConnection
    from podwright.streaming.client import Options

__all__ = ["Sandbox", "run_sandbox"]


async def run_sandbox(runtime: Cri, wanted: cri.PodSandboxConfig, handler: str, *, root: Path) -> Sandbox:
    """Make a sandbox as `wanted` says; its empty metadata.uid, hostname and log_directory are filled in.
    Below `root` are the files of pods."""
    config = cri.PodSandboxConfig()
    config.CopyFrom(wanted)
    metadata = config.metadata
    metadata.uid = metadata.uid or str(uuid.uuid4())
    network = config.linux.security_context.namespace_options.network
    if not config.hostname and network != cri.NODE:
        config.hostname = metadata.name[:63].rstrip("-.")
    directory = PodDirectory.below(root, metadata.namespace, metadata.name, metadata.uid)
    own_logs = not config.log_directory
    if own_logs:
        directory.logs_root.mkdir(parents=True, exist_ok=True)
        config.log_directory = str(directory.logs_root)
    request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
    try:
        answer = await runtime.run_pod_sandbox(request)
    except BaseException:
        if own_logs:
            await _remove_files(directory)
        raise
    return Sandbox(runtime, answer.pod_sandbox_id, config, directory if own_logs else None)


class Sandbox:
    """One sandbox and the containers made in it through this object."""

    def __init__(
        self, cri: Cri, id: str, config: cri.PodSandboxConfig, directory: PodDirectory | None
    ) -> None:
        self.id = id
        self.config = config
        self._cri = cri
        self._directory = directory
        """Its files, when they are this object's to remove."""
        self._attempts: dict[str, int] = {}

    async def __aenter__(self) -> Sandbox:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self.remove())

    async def status(self) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        return (await self._cri.pod_sandbox_status(request)).status

    async def ips(self) -> list[str]:
        """Its addresses, the preferred one first; none on the host's network."""
        network = (await self.status()).network
        return [ip for ip in (network.ip, *(one.ip for one in network.additional_ips)) if ip]

    async def create(
        self,
        name: str,
        image: str,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        mounts: Sequence[cri.Mount] = (),
        user: int | None = None,
        privileged: bool = False,
        tty: bool = False,
        resources: cri.LinuxContainerResources | None = None,
        config: cri.ContainerConfig | None = None,
    ) -> Container:
        """Create a container, not started yet. `image` must be there already.

        `command` replaces the image's entrypoint, `args` its arguments. A name may be used again: the attempt
        counts up. `config`, when given, is taken as it is, with only the metadata, image and an empty
        log_path filled in. Raises NotFound when the image is not there, InvalidArgument.
        """
        attempt = self._attempts.get(name, -1) + 1
        made = cri.ContainerConfig()
        if config is not None:
            made.CopyFrom(config)
        else:
            made.CopyFrom(_container_config(self.config, privileged, user))
            made.command.extend(command)
            made.args.extend(args)
            made.envs.extend(
                cri.KeyValue(key=key, value=value.encode()) for key, value in (env or {}).items()
            )
            made.working_dir, made.tty = working_dir, tty
            made.mounts.extend(mounts)
            if resources is not None:
                made.linux.resources.CopyFrom(resources)
        made.metadata.name, made.metadata.attempt = name, attempt
        made.image.image, made.image.user_specified_image = image, image
        made.log_path = made.log_path or f"{name}/{attempt}.log"
        log = Path(self.config.log_directory, made.log_path)
        log.parent.mkdir(parents=True, exist_ok=True)
        request = cri.CreateContainerRequest(pod_sandbox_id=self.id, config=made, sandbox_config=self.config)
        answer = await self._cri.create_container(request)
        self._attempts[name] = attempt
        return Container(self._cri, answer.container_id, name, log)

    async def run(self, name: str, image: str, command: Sequence[str] = (), **options: Any) -> Container:
        """`create` (which says what the options are) and start."""
        container = await self.create(name, image, command, **options)
        try:
            await container.start()
        except PodwrightError:
            await container.remove()
            raise
        return container

    def port_forward(self, port: int, *, options: Options | None = None) -> PodConnection:
        """One connection to `port` of the pod's own localhost: `async with sandbox.port_forward(80) as ends:`
        gives a Reader and a Writer. What goes wrong is raised where it is read."""
        from podwright.processes import PodConnection
        from podwright.streaming import client

        async def carry(connection: Connection) -> None:
            chosen = options or client.Options()
            async with client.forwarding(self._cri, self.id, [port], chosen) as tunnel:
                await tunnel.connect(port, connection)

        return PodConnection(carry)

    async def checkpoint(self, archive: str | Path, *, timeout: int = 0) -> list[str]:
        """Write its running containers to an archive on the server's host, whose user this process must be;
        their names. They run on; each may take `timeout` seconds (0: as long as it likes).

        Raises FailedPrecondition where CRIU cannot work, or when none runs; nothing is left then.
        """
        from podwright import pod_checkpoints

        return await pod_checkpoints.save(self._cri, self.id, Path(archive).absolute(), timeout)

    async def stop(self) -> None:
        """End its containers and its network; it stays listable. Idempotent."""
        await self._cri.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self.id))

    async def remove(self) -> None:
        """Remove it with its containers and logs, running or not. Idempotent."""
        await self.stop()
        await self._cri.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self.id))
        if self._directory is not None:
            await _remove_files(self._directory)


def _container_config(
    sandbox: cri.PodSandboxConfig, privileged: bool, user: int | None
) -> cri.ContainerConfig:
    """An ordinary container's: confined as RuntimeDefault confines, with the usual paths hidden."""
    from podwright.kube.requests.security import MASKED_PATHS, READONLY_PATHS

    security = cri.LinuxContainerSecurityContext(
        namespace_options=sandbox.linux.security_context.namespace_options,
        privileged=privileged,
        seccomp=cri.SecurityProfile(profile_type="Unconfined" if privileged else "RuntimeDefault"),
        masked_paths=() if privileged else MASKED_PATHS,
        readonly_paths=() if privileged else READONLY_PATHS,
        run_as_user=None if user is None else cri.Int64Value(value=user),
    )
    return cri.ContainerConfig(linux=cri.LinuxContainerConfig(security_context=security))


async def _remove_files(directory: PodDirectory) -> None:
    from podwright.kube import volumes

    await asyncio.to_thread(volumes.remove, directory)
