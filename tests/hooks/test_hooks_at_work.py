"""Hooks of a site on a whole node: they refuse before anything is made, and hear what happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright import hooks
from podwright.config import Config
from podwright.errors import FailedPrecondition
from podwright.hooks.running import Hooks
from podwright.house import open_house
from podwright.testing import FakeNode
from podwright.wire import cri_pb2 as cri
from tests.testing import requests


def of(*functions: Any) -> Hooks:
    return Hooks(
        [
            replace(hook, name=f"site.{each.__name__}")
            for each in functions
            for hook in getattr(each, hooks.ATTRIBUTE)
        ]
    )


@hooks.validate("RunPodSandbox")
def no_db(request: cri.RunPodSandboxRequest) -> None:
    if request.config.metadata.name == "db":
        raise hooks.Rejected("config.metadata.name", "no databases here")


@hooks.validate("CreateContainer", "UpdateContainerResources")
def no_side(request: Any) -> None:
    if isinstance(request, cri.UpdateContainerResourcesRequest):
        raise hooks.Rejected("linux", "limits stay as they are")
    if request.config.metadata.name == "side":
        raise hooks.Rejected("config.metadata.name", "no side cars here")


async def test_what_a_hook_refuses_is_not_made(tmp_path: Path) -> None:
    async with FakeNode(root=tmp_path, hooks=of(no_db, no_side)) as node:
        with pytest.raises(FailedPrecondition, match=r"config\.metadata\.name: no databases .*site\.no_db"):
            await node.cri.run_pod_sandbox(requests.pod("db"))
        web = await requests.run_pod(node.cri, "web")
        main = await requests.run_container(node.cri, web)
        with pytest.raises(FailedPrecondition, match=r"no side cars here \(hook site\.no_side\)"):
            await node.cri.create_container(requests.container(web, "side"))
        update = cri.UpdateContainerResourcesRequest(container_id=main)
        update.linux.cpu_shares = 5
        with pytest.raises(FailedPrecondition, match="linux: limits stay"):
            await node.cri.update_container_resources(update)
        assert list(node.world.sandboxes) == [web] and list(node.world.containers) == [main]
        assert (await requests.status(node.cri, main)).resources.linux.cpu_shares == 0
    async with FakeNode(root=tmp_path / "other", hooks=of()) as node:
        assert await node.cri.run_pod_sandbox(requests.pod("db"))


async def test_watchers_hear_of_every_event_and_stop_with_the_node(tmp_path: Path) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    @hooks.watch()
    async def tell(event: cri.ContainerEventResponse) -> None:
        heard.put_nowait(cri.ContainerEventType.Name(event.container_event_type))

    tasks = asyncio.all_tasks()
    async with FakeNode(root=tmp_path, hooks=of(tell)) as node:
        await requests.run_pod(node.cri, "web")
        async with asyncio.timeout(60):
            assert [await heard.get(), await heard.get()] == [
                "CONTAINER_CREATED_EVENT",
                "CONTAINER_STARTED_EVENT",
            ]
        await node.crash()
        await requests.run_pod(node.cri, "db")
        async with asyncio.timeout(60):
            assert await heard.get() == "CONTAINER_CREATED_EVENT"
    assert asyncio.all_tasks() - {asyncio.current_task()} <= tasks


async def test_files_of_the_configuration_are_hooks_of_the_house(tmp_path: Path) -> None:
    file = tmp_path / "site.py"
    file.write_text(
        "from podwright import hooks\n"
        "@hooks.validate('RunPodSandbox')\n"
        "def never(request):\n"
        "    raise hooks.Rejected('', 'never')\n"
    )
    file.chmod(0o644)
    config = Config(root=str(tmp_path / "root"), run=str(tmp_path / "run"), engine="fake", hooks=[str(file)])
    async with open_house(config) as runtime:
        with pytest.raises(FailedPrecondition, match=r"never \(hook site\.never\)"):
            await runtime.run_pod_sandbox(requests.pod())
    file.write_text("raise RuntimeError('broken')\n")
    with pytest.raises(FailedPrecondition, match=r"site\.py cannot be loaded: RuntimeError: broken"):
        async with open_house(config):
            raise AssertionError("a node whose rules are missing has started")
