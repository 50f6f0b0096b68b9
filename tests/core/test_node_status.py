"""What a verbose Status tells of the configuration: the one that holds, with every engine."""

from __future__ import annotations

import json

import msgspec

from podwright.config import Config, StreamingConfig
from podwright.core.node import runtime_config, status
from podwright.engines.base import EngineStatus, Handler
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri

SCENARIO = {
    "handlers": {"quick": {}, "broken": {"error": "no room"}},
    "default_handler": "quick",
}


async def test_a_fake_node_tells_what_it_goes_by_and_nothing_of_programs_that_it_does_not_run() -> None:
    async with FakeNode(SCENARIO, seed=7) as node:
        answer = await node.cri.status(cri.StatusRequest(verbose=True))
        assert json.loads(answer.info["config"]) == {
            "engine": "fake",
            "root": node.config.root,
            "run": node.config.run,
            "hooks": [],
            "create_timeout": 240.0,
            "streaming": msgspec.to_builtins(StreamingConfig()),
            "default_handler": "quick",
            "handlers": {
                "quick": {"error": "", "recursive_read_only": True, "user_namespaces": True},
                "broken": {"error": "no room", "recursive_read_only": True, "user_namespaces": True},
            },
            "seed": 7,
            "clock": "virtual",
        }
        node.scenario({"seed": 8})
        answer = await node.cri.status(cri.StatusRequest(verbose=True))
        told = json.loads(answer.info["config"])
        assert (told["default_handler"], list(told["handlers"]), told["seed"]) == ("fake", ["fake"], 7)
        assert "config" not in (await node.cri.status(cri.StatusRequest())).info


def test_an_engine_without_a_configuration_of_its_own_goes_by_the_houses() -> None:
    config = Config(default_handler="runc")
    answer = status(EngineStatus((), "runc"), True, config)
    assert json.loads(answer.info["config"]) == msgspec.to_builtins(config)


def test_every_condition_says_why_it_is_not() -> None:
    handlers = (Handler("one", True, "", True, False), Handler("two", False, "not installed", False, False))
    fine = status(EngineStatus(handlers, "one"), False, Config())
    assert [(each.type, each.status, each.reason, each.message) for each in fine.status.conditions] == [
        ("RuntimeReady", True, "", ""),
        ("NetworkReady", True, "", ""),
    ]
    assert not fine.info
    broken = status(
        EngineStatus(handlers, "two", runtime_error="no conmon", network_error="no network"), True, Config()
    )
    assert [(each.type, each.status, each.reason, each.message) for each in broken.status.conditions] == [
        ("RuntimeReady", False, "RuntimeNotReady", "no conmon"),
        ("NetworkReady", False, "NetworkPluginNotReady", "Network plugin returns error: no network"),
    ]
    assert broken.info["lastCNILoadStatus"] == "no network"
    # The default handler cannot work: nobody shall be told that it can, under no name.
    assert [each.name for each in broken.runtime_handlers] == ["one"]
    assert json.loads(broken.info["handlers"])["two"] == {"available": False, "reason": "not installed"}


def test_handlers_and_the_runtime_tell_their_features() -> None:
    handlers = (Handler("plain", True, "", False, False), Handler("able", True, "", True, True))
    answer = status(EngineStatus(handlers, "able"), False, Config())
    assert {
        each.name: (each.features.recursive_read_only_mounts, each.features.user_namespaces)
        for each in answer.runtime_handlers
    } == {"": (True, True), "plain": (False, False), "able": (True, True)}
    assert answer.features.supplemental_groups_policy and answer.features.user_namespaces_host_network
    plain = status(EngineStatus(handlers[:1], "plain"), False, Config())
    assert plain.features.supplemental_groups_policy and not plain.features.user_namespaces_host_network


def test_the_cgroup_driver_is_told() -> None:
    assert runtime_config("systemd").linux.cgroup_driver == cri.SYSTEMD
    assert runtime_config("cgroupfs").linux.cgroup_driver == cri.CGROUPFS
