"""keep: the static pods of a directory at any CRI server, in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwright.cli.door import Door


def keep(door: Door, directory: Path, endpoint: str | None, log_level: str) -> None:
    """Keep the pods of `directory` at `endpoint`, or at this machine's server, until SIGTERM or SIGINT; they
    go on then. Unavailable when no server answers."""
    from podwright.errors import Unavailable
    from podwright.server.endpoint import socket_path

    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    address = endpoint or door.server()
    if address is None:
        raise Unavailable("no server answers: start `podwright serve --manifests`, or name an --endpoint")
    asyncio.run(_keep(door, directory, f"unix://{socket_path(address)}"))


async def _keep(door: Door, directory: Path, address: str) -> None:
    from podwright.client import connect
    from podwright.kube.static.keeper import Keeper
    from podwright.server.serve import notify, signals

    stop = asyncio.Event()
    with signals(stop, lambda: False):
        async with connect(address) as runtime, Keeper(runtime, directory, door.config(), endpoint=address):
            print(f"podwright keeps the pods of {directory} at {address}", flush=True)
            notify("READY=1")
            await stop.wait()
            notify("STOPPING=1")
