"""The documents that engines would make of requests: planners, what images are to them, what hooks say.

No house is opened: the engine's plan is built beside whoever has its state.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from podwright.cli.explain_options import Options
from podwright.cli.explain_sources import Asked, Source
from podwright.engines.base import Explanation, Image, Planner
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError
from podwright.hooks.running import Hooks
from podwright.house import NODE_ENGINES, open_planner
from podwright.spec.places import origin
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.config import Config

IMAGE_COMMAND = "IMAGE_COMMAND"
"""Stands for what an image that cannot be seen would run."""


@dataclass
class Explained:
    asked: Asked
    explanation: Explanation

    @property
    def title(self) -> str:
        return f"{self.asked.title}: {self.explanation.what}"

    def because(self, path: str) -> str:
        return origin(path, self.explanation.origins)


class Bench:
    """Planners, the images that they are told of, and what has to be noted about them."""

    def __init__(self, door: Door, options: Options, server: Cri | None) -> None:
        self._door = door
        self._options = options
        self._server = server
        self._stack = ExitStack()
        self.planner: Planner
        self.notes: list[str] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def explain(
        self, source: Source, handler: str | None, engine: str | None
    ) -> dict[tuple[str, str, str], Explained]:
        """By pod and name, in order."""
        config, planner, hooks = self.open(engine)
        if handler is not None:
            source = source.with_handler(handler)
        found = {}
        for asked in chosen(await source.asked(planner, self, config), self._options.container):
            planner.check_handler(asked.sandbox.handler)
            await _admit(asked, hooks)
            explanation = await explain_one(planner, asked)
            if explanation is not None:
                pod = asked.sandbox.config.metadata
                found[pod.namespace, pod.name, asked.name] = Explained(asked, explanation)
        return found

    def open(self, engine: str | None) -> tuple[Config, Planner, Hooks]:
        """The planner of an engine (None: the configured one), whose store `find` looks into from now on."""
        config = host_config(self._door, engine)
        hooks = self._hooks(config)
        self.planner = self._stack.enter_context(open_planner(config, hooks, self._options.scenario))
        return config, self.planner, hooks

    def _hooks(self, config: Config) -> Hooks:
        try:
            return Hooks.load(config.hooks)
        except FailedPrecondition as error:
            if os.geteuid() == 0:
                raise
            self.notes.append(f"{error}; explained without hooks")
            return Hooks()

    async def find(self, reference: str) -> Image:
        """The image with the configuration that this user can get at."""
        image = await self._on_server(reference) or await self.planner.find_image(reference)
        if self._options.image_config is not None:
            config = _image_config(self._options.image_config)
            known = image or Image(reference, (), (), 1, {})
            return replace(known, config=config)
        if image is not None:
            return image
        self.notes.append(
            f"image {reference!r} is not here, or this user cannot see it: what it would give (command,"
            " variables, user, directory, volumes) is missing; pull it, or give --image-config FILE"
        )
        return Image(reference, (), (), 1, {"Cmd": [IMAGE_COMMAND]})

    async def _on_server(self, reference: str) -> Image | None:
        if self._server is None:
            return None
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=reference), verbose=True)
        try:
            answer = await self._server.image_status(request)
        except PodwrightError as error:
            self.notes.append(f"the server does not tell of image {reference!r}: {error}")
            return None
        if not answer.HasField("image"):
            return None
        try:
            config = json.loads(answer.info["info"])["imageSpec"]["config"]
        except (KeyError, TypeError, ValueError):
            return None
        found = answer.image
        return Image(found.id, tuple(found.repo_tags), tuple(found.repo_digests), found.size, config or {})


def host_config(door: Door, engine: str | None) -> Config:
    """The configuration to plan by. What runs on this kernel runs in root's places, whoever asks."""
    chosen_engine = replace(door, engine=engine) if engine is not None else door
    config = chosen_engine.config()
    return chosen_engine.config(of_host=True) if config.engine in NODE_ENGINES else config


def chosen(asked: Sequence[Asked], name: str | None) -> list[Asked]:
    if name is None:
        return list(asked)
    found = [each for each in asked if each.name == name]
    if not found:
        names = ", ".join(each.name for each in asked if each.name)
        raise NotFound(f"--container: there is none named {name!r}, only {names}")
    return found


async def explain_one(planner: Planner, asked: Asked) -> Explanation | None:
    if asked.container is None:
        return await planner.explain_sandbox(asked.sandbox)
    return await planner.explain_container(asked.container, asked.to_come)


async def _admit(asked: Asked, hooks: Hooks) -> None:
    """Raise what a hook would say to the request."""
    if not hooks.validates:
        return
    pod = asked.sandbox
    if asked.container is None:
        request = cri.RunPodSandboxRequest(config=pod.config, runtime_handler=pod.handler)
        await hooks.validate("RunPodSandbox", request)
    else:
        await hooks.validate(
            "CreateContainer",
            cri.CreateContainerRequest(
                pod_sandbox_id=pod.id, config=asked.container.config, sandbox_config=pod.config
            ),
        )


def _image_config(path: str) -> Mapping[str, Any]:
    """The `config` section of an image's configuration: the whole document, or the section alone."""
    from podwright.kube.manifests.manifest import read_text

    try:
        tree = json.loads(read_text(path))
    except ValueError as error:
        raise InvalidArgument(path, f"is not JSON: {error}") from error
    config = tree.get("config", tree) if isinstance(tree, dict) else None
    if not isinstance(config, dict):
        raise InvalidArgument(path, "is no image configuration")
    return config
