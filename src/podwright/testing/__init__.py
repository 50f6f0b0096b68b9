"""For tests: a fake node in this process (`FakeNode`), its log of calls, its faults and scenarios.

Fixtures for pytest are in `podwright.testing.fixtures`; nothing here needs pytest.
"""

from __future__ import annotations

from podwright.engines.fake.faults import Fault, FaultError
from podwright.engines.fake.scenario import Scenario
from podwright.engines.fake.subject import Match, Subject
from podwright.testing.calls import Call, Calls
from podwright.testing.node import FakeNode

__all__ = ["Call", "Calls", "FakeNode", "Fault", "FaultError", "Match", "Scenario", "Subject"]
