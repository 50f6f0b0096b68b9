"""Pods that a pause container holds together: a record, a snapshot and a task of containerd's, all named by
the sandbox's id (what containerd's CRI plugin calls its podsandbox controller)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from podwright.config import Config
from podwright.engines.base import Image, Json, Sandbox
from podwright.engines.containerd import platforms
from podwright.engines.containerd.objects import KIND, OF_SANDBOX, ROOT, SANDBOX, Objects
from podwright.engines.containerd.shims import Shim
from podwright.engines.containerd.snapshots import Snapshots, unsynced
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node import labels, rootfs
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests, hook_target
from podwright.engines.node.user_namespaces import IdMaps, id_maps
from podwright.errors import FailedPrecondition
from podwright.hooks.running import Hooks
from podwright.linux import mounts, proc, trees
from podwright.linux.waiting import to_the_end
from podwright.spec.inputs import HostFacts
from podwright.steps import step
from podwright.wire.containerd import containers_pb2, types_pb2


class PauseImages(Protocol):
    """What of the images pods themselves need."""

    async def pause_image(self) -> Image:
        """The image of what holds pods together; it is here when this returns."""

    async def chain(self, image_id: str, snapshotter: str, /) -> str:
        """The snapshot of its layers. NotFound without the image."""


@dataclass(frozen=True, slots=True)
class Material:
    """What holds a pod together, before anything of it runs."""

    image: Image
    spec: dict[str, Json]
    mounts: list[types_pb2.Mount]
    """Its rootfs, for the shim to mount; empty when it is mounted already."""


class Materials:
    """Makes and removes `Material`, for both controllers."""

    def __init__(
        self,
        config: Config,
        places: Places,
        objects: Objects,
        snapshots: Snapshots,
        images: PauseImages,
        facts: HostFacts,
        requests: Requests,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._places = places
        self._objects = objects
        self._snapshots = snapshots
        self._images = images
        self._facts = facts
        self._requests = requests
        self._hooks = hooks
        self._levels = labels.Levels(places, facts, config.spec.selinux_category_range)

    async def make(self, sandbox: Sandbox, shim: Shim, platform: str) -> Material:
        """For a sandbox of `platform`. What a failure leaves `remove` takes away."""
        image = await self._images.pause_image()
        spec = await self.spec(sandbox, shim, platform, image)
        chain = await self._images.chain(image.id, shim.snapshotter)
        found = await self._snapshots.prepare(sandbox.id, chain, shim.snapshotter, self.labels(sandbox.id))
        return Material(image, spec, found)

    async def spec(self, sandbox: Sandbox, shim: Shim, platform: str, image: Image) -> dict[str, Json]:
        builder = platforms.builder(platform)
        level = self._levels.of_pod(sandbox.id, sandbox.config)
        with step("spec"):
            built = builder.build_sandbox(
                self._requests, self._places, sandbox, shim, level, image, self._facts
            )
        spec = built.spec
        ids = id_maps(self._places, sandbox)
        if ids is not None and builder.os == "linux":
            # With less than 65536 ids the pause process needs a user that is named.
            ids.to_host(built.user.uid, built.user.gid)
        if self._hooks.adjusts:
            with step("hooks"):
                spec = await self._hooks.adjust(spec, hook_target(sandbox, shim))
        return spec

    def labels(self, id: str) -> dict[str, str]:
        """Of whatever belongs to sandbox `id`."""
        return {ROOT: self._objects.root, KIND: OF_SANDBOX, SANDBOX: id}

    async def remove(self, id: str, snapshotter: str) -> None:
        """Twice is fine, and so is a snapshotter that is not there any more."""
        with step("remove snapshot"):
            await self._snapshots.remove(id, snapshotter)


class PodSandboxes:
    """The pause containers."""

    def __init__(
        self, places: Places, objects: Objects, snapshots: Snapshots, tasks: Tasks, materials: Materials
    ) -> None:
        self._places = places
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._materials = materials

    async def prepare(self, sandbox: Sandbox, shim: Shim) -> Material:
        """All but the task."""
        with step("pause"):
            made = await self._materials.make(sandbox, shim, "")
            spec = made.spec
            given = made.mounts if shim.sandboxed else unsynced(made.mounts)
            if ids := id_maps(self._places, sandbox):
                # The kernel lets nobody but us mount an overlay whose layers are mapped.
                root = await to_the_end(asyncio.to_thread(self._mount, sandbox.id, made.mounts, ids))
                spec = {**spec, "root": {**spec["root"], "path": str(root)}}
                given = []
            record = self._objects.record(sandbox, spec, shim.runtime_type, shim.options)
            record.image = platforms.name_of(made.image)
            record.snapshotter = shim.snapshotter
            record.snapshot_key = sandbox.id
            await self._objects.put(record)
            return Material(made.image, spec, given)

    async def create(self, sandbox: Sandbox, material: Material) -> tuple[int, int]:
        """Its task, which waits for `start`: its pid, and when that began (`proc.start_time`)."""
        with step("pause"):
            pid = await self._tasks.create(sandbox.id, rootfs=material.mounts)
        return pid, proc.start_time(pid)

    async def start(self, sandbox: Sandbox) -> None:
        """It runs then."""
        with step("pause"):
            await self._tasks.start(sandbox.id)

    async def end(self, id: str) -> None:
        """Kill it, and delete its task; fine when there is none."""
        await self._tasks.end(id)
        mounts.unmount(self._root(id))

    async def remove(self, id: str, snapshotter: str) -> None:
        """After `end`. `snapshotter` is where its snapshot is when no record says so."""
        record = await self._objects.get(id)
        # The record goes last: it tells where the snapshot is.
        await self._materials.remove(id, record.snapshotter if record is not None else snapshotter)
        await self._objects.delete(id)
        for left in (self._places.mapped(id), self._kept(id)):
            await asyncio.to_thread(trees.remove, left)

    async def info(self, id: str) -> Mapping[str, Json]:
        record = await self._objects.get(id)
        return described(record) if record is not None else {}

    def _mount(self, id: str, given: list[types_pb2.Mount], ids: IdMaps) -> Path:
        """The rootfs as the pod's root owns it."""
        lower = self._snapshots.lower_dirs(given)
        if not lower:
            raise FailedPrecondition(
                "config.linux.security_context.namespace_options.userns_options: the layers of this"
                " snapshotter are no directories, and cannot be shown with a pod's own ids; use overlayfs"
            )
        rootfs.open_way(self._places.mapped(id), ids)
        rootfs.overlay(lower, self._kept(id), self._root(id), self._places.sandbox_run(id) / "layers", ids)
        return self._root(id)

    def _root(self, id: str) -> Path:
        return self._places.mapped(id) / "rootfs"

    def _kept(self, id: str) -> Path:
        return self._places.sandbox_root(id) / "pause"


def described(record: containers_pb2.Container) -> dict[str, Json]:
    """A record for a verbose status, with the names that containerd's CRI plugin has for these values."""
    return {
        "image": record.image,
        "snapshotter": record.snapshotter,
        "snapshotKey": record.snapshot_key,
        "runtimeType": record.runtime.name,
        "runtimeSpec": msgspec.json.decode(record.spec.value) if record.spec.value else {},
        "containerd": {
            "labels": dict(record.labels),
            "extensions": sorted(record.extensions),
            "createdAt": record.created_at.ToJsonString(),
            "updatedAt": record.updated_at.ToJsonString(),
        },
    }
