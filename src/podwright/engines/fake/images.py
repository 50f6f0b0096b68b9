"""The images of a fake node: what is in its store, pulls that take time and fail, who pulled what.

The store is the world's and outlives the engine; transfers are the engine's and end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podwright.engines.base import Credentials, FilesystemUse, Image, Json
from podwright.engines.fake import registry
from podwright.engines.fake.registry import Offer
from podwright.engines.fake.subject import Subject
from podwright.errors import InvalidArgument, PodwrightError, ResourceExhausted, Unimplemented
from podwright.images import references
from podwright.images.platform import ARCHITECTURE
from podwright.images.progress import INTERVAL, Progress, Pulls
from podwright.images.references import LocalSource, Reference
from podwright.steps import step
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.engines.fake.world import World

BUILT: Mapping[str, Json] = {"architecture": ARCHITECTURE, "os": "linux"}
REMEMBERED = 20_000
"""Pulls that a world remembers at least, twice that at most."""
BYTES_PER_INODE = 25_000
"""Of a usual root filesystem."""
STATES = 20
"""In so many states at most a transfer is told."""


@dataclass(slots=True)
class Pull:
    """A PullImage as the store saw it: for assertions."""

    reference: str
    """As the client wrote it."""
    credentials: Credentials | None
    """None: anonymous."""
    time: int
    """Nanoseconds since the epoch, when it began."""
    outcome: str = ""
    """"pulled", "shared" (with the transfer of another call), "present" (nothing had to be transferred),
    "cancelled", or the error: "NotFound: …"; empty while it lasts."""


@dataclass(slots=True)
class _Entry:
    image: Image
    names: set[str] = field(default_factory=set)
    hidden: bool = False
    """Removed, but containers still use its files."""


@dataclass(slots=True)
class _Transfer:
    """A pull that several callers may await."""

    task: asyncio.Task[tuple[Image, str]]
    waiting: int = 0


class ImageStore:
    """Which images are on the node, under which names. References are looked up as the oci engine does."""

    def __init__(self, in_use: Callable[[], set[str]]) -> None:
        """`in_use`: the ids of the images that containers have."""
        self._in_use = in_use
        self._images: dict[str, _Entry] = {}
        self._names: dict[str, str] = {}

    def list(self) -> Sequence[Image]:
        return [entry.image for entry in self._images.values() if not entry.hidden]

    def find(self, reference: str) -> Image | None:
        """By full id, else by name, else by the beginning of an id. InvalidArgument when that is ambiguous,
        or when `reference` can be no reference."""
        digits = references.image_id_prefix(reference)
        if digits is None:
            return self._named(references.parse(reference))
        if len(digits) == 64:
            entry = self._images.get(f"sha256:{digits}")
            return entry.image if entry is not None and not entry.hidden else None
        if not reference.startswith("sha256:") and (named := self._named(references.parse(reference))):
            return named
        found = [image for image in self.list() if image.id.startswith(f"sha256:{digits}")]
        if len(found) > 1:
            raise InvalidArgument(
                "image.image", f"{len(found)} images have ids that begin with {reference!r}"
            )
        return found[0] if found else None

    def has(self, image_id: str) -> bool:
        """Whether its files are here, if only because a container uses them."""
        self._sweep()
        return image_id in self._images

    def put(self, offer: Offer) -> Image:
        """The image is here, and takes its names from those that have them."""
        entry = self._images.get(offer.id)
        if entry is None:
            image = Image(offer.id, (), (), offer.size, offer.config, offer.pinned, built=BUILT)
            entry = self._images[offer.id] = _Entry(image)
        entry.hidden = False
        for name in offer.names:
            before = self._images.get(self._names.get(name, ""))
            if before is not None and before is not entry:
                before.names.discard(name)
                _describe(before)
            self._names[name] = offer.id
            entry.names.add(name)
        _describe(entry, offer)
        return entry.image

    def remove(self, reference: str) -> None:
        """With all its names; none is fine. What containers use of it stays on the disk."""
        image = self.find(reference)
        if image is None:
            return
        entry = self._images[image.id]
        for name in entry.names:
            del self._names[name]
        entry.names.clear()
        entry.hidden = True
        self._sweep()

    def use(self) -> tuple[int, int]:
        """Bytes and inodes, each image once."""
        self._sweep()
        sizes = [entry.image.size for entry in self._images.values()]
        return sum(sizes), sum(size // BYTES_PER_INODE + 1 for size in sizes)

    def _sweep(self) -> None:
        hidden = [image_id for image_id, entry in self._images.items() if entry.hidden]
        if hidden:
            used = self._in_use()
            for image_id in hidden:
                if image_id not in used:
                    del self._images[image_id]

    def _named(self, reference: Reference) -> Image | None:
        image_id = self._names.get(str(reference))
        return self._images[image_id].image if image_id is not None else None


class FakeImages:
    """Implements engines.base.ImageService."""

    def __init__(self, world: World, step: Callable[[str, Subject], Awaitable[None]]) -> None:
        """`step` is the engine's: awaited before each act."""
        self._world = world
        self._step = step
        self._transfers: dict[object, _Transfer] = {}
        self._pulls = Pulls(world.clock)

    async def list(self) -> Sequence[Image]:
        return self._world.images.list()

    async def find(self, reference: str) -> Image | None:
        return self._world.images.find(reference)

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        world = self._world
        pull = Pull(reference, credentials, world.clock.now())
        if len(world.pulls) >= 2 * REMEMBERED:
            del world.pulls[:REMEMBERED]
        world.pulls.append(pull)
        try:
            image, pull.outcome = await self._shared(reference, credentials)
        except asyncio.CancelledError:
            pull.outcome = "cancelled"
            raise
        except PodwrightError as error:
            # Some begin with their name as it is: the kubelet looks for it.
            name = type(error).__name__
            words = str(error).removeprefix(f"{name}: ")  # some name themselves
            pull.outcome = f"{'Unknown' if name == 'PodwrightError' else name}: {words}"
            raise
        return image

    def watch_pulls(self, image: str = "") -> AsyncIterator[own.PullProgress]:
        return self._pulls.watch(image)

    async def remove(self, reference: str) -> None:
        await self._step("remove_image.names", Subject(image=reference))
        self._world.images.remove(reference)

    async def filesystem_use(self) -> FilesystemUse:
        return FilesystemUse(self._world.scenario.images.mountpoint, *self._world.images.use())

    async def explain_blob(self, digest: str) -> own.ExplainBlobResponse:
        raise _no_files("tell what keeps a digest")

    async def prune(self, *, dry_run: bool, untagged_only: bool) -> own.PruneImagesResponse:
        raise _no_files("prune images")

    async def import_image(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        raise _no_files("import images")

    async def export_image(self, reference: str, target: str) -> tuple[Image, int]:
        raise _no_files("export images")

    async def _shared(self, reference: str, credentials: Credentials | None) -> tuple[Image, str]:
        """The last caller who gives up ends the transfer."""
        source = references.parse_local(reference) or references.parse(reference)
        key = (str(source), credentials)
        transfer = self._transfers.get(key)
        joined = transfer is not None
        if transfer is None:
            task = asyncio.create_task(self._transfer(reference, source, credentials))
            transfer = self._transfers[key] = _Transfer(task)
            task.add_done_callback(lambda _: self._forget(key, task))
        transfer.waiting += 1
        try:
            with step("wait for pull", str(source)) if joined else nullcontext():
                image, outcome = await asyncio.shield(transfer.task)
            return image, "shared" if joined else outcome
        finally:
            transfer.waiting -= 1
            if not transfer.waiting and not transfer.task.done():
                self._forget(key, transfer.task)
                transfer.task.cancel()

    async def _transfer(
        self, reference: str, source: Reference | LocalSource, credentials: Credentials | None
    ) -> tuple[Image, str]:
        progress = self._pulls.begin(str(source))
        with progress.failing():
            image, outcome = await self._pull(reference, source, credentials, progress)
        progress.done(image.id)
        return image, outcome

    async def _pull(
        self,
        reference: str,
        source: Reference | LocalSource,
        credentials: Credentials | None,
        progress: Progress,
    ) -> tuple[Image, str]:
        world, subject = self._world, Subject(image=reference)
        await self._step("pull_image.resolve", subject)
        script = world.scenario.images
        offer = registry.offered(script, source)
        registry.require_access(offer.script, source, credentials)
        transferred = not world.images.has(offer.id)
        if transferred:
            duration = registry.duration(script, offer, world.chance)
            fetching = step("fetch blob", offer.id, bytes=offer.size)
            with self._told(offer, duration, progress), fetching:
                await world.clock.sleep(duration)
        if offer.script is not None and offer.script.error is not None:
            raise offer.script.error.make()
        await self._step("pull_image.record", subject)
        used, _ = world.images.use()
        room = script.capacity is None or used + offer.size <= script.capacity
        if not room and not world.images.has(offer.id):
            raise ResourceExhausted(
                f"{source}: no space left on device: {offer.size} bytes on top of {used} do not fit into the"
                f" {script.capacity} of {script.mountpoint}"
            )
        return world.images.put(offer), "pulled" if transferred else "present"

    @contextmanager
    def _told(self, offer: Offer, duration: float, progress: Progress) -> Iterator[None]:
        """While the block lasts, `duration` seconds, the bytes come evenly, layer after layer."""
        layers, clock = registry.layers(offer), self._world.clock
        progress.layers(layers)
        began, step, timer = clock.monotonic(), max(INTERVAL, duration / STATES), None

        def tell() -> None:
            nonlocal timer
            gone = clock.monotonic() - began
            _advance(progress, layers, int(offer.size * gone / duration))
            if gone + step < duration:
                timer = clock.call_later(step, tell)

        if duration > step:
            timer = clock.call_later(step, tell)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
        _advance(progress, layers, offer.size)
        progress.recording()

    def _forget(self, key: object, task: asyncio.Task[tuple[Image, str]]) -> None:
        transfer = self._transfers.get(key)
        if transfer is not None and transfer.task is task:
            del self._transfers[key]


def _advance(progress: Progress, layers: Sequence[tuple[str, int]], fetched: int) -> None:
    """`fetched` bytes of all `layers` have come."""
    for index, (_, size) in enumerate(layers):
        here = min(size, fetched)
        fetched -= here
        stage = own.LAYER_DONE if here == size else own.LAYER_DOWNLOADING if here else own.LAYER_WAITING
        progress.layer(index, stage, here)


def _no_files(what: str) -> Unimplemented:
    return Unimplemented(f"a fake node has images without files: it cannot {what}")


def _describe(entry: _Entry, offer: Offer | None = None) -> None:
    """Make the image anew after its names, or what registries say of it, changed."""
    said: Image | Offer = offer or entry.image
    digests = tuple(sorted(name for name in entry.names if "@" in name))
    tags = tuple(sorted(name for name in entry.names if "@" not in name))
    image = Image(said.id, tags, digests, said.size, said.config, said.pinned, built=BUILT)
    # Thousands of containers may have it: one object for all of them, as long as nothing changes.
    if image != entry.image:
        entry.image = image
