"""Asking by a connection: healthy is who accepts it."""

from __future__ import annotations

from podwright.clock import Clock
from podwright.kube.probes.answers import Answer
from podwright.kube.probes.dial import DialError, address, connected


async def ask(host: str, port: int, timeout: float, clock: Clock) -> Answer:
    """`timeout` in seconds."""
    try:
        async with clock.timeout(timeout), connected(host, port):
            return Answer(True)
    except DialError as error:
        return Answer(False, str(error))
    except TimeoutError:
        return Answer(False, f"dial tcp {address(host, port)}: i/o timeout")
