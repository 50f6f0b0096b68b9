"""What a verbose Status tells of the configuration: the one that holds, with every engine."""

from __future__ import annotations

import json

import msgspec

from podwright.config import Config, StreamingConfig
from podwright.core.node import status
from podwright.engines.base import EngineStatus
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
