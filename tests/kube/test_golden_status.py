"""The statuses that a kubelet reported, computed from what its runtime had at that moment."""

from __future__ import annotations

import pytest

from tests.kube import golden
from tests.kube.recorded_pods import Recorded


@pytest.mark.parametrize("case", golden.CASES)
def test_the_status_is_the_kubelets(case: str) -> None:
    recorded = Recorded(case)
    assert recorded.settled() == recorded.truth["status"]
    if "afterDeletion" in recorded.truth:
        assert recorded.deleted() == recorded.truth["afterDeletion"]


def test_all_cases_are_here() -> None:
    assert len(golden.CASES) == 113
