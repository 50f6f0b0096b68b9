"""The image store of the oci engine: what it offers to the engine and to core, each handed to its room.

`records.py` knows which images there are, `layers.py` and `blobs.py` have the files, `collection.py` knows
what may go. A change is one transaction whose rows are written when every file is in place, and a removal
takes the rows before the files: a crash leaves files without rows, never the reverse. `open` clears them up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from podwright.config import Config
from podwright.engines.base import Credentials, FilesystemUse, Image, Json, Orphan
from podwright.errors import PodwrightError
from podwright.images import survivors
from podwright.images.blobs import Blobs
from podwright.images.collection import Collection, Limits
from podwright.images.exporting import Exporting
from podwright.images.importing import Importing, name_for
from podwright.images.layers import EMPTY, Layers
from podwright.images.pinned import Pinned
from podwright.images.pulling import Pulling
from podwright.images.records import Records
from podwright.images.store_intake import StoreDestination
from podwright.images.why import Why
from podwright.state.database import Database
from podwright.steps import step
from podwright.wire import podwright_pb2 as own

log = logging.getLogger(__name__)


CLEARINGS = 5
"""How often the removal of what a crash left is tried."""


class ImageStore:
    """Implements engines.base.ImageService over `root`, a directory of its own."""

    def __init__(self, root: Path, database: Database, config: Config) -> None:
        self._root = root
        pinned = Pinned(config.images.pinned)
        self._layers = Layers(root, database, config.images)
        self._blobs = Blobs(root, database)
        self._records = Records(database, self._layers, self._blobs, pinned)
        limits = Limits(not config.images.discard_unpacked_layers, config.images.pending_blobs_for)
        self._collection = Collection(self._records, self._layers, self._blobs, limits)
        self._why = Why(self._records, self._layers, self._blobs, self._collection, pinned)
        self._exporting = Exporting(self._records, self._layers, self._blobs, limits.keep_layer_blobs)
        destination = StoreDestination(
            config.images, self._layers, self._blobs, self._records, lambda: self._later(self._collect())
        )
        self._pulling = Pulling(config.images, destination)
        self._importing = Importing(destination, self._pulling)
        self._background: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Read the records and clear away what a crash left. Only one process may have a store open."""
        # Setuid programs lie in there: no user of the host may reach them.
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        strays = [*self._layers.open(), *self._blobs.open()]
        if strays:
            await asyncio.to_thread(survivors.end_in, self._root.absolute())
        await self._records.open()
        if strays:
            self._later(self._clear())
        self._later(self._collect())

    def look(self) -> None:
        """Instead of `open`, for who only reads the records, beside the one who has the store open. The
        database may be read-only. Raises PodwrightError where there are no records."""
        self._layers.look()
        self._blobs.look()
        self._records.look()

    async def close(self) -> None:
        """End transfers and wait for removals that are under way."""
        await self._pulling.close()
        while self._background:
            await asyncio.wait(self._background)
            self._background = {task for task in self._background if not task.done()}
        self._collection.stop()

    # ImageService

    async def list(self) -> Sequence[Image]:
        return [entry.image for entry in self._records.visible()]

    async def find(self, reference: str) -> Image | None:
        """See `Records.find`."""
        return self._records.find(reference)

    async def pull(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Fetch `reference`: a name in a registry, or oci:, oci-archive:, docker-archive: or dir: with an
        absolute path. See ImageService for the errors. The last caller who gives up ends the pull."""
        return await self._pulling.pull(reference, credentials)

    def watch_pulls(self, image: str = "") -> AsyncIterator[own.PullProgress]:
        return self._pulling.watch(image)

    async def remove(self, reference: str) -> None:
        """Remove the image that `reference` names with all its names; none is fine. Its layers stay as long
        as containers use them."""
        image = self._records.find(reference)
        if image is not None:
            with step("remove image"):
                self._records.remove(image.id)
                await self._collect()

    async def filesystem_use(self) -> FilesystemUse:
        size, inodes = self._blobs.use()
        layer_size, layer_inodes = self._layers.use()
        own_size = self._root.lstat().st_blocks * 512
        return FilesystemUse(str(self._root), size + layer_size + own_size, inodes + layer_inodes + 1)

    async def explain_blob(self, digest: str) -> own.ExplainBlobResponse:
        return self._why.explain(digest)

    async def prune(self, *, dry_run: bool, untagged_only: bool) -> own.PruneImagesResponse:
        images = self._collection.prunable(untagged_only)
        answer = self._collection.pruned(images)
        if not dry_run:
            for image in images:
                self._records.remove(image.id)
            await self._collect(pending=True)
        return answer

    async def import_image(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        return await self._importing.bring(source, reference, config)

    async def export_image(self, reference: str, target: str) -> tuple[Image, int]:
        return await self._exporting.export(reference, target)

    # For the engine

    async def import_root(self, directory: Path, reference: str, *, config: Mapping[str, Json]) -> Image:
        """Make an image of one layer of the root directory `directory` and name it `reference`.

        `config` is the `config` section of the image (Env, Cmd, User, …). The same tree and configuration
        give the same image id. Blocks nothing.
        """
        return await self._importing.directory(directory, name_for(reference), config)

    def lower_dirs(self, image_id: str) -> Sequence[Path]:
        """The layers for an overlay mount, topmost first; at least one. NotFound without the image."""
        layers = [self._layers.get(chain) for chain in reversed(self._records.entry(image_id).chain)]
        return [self._layers.directory(layer.number if layer else EMPTY) for layer in layers] or [
            self._layers.directory(EMPTY)
        ]

    async def unpack_changes(self, image_id: str, diff_id: str, file: Path, work: Path) -> Path:
        """See `Layers.unpack_changes`."""
        return await self._layers.unpack_changes(self._records.entry(image_id).chain, diff_id, file, work)

    def held(self, image_id: str) -> Image | None:
        """The image with this full id, also when it was removed and containers still use it."""
        entry = self._records.images.get(image_id)
        return entry.image if entry else None

    def acquire(self, image_id: str, container_id: str) -> None:
        """Keep the image's layers until `release`, whatever happens to its names. NotFound without it."""
        self._records.acquire(image_id, container_id)

    def release(self, container_id: str) -> None:
        """End what `acquire` began for exactly this name; one that holds nothing is fine."""
        if self._records.release(container_id):
            self._later(self._collect())

    def release_all(self, container_id: str) -> None:
        """End all uses by a container: what it acquired as itself and as "<its id>#<which>"."""
        for user in [each for each in self._records.users if each.partition("#")[0] == container_id]:
            self.release(user)

    def orphans(self, containers: set[str]) -> Sequence[Orphan]:
        """Uses by containers that are not in `containers`, and files that belong to no record.

        Who needs several images for one container acquires them as "<container's id>#<which>".
        """
        uses = [
            Orphan("image-use", container, f"keeps the layers of {image}")
            for container, image in self._records.users.items()
            if container.partition("#")[0] not in containers
        ]
        directories = [Orphan("image-directory", str(path)) for path in self._layers.strays()]
        return [*uses, *directories, *(Orphan("image-blob", str(path)) for path in self._blobs.strays())]

    async def remove_orphan(self, orphan: Orphan) -> None:
        path = Path(orphan.name)
        if orphan.kind == "image-use":
            self.release(orphan.name)
        elif path in self._layers.strays():
            await self._layers.delete([path])
        elif path in self._blobs.strays():
            await self._blobs.delete([path])

    # Removal

    async def _clear(self) -> None:
        """Remove what a crash left. A program of the process that died may still be removing some of it."""
        for attempt in range(CLEARINGS):
            await asyncio.sleep(attempt * 0.1)
            layers, blobs = self._layers.strays(), self._blobs.strays()
            if not layers and not blobs:
                return
            try:
                await self._layers.delete(layers)
                await self._blobs.delete(blobs)
            except PodwrightError:
                if attempt == CLEARINGS - 1:
                    raise

    async def _collect(self, *, pending: bool = False) -> None:
        await self._collection.collect(pending=pending)
        self._collection.when_next_expires(lambda: self._later(self._collect()))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a removal on its own; `close` waits for it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("image files remain until the next start or `podwright doctor --fix`: %s", error)
