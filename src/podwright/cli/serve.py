"""serve: the CRI server in the foreground."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from podwright import __version__

if TYPE_CHECKING:
    from podwright.cli.door import Door


PATIENCE = 2.0
"""Seconds that a command like ps may have the state still. A server does not queue for longer."""


def serve(door: Door, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT."""
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
    from podwright.server.serve import serve as run

    config = door.config()

    def ready() -> None:
        print(f"podwright {__version__} serves {config.listen} (state in {config.root})", flush=True)

    main = run(config.listen, door.house(PATIENCE), ready=ready)
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
