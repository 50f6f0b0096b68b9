"""What happened during one start: calls as they were made here, and the steps inside them as whoever carried
them out tells (`api.Node.watch_steps`).
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message

from podwright import traceparent
from podwright.api import Cri, Node, method_name
from podwright.errors import PodwrightError, Unimplemented
from podwright.steps import Operations, Step, step
from podwright.traceparent import Parent
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

LAST_STEPS = 1.0
"""Seconds that the ends of steps may come after the answers to their calls."""
ENDINGS = ("StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox")
"""A start that has come to these is over."""

_UNARY = {
    method_name(method.name): method.name
    for service in cri.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not method.server_streaming
}


class Kind(enum.Enum):
    CALL = "call"
    """As it was made here."""
    SERVED = "served"
    """The same, or another inside it, as the server tells it."""
    STEP = "step"


@dataclass(slots=True)
class Span:
    """The pod's start, a call, or a step in or around one. Times are nanoseconds on one monotonic clock."""

    id: str
    parent_id: str
    name: str
    start: int
    end: int | None = None
    """None: it had not ended when the recording did."""
    subject: str = ""
    error: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    began_at: int = 0
    """Nanoseconds since the epoch, by whoever did it."""
    kind: Kind = Kind.STEP


CANCELLED = "cancelled"
"""Instead of an error's words."""


class Recording:
    """One start. A `steps.Watcher` of the calls made here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spans: dict[str, Span] = {}
        """By id, in the order of their begin. The first is the start as a whole."""
        self.calls_only = ""
        """Why there are no steps; "" when there are."""
        self.over = False
        """The start has ended: what goes on is no part of it."""
        self.operations = Operations()
        self.operations.watchers = (self,)
        self.trace_id = ""
        """There once it is recorded."""
        self._above = traceparent.active()
        self._containers: dict[str, str] = {}
        self._news = asyncio.Event()
        self._shift: int | None = None
        """Added to the server's clock, which may be another machine's."""

    async def record(self, runtime: Cri, work: Callable[[Cri], Awaitable[Any]]) -> None:
        """Do `work`, whose calls go through the `Cri` that it is given, and listen until it ends or makes one
        of ENDINGS. What it raises comes out."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self.operations.open(self.name, caller=self._above) as whole:
            self.trace_id = traceparent.trace_id(whole)
            following = asyncio.ensure_future(self._follow(runtime, ready))
            try:
                await ready
                first = self.spans[traceparent.span_id(whole)]
                first.start, first.began_at = time.monotonic_ns(), time.time_ns()
                await work(cast(Cri, _Traced(self, runtime)))
                self._end_with_last_act()
            except BaseException:
                following.cancel()
                raise
            finally:
                self.close()
        try:
            if not self.calls_only:
                await self._settled()
        finally:
            following.cancel()
            await asyncio.wait({following})

    def close(self) -> None:
        """The start is over now."""
        if not self.over:
            self.over = True
            whole = next(iter(self.spans.values()))
            whole.end = time.monotonic_ns()

    def interrupt(self) -> bool:
        """`close`, of a start that goes on; whether there is anything to tell."""
        if self.spans:
            self.close()
        return bool(self.spans)

    def _end_with_last_act(self) -> None:
        """A pod is started when the last call that did something for it has returned. How its run then sees
        that it is, and leaves it alone, is no part of the start."""
        spans = list(self.spans.values())
        acts = [span for span in spans if span.kind is Kind.CALL and not _only_looks(span.name)]
        ends = [span.end for span in acts if span.end is not None]
        if not ends or self.over or any(span.error for span in spans):
            return
        self.over, spans[0].end = True, (last := max(ends))
        looks = [span for span in spans if span.kind is Kind.CALL and span not in acts]
        after = {span.id for span in looks if span.end is None or span.end > last}
        after |= {span.id for span in spans if span.start >= last}
        # In the order of their begin: what is inside comes later.
        for span in spans:
            if span.id in after or span.parent_id in after:
                after.add(span.id)
                del self.spans[span.id]

    # Calls made here

    def began(self, step: Step) -> None:
        if self.over:
            return
        id = traceparent.span_id(step)
        self.spans[id] = Span(
            id,
            traceparent.parent_id(step),
            step.name,
            step.started,
            subject=step.subject,
            began_at=step.began_at,
            attributes={key: str(value) for key, value in step.attributes.items()},
        )

    def ended(self, step: Step) -> None:
        span = self.spans.get(traceparent.span_id(step))
        if span is None or span.end is not None:
            return
        span.end, span.subject = step.ended, step.subject
        span.attributes = {key: str(value) for key, value in step.attributes.items()}
        if step.error is not None:
            cancelled = isinstance(step.error, asyncio.CancelledError)
            span.error = CANCELLED if cancelled else str(step.error) or type(step.error).__name__

    async def call(self, rpc: str, method: Callable[[Message], Awaitable[Any]], request: Message) -> Any:
        if rpc in ENDINGS:
            self.close()
        if self.over:
            return await method(request)
        with step(rpc, self._subject(request)) as here:
            if here is None:
                return await method(request)
            id = traceparent.span_id(here)
            self.spans[id].kind = Kind.CALL
            with traceparent.using(str(Parent(self.trace_id, id))):
                answer = await method(request)
            if isinstance(request, cri.CreateContainerRequest):
                self._containers[answer.container_id] = request.config.metadata.name
            return answer

    def _subject(self, request: Any) -> str:
        """A name rather than an id."""
        if isinstance(request, cri.RunPodSandboxRequest | cri.CreateContainerRequest):
            return request.config.metadata.name
        if (id := getattr(request, "container_id", "")) in self._containers:
            return self._containers[id]
        image = getattr(request, "image", None)
        return image.image if isinstance(image, cri.ImageSpec) else id

    # Steps told by the server

    async def _follow(self, runtime: Cri, ready: asyncio.Future[None]) -> None:
        try:
            events = cast(Node, runtime).watch_steps(own.WatchStepsRequest(trace_id=self.trace_id))
            async for event in events:
                if not ready.done():
                    ready.set_result(None)
                if event.id:
                    self._told(event)
        except (Unimplemented, AttributeError):
            self.calls_only = "this server tells no steps inside its calls"
        except PodwrightError as error:
            self.calls_only = f"steps inside calls are missing: {error}"
        finally:
            self._news.set()
            if not ready.done():
                ready.set_result(None)

    def _told(self, event: own.StepEvent) -> None:
        self._news.set()
        known = self.spans.get(event.id)
        if known is None:
            if self.over and not self._belongs(event):
                return
            if event.is_call and event.parent_id not in self.spans:
                return  # a stream of events that the run reads besides
            above = self.spans.get(event.parent_id)
            if self._shift is None:
                self._shift = _shift(event, above)
            known = self.spans[event.id] = Span(
                event.id,
                event.parent_id,
                event.name,
                event.started + self._shift,
                began_at=event.began_at,
                kind=Kind.SERVED if event.is_call else Kind.STEP,
            )
        known.subject = event.subject
        known.attributes = dict(event.attributes)
        if event.ended:
            assert self._shift is not None
            known.end, known.error = event.ended + self._shift, event.error

    def _belongs(self, event: own.StepEvent) -> bool:
        # What is told late has begun before all the same; what a removal does has not.
        return event.parent_id in self.spans

    async def _settled(self) -> None:
        """Return when all that is known to have begun has ended, or LAST_STEPS have passed."""
        try:
            async with asyncio.timeout(LAST_STEPS):
                while any(span.end is None for span in self.spans.values()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass


def _only_looks(rpc: str) -> bool:
    return rpc.startswith("List") or rpc.endswith("Status") or rpc in ("Version", "RuntimeConfig")


class _Traced:
    """A `Cri` whose calls are steps of a recording, and carry its trace."""

    def __init__(self, recording: Recording, runtime: Cri) -> None:
        self._recording = recording
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._runtime, name)
        rpc = _UNARY.get(name)
        if rpc is None:
            return method

        async def call(request: Message, /) -> Any:
            return await self._recording.call(rpc, method, request)

        return call


def _shift(event: own.StepEvent, above: Span | None) -> int:
    """0 where the server has this host's clock: its work lies within the call."""
    if above is None:
        return 0
    now = time.monotonic_ns()
    return 0 if above.start <= event.started <= now else above.start - event.started
