"""One life of a fake server: database, engine and core, from recovery to a leave-taking, or to a kill -9.

After `kill` nothing happens any more: the database is closed, the engine does not act, the front has let its
callers go. What tasks are left find that out at their next step and end (`bury`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from podwright.config import Config
from podwright.core.runtime import Runtime
from podwright.engines.fake.engine import FakeEngine
from podwright.engines.fake.world import World
from podwright.hooks.running import Hooks
from podwright.house import keep_to_engine
from podwright.state.database import Database
from podwright.streaming.giver import LazyServer
from podwright.testing.front import Front
from podwright.tracing.exporting import exported

DATABASE = "podwright.db"


class Life:
    """Opened by `open`, which a kill leaves hanging; ended by `close`, or by `kill` and then `bury`."""

    def __init__(self, config: Config, world: World, front: Front, hooks: Hooks | None = None) -> None:
        self.killed = False
        self._opening: asyncio.Task[Any] | None = None
        self._front = front
        # The world is gone with this process: nothing needs to outlast the machine.
        self._database = _MortalDatabase.open(config.root_path / DATABASE, lasting=False)
        try:
            keep_to_engine(self._database, config)
        except BaseException:
            self._database.close()
            raise
        self.engine = FakeEngine(world, config.logs)
        self.runtime = Runtime(config, self.engine, self._database, hooks)
        self._streams = LazyServer(self.runtime)
        self._spans = AsyncExitStack()

    async def open(self) -> None:
        """Recover, and let calls in."""
        self._opening = asyncio.current_task()
        await self._spans.enter_async_context(exported(self.runtime.operations, self.runtime.config.tracing))
        await self.engine.open()
        await self.runtime.open()
        self._front.open(self.runtime)

    def kill(self, reason: str = "") -> None:
        """What kill -9 does, at this instruction. With a reason callers at sockets hear it: their connections
        stay."""
        self.killed = True
        self.engine.crash()
        self._streams.abort()
        self._database.close()
        self._front.crash(reason)

    async def bury(self) -> None:
        """After `kill`: return when no task of this life is left."""
        self.engine.bury()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await self._front.bury()
        await self._streams.close()
        await self.runtime.abandon()
        await self._spans.aclose()

    async def close(self) -> None:
        """What SIGTERM does: creations under way are rolled back, containers go on."""
        self._front.shut("stopping")
        await self._streams.close()
        await self.runtime.close()
        await self._spans.aclose()
        await self.engine.close()
        self._database.close()


class _MortalDatabase(Database):
    """Once closed it cancels whoever still writes: code of a process that is gone does not run on."""

    _closed = False

    def close(self) -> None:
        self._closed = True
        super().close()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        self._check()
        return super().execute(sql, parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._check()
        with super().transaction():
            yield

    def _check(self) -> None:
        if self._closed:
            raise asyncio.CancelledError
