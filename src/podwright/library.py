"""The library's door: `async with podwright.open() as runtime:`, friendly objects over the CRI.

What these objects do not offer is one step away: `runtime.cri` takes every CRI call with its own messages.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import msgspec

from podwright.api import Cri, Node
from podwright.clock import SYSTEM, Clock
from podwright.config import Config, load
from podwright.errors import NotFound, PodwrightError
from podwright.images.references import with_absolute_path
from podwright.kube import exits
from podwright.kube.directory import PodDirectory
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.engines.streams import Connection, Streams
    from podwright.kube.manifest import Manifest
    from podwright.kube.objects import Objects
    from podwright.kube.outcome import PodOutcome
    from podwright.kube.runner import Reporter
    from podwright.logs.lines import Line
    from podwright.pods import Pod
    from podwright.processes import PodConnection, Process
    from podwright.streaming.client import Options
    from podwright.wire.podwright_pb2 import PullProgress

__all__ = ["Container", "ExecResult", "Runtime", "Sandbox", "open"]


@asynccontextmanager
async def open(
    root: str | Path | None = None,
    run: str | Path | None = None,
    *,
    endpoint: str | None = None,
    config: Config | Path | None = None,
) -> AsyncIterator[Runtime]:
    """A runtime to run pods with: in this process, or (`endpoint`, "unix:///…") at any CRI server's socket.

    `root` and `run` are the directories of persistent and volatile state (default: the configuration's);
    `config` is a configuration or a file with one. Where the host has no CNI configuration, pods get the
    built-in bridge, which goes with the last of them. Leaving the block lets go: containers that were not
    removed keep running, and the next `open` with the same `root` finds them.

    Raises FailedPrecondition when another process holds `root` or the host cannot run pods, Unavailable when
    nobody answers at `endpoint`.
    """
    settings = config if isinstance(config, Config) else load(config)
    changes = {key: str(value) for key, value in (("root", root), ("run", run)) if value is not None}
    cni = msgspec.structs.replace(settings.cni, default_bridge=True)
    settings = msgspec.structs.replace(settings, cni=cni, **changes)
    if endpoint is not None:
        from podwright.client import connect

        async with connect(endpoint) as remote:
            yield Runtime(remote, settings)
    else:
        from podwright.house import open_house

        async with open_house(settings) as house:
            try:
                yield Runtime(house, settings)
            finally:
                await _tidy(house)


class Runtime:
    """Images, sandboxes and whole pods. Errors of all methods are those of `podwright.errors`."""

    def __init__(self, cri: Cri, config: Config, *, clock: Clock = SYSTEM) -> None:
        """`clock`: the time that pods live by."""
        self.cri = cri
        """Every CRI call, with the CRI's own messages."""
        self.config = config
        self._clock = clock

    async def version(self) -> cri.VersionResponse:
        """Name and versions of the runtime."""
        return await self.cri.version(cri.VersionRequest())

    # Images

    async def pull(self, reference: str, *, username: str = "", password: str = "") -> cri.Image:
        """Fetch an image: from a registry, or the embedded engine from oci:DIR[:TAG], oci-archive:FILE,
        docker-archive:FILE. Returns it when it is ready to run.

        Raises NotFound, RegistryUnavailable, InvalidArgument for what is no reference.
        """
        pulled = await self.cri.pull_image(_pull_request(reference, username, password))
        for name in (pulled.image_ref, reference):
            if image := await self.image(name):
                return image
        raise NotFound(f"image {reference!r} was pulled and is gone again")

    def pulling(
        self, reference: str, *, username: str = "", password: str = ""
    ) -> AsyncGenerator[PullProgress, None]:
        """`pull`, step by step: how far it is, at most ten times a second, layer by layer.

        The last state is PULL_DONE, with the image's id as `image_ref`. Closing the iterator (`aclose()`)
        before its end cancels the pull. Another CRI's server tells no progress: there the last state is the
        only one. Raises what `pull` raises.
        """
        from podwright.pulls import pulling

        return pulling(self.cri, _pull_request(reference, username, password))

    def pulls(self) -> AsyncIterator[PullProgress]:
        """How far all pulls are, whoever asked for them: those under way at first, then each change, for
        ever. Raises Unimplemented at another CRI's server."""
        from podwright.pulls import watch

        return watch(self.cri)

    async def import_root(
        self, directory: str | Path, reference: str, config: Mapping[str, Any] | None = None
    ) -> cri.Image:
        """Make an image named `reference` of a directory that holds a root file system.

        `config` is the OCI image configuration's "config": Env, Entrypoint, Cmd, User, WorkingDir, ….
        Unimplemented at another CRI's server.
        """
        (image,) = await self.import_image(directory, reference, config)
        return image

    async def import_image(
        self, source: str | Path, reference: str = "", config: Mapping[str, Any] | None = None
    ) -> list[cri.Image]:
        """Make images of what is at `source` on the server's host: a root directory, a tar of one, an OCI
        layout or archive, a Docker archive; also written with the kind in front, as in "oci:/path:tag".

        `reference` names it, "" leaves images the names that they have there; `config` is for a root. Raises
        InvalidArgument, NotFound, Unimplemented at another CRI's server.
        """
        request = own.ImportImageRequest(
            source=with_absolute_path(str(source), str(Path.cwd())),
            reference=reference,
            config=msgspec.json.encode(dict(config)) if config else b"",
        )
        answer = await cast(Node, self.cri).import_image(request)
        found = [await self.image(id) for id in answer.image_refs]
        return [image for image in found if image is not None]

    async def export_image(self, reference: str, target: str) -> int:
        """Write an image to "oci:DIR[:NAME]", "oci-archive:FILE" or "docker-archive:FILE" on the server's
        host; how many bytes were written. An OCI export has every byte as the registry served it.

        Raises NotFound, InvalidArgument, FailedPrecondition when blobs are not kept, Unimplemented at another
        CRI's server.
        """
        request = own.ExportImageRequest(image=reference, target=with_absolute_path(target, str(Path.cwd())))
        return (await cast(Node, self.cri).export_image(request)).bytes

    async def images(self) -> list[cri.Image]:
        """All images that are there."""
        return list((await self.cri.list_images(cri.ListImagesRequest())).images)

    async def image(self, reference: str) -> cri.Image | None:
        """The image that a name, digest or id stands for; None when it is not there."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference))
        answer = await self.cri.image_status(request)
        return answer.image if answer.HasField("image") else None

    async def remove_image(self, reference: str) -> None:
        """Remove an image with all of its names; fine when it is not there."""
        await self.cri.remove_image(cri.RemoveImageRequest(image=cri.ImageSpec(image=reference)))

    # Sandboxes

    async def run_sandbox(
        self,
        name: str,
        *,
        namespace: str = "default",
        hostname: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        ports: Sequence[cri.PortMapping] = (),
        dns: cri.DNSConfig | None = None,
        host_network: bool = False,
        share_pid: bool = False,
        privileged: bool = False,
        handler: str = "",
        config: cri.PodSandboxConfig | None = None,
    ) -> Sandbox:
        """Make a sandbox: the namespaces, network and files that the containers of one pod share.

        `handler` names an OCI runtime of the configuration ("" is the default one); `privileged` allows
        privileged containers in it. `config`, when given,
        is taken as it is, and only its empty metadata.uid, hostname and log_directory are filled in.
        As a context manager the sandbox is removed, with its containers, when its block is left.
        """
        if config is None:
            config = cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(name=name, namespace=namespace),
                hostname=hostname,
                labels=labels,
                annotations=annotations,
                port_mappings=ports,
                dns_config=dns,
                linux=cri.LinuxPodSandboxConfig(
                    security_context=cri.LinuxSandboxSecurityContext(
                        namespace_options=_namespaces(host_network, share_pid),
                        privileged=privileged,
                        seccomp=cri.SecurityProfile(profile_type="RuntimeDefault"),
                    )
                ),
            )
        else:
            copy = cri.PodSandboxConfig()
            copy.CopyFrom(config)
            config = copy
        metadata = config.metadata
        metadata.uid = metadata.uid or str(uuid.uuid4())
        network = config.linux.security_context.namespace_options.network
        if not config.hostname and network != cri.NODE:
            config.hostname = metadata.name[:63].rstrip("-.")
        directory = PodDirectory.below(
            Path(self.config.root), metadata.namespace, metadata.name, metadata.uid
        )
        own_logs = not config.log_directory
        if own_logs:
            directory.logs_root.mkdir(parents=True, exist_ok=True)
            config.log_directory = str(directory.logs_root)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=handler)
        try:
            answer = await self.cri.run_pod_sandbox(request)
        except BaseException:
            if own_logs:
                await _remove_files(directory)
            raise
        return Sandbox(self.cri, answer.pod_sandbox_id, config, directory if own_logs else None)

    async def sandboxes(self) -> list[cri.PodSandbox]:
        """All sandboxes, also those that are stopped."""
        return list((await self.cri.list_pod_sandbox(cri.ListPodSandboxRequest())).items)

    async def containers(self) -> list[cri.Container]:
        """All containers of all sandboxes, also those that have ended."""
        return list((await self.cri.list_containers(cri.ListContainersRequest())).containers)

    # Pods

    async def pod(
        self,
        manifest: str | Path | Mapping[str, Any] | Manifest,
        *,
        objects: Objects | Path | str | Sequence[Mapping[str, Any]] | None = None,
        bindings: Mapping[str, str | Path] | None = None,
    ) -> Pod:
        """A pod of a manifest, not started yet: `async with await runtime.pod("pod.yaml") as pod:`.

        `manifest` is a file's path, text, a document or a parsed manifest; one that stands for a single Pod
        (a Deployment of one replica) will do. `objects` are ConfigMaps, Secrets and others that it refers to
        and that do not stand in the same file: documents, a file, or text. `bindings` are directories or
        files of the host for volumes that a cluster would provide. Raises InvalidArgument for a manifest that
        cannot be run.
        """
        from podwright.kube.manifest_sources import one_manifest
        from podwright.kube.node import observe
        from podwright.pods import Pod

        parsed = await asyncio.to_thread(one_manifest, manifest, objects, bindings)
        return Pod(self.cri, parsed, await observe(self.cri, self.config), clock=self._clock)

    async def run_pod(
        self,
        manifest: str | Path | Mapping[str, Any] | Manifest,
        *,
        reporter: Reporter | None = None,
        keep: bool = False,
    ) -> PodOutcome:
        """Run one Kubernetes Pod to its end and say how it went; everything is removed unless `keep`.

        `manifest` is what `pod` takes. `reporter` hears of events and output. Cancelling the call ends the
        pod at once; who wants to watch it or to end it gracefully uses `pod`. Raises InvalidArgument for a
        manifest that cannot be run.
        """
        from podwright.kube.manifest_sources import one_manifest
        from podwright.kube.node import observe
        from podwright.kube.runner import PodRun

        parsed = await asyncio.to_thread(one_manifest, manifest)
        node = await observe(self.cri, self.config)
        run = PodRun(self.cri, parsed, node, reporter=reporter, clock=self._clock)
        return await run.run(keep=keep)

    async def restore_pod(self, archive: str | Path, *, name: str = "") -> Sandbox:
        """Run the pod of an archive of `Sandbox.checkpoint` as a new one, each container where it was.

        The images that they were made of must be there. Trust the archive as you would trust a manifest, and
        more: restored processes have the credentials that it says. Raises NotFound, InvalidArgument when it
        is no such archive, FailedPrecondition where CRIU cannot restore it; nothing is left then.
        """
        from podwright import pod_checkpoints

        return await pod_checkpoints.restore(self, Path(archive), name)


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


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container gave back; a code other than 0 is a result, not an error."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class Container:
    """One container."""

    def __init__(self, cri: Cri, id: str, name: str, log: Path) -> None:
        self.id = id
        self.name = name
        self.log = log
        """Its log file, in the CRI's format."""
        self._cri = cri

    async def start(self) -> None:
        """Start its program. Raises PodwrightError with the runtime's words when that is impossible; the
        container has ended then."""
        await self._cri.start_container(cri.StartContainerRequest(container_id=self.id))

    async def status(self) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=self.id)
        return (await self._cri.container_status(request)).status

    async def exec(self, argv: Sequence[str], *, timeout: int = 0) -> ExecResult:
        """Run a command inside, with the container's environment, user and directory.

        At most 16 MiB of each stream come back. Raises DeadlineExceeded after `timeout` seconds (0: none);
        the command is killed then.
        """
        request = cri.ExecSyncRequest(container_id=self.id, cmd=argv, timeout=timeout)
        done = await self._cri.exec_sync(request)
        return ExecResult(done.stdout, done.stderr, done.exit_code)

    def process(
        self,
        argv: Sequence[str],
        *,
        tty: bool = False,
        size: tuple[int, int] = (80, 24),
        options: Options | None = None,
    ) -> Process:
        """Run a command inside and talk with it: `async with container.process(["sh"]) as shell:`.

        With `tty` it has a terminal of `size` (width, height). `options` say how a server's streams are
        reached. Output that is not read holds the command up. What goes wrong is raised where its output is
        read, and by `wait`.
        """
        from podwright.processes import Process
        from podwright.streaming import client

        async def talk(streams: Streams) -> int:
            return await client.exec(self._cri, self.id, argv, streams, options or client.Options())

        return Process(talk, tty=tty, size=size)

    async def attach(self, *, size: tuple[int, int] = (80, 24), options: Options | None = None) -> Process:
        """Talk with its own first process, from now on: `async with await container.attach() as process:`.

        `wait` gives its exit code when it has ended; leaving the block before lets it go on. Input reaches a
        container that was created with `stdin` open. Raises FailedPrecondition when it does not run.
        """
        from podwright.processes import Process
        from podwright.streaming import client

        stdin, tty = await client.made_with(self._cri, self.id)

        async def talk(streams: Streams) -> None:
            asked = streams if stdin else replace(streams, stdin=None)
            await client.attach(self._cri, self.id, asked, options or client.Options())

        async def exit_code() -> int:
            return (await self.wait()).exit_code

        return Process(talk, tty=tty, size=size, exit_code=exit_code)

    async def checkpoint(self, archive: str | Path, *, timeout: int = 0) -> None:
        """Write it to an archive on the server's host; it runs on. A container whose image is the archive's
        absolute path is restored from it: `sandbox.create(name, "/path/archive.tar")`, then `start`.

        Raises FailedPrecondition where CRIU cannot work, DeadlineExceeded after `timeout` seconds (0: none).
        """
        location = str(Path(archive).absolute())
        request = cri.CheckpointContainerRequest(container_id=self.id, location=location, timeout=timeout)
        await self._cri.checkpoint_container(request)

    async def wait(self) -> cri.ContainerStatus:
        """Wait until it has ended: exit_code, reason and times are in its status."""
        return await exits.wait(self._cri, self.id)

    async def stop(self, grace: int = 10) -> None:
        """Send the stop signal, after `grace` seconds SIGKILL; returns when it has ended. Idempotent."""
        request = cri.StopContainerRequest(container_id=self.id, timeout=grace)
        await self._cri.stop_container(request)

    async def remove(self) -> None:
        """Remove it, running or not. Idempotent."""
        await self._cri.remove_container(cri.RemoveContainerRequest(container_id=self.id))

    async def logs(
        self, *, follow: bool = False, since: str | int | None = None, tail: int | None = None
    ) -> AsyncIterator[Line]:
        """What it wrote, line by line, of rotated files too; with `follow` until it has ended, the last line
        included. Each line has its `stream` and `time`.

        `since`: from then on only: "10m" ago, an RFC 3339 time, or nanoseconds since the epoch. `tail`: of
        what is there at the beginning the last so many lines. InvalidArgument for others, NotFound without a
        log.
        """
        from podwright.logs import reader
        from podwright.logs.lines import moment

        begin = moment(since) if isinstance(since, str) else since

        ended = asyncio.Event()
        waiting = asyncio.ensure_future(self._set_when_ended(ended)) if follow else None
        try:
            async for line in reader.follow(self.log, follow=follow, stop=ended, since=begin, tail=tail):
                yield line
        finally:
            if waiting is not None:
                waiting.cancel()

    async def _set_when_ended(self, ended: asyncio.Event) -> None:
        try:
            with suppress(NotFound):
                await self.wait()
        finally:
            ended.set()


def _pull_request(reference: str, username: str, password: str) -> cri.PullImageRequest:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=reference, user_specified_image=reference))
    if username:
        request.auth.username, request.auth.password = username, password
    return request


def _namespaces(host_network: bool, share_pid: bool) -> cri.NamespaceOption:
    return cri.NamespaceOption(
        network=cri.NODE if host_network else cri.POD, pid=cri.POD if share_pid else cri.CONTAINER
    )


def _container_config(
    sandbox: cri.PodSandboxConfig, privileged: bool, user: int | None
) -> cri.ContainerConfig:
    """An ordinary container's: confined as RuntimeDefault confines, with the usual paths hidden."""
    from podwright.kube.security import MASKED_PATHS, READONLY_PATHS

    security = cri.LinuxContainerSecurityContext(
        namespace_options=sandbox.linux.security_context.namespace_options,
        privileged=privileged,
        seccomp=cri.SecurityProfile(profile_type="Unconfined" if privileged else "RuntimeDefault"),
        masked_paths=() if privileged else MASKED_PATHS,
        readonly_paths=() if privileged else READONLY_PATHS,
        run_as_user=None if user is None else cri.Int64Value(value=user),
    )
    return cri.ContainerConfig(linux=cri.LinuxContainerConfig(security_context=security))


async def _tidy(house: Cri) -> None:
    """Take the built-in bridge away when no pod is left on it: nothing stays behind on the host."""
    network = getattr(getattr(house, "engine", None), "network", None)
    if network is not None and hasattr(network, "remove_bridge_if_unused"):
        with suppress(PodwrightError):
            await network.remove_bridge_if_unused()


async def _remove_files(directory: PodDirectory) -> None:
    from podwright.kube import volumes

    await asyncio.to_thread(volumes.remove, directory)
