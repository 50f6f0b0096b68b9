"""For tests: a fake node in this process (`FakeNode`) or another (`FakeServer`), its calls and its faults.

Fixtures for pytest are in `podwright.testing.fixtures`; nothing else here needs pytest. What is named here is
loaded when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podwright.engines.fake.faults import Fault, FaultError
    from podwright.engines.fake.scenario import Scenario
    from podwright.engines.fake.subject import Match, Subject
    from podwright.testing.calls import Call, Calls
    from podwright.testing.client import Client
    from podwright.testing.node import FakeNode
    from podwright.testing.process import FakeServer

__all__ = [
    "Call",
    "Calls",
    "Client",
    "FakeNode",
    "FakeServer",
    "Fault",
    "FaultError",
    "Match",
    "Scenario",
    "Subject",
]

_HOMES = {
    "Call": "podwright.testing.calls",
    "Calls": "podwright.testing.calls",
    "Client": "podwright.testing.client",
    "FakeNode": "podwright.testing.node",
    "FakeServer": "podwright.testing.process",
    "Fault": "podwright.engines.fake.faults",
    "FaultError": "podwright.engines.fake.faults",
    "Match": "podwright.engines.fake.subject",
    "Scenario": "podwright.engines.fake.scenario",
    "Subject": "podwright.engines.fake.subject",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
