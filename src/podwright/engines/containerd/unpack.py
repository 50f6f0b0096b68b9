"""Layers unpacked by containerd: each a committed snapshot that is named by its chain id.

containerd's own clients name them so, too: a layer that one of them has unpacked is not unpacked again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.engines.containerd.content import UNCOMPRESSED, Content
from podwright.engines.containerd.leases import PullLease
from podwright.errors import AlreadyExists, FailedPrecondition, NotFound, PodwrightError
from podwright.images.documents import Descriptor
from podwright.linux.waiting import to_the_end
from podwright.steps import step
from podwright.wire.containerd import diff_pb2, snapshots_pb2, types_pb2

SNAPSHOT_REF = "containerd.io/snapshot.ref"
"""A label of a snapshot: the chain id that it shall have. A snapshotter that has the layer says so."""
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class Unpacking:
    def __init__(self, containerd: Containerd, content: Content) -> None:
        self._containerd = containerd
        self._content = content

    def check(self, snapshotter: str) -> None:
        """FailedPrecondition when this containerd has no such snapshotter, or it does not work."""
        if not self._containerd.has(SNAPSHOTTERS, snapshotter):
            there = ", ".join(sorted(self._containerd.plugins(SNAPSHOTTERS)))
            raise FailedPrecondition(
                f"snapshotter {snapshotter} (containerd.snapshotter, handlers.*.snapshotter):"
                f" {self._containerd.why_not(SNAPSHOTTERS, snapshotter)}; it has {there or 'none'}"
            )

    async def there(self, chain_id: str, snapshotter: str) -> bool:
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=chain_id)
        try:
            answer = await self._containerd.ask(
                self._containerd.snapshots.Stat, request, f"snapshot {chain_id}"
            )
        except NotFound:
            return False
        return bool(answer.info.kind == snapshots_pb2.COMMITTED)

    async def ensure(
        self, chain: Sequence[str], diff_id: str, blob: Descriptor, snapshotter: str, lease: PullLease
    ) -> None:
        """The topmost layer of `chain`, whose lower ones are there, unpacked of `blob`, unless it is there.

        `lease` holds the blob and the layers. PodwrightError when it is no layer or not `diff_id`.
        """
        self.check(snapshotter)
        chain_id, parent = chain[-1], chain[-2] if len(chain) > 1 else ""
        if await self.there(chain_id, snapshotter):
            return
        with step("unpack layer", diff_id):
            key = f"extract-{secrets.token_hex(6)} {chain_id}"
            await lease.hold(f"snapshots/{snapshotter}", [key])
            prepare = snapshots_pb2.PrepareSnapshotRequest(
                snapshotter=snapshotter, key=key, parent=parent, labels={SNAPSHOT_REF: chain_id}
            )
            try:
                answer = await self._containerd.ask(
                    self._containerd.snapshots.Prepare, prepare, f"snapshot for {chain_id}"
                )
            except AlreadyExists:
                # A snapshotter that fetches layers itself has it now, under its own name.
                if await self.there(chain_id, snapshotter):
                    return
                raise
            try:
                await self._apply(answer.mounts, diff_id, blob)
                await self._commit(key, chain_id, snapshotter)
            except BaseException:
                await to_the_end(self._remove(key, snapshotter))
                raise
        await self._content.label(blob.digest, {UNCOMPRESSED: diff_id})

    async def _apply(self, mounts: Sequence[types_pb2.Mount], diff_id: str, blob: Descriptor) -> None:
        descriptor = types_pb2.Descriptor(
            media_type=blob.media_type or LAYER_TYPE, digest=blob.digest, size=blob.size
        )
        request = diff_pb2.ApplyRequest(diff=descriptor, mounts=mounts)
        answer = await self._containerd.ask(
            self._containerd.diffs.Apply, request, f"unpack {blob.digest}", timeout=None
        )
        if answer.applied.digest != diff_id:
            raise PodwrightError(
                f"it is {answer.applied.digest} without its compression, its image says {diff_id}"
            )

    async def _commit(self, key: str, chain_id: str, snapshotter: str) -> None:
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=snapshotter, name=chain_id, key=key, labels={SNAPSHOT_REF: chain_id}
        )
        try:
            await self._containerd.ask(self._containerd.snapshots.Commit, request, f"snapshot {chain_id}")
        except AlreadyExists:
            await self._remove(key, snapshotter)  # somebody else was quicker

    async def _remove(self, key: str, snapshotter: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        try:
            await self._containerd.ask(self._containerd.snapshots.Remove, request, f"snapshot {key}")
        except PodwrightError:
            pass  # the lease's end takes it
