"""What the oci engine would make of a request, without making anything.

Whoever has the engine open explains with its parts; `planned` gives the same from a configuration alone,
beside a server that runs, and to users who are not root as far as they may read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Image, Sandbox
from podwright.engines.node import host
from podwright.engines.node.places import Places
from podwright.engines.node.plan import NodePlan
from podwright.engines.node.requests import PAUSE, Requests, has_pause
from podwright.engines.node.runtimes import Runtime
from podwright.engines.oci.runtimes import Runtimes
from podwright.errors import NotFound, PodwrightError
from podwright.hooks.running import Hooks
from podwright.images.store import ImageStore
from podwright.spec.linux.build import Built, build_sandbox
from podwright.state.database import Database


class Plan(NodePlan):
    """Implements engines.base.Planner."""

    name = "oci"

    async def _pause(self, sandbox: Sandbox, runtime: Runtime, warnings: list[str]) -> Built | None:
        if not has_pause(sandbox):
            return None
        if shutil.which(PAUSE) is None:
            warnings.append(f"{PAUSE} is not installed: pods cannot share a PID namespace without it")
        level = self._levels.foreseen_of_pod(sandbox)
        return build_sandbox(self._requests.sandbox(sandbox, runtime, level), self._facts, explain=True)


class StoredImages:
    """A foreseen.SeenImages of our own store; None when it cannot be read."""

    def __init__(self, store: ImageStore | None) -> None:
        self._store = store

    async def find(self, reference: str) -> Image | None:
        return await self._store.find(reference) if self._store is not None else None

    async def layers(self, image_id: str, handler: str) -> Sequence[Path]:
        if self._store is None:
            raise NotFound("the image store cannot be read")
        return self._store.lower_dirs(image_id)


@contextmanager
def planned(config: Config, hooks: Hooks) -> Iterator[Plan]:
    """A plan of the oci engine as `config` describes it. FailedPrecondition when a configured file or value
    cannot be used."""
    places = Places(config)
    facts = host.facts(config)
    runtimes = Runtimes(config, places)
    runtimes.find()
    requests = Requests(config, places, runtimes, facts)
    with _stored_images(config) as images:
        yield Plan(config, places, runtimes, StoredImages(images), facts, requests, hooks)


@contextmanager
def _stored_images(config: Config) -> Iterator[ImageStore | None]:
    """The image store as its records are now; None when they cannot be read."""
    try:
        database = Database.look(config.root_path / "podwright.db")
    except (OSError, PodwrightError):
        yield None
        return
    try:
        store: ImageStore | None = ImageStore(config.root_path / "images", database, config)
        try:
            assert store is not None
            store.look()
        except PodwrightError:
            store = None
        yield store
    finally:
        database.close()
