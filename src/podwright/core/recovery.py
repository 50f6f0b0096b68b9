"""Recovery: after a start, make the records and what is really there agree.

What was being created is undone, what was being removed or stopped is finished, what runs is known again,
and exits that happened meanwhile are collected. Nothing here fails the start: what cannot be repaired now
keeps its record, is logged, and is tried again: a look a little later, a removal when a client asks for it or
at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from podwright.core.containers import ContainerMaking, Containers
from podwright.core.ends import LIVING, look
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord, SandboxRecord
from podwright.core.sandboxes import Sandboxes, SandboxMaking
from podwright.core.states import ContainerState, SandboxState
from podwright.core.updates import settle as settle_update

AT_ONCE = 8
"""Objects repaired side by side."""
PATIENCE = 20.0
"""Seconds that calls wait for sandboxes to be settled."""

LOOK_AGAIN = 10.0
"""Seconds after which an object that could not be looked at is looked at once more."""

log = logging.getLogger(__name__)
R = TypeVar("R", SandboxRecord, ContainerRecord)


async def recover(ground: Ground, sandboxes: Sandboxes, containers: Containers) -> None:
    records = ground.records

    async def settle(record: ContainerRecord) -> None:
        if record.state is ContainerState.CREATING:
            await ContainerMaking(ground, record).discard()
        elif record.state is ContainerState.REMOVING:
            await containers.finish_removal(record)
        else:
            await _look(ground, record)

    async def settle_sandbox(record: SandboxRecord) -> None:
        if record.state is SandboxState.CREATING:
            await SandboxMaking(ground, record).discard()
        elif record.state is SandboxState.REMOVING:
            await sandboxes.finish_removal(record)
        elif record.state is SandboxState.STOPPING:
            async with record.lock:
                await sandboxes.stop_locked(record)
        elif record.state is SandboxState.READY and not await ground.engine.sandbox_alive(
            record.seen_by_engine()
        ):
            sandboxes.lose(record)

    late = False

    async def settle_rest() -> None:
        if any(each.state is SandboxState.READY for each in await _each(settle_sandbox, records.sandboxes)):
            look_later(ground, sandboxes, containers)
        if late:
            return  # new sandboxes are being made: the next start does it
        try:
            await ground.engine.forget_others({sandbox.id for sandbox in records.sandboxes})
        except Exception as error:
            log.error("recovery: %s", error)

    if any(each.state in LIVING for each in await _each(settle, records.containers)):
        look_later(ground, sandboxes, containers)
    # Sandboxes that are being undone, stopped or removed are safe from clients (unseen, or locked): a network
    # plugin that hangs need not keep the others waiting.
    rest = ground.start(settle_rest())
    await asyncio.wait([rest], timeout=PATIENCE)
    if not rest.done():
        late = True
        log.warning("recovery goes on beside new calls: something did not end within %.0f s", PATIENCE)


async def look_again(ground: Ground, sandboxes: Sandboxes, containers: Containers) -> None:
    """Exits may have been missed. What cannot be looked at now is looked at a little later."""

    async def look_at_sandbox(record: SandboxRecord) -> None:
        if record.state is SandboxState.READY and not await ground.engine.sandbox_alive(
            record.seen_by_engine()
        ):
            sandboxes.lose(record)

    async def look_at_container(record: ContainerRecord) -> None:
        if record.state in LIVING:
            await _look(ground, record)

    unseen = await _each(look_at_container, ground.records.containers)
    if await _each(look_at_sandbox, ground.records.sandboxes) or unseen:
        look_later(ground, sandboxes, containers)


def look_later(ground: Ground, sandboxes: Sandboxes, containers: Containers) -> None:
    if ground.look_again is None or ground.look_again.cancelled():
        ground.look_again = ground.clock.call_later(
            LOOK_AGAIN, lambda: ground.start(look_again(ground, sandboxes, containers))
        )


async def _look(ground: Ground, record: ContainerRecord) -> None:
    if record.state is not ContainerState.EXITED:
        await look(ground, record)
    if record.wanted is not None and record.state in (*LIVING, ContainerState.EXITED):
        await settle_update(ground, record)


async def _each(settle: Callable[[R], Awaitable[None]], records: Iterable[R]) -> list[R]:
    """Do it for all, some at a time; those for which it failed."""
    rest = iter(records)
    failed = []

    async def some() -> None:
        for record in rest:
            try:
                await settle(record)
            except Exception as error:
                log.error("%s (%s) could not be settled: %s", record.id, record.state.value, error)
                failed.append(record)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return failed
