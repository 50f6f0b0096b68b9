"""What keeps a containerd that comes back from forgetting a task that has ended meanwhile.

From 1.7 on it takes a shim without processes for one of a creation that broke off, ends it and tells nobody
how its task ended (containerd/containerd#6860), unless its sandbox store has a record with the task's id. So
each task gets one, until it is deleted. It is no sandbox, and its label says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import SERVICE
from podwright.engines.containerd.objects import KIND, ROOT, quoted
from podwright.engines.containerd.sandbox_service import records
from podwright.errors import AlreadyExists, NotFound, PodwrightError, Unavailable
from podwright.wire.containerd import sandbox_pb2, types_pb2

log = logging.getLogger(__name__)

GUARD = "guard"
"""Value of KIND."""
CRI_NAMESPACE = "k8s.io"


class Guards:
    """Those of the podwright with this root."""

    def __init__(self, containerd: Containerd, root: str) -> None:
        self._containerd = containerd
        self._root = root

    @property
    def wanted(self) -> bool:
        """Whether this containerd has a use for them.

        Where its CRI plugin is at work it takes every sandbox of its namespace for one of its own; 2.0.0 does
        not start with others' (containerd/containerd#10848).
        """
        daemon = self._containerd
        beside = daemon.namespace == CRI_NAMESPACE and daemon.has(SERVICE, "cri")
        return daemon.has(SERVICE, "sandboxes") and not beside

    async def put(self, id: str) -> None:
        """Twice is fine; one that cannot be made is no reason not to go on."""
        if not self.wanted:
            return
        record = types_pb2.Sandbox(sandbox_id=id, labels={KIND: GUARD, ROOT: self._root})
        record.runtime.name = GUARD
        request = sandbox_pb2.StoreCreateRequest(sandbox=record)
        try:
            await self._containerd.make(
                self._containerd.sandboxes.Create, request, f"guard of task {id[:12]}"
            )
        except AlreadyExists:
            pass
        except Unavailable:
            raise
        except PodwrightError as error:
            log.warning("task %s: its end is lost if containerd is away then: %s", id, error)

    async def take(self, id: str) -> None:
        """Fine when there is none; a sandbox of this name stays."""
        if not self._containerd.has(SERVICE, "sandboxes"):
            return
        looked = sandbox_pb2.StoreGetRequest(sandbox_id=id)
        deleted = sandbox_pb2.StoreDeleteRequest(sandbox_id=id)
        try:
            found = await self._containerd.ask(self._containerd.sandboxes.Get, looked, f"guard of {id[:12]}")
            if found.sandbox.labels.get(KIND) == GUARD:
                await self._containerd.ask(self._containerd.sandboxes.Delete, deleted, f"guard of {id[:12]}")
        except NotFound:
            pass

    async def list(self) -> Sequence[str]:
        """The ids of tasks that have one."""
        if not self._containerd.has(SERVICE, "sandboxes"):
            return []
        ours = f'labels."{ROOT}"=={quoted(self._root)},labels."{KIND}"=={GUARD}'
        return [each.sandbox_id for each in await records(self._containerd, ours)]
