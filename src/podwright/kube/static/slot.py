"""One name of a static pod, and what runs by it: never two pods at once. A file that changes makes another
pod, which begins when all of the one before has gone.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from podwright.api import Cri
from podwright.clock import Clock
from podwright.errors import AlreadyExists, PodwrightError
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life.wakes import Feed
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import PodStatus
from podwright.kube.node import Node
from podwright.kube.state.pod_state import UID_LABEL
from podwright.kube.static.records import StaticRecords
from podwright.wire import cri_pb2 as cri

PAUSE = 10.0
"""Seconds until what has failed is tried again."""
LEAVE = 4.0
"""Seconds that creations get to end when the keeper leaves."""

log = logging.getLogger("podwright.static")


class Slot:
    """Keeps the pod of one namespace and name as `want` says. `run` is called once."""

    def __init__(
        self,
        runtime: Cri,
        node: Node,
        records: StaticRecords,
        clock: Clock,
        feed: Feed,
        begun: dict[str, Manifest],
        wanted: Manifest | None,
    ) -> None:
        """`begun`: pods of this name that earlier keepers have begun and not removed, by uid."""
        self.begun = begun
        self.worker: PodWorker | None = None
        """Of the pod there is now."""
        self._runtime, self._node, self._records = runtime, node, records
        self._clock, self._feed = clock, feed
        self._wanted = wanted
        self._changed = asyncio.Event()

    @property
    def status(self) -> PodStatus:
        return self.worker.status if self.worker is not None else PodStatus()

    def want(self, manifest: Manifest | None) -> None:
        """The pod shall be so from now on; None: there shall be none."""
        if manifest != self._wanted:
            self._wanted = manifest
            self._changed.set()

    async def run(self) -> None:
        """Until there is no pod and shall be none. Cancelled, it leaves the pod as it is."""
        while self._wanted is not None or self.begun:
            self._changed.clear()
            try:
                await self._round(self._wanted)
            except (PodwrightError, OSError) as error:
                log.warning("%s: %s", self._title(), error)
                await self._pause()
            except Exception:
                log.exception("%s: it is tried again in %g s", self._title(), PAUSE)
                await self._pause()

    async def _round(self, wanted: Manifest | None) -> None:
        for uid, manifest in list(self.begun.items()):
            if wanted is None or uid != wanted.uid:
                log.info("%s: its file has gone or says something else: it is stopped", self._title(manifest))
                await self._end(manifest)
        if wanted is not None and not self._changed.is_set():
            await self._keep(wanted)

    async def _keep(self, manifest: Manifest) -> None:
        """Keep the pod until another one is wanted, and end it then."""
        if manifest.uid not in self.begun:
            await self._require_free(manifest)
        await self._note(manifest)
        worker = self.worker = self._made(manifest)
        life = asyncio.get_running_loop().create_task(worker.run())
        try:
            while True:
                await self._until_changed(life)
                self._changed.clear()
                wanted = self._wanted
                if wanted is None or wanted.uid != manifest.uid:
                    break
                if wanted != manifest:
                    manifest = wanted
                    await self._note(manifest)
                    if life.done():
                        return  # it had ended by its own rules; it may have others now
                    worker.update(manifest)
            log.info("%s: its file has gone or says something else: it is stopped", self._title(manifest))
            if not life.done():
                worker.delete()
            await life
            await self._gone(worker)
        finally:
            self.worker = None
            await _left(worker, life)

    async def _end(self, manifest: Manifest) -> None:
        """Stop and remove a pod that nobody wants any more."""
        worker = self.worker = self._made(manifest)
        worker.delete()
        life = asyncio.get_running_loop().create_task(worker.run())
        try:
            await asyncio.wait({life})
            life.result()
            await self._gone(worker)
        finally:
            self.worker = None
            await _left(worker, life)

    async def _gone(self, worker: PodWorker) -> None:
        await worker.remove()
        uid = worker.manifest.uid
        await asyncio.to_thread(self._records.remove, uid)
        self.begun.pop(uid, None)

    async def _note(self, manifest: Manifest) -> None:
        """Before anything of it exists."""
        await asyncio.to_thread(self._records.write, manifest)
        self.begun[manifest.uid] = manifest

    async def _require_free(self, manifest: Manifest) -> None:
        """AlreadyExists when somebody else, another keeper of the same file, runs this very pod."""
        labels = {UID_LABEL: manifest.uid}
        found = await self._runtime.list_pod_sandbox(
            cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        )
        place = PodDirectory.of(self._node, manifest.namespace, manifest.name, manifest.uid)
        if found.items and not await asyncio.to_thread(place.manifest.exists):
            raise AlreadyExists(
                f"sandbox {found.items[0].id} has the uid {manifest.uid}, and was not made from here: does"
                " another keeper have the same file? It is left alone"
            )

    def _made(self, manifest: Manifest) -> PodWorker:
        return PodWorker(
            self._runtime, manifest, self._node, clock=self._clock, feed=self._feed, source="file"
        )

    async def _until_changed(self, life: asyncio.Task[PodStatus]) -> None:
        """Returns when another pod may be wanted; raises what ended `life` before its time."""
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            if not life.done():
                await asyncio.wait({life, changed}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
                await changed
        finally:
            changed.cancel()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with self._clock.timeout(PAUSE):
                await self._changed.wait()

    def _title(self, manifest: Manifest | None = None) -> str:
        one = manifest or self._wanted or next(iter(self.begun.values()), None)
        return f"pod {one.namespace}/{one.name} of {one.source}" if one is not None else "pod"


async def _left(worker: PodWorker, life: asyncio.Task[PodStatus]) -> None:
    """`life` has ended; what is being created gets a little time, for the runtime would have to undo it."""
    life.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(LEAVE):
            await asyncio.wait({life})
    while not life.done():
        for creation in worker.pod.creations:
            creation.cancel()
        life.cancel()
        await asyncio.wait({life})
