"""How far containerd's Transfer service is with a pull, and whether it goes on at all.

Its events are words; those that are not known count as a sign of life and nothing else, so that a newer
containerd costs detail only. A layer is known by its name, "layer-" and its digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from podwright.images.progress import Progress
from podwright.wire import podwright_pb2 as own
from podwright.wire.containerd import transfer_types_pb2

LAYER = "layer-"
STAGES: Mapping[str, own.LayerStage] = {
    "waiting": own.LAYER_WAITING,
    "downloading": own.LAYER_DOWNLOADING,
    "complete": own.LAYER_DOWNLOADED,
    "done": own.LAYER_DOWNLOADED,
    "extracting": own.LAYER_UNPACKING,
    "extracted": own.LAYER_DONE,
    "already exists": own.LAYER_PRESENT,
}
COMING = {own.LAYER_WAITING, own.LAYER_DOWNLOADING}


class Board:
    def __init__(self, progress: Progress, bound: asyncio.Timeout, patience: float) -> None:
        """`bound` ends after `patience` seconds without news while the registry is waited for; 0: never."""
        self._progress = progress
        self._bound = bound
        self._patience = patience
        self._places: dict[str, int] = {}
        self._stages: dict[str, own.LayerStage] = {}
        self._last: dict[str, bytes] = {}
        self._news()

    def tell(self, told: transfer_types_pb2.Progress) -> None:
        """An event has come."""
        content = told.SerializeToString(deterministic=True)
        if self._last.get(told.name) == content:
            return  # told again, nothing new
        self._last[told.name] = content
        if told.name.startswith(LAYER):
            self._layer(told.name.removeprefix(LAYER), told)
        self._news()

    def done(self) -> None:
        """All layers are in place."""
        for digest, place in self._places.items():
            if self._stages[digest] != own.LAYER_PRESENT:
                self._progress.layer(place, own.LAYER_DONE)

    def _layer(self, digest: str, told: transfer_types_pb2.Progress) -> None:
        total = int(told.total or told.desc.size)
        if digest not in self._places:
            self._places[digest] = len(self._places)
            self._progress.layers([(digest, total)])
        stage = STAGES.get(told.event, self._stages.get(digest, own.LAYER_WAITING))
        if stage == own.LAYER_DOWNLOADING and total and told.progress >= total:
            stage = own.LAYER_DOWNLOADED
        self._stages[digest] = stage
        fetched = int(told.progress) if stage == own.LAYER_DOWNLOADING else None
        if stage in (own.LAYER_DOWNLOADED, own.LAYER_PRESENT):
            fetched = total
        self._progress.layer(self._places[digest], stage, fetched, total or None)

    def _news(self) -> None:
        # Unpacking may take as long as it takes: no registry is waited for then.
        unpacks = bool(self._stages) and not COMING & set(self._stages.values())
        now = asyncio.get_running_loop().time()
        self._bound.reschedule(None if unpacks or not self._patience else now + self._patience)
