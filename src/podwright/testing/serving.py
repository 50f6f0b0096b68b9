"""The life of `podwright serve --engine fake`: a fake node at two sockets, the CRI's and its control."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from podwright.linux.limits import raise_open_files
from podwright.server import tuning
from podwright.server.serve import DRAIN, Beside, notify, signals
from podwright.testing.control import controlling
from podwright.testing.node import FakeNode

log = logging.getLogger("podwright.server")


async def serve(
    node: FakeNode,
    address: str,
    control: Path,
    *,
    ready: Callable[[], None] = lambda: None,
    beside: Beside = lambda _: nullcontext(),
) -> None:
    """Serve `node` until SIGTERM or SIGINT; `ready` is called when recovery has ended for the first time.
    `beside` works with the node's CRI meanwhile.

    The control socket is there from the beginning to the end, whatever becomes of the CRI's. A second signal
    ends the drain, too.
    """
    raise_open_files()
    stop = asyncio.Event()
    with signals(stop, lambda: not node.is_up):
        try:
            # In this order, for calls in flight need the node: it lets them end before it goes itself.
            async with node.serve(address), controlling(node, control), node, beside(node.cri):
                tuning.settle()
                ready()
                notify("READY=1")
                await stop.wait()
                log.info("stopping: calls in flight get %g s; this node's containers end with it", DRAIN)
                notify("STOPPING=1")
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            log.warning("stopped while the server was down, or before the end of recovery or of the drain")
