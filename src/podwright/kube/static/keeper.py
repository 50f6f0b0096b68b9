"""The keeper of a directory of manifests: what a kubelet does with its static pods, without the kubelet.

It decides from the files, from what it has noted (`static_records`) and from what the runtime shows. So one
that comes after a crash takes over what runs, and ends what has no file any more. It leaves alone what it has
not begun. When it leaves, the pods go on.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podwright.api import Cri
from podwright.clock import SYSTEM, Clock
from podwright.config import Config
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.kube.files import log_links
from podwright.kube.life.wakes import Feed
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.node import Node, observe
from podwright.kube.static.files import Key, ManifestFiles, Reading, changes
from podwright.kube.static.records import StaticRecords
from podwright.kube.static.slot import PAUSE, Slot
from podwright.kube.static.watch import DirectoryWatch
from podwright.steps import step

SETTLES = 10
"""So often at most the first look is taken again for a file that is being written."""

log = logging.getLogger("podwright.static")


@dataclass(frozen=True, slots=True)
class Kept:
    """One pod, for those who ask how it is."""

    namespace: str
    name: str
    uid: str
    source: str
    phase: str
    ready: bool
    restarts: int
    """Of all its containers."""


class Keeper:
    """Keeps the pods of one directory while its `async with` block lasts."""

    def __init__(
        self,
        runtime: Cri,
        directory: Path,
        config: Config,
        *,
        endpoint: str = "",
        clock: Clock = SYSTEM,
        node: Node | None = None,
    ) -> None:
        """`endpoint`: where `runtime` is, "" for the one that has `config.root`. `node`: None: as it is
        found."""
        self.directory = Path.cwd() / directory
        self._runtime, self._config, self._clock = runtime, config, clock
        self._node = node
        self._records = StaticRecords(config.root_path, endpoint)
        self._slots: dict[Key, tuple[Slot, asyncio.Task[None]]] = {}
        self._reading = Reading()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stack = ExitStack()

    @property
    def pods(self) -> list[Kept]:
        """All of them, by namespace and name; those that are about to go, too."""
        found = []
        for key, (slot, _) in sorted(self._slots.items()):
            if slot.worker is None:
                continue
            manifest, status = slot.worker.manifest, slot.worker.status
            statuses = [*(status.initContainerStatuses or []), *(status.containerStatuses or [])]
            ready = any(one.type == "Ready" and one.status == "True" for one in status.conditions or [])
            restarts = sum(one.restartCount for one in statuses)
            phase = status.phase or "Pending"
            found.append(Kept(*key, manifest.uid, manifest.source, phase, ready, restarts))
        return found

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong with files, by their paths."""
        return dict(self._reading.faults)

    async def __aenter__(self) -> Keeper:
        """FailedPrecondition when another keeper has the root, or pods of another endpoint are there."""
        with ExitStack() as stack:
            stack.enter_context(_alone(self._records.root))
            begun = await asyncio.to_thread(self._records.read)
            self._task = asyncio.get_running_loop().create_task(self._run(begun))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with self._stack:
            await asyncio.wait({self._task})

    async def looked(self) -> None:
        """The directory has been looked at once."""
        await self._looked.wait()

    async def _run(self, begun: list[Manifest]) -> None:
        while True:
            try:
                await self._life(begun)
            except (PodwrightError, OSError) as error:
                log.warning("%s: %s", self.directory, error)
            except Exception:
                log.exception("%s: it is looked at again in %g s", self.directory, PAUSE)
            await self._clock.sleep(PAUSE)
            begun = await asyncio.to_thread(self._records.read)

    async def _life(self, begun: list[Manifest]) -> None:
        node = self._node or await observe(self._runtime, self._config)
        await asyncio.to_thread(log_links.sweep, node)
        files = ManifestFiles(self.directory, node, self._records.files)
        async with AsyncExitStack() as stack:
            watch = DirectoryWatch(self.directory)
            stack.callback(watch.close)
            feed = await stack.enter_async_context(Feed(self._runtime, self._clock))
            stack.push_async_callback(self._leave)
            reading = await self._first(files, watch)
            by_name: dict[Key, dict[str, Manifest]] = {}
            for one in begun:
                by_name.setdefault((one.namespace, one.name), {})[one.uid] = one
            whole: frozenset[str] = frozenset()
            while True:
                for failed, words in changes(self._reading, reading):
                    log.log(logging.WARNING if failed else logging.INFO, "%s", words)
                self._reading = reading
                for key in reading.pods.keys() | self._slots.keys() | by_name.keys():
                    self._want(key, reading.pods.get(key), by_name.pop(key, {}), node, feed)
                self._looked.set()
                whole = await watch.changed(reading.again)
                try:
                    reading = await self._read(files, watch, whole)
                except OSError as error:
                    log.warning("%s: %s: its pods stay as they are", self.directory, error.strerror)

    async def _first(self, files: ManifestFiles, watch: DirectoryWatch) -> Reading:
        """Files that are being written just now are waited for: what runs may be theirs."""
        reading = await self._read(files, watch)
        for _ in range(SETTLES):
            if reading.again is None:
                break
            await asyncio.sleep(reading.again)
            reading = await self._read(files, watch)
        await asyncio.to_thread(files.forget_others)
        return reading

    async def _read(
        self, files: ManifestFiles, watch: DirectoryWatch, whole: frozenset[str] = frozenset()
    ) -> Reading:
        watch.begin()
        with step("read manifests", str(self.directory)):
            return await asyncio.to_thread(files.read, whole)

    def _want(
        self, key: Key, manifest: Manifest | None, begun: dict[str, Manifest], node: Node, feed: Feed
    ) -> None:
        slot, task = self._slots.get(key, (None, None))
        if slot is not None and task is not None and not task.done():
            slot.want(manifest)
        elif manifest is not None or begun:
            slot = Slot(self._runtime, node, self._records, self._clock, feed, begun, manifest)
            task = asyncio.get_running_loop().create_task(slot.run())
            self._slots[key] = slot, task
            task.add_done_callback(lambda ended: self._ended(key, ended))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        if key in self._slots and self._slots[key][1] is task:
            del self._slots[key]

    async def _leave(self) -> None:
        """Let go of all pods; they go on."""
        tasks = [task for _, task in self._slots.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._slots.clear()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One keeper has a root. FailedPrecondition when there is another."""
    directory = root / "static"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FailedPrecondition(
                f"another podwright keeps static pods below {root}: choose another --root"
            ) from None
        yield
    finally:
        os.close(fd)
