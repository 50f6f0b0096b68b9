"""Stop signals: the CRI's names, the image's spelling, and the kernel's numbers."""

from __future__ import annotations

import signal
from typing import NamedTuple

from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri


class StopSignal(NamedTuple):
    name: str
    """As the CRI writes it: "SIGTERM", "SIGRTMINPLUS3"."""
    number: int
    cri: int
    """cri.Signal."""


_RTMIN, _RTMAX = 34, 64
"""What glibc leaves to programs, and what images mean by their numbers (signal(7))."""


def _numbers() -> dict[str, int]:
    """Numbers by the CRI's names."""
    numbers = {item.name: int(item) for item in signal.Signals if not item.name.startswith("SIGRT")}
    numbers.update(SIGCLD=numbers["SIGCHLD"], SIGIOT=numbers["SIGABRT"], SIGPOLL=numbers["SIGIO"])
    numbers.setdefault("SIGSTKFLT", 16)
    numbers["SIGRTMIN"], numbers["SIGRTMAX"] = _RTMIN, _RTMAX
    for step in range(1, 16):
        numbers[f"SIGRTMINPLUS{step}"] = _RTMIN + step
    for step in range(1, 15):
        numbers[f"SIGRTMAXMINUS{step}"] = _RTMAX - step
    return {name: numbers[name] for name in cri.Signal.keys() if name in numbers}  # noqa: SIM118


_BY_NAME = _numbers()
# One name a number; of two spellings the common one.
_BY_NUMBER = {
    number: name for name, number in _BY_NAME.items() if name not in ("SIGCLD", "SIGIOT", "SIGPOLL")
}

DEFAULT = StopSignal("SIGTERM", int(signal.SIGTERM), cri.Signal.SIGTERM)


def effective_stop_signal(requested: int, image: str) -> StopSignal:
    """The request's signal (cri.Signal), else the image's StopSignal, else SIGTERM.

    Raises InvalidArgument when the one that counts is no signal.
    """
    if requested != cri.Signal.RUNTIME_DEFAULT:
        if requested not in cri.Signal.values():
            raise InvalidArgument("config.stop_signal", f"{requested} is no Signal")
        name = cri.Signal.Name(cri.Signal.ValueType(requested))
        if name not in _BY_NAME:
            raise InvalidArgument("config.stop_signal", f"{name} does not exist on Linux")
        return StopSignal(name, _BY_NAME[name], requested)
    return parse_signal(image, "image StopSignal") if image.strip() else DEFAULT


def parse_signal(text: str, field: str = "signal") -> StopSignal:
    """A signal by number or name: "9", "KILL", "sigkill", "SIGRTMIN+3", "RTMAX-2", "SIGRTMINPLUS3"."""
    word = text.strip().upper()
    if word.isascii() and word.isdecimal():
        name = _BY_NUMBER.get(int(word), "")
    else:
        name = word if word.startswith("SIG") else f"SIG{word}"
        name = name.replace("+", "PLUS").replace("-", "MINUS")
        if name in ("SIGRTMINPLUS0", "SIGRTMAXMINUS0"):
            name = name[:8]
    if name not in _BY_NAME:
        raise InvalidArgument(
            field, f"invalid stop signal {text!r}: give a number or a name such as SIGTERM or SIGRTMIN+3"
        )
    return StopSignal(name, _BY_NAME[name], cri.Signal.Value(name))
