"""The house put together: lock, database, engine, core, recovery; and taken apart again.

Every door that runs pods in its own process comes through here.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.config import Config, prepare
from podwright.core.records import SCHEMA
from podwright.core.runtime import Runtime
from podwright.errors import FailedPrecondition, PodwrightError
from podwright.hooks.running import Hooks
from podwright.state.database import Database
from podwright.state.lock import locked
from podwright.streaming.giver import LazyServer
from podwright.tracing.exporting import exported

if TYPE_CHECKING:
    from podwright.engines.base import Engine, Planner

NODE_ENGINES = ("oci", "containerd")
"""Those whose containers are processes of this kernel, with podwright's own directories."""

_OWNER = """
CREATE TABLE IF NOT EXISTS owner (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    engine TEXT NOT NULL
) STRICT;
"""


@asynccontextmanager
async def open_house(config: Config) -> AsyncIterator[Runtime]:
    """A runtime whose recovery has ended. Leaving the block lets go of it; containers keep running.

    Raises FailedPrecondition when another process holds the state root or this host cannot run pods.
    """
    require_privileges(config)
    prepare(config)
    hooks = Hooks.load(config.hooks)
    with locked(config.root_path):
        database = Database.open(config.root_path / "podwright.db")
        try:
            keep_to_engine(database, config)
            maker = _engine(config, database, hooks)
            await maker.open()
            try:
                runtime = Runtime(config, maker, database, hooks)
                async with exported(runtime.operations, config.tracing):
                    try:
                        streams = LazyServer(runtime)
                        try:
                            await runtime.open()
                            yield runtime
                        finally:
                            await streams.close()
                    finally:
                        await runtime.close()
            finally:
                await maker.close()
        finally:
            database.close()


@contextmanager
def open_planner(config: Config, hooks: Hooks, scenario: Path | None = None) -> Iterator[Planner]:
    """What the configured engine would make, without opening the house: nothing is locked, made or written.
    `scenario` is the fake engine's.

    FailedPrecondition or InvalidArgument when a configured file or value cannot be used.
    """
    match config.engine:
        case "oci":
            from podwright.engines.oci.plan import planned

            with planned(config, hooks) as plan:
                yield plan
        case "containerd":
            from podwright.engines.containerd.plan import planned as planned_by_containerd

            with planned_by_containerd(config, hooks) as containerd_plan:
                yield containerd_plan
        case "docker":
            _require_docker_extra()
            from podwright.engines.docker.plan import planned as planned_by_docker

            with planned_by_docker(config) as docker_plan:
                yield docker_plan
        case "fake":
            from podwright.engines.fake import scenario as scenarios
            from podwright.engines.fake.plan import Plan

            yield Plan(scenarios.load(scenario) if scenario is not None else scenarios.Scenario())


def require_privileges(config: Config) -> None:
    """FailedPrecondition when this user cannot run the configured engine."""
    if config.engine != "fake" and os.geteuid() != 0:
        raise FailedPrecondition(
            f"engine {config.engine!r} needs root, and this is uid {os.geteuid()}: run it as root, or try"
            f" `podwright serve --engine fake`, which needs no privileges"
        )


def engine_of_pods(config: Config) -> str:
    """The engine whose pods the state root holds; "" when it holds none, or cannot be read."""
    try:
        database = Database.look(config.root_path / "podwright.db")
    except (OSError, PodwrightError):
        return ""
    try:
        row = database.execute("SELECT engine FROM owner WHERE EXISTS (SELECT 1 FROM sandboxes)").fetchone()
    except PodwrightError:
        return ""
    finally:
        database.close()
    return row[0] if row is not None else ""


def keep_to_engine(database: Database, config: Config) -> None:
    """Refuse a state root whose records are another engine's; they would all seem lost to this one.

    FailedPrecondition while there are any. An empty root takes the engine that opens it.
    """
    database.ensure(SCHEMA + _OWNER)
    row = database.execute("SELECT engine FROM owner").fetchone()
    # Roots of before there were two are oci's.
    owner = row[0] if row is not None else "oci"
    if owner != config.engine and database.execute("SELECT 1 FROM sandboxes").fetchone():
        raise FailedPrecondition(
            f"{config.root} has pods of engine {owner!r}, which engine {config.engine!r} cannot run: remove"
            f" them, choose another --root, or go on with engine {owner!r}"
        )
    if row is None or owner != config.engine:
        database.execute(
            "INSERT INTO owner (one, engine) VALUES (1, ?)"
            " ON CONFLICT (one) DO UPDATE SET engine = excluded.engine",
            (config.engine,),
        )


def _engine(config: Config, database: Database, hooks: Hooks) -> Engine:
    # Every engine is imported only by who asks for it.
    match config.engine:
        case "oci":
            from podwright.engines.oci.engine import OciEngine

            return OciEngine(config, database, hooks)
        case "containerd":
            from podwright.engines.containerd.engine import ContainerdEngine

            return ContainerdEngine(config, hooks)
        case "docker":
            _require_docker_extra()
            from podwright.engines.docker.engine import DockerEngine

            return DockerEngine(config)
        case "fake":
            from podwright.clock import SYSTEM
            from podwright.engines.fake.engine import FakeEngine
            from podwright.engines.fake.world import World

            return FakeEngine(World(SYSTEM), config.logs)


def _require_docker_extra() -> None:
    if importlib.util.find_spec("aiodocker") is None:
        raise FailedPrecondition(
            "engine 'docker' needs the package aiodocker: install podwright[docker], as `pip install"
            " 'podwright[docker]'` does"
        )
