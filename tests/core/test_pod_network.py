"""UpdateRuntimeConfig: what the kubelet tells of the pods' addresses is kept, and told to each new engine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from podwright.engines.fake.engine import FakeEngine
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.wire import cri_pb2 as cri
from tests.core.node import Node


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What engines have been told from here on; they refuse 192.0.2.0/24."""
    seen: list[list[str]] = []

    async def use(self: FakeEngine, cidrs: Sequence[str]) -> None:
        seen.append(list(cidrs))
        if "192.0.2.0/24" in cidrs:
            raise FailedPrecondition("cni.conf_template: no")

    monkeypatch.setattr(FakeEngine, "use_pod_cidrs", use)
    return seen


async def update(node: Node, cidr: str) -> None:
    request = cri.UpdateRuntimeConfigRequest()
    request.runtime_config.network_config.pod_cidr = cidr
    await node.runtime.update_runtime_config(request)


async def shown(node: Node) -> str:
    return (await node.runtime.status(cri.StatusRequest(verbose=True))).info.get("podCIDR", "")


async def test_addresses_outlive_the_process(node: Node, told: list[list[str]]) -> None:
    assert await shown(node) == ""
    await update(node, "10.1.0.0/16,fd00::/64")
    assert told == [["10.1.0.0/16", "fd00::/64"]]
    await node.after_crash()
    assert told == [["10.1.0.0/16", "fd00::/64"]] * 2
    assert await shown(node) == "10.1.0.0/16,fd00::/64"
    await update(node, "10.2.0.0/16")
    await node.after_crash()
    assert told[2:] == [["10.2.0.0/16"]] * 2


async def test_nothing_told_changes_nothing(node: Node, told: list[list[str]]) -> None:
    await update(node, "10.1.0.0/16")
    await update(node, "")
    await node.runtime.update_runtime_config(cri.UpdateRuntimeConfigRequest())
    assert told == [["10.1.0.0/16"]]
    assert await shown(node) == "10.1.0.0/16"


async def test_what_cannot_be_is_refused_and_not_kept(node: Node, told: list[list[str]]) -> None:
    with pytest.raises(InvalidArgument, match=r"^runtime_config\.network_config\.pod_cidr: 'pods' is no"):
        await update(node, "pods")
    assert told == []
    with pytest.raises(FailedPrecondition, match="conf_template"):
        await update(node, "192.0.2.0/24")
    assert await shown(node) == ""
    await node.after_crash()
    assert told == [["192.0.2.0/24"]]
