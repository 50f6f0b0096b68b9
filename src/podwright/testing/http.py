"""The control API's HTTP: a Unix socket, and answers in JSON. The protocol is `streaming.http`'s.

No routing: that is `control`'s.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from podwright.errors import FailedPrecondition
from podwright.server.endpoint import claimed, private_umask
from podwright.streaming.http import Connections, Limits, Request, Response

__all__ = ["BODY_LIMIT", "Request", "Response", "listening"]

BODY_LIMIT = 16 << 20
"""Bytes of a request's body."""


@asynccontextmanager
async def listening(path: Path, answer: Callable[[Request], Awaitable[Response]]) -> AsyncIterator[None]:
    """Answer requests at the socket `path`, which only its owner and group may open, until the block is left.

    FailedPrecondition when another server listens there or the socket cannot be made.
    """
    # Who may open the socket may also keep it open.
    connections = Connections(answer, _refusal, Limits(head=None, body=BODY_LIMIT))
    with claimed(path, "--control"):
        try:
            with private_umask():
                server = await asyncio.get_running_loop().create_unix_server(connections, os.fspath(path))
        except OSError as error:
            raise FailedPrecondition(f"cannot listen at {path}: {error.strerror}") from error
        try:
            yield
        finally:
            server.close()
            await connections.close()


def _refusal(status: int, words: str) -> Response:
    import msgspec

    return Response(status, msgspec.json.encode({"error": words}) + b"\n")
