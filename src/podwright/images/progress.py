"""How far pulls are, for whoever watches: the library, the stream beside the CRI, a terminal.

Each pull has one message that is kept true while it goes on. A watcher is given copies of it: the state at
first, then what changed, at most ten times a second for each pull. One that does not keep up finds the latest
state of each pull when it comes back, never a row of old ones, and never misses how a pull ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from podwright.clock import SYSTEM, Clock, Timer
from podwright.errors import ResourceExhausted
from podwright.wire import podwright_pb2 as own

INTERVAL = 0.1
"""Seconds between two states of one pull."""
UNTAKEN = 4096
"""Pulls whose latest state is kept for a watcher that takes none."""


class Pulls:
    """All pulls of one store."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self.clock = clock
        self._running: dict[int, Progress] = {}
        self._watches: WeakSet[Watch] = WeakSet()
        self._last = 0

    def begin(self, image: str) -> Progress:
        """A pull of `image`, a name in full, begins. Who does it says how it goes, and at last how it
        ended."""
        self._last += 1
        message = own.PullProgress(id=self._last, image=image, stage=own.PULL_RESOLVING)
        message.started_at = self.clock.now()
        progress = self._running[self._last] = Progress(self, message)
        progress.changed()
        return progress

    def watch(self, image: str = "") -> Watch:
        """The states of pulls under way, and from now on each change; only those of `image` when it is given
        (a name in full)."""
        watch = Watch(image)
        for progress in self._running.values():
            watch.put(progress.state())
        self._watches.add(watch)
        return watch

    @property
    def watched(self) -> bool:
        return bool(self._watches)

    def publish(self, progress: Progress) -> None:
        """Tell every watcher. For `Progress`."""
        state = progress.state()
        if state.stage in (own.PULL_DONE, own.PULL_FAILED):
            self._running.pop(state.id, None)
        for watch in self._watches:
            watch.put(state)


class Progress:
    """One pull, kept true by who does it. All of it belongs to the event loop's thread."""

    def __init__(self, pulls: Pulls, message: own.PullProgress) -> None:
        self._pulls = pulls
        self._message = message
        self._next = 0.0
        self._timer: Timer | None = None

    @property
    def image(self) -> str:
        return self._message.image

    def layers(self, layers: Iterable[tuple[str, int]]) -> None:
        """The digests and sizes (bytes as they are transferred) of its layers are known, bottom first."""
        self._message.stage = own.PULL_TRANSFERRING
        for digest, size in layers:
            self._message.layers.add(digest=digest, total=size)
        self.changed()

    def layer(
        self,
        index: int,
        stage: own.LayerStage | None = None,
        fetched: int | None = None,
        total: int | None = None,
    ) -> None:
        """A layer has come to `stage`, `fetched` of its bytes are here; it has `total`, if that is news."""
        layer = self._message.layers[index]
        if total is not None:
            layer.total = total
        if stage is not None:
            layer.stage = stage
        if fetched is not None:
            layer.bytes = fetched
        self.changed()

    def recording(self) -> None:
        """All layers are in place."""
        self._message.stage = own.PULL_RECORDING
        self.changed()

    def done(self, image_id: str) -> None:
        self._message.stage, self._message.image_ref = own.PULL_DONE, image_id
        self._publish()

    def failed(self, error: str) -> None:
        self._message.stage, self._message.error = own.PULL_FAILED, error
        self._publish()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """The block is the pull; what it raises is told."""
        try:
            yield
        except asyncio.CancelledError:
            self.failed("cancelled: nobody waits for it any more")
            raise
        except Exception as error:
            self.failed(str(error))
            raise

    def state(self) -> own.PullProgress:
        """A copy, which nobody may change."""
        copy = own.PullProgress()
        copy.CopyFrom(self._message)
        return copy

    def changed(self) -> None:
        """Tell watchers soon."""
        if self._pulls.watched and self._timer is None:
            # Not at once: what changes together is told together.
            wait = max(0.0, self._next - self._pulls.clock.monotonic())
            self._timer = self._pulls.clock.call_later(wait, self._publish)

    def _publish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = self._pulls.clock.monotonic() + INTERVAL
        self._pulls.publish(self)


class Watch:
    """An iterator of states, one consumer's. Dropping it is leaving."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._states: dict[int, own.PullProgress] = {}
        self._ready = asyncio.Event()
        self._overrun = False

    def put(self, state: own.PullProgress) -> None:
        if self._image and state.image != self._image:
            return
        if len(self._states) >= UNTAKEN and state.id not in self._states:
            self._overrun = True
        else:
            self._states[state.id] = state
        self._ready.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> own.PullProgress:
        """The next state. Raises ResourceExhausted, once, when so many pulls were left untaken that some are
        missed."""
        while not self._states:
            if self._overrun:
                self._overrun = False
                raise ResourceExhausted(
                    f"the watcher of pulls did not keep up: {UNTAKEN} were kept, others are missed"
                )
            self._ready.clear()
            await self._ready.wait()
        return self._states.pop(next(iter(self._states)))
