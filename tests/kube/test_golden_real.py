"""The recorded cases for real: the same calls, told the same, with the same status; and what containers have,
seen from inside, is what was asked for them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from traceback import format_exception

import pytest

from podwright.linux import mounts
from tests.kube import golden, golden_look
from tests.kube.golden_machine import RealStage, machine
from tests.kube.golden_play import OWN_WORDS, Differences, play

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

TOGETHER = 12
"""Cases that play at the same time; most of them wait most of the time."""
PROBED = ("probe-http", "probe-tcp", "hook-http-poststart", "static-critical")
PROBED_BY_EXEC = ("probe-exec", "probe-liveness-fails", "sidecar")
LATE = "a probe may come when the container has ended"
EARLY = "a probe may come before the program listens"
SLOW = "on a busy machine a second may be too short for a probe"
DIFFERENCES = Differences(
    status={
        "pull-fails": {"containerStatuses.state.waiting.message": OWN_WORDS},
        "start-fails": {
            f"containerStatuses.{state}.message": OWN_WORDS
            for state in ("state.waiting", "state.terminated", "lastState.terminated")
        },
        "sysctl-forbidden": {
            "containerStatuses": "a pod that is refused is over at once, not when it is deleted"
        },
    },
    events={
        ("pull-fails", 'Failed to pull image "registry.test/no-such:1": rpc error: code = '): OWN_WORDS,
        ("start-fails", "/no/such/binary"): OWN_WORDS,
        **{(case, "connection refused"): EARLY for case in PROBED},
        **{(case, "is not running"): LATE for case in PROBED_BY_EXEC},
        **{(case, "command timed out"): SLOW for case in PROBED_BY_EXEC},
        **{(case, words): SLOW for case in PROBED for words in ("deadline exceeded", "i/o timeout")},
    },
)
"""Places that differ on real containers, and why."""


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """What was wrong with each of the cases that are to run; "" where nothing was."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    wanted = {
        str(item.callspec.params["case"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
    }
    # Users of pods with their own must be able to pass; below pytest's directories they may not.
    root = Path(tempfile.mkdtemp(prefix="podwright-golden-"))
    root.chmod(0o711)
    try:
        found = asyncio.run(_play_all(sorted(wanted, key=_seconds, reverse=True), root))
        assert [one.target for one in mounts.mounts_below(root)] == []
        assert [*root.glob("root/cni/bridge.json"), *root.glob("root/pods/*"), *root.glob("logs/*")] == []
    finally:
        mounts.unmount_below(root)
        shutil.rmtree(root)
    return found


async def _play_all(cases: list[str], root: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    turns = asyncio.Semaphore(TOGETHER)
    async with machine(root) as here, asyncio.TaskGroup() as group:

        async def one(case: str) -> None:
            async with turns:
                try:
                    found[case] = await _play(RealStage(here, case))
                except Exception as error:
                    found[case] = "".join(format_exception(error))

        for case in cases:
            group.create_task(one(case))
    return found


async def _play(stage: RealStage) -> str:
    try:
        await play(stage, DIFFERENCES, partial(_look, stage))
        return "\n".join(await golden_look.left(stage))
    except AssertionError as error:
        told = (f"{one.reason} {one.object}: {one.message}" for one in stage.worker.events)
        return "\n".join((str(error), "Its events:", *told))
    finally:
        await stage.close()


async def _look(stage: RealStage) -> None:
    if found := await golden_look.faults(stage):
        raise AssertionError("\n".join(found))


def _seconds(case: str) -> int:
    """How long the case took a kubelet to wait, about."""
    return sum(int(one.get("after_seconds", 0)) for one in golden.calls(case))


@pytest.mark.parametrize("case", golden.CASES)
def test_real_containers_are_as_a_kubelet_asked(case: str, played: Mapping[str, str]) -> None:
    if played[case]:
        pytest.fail(played[case], pytrace=False)  # every word of it, which an assertion would cut short
