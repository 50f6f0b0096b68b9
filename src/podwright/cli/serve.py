"""serve: the CRI server in the foreground, on whatever engine; the fake one has options of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from podwright import __version__

if TYPE_CHECKING:
    from podwright.cli.door import Door
    from podwright.clock import Clock
    from podwright.config import Config
    from podwright.server.serve import Beside


PATIENCE = 2.0
"""Seconds that another process may have the state still once the socket is there."""
PAUSE = 0.05
"""Seconds between two looks whether it is free."""
SILENCE = 1.0
"""Seconds of waiting for a command that nobody needs to hear of."""


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """What only the fake engine takes; None: not given."""

    scenario: Path | None = None
    control: str | None = None
    seed: int | None = None
    clock: Literal["system", "virtual"] | None = None


def serve(door: Door, log_level: str, fake: FakeOptions, manifests: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and keep the pods of the directory `manifests` meanwhile."""
    # Before anything imports gRPC.
    from podwright.server import tuning

    tuning.before_grpc()
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # At debug level these two tell of their own loops with every call.
    for noisy in ("grpc", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from podwright.config import prepare
    from podwright.house import require_privileges

    config = door.config()
    require_privileges(config)
    prepare(config)
    served = f"podwright {__version__} serves {config.listen} (state in {config.root})"
    directory = manifests or (Path(config.node.manifests) if config.node.manifests else None)
    if directory is not None:
        served += f"; keeps the pods of {directory}"
    if config.engine == "fake":
        main = _serve_fake(config, fake, served, directory)
    else:
        _refuse(config, fake)
        main = _serve(door, config, served, directory)
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _keeping(config: Config, directory: Path | None, clock: Clock | None = None) -> Beside:
    """What keeps the pods of `directory`, if there is one."""
    if directory is None:
        return lambda _: nullcontext()
    from podwright.clock import SYSTEM
    from podwright.kube.static.keeper import Keeper

    return lambda runtime: Keeper(runtime, directory, config, clock=clock or SYSTEM)


async def _serve(door: Door, config: Config, served: str, directory: Path | None) -> None:
    from podwright.server.serve import serve as run

    await _when_free(config.root_path)
    beside = _keeping(config, directory)
    await run(config.listen, door.house(PATIENCE), ready=_say(served), beside=beside)


async def _when_free(root: Path) -> None:
    """Wait for a command that has the state, however long, and say so. The socket comes later: whoever wants
    something of that command's pods meanwhile must find the command and not a server that cannot answer.

    Another server is not waited for: two on one state are a mistake, which its refusal tells.
    """
    from podwright.state.lock import Taken, locked

    loop = asyncio.get_running_loop()
    begun, told = loop.time(), 0
    while True:
        try:
            with locked(root):
                return
        except Taken as taken:
            if not taken.command or "serve" in taken.command:
                return
            if told != taken.pid and loop.time() - begun > SILENCE:
                told = taken.pid
                logging.getLogger("podwright").warning("waiting for who has %s: %s", root, taken.holder())
        await asyncio.sleep(PAUSE)


def _serve_fake(
    config: Config, options: FakeOptions, served: str, directory: Path | None = None
) -> Coroutine[Any, Any, None]:
    from podwright.errors import InvalidArgument
    from podwright.hooks.running import Hooks
    from podwright.server.endpoint import socket_path
    from podwright.testing.client import beside
    from podwright.testing.node import FakeNode
    from podwright.testing.serving import serve as run

    control = socket_path(options.control) if options.control else beside(socket_path(config.listen))
    if control == socket_path(config.listen):
        raise InvalidArgument("--control", f"{control} is where the CRI is served: choose another path")
    if config.metrics.address:
        logging.getLogger("podwright.metrics").warning(
            "metrics.address: a fake node answers no GET /metrics; `podwright serve --engine oci` does"
        )
    node = FakeNode(
        options.scenario,
        config=config,
        seed=options.seed,
        clock=options.clock,
        hooks=Hooks.load(config.hooks),
    )
    return run(
        node,
        config.listen,
        control,
        ready=_say(f"{served}; a fake node, to be controlled at {control}"),
        beside=_keeping(config, directory, node.world.clock),
    )


def _refuse(config: Config, options: FakeOptions) -> None:
    from podwright.errors import InvalidArgument

    for field in fields(options):
        if getattr(options, field.name) is not None:
            raise InvalidArgument(
                f"--{field.name}",
                f"is for the fake engine only: add --engine fake; this is {config.engine!r}",
            )


def _say(line: str) -> Callable[[], None]:
    return lambda: print(line, flush=True)
