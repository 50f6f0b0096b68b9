"""Pulls: what is asked for is resolved, admitted, fetched, unpacked and recorded, wherever it is kept.

Layers are fetched side by side under one bound for all pulls, and unpacked from the bottom up while others
still come. A blob that two pulls need is fetched once, a layer unpacked once, and a pull that two clients
asked for is done once; each goes on as long as one of them is there. What an image is made of is held from
the first byte on; it is recorded when all of it is in place. What fails or is cancelled leaves complete blobs
and nothing else: the next try begins with them. Where they are kept is the destination's (`destination.py`).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from podwright.config import ImageConfig
from podwright.engines.base import Credentials, Image
from podwright.errors import (
    FailedPrecondition,
    PodwrightError,
    RegistryUnavailable,
    ResourceExhausted,
)
from podwright.images import artifacts, references
from podwright.images.destination import Coming, Destination, Intake
from podwright.images.documents import Descriptor, read_document
from podwright.images.entries import NewImage
from podwright.images.layers import chain_ids
from podwright.images.progress import INTERVAL, Progress, Pulls
from podwright.images.references import LocalSource, Reference
from podwright.images.remote import Remote, Resolved, opened
from podwright.images.transfers import Lent, Shared, Turns, Work
from podwright.steps import step
from podwright.wire import podwright_pb2 as own

MAX_CONFIG = 8 << 20
"""Bytes that a configuration may have: it is read into memory."""
STEP = 1.0
"""Seconds that count at most from one look at a pull to the next."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the pulls of one destination share."""

    config: ImageConfig
    destination: Destination
    turns: Turns
    fetches: Shared[None] = field(default_factory=Shared)
    unpacks: Shared[None] = field(default_factory=Shared)


class Pulling:
    def __init__(self, config: ImageConfig, destination: Destination, board: Pulls | None = None) -> None:
        """`board` is where the pulls are told of."""
        turns = Turns(max(1, config.max_concurrent_downloads))
        self._rooms = Rooms(config, destination, turns)
        self._pulls: Shared[Image] = Shared()
        self._board = board or Pulls()

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        """See ImageService. The last caller who gives up ends the pull."""
        source = references.parse_local(reference) or references.parse(reference)
        return await self._shared(source, credentials, None)

    async def pull_local(self, source: LocalSource, names: Sequence[str]) -> Image:
        """The image in `source`, which is called `names` and not as it is there."""
        return await self._shared(source, None, tuple(names))

    async def _shared(
        self, source: Reference | LocalSource, credentials: Credentials | None, names: Sequence[str] | None
    ) -> Image:
        async def begin(_: Work[Image]) -> Image:
            return await self._pull(source, credentials, names)

        async with self._pulls.part((source, credentials, names), begin) as (work, joined):
            with step("wait for pull", str(source)) if joined else nullcontext():
                return await work.result()

    def watch(self, image: str) -> AsyncIterator[own.PullProgress]:
        return self._board.watch(image)

    async def close(self) -> None:
        """End what is under way."""
        for shared in (self._pulls, self._rooms.fetches, self._rooms.unpacks):
            await shared.close()

    async def _pull(
        self, source: Reference | LocalSource, credentials: Credentials | None, names: Sequence[str] | None
    ) -> Image:
        progress = self._board.begin(str(source))
        with progress.failing():
            try:
                image = await _Pull(self._rooms, source, progress, names).run(credentials)
            except BaseException as error:
                self._rooms.destination.ended(failed=True)
                if isinstance(error, OSError):
                    raise _of_this_host(source, error) from error
                raise
        progress.done(image.id)
        self._rooms.destination.ended(failed=False)
        return image


class _Pull:
    """One pull, from the name to the rows."""

    def __init__(
        self,
        rooms: Rooms,
        source: Reference | LocalSource,
        progress: Progress,
        names: Sequence[str] | None = None,
    ) -> None:
        """`names`: what the image shall be called, None for what it is called where it comes from."""
        self._given = names
        self._rooms = rooms
        self._source = source
        self._progress = progress
        self._lent: Lent[Remote]
        self._intake: Intake
        self._remote: Remote | None = None
        self._tried = ""
        """Of a pull that has stalled, the places that were asked, a line each."""
        self._fetching: dict[str, Work[None]] = {}
        self._places: dict[str, list[int]] = {}
        """Where in the image each layer's blob is that is not here already."""
        self._asking = False
        """Something is asked of the source that is no blob."""

    async def run(self, credentials: Credentials | None) -> Image:
        self._lent = Lent(_reach(self._rooms, self._source, credentials))
        destination = self._rooms.destination
        async with self._unless_stalled(), self._lent.borrowed() as remote:
            self._remote = remote
            with self._question():
                with step("resolve"):
                    served = await remote.served()
                    known = ""
                    if not isinstance(self._source, LocalSource):
                        known = await destination.known(str(self._source), served)
                    if known and remote.accepts_anything():
                        return await destination.name(known, served, self._names(served))
                    resolved = await remote.resolve()
                with step("check policy"):
                    await remote.check_policy(resolved)
            names = self._names(served, resolved.names)
            if known:
                return await destination.name(known, served, names)
            return await self._fetch_image(resolved, names)

    def _names(self, served: str, own: Sequence[str] = ()) -> list[str]:
        """What the image is called: as it was asked for, by its digest, or as a local source says (`own`)."""
        source = self._source
        if self._given is not None:
            return list(self._given)
        if isinstance(source, LocalSource):
            named = [references.local_name(source, name) for name in own or [""]]
            return [str(name) for name in named if name]
        return [source.at(served), *([] if source.digest else [str(source)])]

    # An image that is not here

    async def _fetch_image(self, resolved: Resolved, names: Sequence[str]) -> Image:
        document = resolved.document
        indexes = tuple(f"sha256:{hashlib.sha256(content).hexdigest()}" for content in resolved.indexes)
        documents = (*indexes, resolved.manifest_digest, document.config.digest)
        coming = Coming(self._source, documents, tuple(document.layers))
        async with self._rooms.destination.intake(coming) as self._intake:
            for content in (*resolved.indexes, resolved.manifest):
                await self._intake.put(content)
            config = await self._configuration(document.config)
            if resolved.kind == "artifact":
                return await self._keep_artifact(resolved, indexes, names)
            diff_ids = read_document(document.config.digest, config).rootfs.diff_ids
            if len(diff_ids) != len(document.layers):
                raise PodwrightError(
                    f"{self._source}: it has {len(document.layers)} layers, but {len(diff_ids)} diff ids"
                )
            chain = chain_ids(diff_ids)
            await self._put_layers_in_place(document.layers, chain, diff_ids)
            self._progress.recording()
            new = NewImage(document.config.digest, config, tuple(chain), resolved.manifest_digest, indexes)
            with step("record image"):
                return await self._intake.record(new, names)

    async def _keep_artifact(
        self, resolved: Resolved, indexes: tuple[str, ...], names: Sequence[str]
    ) -> Image:
        """Its files become the one layer of what is recorded as an image."""
        progress, descriptors = self._progress, resolved.document.layers
        called = artifacts.file_names(str(self._source), descriptors)
        progress.layers((each.digest, each.size) for each in descriptors)
        for index, each in enumerate(descriptors):
            self._places.setdefault(each.digest, []).append(index)
        try:
            async with asyncio.TaskGroup() as group:
                for each in descriptors:
                    group.create_task(self._layer_blob(each))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        diff_id = await self._intake.unpack_files(list(zip(called, descriptors, strict=True)))
        for index, each in enumerate(descriptors):
            progress.layer(index, self._in_place(each.digest))
        progress.recording()
        config, id = artifacts.configuration(diff_id), resolved.manifest_digest
        with step("record image"):
            return await self._intake.record(NewImage(id, config, (diff_id,), id, indexes), names)

    async def _configuration(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_CONFIG:
            raise PodwrightError(
                f"{self._source}: its configuration has {descriptor.size} bytes, more than"
                f" {MAX_CONFIG >> 20} MiB"
            )
        # Small, and needed before anything else: it waits for no turn.
        await self._blob(descriptor, waits=False)
        return await self._intake.read(descriptor.digest)

    async def _put_layers_in_place(
        self, descriptors: Sequence[Descriptor], chain: Sequence[str], diff_ids: Sequence[str]
    ) -> None:
        progress = self._progress
        progress.layers((each.digest, each.size) for each in descriptors)
        there = await self._intake.hold(chain)
        for index, descriptor in enumerate(descriptors):
            if there[index]:
                progress.layer(index, own.LAYER_PRESENT, descriptor.size)
            else:
                self._places.setdefault(descriptor.digest, []).append(index)
        wanted = {each.digest: each for each, done in zip(descriptors, there, strict=True) if not done}
        try:
            async with asyncio.TaskGroup() as group:
                fetches = {each.digest: group.create_task(self._layer_blob(each)) for each in wanted.values()}
                for index, diff_id in enumerate(diff_ids):
                    if there[index]:
                        continue
                    descriptor = descriptors[index]
                    await fetches[descriptor.digest]
                    progress.layer(index, own.LAYER_UNPACKING)
                    await self._unpacked(chain[: index + 1], diff_id, descriptor)
                    progress.layer(index, self._in_place(descriptor.digest))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _layer_blob(self, descriptor: Descriptor) -> None:
        await self._blob(descriptor)
        for index in self._places[descriptor.digest]:
            self._progress.layer(index, own.LAYER_DOWNLOADED, descriptor.size)

    def _in_place(self, digest: str) -> own.LayerStage:
        """Of a layer that is: a blob that a pull left which did not end was not fetched."""
        return own.LAYER_DONE if self._fetching[digest].active else own.LAYER_PRESENT

    # What several pulls may need

    async def _blob(self, descriptor: Descriptor, *, waits: bool = True) -> None:
        """The blob, here. Who waited for another pull's fetch that failed tries its own source."""

        async def fetch(work: Work[None]) -> None:
            # Other pulls may need it still when this one has gone: the source stays open for them.
            async with self._lent.borrowed() as remote:

                @asynccontextmanager
                async def turn() -> AsyncIterator[None]:
                    async with self._rooms.turns.turn(self) if waits else nullcontext():
                        work.active = True
                        with step("fetch blob", descriptor.digest, bytes=descriptor.size):
                            yield

                await self._intake.take(_Fetch(descriptor, remote, turn, work.add))

        while True:
            async with self._rooms.fetches.part(descriptor.digest, fetch) as (work, joined):
                self._fetching[descriptor.digest] = work
                try:
                    with step("wait for blob", descriptor.digest) if joined else nullcontext():
                        return await work.result()
                except (PodwrightError, OSError):
                    if not joined:
                        raise

    async def _unpacked(self, chain: Sequence[str], diff_id: str, blob: Descriptor) -> None:
        async def unpack(_: Work[None]) -> None:
            await self._intake.unpack(chain, diff_id, blob)

        while True:
            async with self._rooms.unpacks.part(chain[-1], unpack) as (work, joined):
                try:
                    with step("wait for layer", blob.digest) if joined else nullcontext():
                        return await work.result()
                except PodwrightError as error:
                    if not joined:
                        kept = isinstance(error, (ResourceExhausted, FailedPrecondition))
                        kind = type(error) if kept else PodwrightError
                        raise kind(f"{self._source}: blob {blob.digest}: {error}") from error
                except OSError:
                    if not joined:
                        raise

    # Whether it goes on

    @contextmanager
    def _question(self) -> Iterator[None]:
        self._asking = True
        try:
            yield
        finally:
            self._asking = False

    @asynccontextmanager
    async def _unless_stalled(self) -> AsyncIterator[None]:
        """While the block runs, tell how many bytes have come; RegistryUnavailable when none do."""
        patience = self._rooms.config.progress_timeout
        try:
            async with asyncio.timeout(None) as bound:
                looking = asyncio.ensure_future(self._look(bound, patience))
                try:
                    yield
                finally:
                    looking.cancel()
        except TimeoutError:
            if not bound.expired():
                raise
            raise RegistryUnavailable(
                f"{self._source}: no byte has come for {patience:g} s (images.progress_timeout){self._tried}"
            ) from None

    async def _look(self, bound: asyncio.Timeout, patience: float) -> None:
        loop = asyncio.get_running_loop()
        looked, before, idle = loop.time(), 0, 0.0
        while True:
            await asyncio.sleep(INTERVAL)
            # Of the time in which this process or its machine stood still nobody can say what came.
            now = loop.time()
            idle, looked = idle + min(now - looked, STEP), now
            under_way = [work for work in self._fetching.values() if work.active and not work.task.done()]
            came = self._tell_bytes()
            # Who waits for a turn, or for the disk, is not kept waiting by a registry.
            if came != before or not (self._asking or under_way):
                before, idle = came, 0.0
            elif patience and idle >= patience:
                if self._remote is not None:
                    # Now: with the pull go those who know.
                    self._tried = "".join(f"\n  tried {attempt}" for attempt in self._remote.tried())
                bound.reschedule(now)
                return

    def _tell_bytes(self) -> int:
        """Tell what has changed; how many bytes have come in all."""
        for digest, work in self._fetching.items():
            if work.active and not work.task.done():
                for index in self._places.get(digest, ()):
                    self._progress.layer(index, own.LAYER_DOWNLOADING, work.done)
        return sum(work.done for work in self._fetching.values())


@dataclass(frozen=True, slots=True)
class _Fetch:
    """See `destination.Fetch`."""

    descriptor: Descriptor
    _remote: Remote
    _turn: Callable[[], AbstractAsyncContextManager[None]]
    _came: Callable[[int], None]

    async def save(self, target: Path) -> None:
        async with self._turn():
            await self._remote.fetch(self.descriptor, target, self._came)

    @asynccontextmanager
    async def pieces(self) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._turn(), self._remote.pieces(self.descriptor, self._came) as pieces:
            yield pieces


def _of_this_host(source: Reference | LocalSource, error: OSError) -> PodwrightError:
    """What the system said, in the words of a pull."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    place = f" ({error.filename})" if error.filename else ""
    words = f"{source}: {error.strerror or error}{place}"
    return ResourceExhausted(words) if full else PodwrightError(words)


@asynccontextmanager
async def _reach(
    rooms: Rooms, source: Reference | LocalSource, credentials: Credentials | None
) -> AsyncIterator[Remote]:
    async with (
        rooms.destination.workplace() as scratch,
        opened(source, rooms.config, credentials, scratch) as remote,
    ):
        yield remote
