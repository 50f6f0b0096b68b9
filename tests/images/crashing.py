"""The program that test_store_crash kills: it works on a store until it is told to die, again and again.

Standard input has a line for each round, standard output answers with one. It forks for each, so that a round
does not begin with a third of a second of imports. "at N": SIGKILL at the Nth point, which is a write to the
database, a change of the store's directories, or the start or end of a program. "after S": S seconds after
the round began. "never": it goes to its end. The answer is the number of points that were passed, and whether
it was killed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podwright.config import Config, ImageConfig
from podwright.images.store import ImageStore
from podwright.linux import spawn
from podwright.state.database import Database


async def work(root: Path, sources: list[str]) -> None:
    """Everything that changes a store, in an order in which much is shared and something is in use."""
    first, second, third, tar = sources
    database = Database.open(root / "podwright.db")
    store = ImageStore(root / "images", database, Config(images=ImageConfig(max_concurrent_downloads=2)))
    await store.open()
    if len(await store.list()) > 2:
        store.release("container")
        await store.prune(dry_run=False, untagged_only=False)
    one, _ = await asyncio.gather(store.pull(first), store.pull(second))
    store.acquire(one.id, "container")
    await store.remove(one.id)
    await store.import_image(tar, "localhost/root:1", {"Cmd": ["x"]})
    await store.pull(third)
    store.release("container")
    await store.pull(first)
    await store.remove("localhost/root:1")
    await store.prune(dry_run=False, untagged_only=True)
    await store.close()
    database.close()


def main() -> None:
    faulthandler.enable()  # a crash of another kind says where
    root, sources = Path(sys.argv[1]), sys.argv[2:]
    for line in sys.stdin:
        how, _, number = line.strip().partition(" ")
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _round(root, sources, how, number, writing)
        os.close(writing)
        passed = 0
        while count := len(os.read(reading, 4096)):
            passed += count
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        code = 0 if killed else os.waitstatus_to_exitcode(status)
        print(json.dumps({"points": passed, "killed": killed, "code": code}), flush=True)


def _round(root: Path, sources: list[str], how: str, number: str, writing: int) -> None:
    """In the child: never returns."""
    try:
        passed, last = 0, int(number) if how == "at" else -1

        def point() -> None:
            nonlocal passed
            passed += 1
            os.write(writing, b".")
            if passed == last:
                os.kill(os.getpid(), signal.SIGKILL)

        _watch(point)
        if how == "after":
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, float(number))
        asyncio.run(work(root, sources))
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _watch(point: Callable[[], None]) -> None:
    for owner, name in (
        (Database, "execute"),
        (Path, "rename"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (Path, "write_bytes"),
    ):
        setattr(owner, name, _around(getattr(owner, name), point))
    for name in ("run", "check"):
        setattr(spawn, name, _around_program(getattr(spawn, name), point))
    transaction = Database.transaction

    @contextmanager
    def watched(self: Database) -> Any:
        with transaction(self):
            yield
            point()
        point()

    Database.transaction = watched  # type: ignore[method-assign]


def _around(real: Callable[..., Any], point: Callable[[], None]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if isinstance(arguments[0], Database) and arguments[1].startswith(("SELECT", "PRAGMA")):
            return real(*arguments, **options)
        point()
        try:
            return real(*arguments, **options)
        finally:
            point()

    return call


def _around_program(real: Callable[..., Any], point: Callable[[], None]) -> Callable[..., Any]:
    async def call(*arguments: Any, **options: Any) -> Any:
        point()
        try:
            return await real(*arguments, **options)
        finally:
            point()

    return call


if __name__ == "__main__":
    main()
