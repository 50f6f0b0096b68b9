"""The life of one pod: look at the runtime, compute, act, again. Everything is decided from what the runtime
shows, so a worker that comes later goes on where another one was killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime
from typing import Literal

from podwright.api import Cri
from podwright.clock import SYSTEM, Clock
from podwright.errors import PodwrightError
from podwright.kube import volumes
from podwright.kube.files import id_ranges, pod_cgroups, termination
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life import collection, resizing, rotation, sync
from podwright.kube.life.backoff import Backoff
from podwright.kube.life.context import PodContext
from podwright.kube.life.events import Event, Recorder, rfc3339
from podwright.kube.life.images import Images
from podwright.kube.life.wakes import Feed
from podwright.kube.manifests.admission import refusal
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import PodStatus
from podwright.kube.node import Node, PodFacts
from podwright.kube.probes.prober import Prober
from podwright.kube.probes.results import Results
from podwright.kube.state import records
from podwright.kube.state.pod_state import Seen, SeenContainer, look
from podwright.kube.state.status import Failed, finished, pod_status, rejected
from podwright.wire import cri_pb2 as cri

RESYNC = 60.0
"""Seconds after which a pod is looked at even if nothing has happened to it (the kubelet's syncFrequency)."""
TOLD_AFTER = 1.0
"""Seconds after which the status says what a round has found out: why something does not start. A kubelet's
says it in the next round."""
MOUNT_FIRST, MOUNT_LIMIT = 0.5, 122.0
"""Seconds between two tries to make a volume: they double."""
DEADLINE = Failed("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

Listener = Callable[[Seen, PodStatus], None]


class PodWorker:
    """Keeps one pod as its manifest says. `run()` is called once; everything else at any time meanwhile."""

    def __init__(
        self,
        runtime: Cri,
        manifest: Manifest,
        node: Node,
        *,
        clock: Clock = SYSTEM,
        feed: Feed | None = None,
        source: Literal["api", "file"] = "api",
        read_out: Callable[[str, int], Awaitable[None]] | None = None,
    ) -> None:
        """`feed`: shared with other pods of the same runtime; None: one of its own. `source`: "file" for
        static pods. `read_out(container, attempt)` is awaited before a log goes."""
        recorder = Recorder(clock)
        self.recorder = recorder
        self.seen = Seen()
        """What the runtime had of the pod when it was last looked at."""
        self.status = PodStatus()
        """As of the same moment."""
        self.midway = False
        """What is told is how far a round has come, which goes on."""
        self.ended = False
        """The pod has come to its end, and nothing of it runs."""
        self.pod = PodContext(
            runtime=runtime,
            manifest=manifest,
            node=node,
            directory=PodDirectory.of(node, manifest.namespace, manifest.name, manifest.uid),
            clock=clock,
            recorder=recorder,
            images=Images(runtime, clock, recorder, Backoff(clock)),
            crashes=Backoff(clock, limit=node.max_backoff),
            mounts=Backoff(clock, MOUNT_FIRST, MOUNT_LIMIT),
            results=Results(),
            facts=PodFacts(source=source, seen_at=_precise(clock.now())),
        )
        if read_out is not None:
            self.pod.read_out = read_out
        self._feed = feed
        self._prober = Prober(manifest, runtime, node, clock, self.pod.results, recorder)
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while there is nothing to do but to wait."""
        self._deleting = False
        self._grace: int | None = None
        self._failed: Failed | None = None
        self._resizing = False
        self._listeners: list[Listener] = []
        self._unwritten: list[Event] = []
        self._round: asyncio.Task[sync.Round] | None = None
        self._changed = asyncio.Event()
        self._written: PodStatus | None = None
        self._refreshed = 0.0
        recorder.subscribe(self._unwritten.append)

    # For others

    @property
    def manifest(self) -> Manifest:
        return self.pod.manifest

    @property
    def directory(self) -> PodDirectory:
        return self.pod.directory

    @property
    def events(self) -> tuple[Event, ...]:
        return self.recorder.events

    @property
    def deleting(self) -> bool:
        return self._deleting

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` each time the pod was looked at; returns how to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def update(self, manifest: Manifest) -> None:
        """The pod shall be so from now on: images, resources, ephemeral containers, labels, the objects that
        stand beside it. Of the same name, namespace and uid."""
        if resizing.differs(self.pod.manifest, manifest):
            self._resizing = True
        if manifest.objects != self.pod.manifest.objects:
            self._refreshed = float("-inf")  # volumes follow in the next round
        if manifest.spec != self.pod.manifest.spec:
            self.pod.generation += 1
        self.pod.manifest = manifest
        self._prober.manifest = manifest
        self._wake.set()

    def delete(self, grace: int | None = None) -> None:
        """End the pod: hooks, grace periods, everything in its turn. `grace` takes the place of the pod's
        own, in seconds; a shorter one may come later."""
        if not self._deleting and self._round is not None:
            self._round.cancel()
        self._deleting = True
        self._grace = grace
        self._wake.set()

    def kill(self) -> None:
        """End the pod now: no grace."""
        self.pod.impatient.set()
        self.delete(0)

    async def run(self) -> PodStatus:
        """Keep the pod until it has come to its end, or has been deleted and nothing of it runs any more;
        returns its last status. Containers, sandboxes and files stay until `remove`."""
        async with AsyncExitStack() as stack:
            await self._begin()
            feed = self._feed
            if feed is None:
                feed = await stack.enter_async_context(Feed(self.pod.runtime, self.pod.clock))
            stack.callback(feed.subscribe(self.manifest.uid, self._wake.set))
            for work in (self._follow_probes(), self._rotate()):
                stack.push_async_callback(_cancelled, asyncio.get_running_loop().create_task(work))
            stack.push_async_callback(self._prober.close)
            stack.push_async_callback(self._write_events)
            stack.push_async_callback(self._write_last_status)
            try:
                while not self.ended:
                    await self._live()
            finally:
                if self._round is not None:
                    await _cancelled(self._round)
                await self.pod.created()
        if self._deleting:
            self.status = finished(self.manifest, self.status)
            await asyncio.to_thread(records.write_status, self.directory, self.status)
        return self.status

    async def remove(self) -> None:
        """Remove the pod's containers, sandboxes and files. Raises what the runtime says, OSError."""
        self.seen = await look(self.pod.runtime, self.manifest.uid)
        await collection.remove_all(self.pod, self.seen)
        await asyncio.to_thread(volumes.remove, self.directory)
        await asyncio.to_thread(pod_cgroups.remove, self.manifest, self.pod.node)

    async def discard(self, *, keep: bool = False) -> None:
        """End whatever there is of the pod without any grace, and remove it unless `keep`: for when `run` was
        cancelled. Raises as `remove`."""
        self.seen = await look(self.pod.runtime, self.manifest.uid)
        for one in self.seen.sandboxes:
            await self.pod.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=one.id))
        if not keep:
            await self.remove()

    # The loop

    async def _begin(self) -> None:
        """Find out what an earlier process knew of the pod."""
        self.directory.path.mkdir(mode=0o750, parents=True, exist_ok=True)
        earlier = await asyncio.to_thread(records.read_manifest, self.directory)
        status = await asyncio.to_thread(records.read_status, self.directory)
        self.recorder.restore(await asyncio.to_thread(records.read_events, self.directory))
        self.status = self._written = status or PodStatus()
        if self.manifest.spec.hostUsers is False:
            ids = await asyncio.to_thread(id_ranges.claim, self.pod.node.root, self.directory)
            self.pod.facts = replace(self.pod.facts, user_ids=ids)
        if earlier is not None and earlier.spec is not None:
            sync.adopt(self.pod, await look(self.pod.runtime, self.manifest.uid), earlier)
        await asyncio.to_thread(records.write_manifest, self.directory, self.manifest.pod)
        if (refused := refusal(self.manifest, self.pod.node)) is not None:
            self.recorder.warning(refused.reason, "", refused.message)
            failed = Failed(refused.reason, refused.message)
            self.status = rejected(self.manifest, failed, self.pod.clock.now())
            await asyncio.to_thread(records.write_status, self.directory, self.status)
            self.ended = True

    async def _live(self) -> None:
        """One look, one round, and the wait for the next."""
        self.idle.clear()
        self._wake.clear()
        again = RESYNC
        try:
            await self.pod.created()
            await self._look()
            again = self._deadline(again)
            done = await self._act()
            if done is None:
                return
            if done.again is not None:
                again = min(again, done.again)
            if done.over and not done.changed:
                self.ended = True
                return
            if done.changed:
                return
        except (PodwrightError, OSError) as error:
            logging.getLogger("podwright.kube").info("%s: %s", self.pod.title, error)
            again = min(again, sync.ERROR_PAUSE)
        finally:
            await self._write_events()
        self.idle.set()
        if self.pod.waiting and again > TOLD_AFTER:
            again -= TOLD_AFTER
            if await self._woken(TOLD_AFTER):
                return
            with suppress(PodwrightError, OSError):
                await self._report()
        await self._woken(again)

    async def _woken(self, seconds: float) -> bool:
        """Wait so long; whether something has happened meanwhile."""
        with suppress(TimeoutError):
            async with self.pod.clock.timeout(seconds):
                await self._wake.wait()
                return True
        return False

    async def _act(self) -> sync.Round | None:
        """None: it was given up, for the pod is deleted."""
        if self._deleting or self._failed is not None:
            work = sync.end(self.pod, self.seen, self._grace)
        else:
            work = self._sync()
        deleting = self._deleting
        self._round = asyncio.get_running_loop().create_task(work)
        self._changed.clear()
        telling = asyncio.get_running_loop().create_task(self._retell())
        try:
            await asyncio.wait({self._round})
            if self._round.cancelled() and self._deleting and not deleting:
                return None
            return self._round.result()
        finally:
            await _cancelled(telling)
            await _cancelled(self._round)
            self._round = None

    async def _sync(self) -> sync.Round:
        await self._refresh()
        # What comes while the round runs is the next one's.
        resized, self._resizing = self._resizing, False
        if resized:
            self.recorder.normal("ResizeStarted", "", f"Pod resize started: {self._summary()}")
        try:
            done = await sync.sync(self.pod, self.seen, self._tell)
        except BaseException:
            self._resizing = self._resizing or resized
            raise
        if resized:
            self.recorder.normal("ResizeCompleted", "", f"Pod resize completed: {self._summary()}")
        if self.pod.mounted:
            await asyncio.to_thread(records.write_manifest, self.directory, self.manifest.pod)
        self.seen = await collection.collect(self.pod, self.seen)
        return done

    async def _refresh(self) -> None:
        """Let volumes follow what they are made from."""
        now = self.pod.clock.monotonic()
        if self.pod.mounted and now - self._refreshed >= RESYNC:
            await asyncio.to_thread(
                volumes.refresh, self.manifest, self.pod.node, self.pod.facts, self.directory
            )
            self._refreshed = now

    def _summary(self) -> str:
        return resizing.summary(self.manifest, self.pod.generation)

    def _deadline(self, again: float) -> float:
        """Note that the pod's time is over; or in how many seconds it is."""
        seconds = self.manifest.spec.activeDeadlineSeconds
        if seconds is None or self.status.startTime is None or self._failed or self._deleting:
            return again
        begun = datetime.fromisoformat(str(self.status.startTime)).timestamp()
        left = begun + seconds - self.pod.clock.now() / 1e9
        if left > 0:
            return min(again, left)
        self._failed = DEADLINE
        self.recorder.normal(DEADLINE.reason, "", DEADLINE.message)
        return again

    async def _look(self) -> None:
        self.seen = await look(self.pod.runtime, self.manifest.uid)
        sync.update_facts(self.pod, self.seen)
        self.pod.forget_others(self.seen)
        for one in self.seen.containers:
            if one.exited:
                self.pod.ended_at(one)
                if one.id not in self.pod.messages:
                    self.pod.messages[one.id] = await asyncio.to_thread(self._message, one)
        self._prober.sync(self.seen, self.pod.facts, deleting=self._deleting or self._failed is not None)
        await self._report()

    async def _report(self, seen: Seen | None = None) -> None:
        """Compute the status, of what was seen last or of `seen`, and tell and write it down."""
        pod, seen = self.pod, seen or self.seen
        before = self.status
        self.status = pod_status(
            pod.manifest, seen,
            previous=before, waiting=pod.waiting, probes=pod.results, node=pod.node, facts=pod.facts,
            now=pod.clock.now(), deleting=self._deleting, failed=self._failed, messages=pod.messages,
        )  # fmt: skip
        for listener in tuple(self._listeners):
            listener(seen, self.status)
        if self.status != before:
            await self._write_status()

    async def _write_last_status(self) -> None:
        """A run that is cancelled as soon as a status is told may not have written it."""
        with suppress(OSError):
            await self._write_status()

    def _tell(self) -> None:
        """Something has changed in the middle of a round, which may go on for long: images are pulled."""
        self._changed.set()

    async def _retell(self) -> None:
        """Beside a round that takes long: report what it has come to so far. It is not touched by that."""
        while True:
            await self._changed.wait()
            await self.pod.clock.sleep(TOLD_AFTER)
            self._changed.clear()
            try:
                seen = await look(self.pod.runtime, self.manifest.uid)
            except PodwrightError:
                continue
            report = asyncio.get_running_loop().create_task(self._report_midway(seen))
            try:
                await asyncio.shield(report)
            finally:
                await asyncio.wait({report})  # what it writes is written whole

    async def _report_midway(self, seen: Seen) -> None:
        with suppress(PodwrightError, OSError):
            self.midway = True
            try:
                await self._report(seen)
            finally:
                self.midway = False
        await self._write_events()

    def _message(self, container: SeenContainer) -> str:
        made = self.manifest.container(container.name)
        policy = (made.terminationMessagePolicy if made is not None else None) or "File"
        log = self.directory.log(container.name, container.attempt)
        return termination.read_termination_message(container.status, policy, log)

    async def _write_events(self) -> None:
        if some := list(self._unwritten):
            with suppress(OSError):
                await asyncio.to_thread(records.append_events, self.directory, some)
            # Only now: whoever is cancelled may not have written them. Those that come twice count once.
            del self._unwritten[: len(some)]

    async def _write_status(self) -> None:
        """Unless it is written already."""
        status = self.status
        if status is not self._written:
            await asyncio.to_thread(records.write_status, self.directory, status)
            self._written = status

    # Beside the loop

    async def _follow_probes(self) -> None:
        changed = self.pod.results.changed
        while True:
            await changed.wait()
            changed.clear()
            self._wake.set()

    async def _rotate(self) -> None:
        pod = self.pod
        while pod.node.log_rotation:
            await pod.clock.sleep(rotation.INTERVAL)
            running = [one.status for one in self.seen.containers if one.running]
            await rotation.rotate_all(pod.runtime, pod.node, pod.clock, running)


async def _cancelled(task: asyncio.Task[object]) -> None:
    """Wait for its end. Who is cancelled meanwhile is cancelled: the two are not confused."""
    task.cancel()
    await asyncio.wait({task})
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, PodwrightError | OSError):
        raise error


def _precise(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, as the kubelet notes when it first saw a pod."""
    return rfc3339(nanoseconds).replace("Z", f".{nanoseconds % 1_000_000_000:09}Z")
