"""The house put together: lock, database, engine, core, recovery; and taken apart again.

Every door that runs pods in its own process comes through here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.state.database import Database
from podwright.state.lock import locked

if TYPE_CHECKING:
    from podwright.engines.base import Engine


@asynccontextmanager
async def open_house(config: Config) -> AsyncIterator[Runtime]:
    """A runtime whose recovery has ended. Leaving the block lets go of it; containers keep running.

    Raises FailedPrecondition when another process holds the state root or this host cannot run pods.
    """
    with locked(config.root_path):
        database = Database.open(config.root_path / "podwright.db")
        try:
            maker = _engine(config, database)
            await maker.open()
            try:
                runtime = Runtime(config, maker, database)
                try:
                    await runtime.open()
                    yield runtime
                finally:
                    await runtime.close()
            finally:
                await maker.close()
        finally:
            database.close()


def _engine(config: Config, database: Database) -> Engine:
    # Every engine is imported only by who asks for it.
    match config.engine:
        case "oci":
            from podwright.engines.oci.engine import OciEngine

            return OciEngine(config, database)
        case "fake":
            from podwright.clock import SYSTEM
            from podwright.engines.fake.engine import FakeEngine
            from podwright.engines.fake.world import World

            return FakeEngine(World(SYSTEM))
