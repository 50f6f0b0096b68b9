"""Stop signals on Windows, which knows two."""

from __future__ import annotations

from podwright.errors import InvalidArgument
from podwright.spec.signals import DEFAULT, StopSignal, effective_stop_signal

_MEANINGFUL = ("SIGTERM", "SIGKILL")


def windows_stop_signal(requested: int, image: str) -> StopSignal:
    """The request's signal (cri.Signal), else the image's StopSignal, else SIGTERM.

    An image's other signals are those of a system that this is not: SIGTERM is what they come to. Raises
    InvalidArgument when the request names another, or the image none at all.
    """
    found = effective_stop_signal(requested, image)
    if found.name in _MEANINGFUL:
        return found
    if requested:
        raise InvalidArgument(
            "config.stop_signal", f"{found.name} does not exist on Windows; there are SIGTERM and SIGKILL"
        )
    return DEFAULT
