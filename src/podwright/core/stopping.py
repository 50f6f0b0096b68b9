"""Stopping a container: its signal once, a wait, SIGKILL, a wait for the real end.

Any number of StopContainer calls may be waiting. The soft signal is sent by the first; the shortest
time-out of all of them decides when SIGKILL follows, because it is a timer of the container, not of a call.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from podwright.core.ends import look
from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord
from podwright.core.states import ContainerState
from podwright.errors import DeadlineExceeded
from podwright.spec.signals import parse_signal
from podwright.steps import current, step

KILL_AGAIN = 2.0
"""Seconds after which an unheard SIGKILL is repeated: a frozen container or a race with exec may swallow one,
and an engine may have missed the end."""
GIVE_UP = 120.0
"""Seconds after which a process that SIGKILL does not end (stuck in the kernel) is reported."""

log = logging.getLogger(__name__)


async def stop(ground: Ground, record: ContainerRecord, timeout: int) -> None:
    """Stop with `timeout` seconds of grace. One that is not running is stopped already."""
    start = ground.starts.get(record.id)
    if record.state is ContainerState.STARTING and start is None:
        await ground.detached(look(ground, record))  # recovery could not tell
    if record.state not in (ContainerState.STARTING, ContainerState.RUNNING):
        return
    if timeout > 0:
        _kill_not_later_than(ground, record, timeout)
        try:
            async with ground.clock.timeout(timeout):
                if start is not None:
                    with step("wait for start", record.id):
                        await start.over.wait()  # a program that does not run yet hears no signal but SIGKILL
                if record.state is ContainerState.RUNNING:
                    with step("grace period", record.id):
                        await ground.detached(_signal_softly(ground, record))
                        await record.exited.wait()
                return
        except TimeoutError:
            pass
    await end(ground, record)


async def _signal_softly(ground: Ground, record: ContainerRecord) -> None:
    if record.soft_signal_sent:
        return
    record.soft_signal_sent = True
    try:
        with step("signal", record.stop_signal):
            number = parse_signal(record.stop_signal).number
            await ground.engine.signal_container(record.seen_by_engine(), number)
    except BaseException:
        record.soft_signal_sent = False  # the next call sends it
        raise


async def end(ground: Ground, record: ContainerRecord) -> None:
    """SIGKILL until it has ended; one row of signals, however many ask for it, and whoever goes away.

    Raises DeadlineExceeded when it runs on nevertheless. A start that does not notice is cut short.
    """
    with step("kill", record.id):
        ending = ground.endings.get(record.id)
        if ending is None:
            ending = ground.endings[record.id] = ground.start(_end(ground, record))
            ending.add_done_callback(lambda _: ground.endings.pop(record.id))
        await asyncio.shield(ending)


async def _end(ground: Ground, record: ContainerRecord) -> None:
    if record.kill_timer is not None:
        record.kill_timer.cancel()
        record.kill_timer = None
    ground.stops.pop(record.id, None)
    if (checkpoint := ground.checkpoints.get(record.id)) is not None:
        checkpoint.cancel()
    clock = ground.clock
    give_up = clock.monotonic() + GIVE_UP
    while not record.exited.is_set():
        await ground.engine.signal_container(record.seen_by_engine(), signal.SIGKILL)
        try:
            async with clock.timeout(KILL_AGAIN):
                await record.exited.wait()
        except TimeoutError:
            await look(ground, record)
            if clock.monotonic() > give_up and not record.exited.is_set():
                raise DeadlineExceeded(
                    f"container {record.id} (pid {record.facts.pid}) still runs {GIVE_UP:.0f} s after SIGKILL"
                ) from None
    if (start := ground.starts.get(record.id)) is not None:
        await start.cut_short()


def _kill_not_later_than(ground: Ground, record: ContainerRecord, seconds: float) -> None:
    timer = record.kill_timer
    if timer is not None and not timer.cancelled():
        if timer.when() <= ground.clock.monotonic() + seconds:
            return
        timer.cancel()
    if (here := current()) is not None:
        ground.stops.setdefault(record.id, here.call)
    record.kill_timer = ground.clock.call_later(seconds, lambda: ground.start(_end_logged(ground, record)))


async def _end_logged(ground: Ground, record: ContainerRecord) -> None:
    try:
        await end(ground, record)
    except Exception as error:
        log.error("container %s: %s", record.id, error)
