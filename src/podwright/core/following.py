"""The steps of one trace, told to whoever follows it: `api.Node.watch_steps`.

A client that wants to know where its calls spend their time sends them with a trace id of its own
(`traceparent`) and follows that id. Who is not followed costs one look at an empty dictionary.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator

from podwright import traceparent
from podwright.errors import InvalidArgument, ResourceExhausted
from podwright.steps import Step
from podwright.wire import podwright_pb2 as own

BACKLOG = 20_000
"""Events that wait for a follower at most: the start of a pod has about a hundred."""

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


class Following:
    """A `steps.Watcher`."""

    def __init__(self) -> None:
        self._followers: dict[str, list[_Follower]] = {}

    def began(self, step: Step) -> None:
        if self._followers:
            self._tell(step)

    def ended(self, step: Step) -> None:
        if self._followers:
            self._tell(step)

    async def follow(self, request: own.WatchStepsRequest) -> AsyncIterator[own.StepEvent]:
        """See `api.Node.watch_steps`. InvalidArgument for what is no trace id."""
        trace_id = request.trace_id
        if not _TRACE_ID.fullmatch(trace_id):
            raise InvalidArgument(
                "trace_id", f"{trace_id!r} is not 32 hexadecimal digits, in lower case, one not 0"
            )
        follower = _Follower()
        followers = self._followers.setdefault(trace_id, [])
        followers.append(follower)
        try:
            yield own.StepEvent()
            while True:
                yield await follower.next()
        finally:
            followers.remove(follower)
            if not followers and self._followers.get(trace_id) is followers:
                del self._followers[trace_id]

    def _tell(self, step: Step) -> None:
        # Only a caller can have given the id; what has none is nobody's.
        caller = step.operation.caller
        parent = traceparent.parse(caller) if caller else None
        if parent is None:
            return
        followers = self._followers.get(parent.trace_id)
        if followers:
            message = event(step)
            for follower in tuple(followers):
                follower.take(message)


class _Follower:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[own.StepEvent] = deque()
        self._news = asyncio.Event()
        self._lost = False

    def take(self, message: own.StepEvent) -> None:
        """Of any thread."""
        if len(self._waiting) >= BACKLOG:
            self._lost = True
        else:
            self._waiting.append(message)
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:
            pass  # the loop has ended, and with it whoever followed

    async def next(self) -> own.StepEvent:
        while not self._waiting:
            if self._lost:
                raise ResourceExhausted(
                    f"this watcher takes steps too slowly: {BACKLOG} waited for it, and some were lost"
                )
            self._news.clear()
            if not self._waiting:
                await self._news.wait()
        return self._waiting.popleft()


def event(step: Step) -> own.StepEvent:
    """`step` as it is now."""
    return own.StepEvent(
        id=traceparent.span_id(step),
        parent_id=traceparent.parent_id(step),
        name=step.name,
        subject=step.subject,
        began_at=step.began_at,
        started=step.started,
        ended=step.ended or 0,
        error=_words(step.error),
        attributes={key: str(value) for key, value in step.attributes.items()},
        is_call=step.is_call,
    )


def _words(error: BaseException | None) -> str:
    """Who follows is told as who called is."""
    if error is None:
        return ""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return str(error) or type(error).__name__
