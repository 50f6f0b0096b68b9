"""Stop signals by their names in the API: "SIGRTMIN+1" where the CRI says SIGRTMINPLUS1. Pure."""

from __future__ import annotations

from podwright.wire import cri_pb2 as cri

DEFAULT = "RUNTIME_DEFAULT"
BY_NAME = {
    name.replace("PLUS", "+").replace("MINUS", "-"): name
    for name in cri.Signal.DESCRIPTOR.values_by_name
    if name != DEFAULT
}
"""The CRI's names by those of the API."""


def name(number: int) -> str:
    """The API's name of the CRI's signal; "" for the runtime's own choice."""
    found = cri.Signal.DESCRIPTOR.values_by_number[number].name
    return next((name for name, one in BY_NAME.items() if one == found), "")
