"""Stopping a container: its signal once, a wait, SIGKILL, a wait for the real end.

Any number of StopContainer calls may be waiting. The soft signal is sent by the first; the shortest
time-out of all of them decides when SIGKILL follows, because it is a timer of the container, not of a call.
"""

from __future__ import annotations

import logging
import signal

from podwright.core.ground import Ground
from podwright.core.records import ContainerRecord
from podwright.core.states import ContainerState
from podwright.errors import DeadlineExceeded
from podwright.spec.signals import parse_signal

KILL_AGAIN = 2.0
"""Seconds after which an unheard SIGKILL is repeated: a frozen cgroup or a race with exec may swallow one."""
GIVE_UP = 120.0
"""Seconds after which a process that SIGKILL does not end (stuck in the kernel) is reported."""

log = logging.getLogger(__name__)


async def stop(ground: Ground, record: ContainerRecord, timeout: int) -> None:
    """Stop with `timeout` seconds of grace. One that is not running is stopped already."""
    if record.state is ContainerState.STARTING:
        async with record.lock:
            pass  # its start is about to end
    if record.state is not ContainerState.RUNNING:
        return
    if timeout <= 0:
        await end(ground, record)
        return
    _kill_not_later_than(ground, record, timeout)
    if not record.soft_signal_sent:
        record.soft_signal_sent = True
        await ground.engine.signal_container(record.seen_by_engine(), parse_signal(record.stop_signal).number)
    await record.exited.wait()


async def end(ground: Ground, record: ContainerRecord) -> None:
    """SIGKILL until it has ended."""
    if record.kill_timer is not None:
        record.kill_timer.cancel()
        record.kill_timer = None
    clock = ground.clock
    give_up = clock.monotonic() + GIVE_UP
    while not record.exited.is_set():
        await ground.engine.signal_container(record.seen_by_engine(), signal.SIGKILL)
        try:
            async with clock.timeout(KILL_AGAIN):
                await record.exited.wait()
        except TimeoutError:
            if clock.monotonic() > give_up:
                raise DeadlineExceeded(
                    f"container {record.id} (pid {record.facts.pid}) still runs {GIVE_UP:.0f} s after SIGKILL"
                ) from None


def _kill_not_later_than(ground: Ground, record: ContainerRecord, seconds: float) -> None:
    timer = record.kill_timer
    if timer is not None and not timer.cancelled():
        if timer.when() <= ground.clock.monotonic() + seconds:
            return
        timer.cancel()
    record.kill_timer = ground.clock.call_later(seconds, lambda: ground.start(_end_logged(ground, record)))


async def _end_logged(ground: Ground, record: ContainerRecord) -> None:
    try:
        await end(ground, record)
    except Exception as error:
        log.error("container %s: %s", record.id, error)
