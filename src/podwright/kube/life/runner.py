"""Running a pod for somebody who watches: its worker, its containers' output in order, and how it went."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from podwright.api import Cri
from podwright.clock import SYSTEM, Clock
from podwright.config import Config
from podwright.errors import PodwrightError
from podwright.kube.files import log_links
from podwright.kube.files.directory import PodDirectory
from podwright.kube.life import outcome
from podwright.kube.life.events import Event
from podwright.kube.life.outcome import PodOutcome
from podwright.kube.life.starting import CRASH_LOOP
from podwright.kube.life.wakes import Feed
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import PodStatus
from podwright.kube.node import Node, observe
from podwright.kube.state.pod_state import Seen
from podwright.logs import reader
from podwright.logs.reader import Line

QUIET = ("Created",)
"""Events that nobody who watches needs to hear of."""
HERE_ALREADY = "already present on machine"
ECHO = re.compile(r"Error: [A-Z]\w+")
"""The reason alone, of what another event has told in full."""
TOLD_AGAIN = ("Started", "Killing", "Unhealthy", "SandboxChanged")
"""Events that are told each time; others only when they are new."""


Until = Literal["started", "ready", "completed"]
"""What a detached run waits for."""


class Reporter(Protocol):
    """Who is told what happens. `container` is "" for what concerns the pod."""

    def event(self, pod: str, container: str, text: str) -> None: ...

    def output(self, pod: str, container: str, line: Line) -> None: ...


class Silent:
    """Nobody is told."""

    def event(self, pod: str, container: str, text: str) -> None: ...

    def output(self, pod: str, container: str, line: Line) -> None: ...


@dataclass
class _Log:
    """The log of one attempt, while it is read."""

    task: asyncio.Task[None]
    ended: asyncio.Event = field(default_factory=asyncio.Event)


def _nothing() -> None: ...


class PodRun:
    """One pod's run. `run()` is called once; `stop()` and `kill()` may be called at any time meanwhile."""

    def __init__(
        self,
        runtime: Cri,
        manifest: Manifest,
        place: Path | Node,
        *,
        reporter: Reporter | None = None,
        clock: Clock = SYSTEM,
        feed: Feed | None = None,
    ) -> None:
        """`place`: the node, or the directory below which the pod's files are, on a node that is as it is
        found. `feed`: as `PodWorker` has it."""
        self.manifest = manifest
        self.node = place if isinstance(place, Node) else Node(root=place)
        self.worker: PodWorker | None = None
        """What keeps the pod, once `run` has begun."""
        self._observed = isinstance(place, Node)
        self._runtime = runtime
        self._reporter = reporter or Silent()
        self._clock, self._feed = clock, feed
        self._stopped = self._killed = False
        self._logs: dict[tuple[str, int], _Log] = {}
        self._up = asyncio.Event()
        """What a detached run waits for has come, or cannot come."""
        self._until: Until = "started"
        self._fault = ""
        self.up: Callable[[], None] = _nothing
        """Called when that has come, or will not any more."""
        self.hold: asyncio.Event | None = None
        """What a detached run waits for besides, keeping its pod: that the others are as far."""
        self.terse = False
        """Of events only those are told that are new and tell of something wrong."""

    @property
    def directory(self) -> PodDirectory:
        one = self.manifest
        return PodDirectory.of(self.node, one.namespace, one.name, one.uid)

    def stop(self) -> None:
        """Let `run` end gracefully: pre-stop hooks, the stop signal, the grace period, then SIGKILL."""
        self._stopped = True
        if self.worker is not None:
            self.worker.delete()

    def kill(self) -> None:
        """Let `run` end now: no grace."""
        self._stopped = self._killed = True
        if self.worker is not None:
            self.worker.kill()

    def leave(self) -> None:
        """Let a detached `run` return now, whatever has become of the pod; it goes on."""
        self._fault = ""
        self._up.set()

    async def run(self, *, keep: bool = False, detach: bool = False, until: Until = "started") -> PodOutcome:
        """Run the pod to its end and say how it went. What goes wrong with the pod is tried again as a
        kubelet does, until the pod has ended by its own rules or `stop` is called.

        With `keep` the stopped sandbox, its containers and files stay; with `detach` the call returns when
        all containers are started, and they go on, though nobody starts them again; one that cannot be
        started ends the pod. Or it returns when the pod is ready, or has completed (`until`); what fails is
        tried again meanwhile. Cancellation stops and removes everything at once.
        """
        self._until = until
        if not self._observed:
            self.node = await observe(self._runtime, Config(root=str(self.node.root)))
            self._observed = True
        await asyncio.to_thread(log_links.sweep, self.node)
        worker = self.worker = PodWorker(
            self._runtime, self.manifest, self.node,
            clock=self._clock, feed=self._feed, read_out=self._read_out,
        )  # fmt: skip
        worker.subscribe(self._saw)
        worker.recorder.subscribe(self._heard)
        if self._stopped:
            (worker.kill if self._killed else worker.delete)()
        life = asyncio.get_running_loop().create_task(worker.run())
        settled = False
        try:
            if detach and await self._is_up(life):
                self.up()
                await self._held(life)
                life.cancel()
                await asyncio.wait({life})
                await self._drain()
                settled = True
                return self._outcome()
            await asyncio.wait({life})
            life.result()
            await self._drain()
            found = self._outcome()
            settled = True
            if not keep and (left := await self._removed()):
                found = replace(found, error=found.error or left)
            return found
        finally:
            self.up()
            if not settled:
                await asyncio.shield(self._abandon(life, keep))

    async def remove(self) -> None:
        """Remove the sandbox, its containers, volumes and logs; idempotent."""
        if self.worker is not None:
            await self.worker.remove()

    # Up to the point at which a detached run leaves

    async def _is_up(self, life: asyncio.Task[PodStatus]) -> bool:
        """Whether all is started; otherwise the pod is being ended, or has."""
        up = asyncio.ensure_future(self._up.wait())
        try:
            await asyncio.wait({life, up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if life.done():
            life.result()
        if life.done() or self._stopped:
            return life.done() and not self._stopped and not self._outcome().error
        if self._fault:
            assert self.worker is not None
            self.worker.delete()
            return False
        return True

    async def _held(self, life: asyncio.Task[PodStatus]) -> None:
        """Until the others are as far, or this pod has come to its end."""
        if self.hold is None:
            return
        held = asyncio.ensure_future(self.hold.wait())
        try:
            await asyncio.wait({life, held}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            held.cancel()

    def _saw(self, seen: Seen, status: PodStatus) -> None:
        for one in reversed(seen.containers):
            if one.running or one.exited:
                log = self._follow(one.name, one.attempt)
                if one.exited:
                    log.ended.set()
        assert self.worker is not None
        if self.worker.midway:
            return
        if self._until != "started":
            if self._until == "ready" and is_ready(status):
                self._up.set()
            return
        waiting = self.worker.pod.waiting
        faults = [
            f"container {name!r}: {one.reason}: {one.message}"
            for name, one in waiting.items()
            if one.reason != CRASH_LOOP
        ]
        started = [seen.container(one.name) for one in self.manifest.containers]
        if faults:
            self._fault = faults[0]
            self._up.set()
        elif all(one is not None and (one.running or one.exited) for one in started):
            self._up.set()

    # What is told

    def _heard(self, event: Event) -> None:
        if (
            event.reason in QUIET
            or HERE_ALREADY in event.message
            or (event.count > 1 and event.reason not in TOLD_AGAIN)
        ):
            return
        failed = event.reason in ("FailedMount", "FailedCreatePodSandBox")
        if failed and self._until == "started" and not self._fault:
            self._fault = f"{event.reason}: {event.message}"
            self._up.set()
        if ECHO.fullmatch(event.message):
            return
        if self.terse and (event.type == "Normal" or event.count > 1 or event.reason == "BackOff"):
            return
        container = event.object.partition("{")[2].removesuffix("}")
        self._reporter.event(self.manifest.name, container, event.message)

    def _follow(self, name: str, attempt: int) -> _Log:
        key = (name, attempt)
        if key not in self._logs:
            before = [one.task for (other, _), one in self._logs.items() if other == name]
            ended = asyncio.Event()
            task = asyncio.get_running_loop().create_task(self._read(name, attempt, ended, before))
            self._logs[key] = _Log(task, ended)
        return self._logs[key]

    async def _read(
        self, name: str, attempt: int, ended: asyncio.Event, before: Sequence[asyncio.Task[None]]
    ) -> None:
        """Report what an attempt writes, after all of what those before it wrote."""
        if before:
            await asyncio.wait(before)
        try:
            async for line in reader.follow(self.directory.log(name, attempt), follow=True, stop=ended):
                self._reporter.output(self.manifest.name, name, line)
        except (PodwrightError, OSError) as error:
            self._reporter.event(self.manifest.name, name, f"its log cannot be read: {error}")

    async def _read_out(self, container: str, attempt: int) -> None:
        log = self._follow(container, attempt)
        log.ended.set()
        await asyncio.wait({log.task})

    async def _drain(self) -> None:
        """Read all logs to what is their end now."""
        for log in self._logs.values():
            log.ended.set()
        if self._logs:
            await asyncio.wait([one.task for one in self._logs.values()])

    # The end

    def _outcome(self) -> PodOutcome:
        assert self.worker is not None
        return outcome.of(self.worker, stopped=self._stopped, fault=self._fault)

    async def _removed(self) -> str:
        """Remove everything; "" or what was in the way."""
        try:
            await self.remove()
        except (PodwrightError, OSError) as error:
            return str(error)
        return ""

    async def _abandon(self, life: asyncio.Task[PodStatus], keep: bool) -> None:
        """The run was cancelled or broke: end the pod without grace, and report nothing more."""
        for log in self._logs.values():
            log.task.cancel()
        life.cancel()
        await asyncio.wait({life})
        assert self.worker is not None
        with suppress(PodwrightError, OSError):
            await self.worker.discard(keep=keep)


def is_ready(status: PodStatus) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in status.conditions or [])


async def run_pods(
    runs: Sequence[PodRun], *, keep: bool = False, detach: bool = False, until: Until = "started"
) -> list[PodOutcome]:
    """Run several pods side by side to the end of all; detached ones are left when all are as they should."""
    hold, waited_for = asyncio.Event(), set(range(len(runs)))

    def is_up(index: int) -> None:
        waited_for.discard(index)
        if not waited_for:
            hold.set()

    for index, one in enumerate(runs):
        one.hold, one.up = hold, partial(is_up, index)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(keep=keep, detach=detach, until=until)) for one in runs]
    return [task.result() for task in tasks]
