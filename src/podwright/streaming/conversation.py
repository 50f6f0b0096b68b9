"""One session, from the upgrade to its last byte: what was asked for meets how it is spoken."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import assert_never

from podwright.core.streaming import Asked, Streaming
from podwright.engines.streams import Connection, Streams
from podwright.errors import PodwrightError
from podwright.streaming import forward, remotecommand, status
from podwright.streaming.handshake import Chosen
from podwright.streaming.remotecommand import LAST_WORDS, ClientLeft
from podwright.wire import cri_pb2 as cri

log = logging.getLogger("podwright.streaming")


class Conversation:
    def __init__(
        self, asked: Asked, peer: str, chosen: Chosen, streaming: Streaming, patience: float
    ) -> None:
        """`patience`: seconds that the client has to open its streams."""
        self._asked = asked
        self._peer = peer
        self._chosen = chosen
        self._streaming = streaming
        self._patience = patience

    async def run(self) -> None:
        """Returns when the connection has been closed, and everything that was sent has been taken."""
        started = time.monotonic()
        outcome = "podwright stops"
        try:
            outcome = await self._held()
            await self._close()
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(LAST_WORDS):
                    await self._close()
            except TimeoutError:
                pass
            raise
        finally:
            # Neither the token nor the command's arguments: both may be secrets.
            log.info(
                "%s for %s, %s: %s after %.1f s",
                *(_subject(self._asked), self._peer, self._chosen.name, outcome),
                time.monotonic() - started,
            )

    async def _held(self) -> str:
        """Hold the conversation; how it ended, in words for the log."""
        try:
            if isinstance(self._asked, cri.PortForwardRequest):
                return await self._forwarded(self._asked)
            result = await self._commanded(self._asked)
        except ClientLeft:
            return "the client left"
        except PodwrightError as error:
            return str(error)
        if isinstance(result, BaseException):
            if not isinstance(result, PodwrightError):
                log.error("%s: a defect", _subject(self._asked), exc_info=result)
            return status.words(result)
        return f"exit code {result}"

    async def _commanded(self, asked: cri.ExecRequest | cri.AttachRequest) -> int | BaseException:
        wanted = remotecommand.Asked(asked.stdin, asked.stdout, asked.stderr, asked.tty)
        chosen = self._chosen
        if chosen.channels is not None:
            remote = await remotecommand.over_websocket(chosen.channels, wanted, chosen.version)
        else:
            assert chosen.session is not None
            remote = await remotecommand.over_spdy(chosen.session, wanted, chosen.version, self._patience)

        async def call(streams: Streams) -> int:
            match asked:
                case cri.ExecRequest():
                    return await self._streaming.exec(asked.container_id, asked.cmd, streams)
                case cri.AttachRequest():
                    await self._streaming.attach(asked.container_id, streams)
                    return 0
                case _:
                    assert_never(asked)

        return await remotecommand.conduct(remote, call)

    async def _forwarded(self, asked: cri.PortForwardRequest) -> str:
        async def call(port: int, connection: Connection) -> None:
            await self._streaming.port_forward(asked.pod_sandbox_id, port, connection)

        if self._chosen.channels is not None:
            await forward.over_channels(self._chosen.channels, list(asked.port), call)
            return f"{len(asked.port)} connections"
        assert self._chosen.session is not None
        count = await forward.over_spdy(self._chosen.session, call, self._patience)
        return f"{count} connections"

    async def _close(self) -> None:
        if self._chosen.session is not None:
            await self._chosen.session.close()
        if self._chosen.socket is not None:
            await self._chosen.socket.close()


def _subject(asked: Asked) -> str:
    match asked:
        case cri.ExecRequest():
            return f"exec in container {asked.container_id}"
        case cri.AttachRequest():
            return f"attach to container {asked.container_id}"
        case cri.PortForwardRequest():
            return f"port-forward to pod {asked.pod_sandbox_id}"
        case _:
            assert_never(asked)
