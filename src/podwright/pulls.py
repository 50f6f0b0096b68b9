"""A pull together with how far it is: on this process's house, at podwright's socket, and, without the
progress, at any CRI server. For the doors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from podwright.api import Cri, Node
from podwright.errors import PodwrightError
from podwright.images.references import full_name
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

ENDS = (own.PULL_DONE, own.PULL_FAILED)
LAST_STATE = 1.0
"""Seconds that the stream's last state may come after the answer to the pull."""


def watch(runtime: Cri, image: str = "") -> AsyncIterator[own.PullProgress]:
    """States of the pulls at `runtime`, from now on; of `image` alone when it is given. At another CRI's
    server the first one raises Unimplemented."""
    return cast(Node, runtime).watch_pulls(own.WatchPullsRequest(image=image))


async def pulling(runtime: Cri, request: cri.PullImageRequest) -> AsyncGenerator[own.PullProgress, None]:
    """Pull, and yield each new state meanwhile; the last one is PULL_DONE with the image's id.

    Who takes them slowly misses states. Closing the iterator before its end cancels the pull. Raises what
    PullImage raises.
    """
    image, follower = full_name(request.image.image), _Follower()
    following = asyncio.ensure_future(follower.follow(runtime, image))
    await asyncio.sleep(0)  # the stream is asked for before the pull
    pull = asyncio.ensure_future(runtime.pull_image(request))
    pull.add_done_callback(lambda _: follower.changed.set())
    try:
        while not pull.done():
            await follower.changed.wait()
            follower.changed.clear()
            if (state := follower.take()) is not None:
                yield state
        answer = pull.result()
        end = own.PullProgress()
        end.CopyFrom(await follower.end())
        end.image = image
        end.stage, end.image_ref = own.PULL_DONE, answer.image_ref
        yield end
    finally:
        for task in (pull, following):
            task.cancel()
        await asyncio.wait({pull, following})
        if not pull.cancelled():
            pull.exception()  # it was raised above, or nobody asks any more


class _Follower:
    """Keeps the latest state of the newest pull of an image."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._latest: own.PullProgress | None = None
        self._taken: own.PullProgress | None = None
        self._ended = asyncio.Event()

    async def follow(self, runtime: Cri, image: str) -> None:
        try:
            async for state in watch(runtime, image):
                # Another client's pull of the same image, with other credentials, may go on beside ours.
                if self._latest is None or state.id >= self._latest.id:
                    self._latest = state
                    (self._ended.set if state.stage in ENDS else self._ended.clear)()
                    self.changed.set()
        except PodwrightError:
            pass  # another CRI's server has no such stream, or this one leaves: the pull itself tells that
        finally:
            self._ended.set()

    def take(self) -> own.PullProgress | None:
        """The latest state unless it was taken or tells an end."""
        state = self._latest
        if state is None or state is self._taken or state.stage in ENDS:
            return None
        self._taken = state
        return state

    async def end(self) -> own.PullProgress:
        """The last state of the pull, which has ended."""
        if self._latest is not None:
            try:
                async with asyncio.timeout(LAST_STATE):
                    await self._ended.wait()
            except TimeoutError:
                pass
        return self._latest or own.PullProgress()
