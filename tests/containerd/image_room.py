"""A namespace of a containerd for one test of images, and what is in it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from podwright.config import Config, HandlerConfig, ImageConfig
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.images import Images
from podwright.errors import PodwrightError
from podwright.wire.containerd import (
    content_pb2,
    images_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    types_pb2,
)
from tests.containerd.daemon import Daemon

OVERLAY, NATIVE = "overlayfs", "native"


class Room:
    def __init__(self, daemon: Daemon, api: Containerd, directory: Path) -> None:
        self.daemon, self.api, self._directory = daemon, api, directory
        self._opened: list[Images] = []

    async def images(
        self,
        *,
        snapshotter: str = OVERLAY,
        handler_snapshotter: str = "",
        sandbox_image: str = "",
        **settings: Any,
    ) -> Images:
        """The images of this namespace, of a podwright of its own with these settings of [images]."""
        config = Config(
            root=str(self._directory / f"root-{len(self._opened)}"),
            containerd=msgspec.structs.replace(
                self.daemon.config,
                namespace=self.api.namespace,
                snapshotter=snapshotter,
                sandbox_image=sandbox_image,
            ),
            handlers={"crun": HandlerConfig(path="crun", snapshotter=handler_snapshotter)},
            images=ImageConfig(**settings),
        )
        opened = Images(self.api, config)
        self._opened.append(opened)
        await opened.open()
        return opened

    # What is there

    async def content(self) -> dict[str, dict[str, str]]:
        """Labels of blobs, by digest."""
        answers = self.api.listen(self.api.content.List, content_pb2.ListContentRequest(), "content")
        return {info.digest: dict(info.labels) async for answer in answers for info in answer.info}

    async def snapshots(self, snapshotter: str = OVERLAY) -> dict[str, str]:
        """Parents, by name."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=snapshotter)
        answers = self.api.listen(self.api.snapshots.List, request, "snapshots")
        return {info.name: info.parent async for answer in answers for info in answer.info}

    async def records(self) -> dict[str, str]:
        """Targets of the image records, by name."""
        answer = await self.api.ask(self.api.images.List, images_pb2.ListImagesRequest(), "images")
        return {each.name: each.target.digest for each in answer.images}

    async def leases(self) -> list[leases_pb2.Lease]:
        answer = await self.api.ask(self.api.leases.List, leases_pb2.ListRequest(), "leases")
        return list(answer.leases)

    async def ingests(self) -> dict[str, int]:
        """Bytes that unfinished writes have, by reference."""
        request = content_pb2.ListStatusesRequest()
        answer = await self.api.ask(self.api.content.ListStatuses, request, "writes")
        return {each.ref: each.offset for each in answer.statuses}

    # What others do

    async def collect(self) -> None:
        """Let containerd's garbage collector run to its end."""
        name = f"collect-{secrets.token_hex(4)}"
        await self.api.ask(self.api.leases.Create, leases_pb2.CreateRequest(id=name), name)
        await self.api.ask(self.api.leases.Delete, leases_pb2.DeleteRequest(id=name, sync=True), name)

    async def record(self, name: str, digest: str, labels: dict[str, str] | None = None) -> None:
        """Point a record at content that is here, as another client does."""
        info = await self.api.ask(self.api.content.Info, content_pb2.InfoRequest(digest=digest), digest)
        target = types_pb2.Descriptor(
            media_type="application/vnd.oci.image.manifest.v1+json", digest=digest, size=info.info.size
        )
        image = images_pb2.Image(name=name, labels=labels, target=target)
        await self.api.ask(self.api.images.Create, images_pb2.CreateImageRequest(image=image), name)

    async def forget(self, name: str) -> None:
        await self.api.ask(self.api.images.Delete, images_pb2.DeleteImageRequest(name=name), name)

    async def prepare(self, key: str, parent: str) -> list[types_pb2.Mount]:
        """The snapshot of a container."""
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=OVERLAY, key=key, parent=parent, labels={"containerd.io/gc.root": "now"}
        )
        answer = await self.api.ask(self.api.snapshots.Prepare, request, key)
        return list(answer.mounts)

    async def remove_snapshot(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=OVERLAY, key=key)
        await self.api.ask(self.api.snapshots.Remove, request, key)

    async def close(self) -> None:
        """Everything goes, by containerd's own collector: what stays is kept by something that should not."""
        for each in self._opened:
            await each.close()
        for name in await self.records():
            await self.forget(name)
        for lease in await self.leases():
            await self.api.ask(self.api.leases.Delete, leases_pb2.DeleteRequest(id=lease.id), lease.id)
        for ref in await self.ingests():
            await self.api.ask(self.api.content.Abort, content_pb2.AbortRequest(ref=ref), ref)
        await self.collect()
        left = [*await self.content(), *await self.snapshots(), *await self.snapshots(NATIVE)]
        assert not left
        request = namespaces_pb2.DeleteNamespaceRequest(name=self.api.namespace)
        try:
            await self.api.ask(self.api.namespaces.Delete, request, self.api.namespace)
        except PodwrightError:
            pass  # an empty one disturbs nobody


@asynccontextmanager
async def room_in(daemon: Daemon, directory: Path) -> AsyncIterator[Room]:
    namespace = f"images-{secrets.token_hex(4)}"
    api = Containerd(msgspec.structs.replace(daemon.config, namespace=namespace))
    api.open()
    try:
        await api.look()
        room = Room(daemon, api, directory)
        yield room
        await room.close()
    finally:
        await api.close()
