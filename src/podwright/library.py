"""The library's door: `async with podwright.open() as runtime:`, friendly objects over the CRI.

What these objects do not offer is one step away: `runtime.cri` takes every CRI call with its own messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from podwright.api import Cri, Node
from podwright.clock import SYSTEM, Clock
from podwright.config import Config, load
from podwright.containers import Container, ExecResult
from podwright.errors import NotFound, PodwrightError
from podwright.images.references import with_absolute_path
from podwright.sandboxes import Sandbox, run_sandbox
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.kube.life.outcome import PodOutcome
    from podwright.kube.life.runner import Reporter
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.manifests.objects import Objects
    from podwright.pods import Pod
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
        return await run_sandbox(self.cri, config, handler, root=self.config.root_path)

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
        from podwright.kube.life.runner import PodRun
        from podwright.kube.manifest_sources import one_manifest
        from podwright.kube.node import observe

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


def _pull_request(reference: str, username: str, password: str) -> cri.PullImageRequest:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=reference, user_specified_image=reference))
    if username:
        request.auth.username, request.auth.password = username, password
    return request


def _namespaces(host_network: bool, share_pid: bool) -> cri.NamespaceOption:
    return cri.NamespaceOption(
        network=cri.NODE if host_network else cri.POD, pid=cri.POD if share_pid else cri.CONTAINER
    )


async def _tidy(house: Cri) -> None:
    """Take the built-in bridge away when no pod is left on it: nothing stays behind on the host."""
    network = getattr(getattr(house, "engine", None), "network", None)
    if network is not None and hasattr(network, "remove_bridge_if_unused"):
        with suppress(PodwrightError):
            await network.remove_bridge_if_unused()
