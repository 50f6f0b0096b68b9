"""Sandboxes of the containerd engine: what a pod has on its node, its network, and what holds it
together: a pause container, or the handler's shim."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from podwright.config import Config
from podwright.engines import forward
from podwright.engines.base import Json, Sandbox, SandboxFacts
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.podsandbox import Material, Materials, PauseImages, PodSandboxes
from podwright.engines.containerd.shim_controller import ShimController
from podwright.engines.containerd.shims import PODSANDBOX, SHIM, Shim
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node.places import Places
from podwright.engines.node.pods import Pods
from podwright.engines.node.requests import Requests, cgroups_path, check_sandbox, options
from podwright.engines.streams import Connection
from podwright.errors import Unavailable
from podwright.hooks.running import Hooks
from podwright.linux import proc
from podwright.network.cni import Result
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.wire import cri_pb2 as cri

_NODE = cri.NamespaceMode.NODE
_NETWORK_OF_ITS_OWN = (
    "its handler's containers run on a kernel of their own, whose localhost cannot be dialled from outside"
)


class Sandboxes:
    def __init__(
        self,
        config: Config,
        containerd: Containerd,
        places: Places,
        shims: Shims,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        images: PauseImages,
        pods: Pods,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._places = places
        self._shims = shims
        self._pods = pods
        self._facts = facts
        materials = Materials(config, places, objects, snapshots, images, facts, requests, hooks)
        self._pauses = PodSandboxes(places, objects, snapshots, tasks, materials)
        self._held = ShimController(containerd, places, materials, tasks.tell)

    async def close(self) -> None:
        """Let go; sandboxes stay."""
        await self._held.close()

    async def create(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        shim = self._shims.get(sandbox.handler)
        await check_sandbox(self._places, self._shims, sandbox)
        sandbox_sysctls(sandbox.config, self._facts.policy)
        cgroups_path(self._config, sandbox, sandbox.id)  # refuses a bad parent before anything is made
        undo.push_async_callback(self.remove, sandbox)
        await self._pods.make(sandbox)
        attached = asyncio.ensure_future(self._pods.attach(sandbox))
        try:
            if shim.sandboxer == SHIM:
                facts = await self._hold(sandbox, shim, attached)
            else:
                facts = await self._pause(sandbox, shim, attached)
            result = await attached
        finally:
            if not attached.done():
                attached.cancel()
                await asyncio.wait([attached])
        return replace(facts, ips=result.ips if result else ())

    async def stop(self, sandbox: Sandbox) -> None:
        """Let go of its network and of what holds it; also of one that is half made, and when nobody noted
        what holds it."""
        detached = asyncio.ensure_future(self._pods.detach(sandbox))
        try:
            if _sandboxer(sandbox) != PODSANDBOX:
                await self._held.end(sandbox.id)
            # What it does for those that have no pause container is to clear away what is left of them.
            await self._pauses.end(sandbox.id)
        finally:
            await asyncio.wait([detached])
        # The namespace goes only after its network: plugins work inside it.
        detached.result()
        self._pods.unmount(sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        await self.stop(sandbox)
        shim = self._shims.of_existing(sandbox.handler)
        snapshotter = shim.snapshotter if shim else self._config.containerd.snapshotter
        if _sandboxer(sandbox) != PODSANDBOX:
            await self._held.remove(sandbox.id, snapshotter)
        if _sandboxer(sandbox) != SHIM:
            await self._pauses.remove(sandbox.id, snapshotter)
        self._pods.remove_files(sandbox)
        # Of a shim that died containerd tells a little later, as of a task that has ended.
        self._places.exit_file(sandbox.id).unlink(missing_ok=True)

    async def alive(self, sandbox: Sandbox) -> bool:
        """Its namespaces, its shared memory and what holds it are there. Unavailable when only containerd can
        tell and does not answer."""
        if not self._pods.stands(sandbox):
            return False
        if of_shim(sandbox):
            return await self._held.alive(sandbox.id)
        return proc.alive(sandbox.facts.pid, int(sandbox.facts.own.get("started", 0)))

    async def info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        info = self._pods.info(sandbox, alive=await self.alive(sandbox))
        info["sandboxer"] = _sandboxer(sandbox)
        try:
            more = await (self._held if of_shim(sandbox) else self._pauses).info(sandbox.id)
        except Unavailable as error:
            more = {"containerd": {"error": str(error)}}
        return {**info, **more}

    async def forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        """As `Engine.port_forward`."""
        namespace = None if options(sandbox).network == _NODE else Path(self._pods.netns(sandbox))
        shim = self._shims.of_existing(sandbox.handler)
        metadata = sandbox.config.metadata
        hint = _NETWORK_OF_ITS_OWN if shim is not None and shim.sandboxed else ""
        await forward.forward(f"{metadata.namespace}/{metadata.name}", namespace, port, connection, hint=hint)

    async def _hold(
        self, sandbox: Sandbox, shim: Shim, attached: asyncio.Future[Result | None]
    ) -> SandboxFacts:
        material = await self._held.prepare(sandbox, shim)
        await attached  # shims look for the interfaces when they start
        netns = "" if options(sandbox).network == _NODE else self._pods.netns(sandbox)
        return await self._held.start(sandbox, shim, material, netns)

    async def _pause(
        self, sandbox: Sandbox, shim: Shim, attached: asyncio.Future[Result | None]
    ) -> SandboxFacts:
        material = await self._pauses.prepare(sandbox, shim)
        if not _indifferent(shim, material):
            await attached
        pid, started = await self._pauses.create(sandbox, material)
        await attached
        await self._pauses.start(sandbox)
        return SandboxFacts(pid=pid, own={"sandboxer": PODSANDBOX, "started": started})


def _indifferent(shim: Shim, material: Material) -> bool:
    """Whether the pause container may be made, though not started, while the pod has no network yet: nothing
    looks for its interfaces then. The shim of a virtual machine would, and hooks may."""
    return shim.calls_runc and not material.spec.get("hooks")


def of_shim(sandbox: Sandbox) -> bool:
    """Whether its shim holds it, so that containerd may be told that containers belong to it. Told so of one
    with a pause container, containerd would leave the shim behind when they are gone."""
    return _sandboxer(sandbox) == SHIM


def _sandboxer(sandbox: Sandbox) -> str:
    """ "" when nobody noted it: its making was interrupted."""
    return str(sandbox.facts.own.get("sandboxer", ""))
