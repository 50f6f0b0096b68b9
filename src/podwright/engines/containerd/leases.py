"""What a pull holds in containerd until its image is recorded, so that nothing of it is collected meanwhile.

Each pull has a lease of its own and names in it what it is going to need before it is there: so two pulls
that share a blob both hold it, whoever of them writes it. After a failure the lease stays, for the next try,
until it expires; it goes with the next pull of the same image that succeeds, or by prune.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from podwright.engines.containerd.api import LEASE_EXPIRY, Containerd
from podwright.engines.containerd.objects import KIND, ROOT, quoted
from podwright.errors import AlreadyExists, NotFound, PodwrightError
from podwright.linux.waiting import to_the_end
from podwright.wire.containerd import leases_pb2

log = logging.getLogger(__name__)

PULL = "pull"
"""Value of KIND."""
PULL_LABEL = "podwright.io/pull"
"""What is pulled."""
LONGEST = 24 * 3600.0
"""Seconds after which containerd may collect what a pull holds whose podwright has crashed."""
CONTENT = "content"


class PullLeases:
    def __init__(self, containerd: Containerd, root: str, kept_for: float) -> None:
        """Those of the podwright with this root; after a failure they are `kept_for` so many seconds."""
        self._containerd = containerd
        self._root = root
        self._kept_for = kept_for
        self._active: set[str] = set()

    @asynccontextmanager
    async def lease(self, about: str) -> AsyncIterator[PullLease]:
        """A lease for a pull of `about`. Whoever has recorded what it holds says so (`recorded`)."""
        lease = await self._create(about[:1000], max(LONGEST, self._kept_for))
        try:
            yield lease
        finally:
            await to_the_end(self._over(lease, about[:1000]))

    async def pending(self) -> list[leases_pb2.Lease]:
        """Those of pulls that failed, or were under way when podwright crashed."""
        filters = [f'labels."{KIND}"=={PULL},labels."{ROOT}"=={quoted(self._root)}']
        answer = await self._containerd.ask(
            self._containerd.leases.List, leases_pb2.ListRequest(filters=filters), "its leases"
        )
        return [each for each in answer.leases if each.id not in self._active]

    async def all(self) -> list[leases_pb2.Lease]:
        """Whoever's."""
        answer = await self._containerd.ask(
            self._containerd.leases.List, leases_pb2.ListRequest(), "its leases"
        )
        return list(answer.leases)

    async def resources(self, id: str) -> list[leases_pb2.Resource]:
        request = leases_pb2.ListResourcesRequest(id=id)
        try:
            answer = await self._containerd.ask(self._containerd.leases.ListResources, request, f"lease {id}")
        except NotFound:
            return []
        return list(answer.resources)

    async def drop(self, id: str, *, sync: bool = False) -> None:
        """End a lease; one that is gone is fine. `sync`: what nothing else holds is gone then."""
        request = leases_pb2.DeleteRequest(id=id, sync=sync)
        try:
            await self._containerd.ask(self._containerd.leases.Delete, request, f"lease {id}")
        except NotFound:
            pass

    async def _create(self, about: str, seconds: float) -> PullLease:
        id = f"podwright-pull-{secrets.token_hex(8)}"
        expire = datetime.now(UTC) + timedelta(seconds=seconds)
        labels = {
            LEASE_EXPIRY: expire.isoformat(timespec="seconds").replace("+00:00", "Z"),
            KIND: PULL,
            ROOT: self._root,
            PULL_LABEL: about,
        }
        self._active.add(id)
        request = leases_pb2.CreateRequest(id=id, labels=labels)
        try:
            await self._containerd.ask(self._containerd.leases.Create, request, f"lease {id}")
        except BaseException:
            self._active.discard(id)
            raise
        return PullLease(self._containerd, id)

    async def _over(self, lease: PullLease, about: str) -> None:
        try:
            if not lease.recorded and self._kept_for > 0:
                kept = await self._create(about, self._kept_for)
                self._active.discard(kept.id)
                await kept.add(await self.resources(lease.id))
            await self.drop(lease.id)
            if lease.recorded:
                for each in await self.pending():
                    if each.labels.get(PULL_LABEL) == about:
                        await self.drop(each.id)
        except PodwrightError as error:
            log.warning("lease %s stays until it expires: %s", lease.id, error)
        finally:
            self._active.discard(lease.id)


class PullLease:
    def __init__(self, containerd: Containerd, id: str) -> None:
        self._containerd = containerd
        self.id = id
        self.recorded = False

    async def hold(self, kind: str, ids: Iterable[str]) -> None:
        """Hold what has these ids, or will have: of `kind` "content", "ingests" or "snapshots/NAME"."""
        await self.add(leases_pb2.Resource(id=each, type=kind) for each in dict.fromkeys(ids))

    async def add(self, resources: Iterable[leases_pb2.Resource]) -> None:
        async def add(resource: leases_pb2.Resource) -> None:
            request = leases_pb2.AddResourceRequest(id=self.id, resource=resource)
            try:
                await self._containerd.ask(
                    self._containerd.leases.AddResource, request, f"lease {self.id}: {resource.id}"
                )
            except AlreadyExists:
                pass

        await asyncio.gather(*map(add, resources))
