"""One image where it is now, in a registry or a local source: what it is, whether it is let in, its blobs.

skopeo does the talking: it knows the registries' protocols, mirrors (registries.conf), certificates and
signatures. What is served is taken byte for byte and compared with its digest here as well. Nothing here
knows the store.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from podwright.config import ImageConfig
from podwright.engines.base import Credentials
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.images import local, proxy
from podwright.images.access import Access, platform_options, prepared
from podwright.images.attempts import Attempt, attempts_in, failure, fatal_words
from podwright.images.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Entry,
    Index,
    Manifest,
    check_layers,
    read_manifest,
)
from podwright.images.platform import Platform, best
from podwright.images.references import LocalSource, Reference
from podwright.images.signatures import accepts_anything, check
from podwright.linux import spawn
from podwright.linux.waiting import to_the_end

MAX_MANIFEST = local.MAX_DOCUMENT
SIDE_BY_SIDE = 64
"""Blobs of one image that are fetched at the same time, at most: each has a process."""
NESTING = 2
"""How many indexes may lie in each other."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an image's name stands for."""

    digest: str
    """Of what the name serves: of the index when there is one."""
    manifest_digest: str
    manifest: bytes
    """Of the image for the wanted platform, as served."""
    document: Manifest
    """The same, read."""
    kind: Literal["image", "artifact"]
    platform: Platform | None = None
    """What the index says of it; None when there is no index, or it says nothing."""
    indexes: tuple[bytes, ...] = ()
    """The index that has the manifest's digest, and those above it, outermost first."""
    names: tuple[str, ...] = ()
    """What a local source calls the image."""


@asynccontextmanager
async def opened(
    source: Reference | LocalSource, config: ImageConfig, credentials: Credentials | None, scratch: Path
) -> AsyncIterator[Remote]:
    """The image `source`, for one pull; `scratch` is an existing private directory, where temporary files go.

    Every process and file that serves it is gone at the end.
    """
    async with prepared(source, config, credentials, scratch) as access, AsyncExitStack() as stack:
        yield Remote(source, access, stack)


class Remote:
    """See `opened`. All methods raise NotFound, RegistryUnavailable, SignatureValidationFailed, or
    PodwrightError with the reason, and every attempt that was made; they may be called side by side."""

    def __init__(self, source: Reference | LocalSource, access: Access, stack: AsyncExitStack) -> None:
        self._source = source
        self._access = access
        self._stack = stack
        self._resolving = asyncio.Lock()
        self._idle: list[_Opened] = []
        self._logs: list[Callable[[], str]] = []
        """Of each skopeo that is asked something now, what it has said until now."""
        archive = isinstance(source, LocalSource) and "archive" in source.transport
        # Each proxy would unpack the archive for itself.
        self._bound = asyncio.Semaphore(1 if archive else SIDE_BY_SIDE)
        self._top: bytes | None = None
        self._digest = source.digest if isinstance(source, Reference) else ""
        self._resolved: Resolved | None = None

    async def served(self) -> str:
        """The digest of what the name stands for now: the cheapest question, to be asked before `resolve`."""
        if not self._digest:
            self._digest = _sha256(await self._served())
        return self._digest

    async def resolve(self) -> Resolved:
        """What the name stands for on the configured platform; NotFound with the platforms that there are."""
        content = await self._served()
        digest = await self.served()
        if _sha256(content) != digest:
            raise PodwrightError(f"{self._access.about}: what is served is {_sha256(content)}")
        indexes: list[bytes] = []
        platform: Platform | None = None
        at = digest
        while isinstance(document := read_manifest(self._access.about, content), Index):
            if len(indexes) == NESTING:
                raise PodwrightError(f"{self._access.about}: more than {NESTING} indexes lie in each other")
            indexes.append(content)
            entry = chosen(self._access.about, self._access.platform, document)
            if entry.platform is not None:
                platform = entry.platform.platform()
            at, content = entry.digest, await self._instance(entry)
        kind: Literal["image", "artifact"] = "artifact" if document.is_artifact else "image"
        check_layers(self._access.about, document)
        names: tuple[str, ...] = ()
        if isinstance(self._source, LocalSource):
            names = tuple(await asyncio.to_thread(local.names_in, self._source))
        self._resolved = Resolved(digest, at, content, document, kind, platform, tuple(indexes), names)
        return self._resolved

    def accepts_anything(self) -> bool:
        """Whether the signature policy lets every image in, so that known content needs no second look."""
        return accepts_anything(Path(self._access.policy))

    async def check_policy(self, resolved: Resolved) -> None:
        """SignatureValidationFailed unless the policy lets `resolved` in under the name that was asked for.

        No blob is fetched. Does nothing when the policy accepts anything.
        """
        if not self.accepts_anything():
            await check(self._access, resolved.manifest_digest, resolved.document, resolved.platform)

    async def fetch(
        self, descriptor: Descriptor, target: Path, progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Write the blob to the new file `target`, which is gone when this raises; not synced to the disk.

        `progress` is called in a thread, with the number of bytes that came since it was called last.
        """
        async with self._bound, self._skopeo() as (skopeo, handle):
            try:
                await skopeo.blob(handle, descriptor.digest, descriptor.size, target, progress)
            except proxy.Refused as error:
                raise failure(f"{descriptor.digest}: {error}", skopeo.log(), self._access) from error

    @asynccontextmanager
    async def pieces(
        self, descriptor: Descriptor, progress: Callable[[int], None] = lambda _: None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The blob piece by piece, from its beginning; nobody has compared it with its digest. What goes
        wrong is raised by the iteration."""
        async with self._bound, self._skopeo() as (skopeo, handle):
            try:
                async with skopeo.pieces(handle, descriptor.digest, descriptor.size, progress) as pieces:
                    yield pieces
            except proxy.Refused as error:
                raise failure(f"{descriptor.digest}: {error}", skopeo.log(), self._access) from error

    def tried(self) -> list[Attempt]:
        """The places that are being asked now, and those before them, each once."""
        found = [attempt for log in self._logs for attempt in attempts_in(log(), self._access)]
        return list({str(attempt): attempt for attempt in found}.values())

    @contextmanager
    def _telling(self, log: Callable[[], str]) -> Iterator[None]:
        self._logs.append(log)
        try:
            yield
        finally:
            self._logs.remove(log)

    async def _served(self) -> bytes:
        """The manifest or index that the name stands for."""
        if self._top is None:
            source = self._source
            if isinstance(source, Reference) or source.transport == "docker-archive":
                self._top = await self._raw(self._access.name)
            else:
                self._top = await asyncio.to_thread(_local_top, source)
        return self._top

    async def _instance(self, entry: Entry) -> bytes:
        """The manifest (or a nested index) that an index lists, compared with its digest."""
        if isinstance(self._source, LocalSource):
            content = await asyncio.to_thread(_local_blob, self._source, entry.digest)
        else:
            content = await self._raw(self._access.at(entry.digest))
        if (found := _sha256(content)) != entry.digest:
            raise PodwrightError(
                f"{self._access.about}: its index lists {entry.digest}, what is served there is {found}"
            )
        return content

    async def _raw(self, name: str) -> bytes:
        access = self._access
        command = ["skopeo", "--debug", *access.options, "inspect", "--raw"]
        command += ["--authfile", str(access.authfile), *access.tls("--tls-verify"), name]
        said = bytearray()
        try:
            with self._telling(lambda: said.decode(errors="replace")):
                done = await spawn.run(command, env=access.environment, limit=MAX_MANIFEST + 1, said=said)
        except FileNotFoundError:
            raise FailedPrecondition("images are pulled by skopeo, which is not installed") from None
        if done.status != 0:
            log = done.stderr.decode(errors="replace")
            raise failure(fatal_words(log) or f"skopeo ended with status {done.status}", log, access)
        if len(done.stdout) > MAX_MANIFEST:
            raise PodwrightError(f"{access.about}: its manifest has more than {MAX_MANIFEST >> 20} MiB")
        return done.stdout

    @asynccontextmanager
    async def _skopeo(self) -> AsyncIterator[tuple[proxy.Proxy, int]]:
        """A proxy for one blob, and its handle of the image.

        While a registry is slow to answer, or a blob to end, its proxy answers nothing else. So blobs that
        are fetched side by side have a proxy each; the next blob takes one that has become free.
        """
        async with self._resolving:
            resolved = self._resolved or await self.resolve()
        taken = self._idle.pop() if self._idle else await self._open(resolved)
        free = False
        try:
            with self._telling(taken.skopeo.log):
                yield taken.skopeo, taken.handle
            free = True
        finally:
            if free:
                self._idle.append(taken)
            else:
                await to_the_end(taken.stack.aclose())

    async def _open(self, resolved: Resolved) -> _Opened:
        access, stack = self._access, AsyncExitStack()
        self._stack.push_async_callback(stack.aclose)
        arguments = ["--authfile", str(access.authfile), *access.tls("--tls-verify")]
        options = [*access.options, *platform_options(resolved.platform)]
        local_source = isinstance(self._source, LocalSource)
        name = access.name if local_source else access.at(resolved.manifest_digest)
        try:
            skopeo = await stack.enter_async_context(proxy.started(options, arguments, access.environment))
        except proxy.Refused as error:
            raise failure(str(error), "", access) from error
        try:
            with self._telling(skopeo.log):
                return _Opened(skopeo, await skopeo.open(name), stack)
        except proxy.Refused as error:
            raise failure(str(error), skopeo.log(), access) from error


@dataclass(frozen=True, slots=True)
class _Opened:
    skopeo: proxy.Proxy
    handle: int
    stack: AsyncExitStack
    """Ends it."""


def chosen(source: str, wanted: Platform, index: Index) -> Entry:
    """The one of an index's manifests for the `wanted` platform; NotFound, naming those that there are."""
    known = [each for each in index.manifests if each.media_type in ("", *MANIFEST_TYPES, *INDEX_TYPES)]
    offered = [each.platform.platform() if each.platform else None for each in known]
    place = best(wanted, offered)
    if place is None:
        there = ", ".join(dict.fromkeys(str(each) for each in offered if each and each.os != "unknown"))
        raise NotFound(
            f"{source}: there is no image for {wanted}; there are {there or 'none with a platform'}"
        )
    return known[place]


def _local_top(source: LocalSource) -> bytes:
    with local.reading(source) as read:
        if source.transport == "dir":
            return read("manifest.json")
        return read(_blob_name(local.entry_of(source, read).digest))


def _local_blob(source: LocalSource, digest: str) -> bytes:
    with local.reading(source) as read:
        if source.transport == "dir":
            return read(f"{digest.partition(':')[2]}.manifest.json")
        return read(_blob_name(digest))


def _blob_name(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or not digits.isalnum():
        raise PodwrightError(f"{digest!r} stands where a sha256 digest is needed")
    return f"blobs/sha256/{digits}"


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
