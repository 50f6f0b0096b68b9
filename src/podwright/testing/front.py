"""The front of a fake node: the CRI with every call recorded, and with the faults that strike by rpc name.

It stands before one core after the other, for a node crashes and starts again. When it does, calls in flight
end for callers in this process with Unavailable; callers at a socket hear nothing, for their connection
breaks (`socket`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from weakref import WeakKeyDictionary

from google.protobuf.message import Message

from podwright.api import Cri
from podwright.core.events import Subscription
from podwright.core.runtime import Runtime
from podwright.engines.fake.faults import Fault
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import World, forever
from podwright.errors import Unavailable, Unimplemented
from podwright.server.endpoint import STARTING
from podwright.testing.calls import Call, Calls, with_id
from podwright.testing.face import Face
from podwright.testing.subjects import subject_of, subject_of_id
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own

if TYPE_CHECKING:
    from podwright.core.records import Records

T = TypeVar("T")

CRASHED = "the server crashed"

Work = Callable[[Runtime], Coroutine[Any, Any, Any] | None]
"""What a call is for the core; None: the core does not have it."""

_END = b""
"""Put into a subscription of events, whose events are never empty: the server has crashed."""

_MADE = {"RunPodSandbox": "pod_sandbox_id", "CreateContainer": "container_id"}
"""Where the answers that name something new have its id."""


@dataclass(eq=False, slots=True)
class _Flight:
    """A call under way."""

    landing: asyncio.Future[Any]
    """Its caller waits for this."""
    remote: bool


class Front:
    """Use `cri`; `at_socket` is the same for callers at a socket."""

    def __init__(self, world: World, calls: Calls) -> None:
        self.world = world
        self.calls = calls
        self.runtime: Runtime | None = None
        """The core that answers now."""
        self.reason = STARTING
        """Why none does."""
        self._crashes, self._last_words = 0, ""
        self._records: Records | None = None
        self._flights: dict[asyncio.Task[Any], _Flight] = {}
        self._dead: set[asyncio.Task[Any]] = set()
        self._streams: WeakKeyDictionary[Subscription, bool] = WeakKeyDictionary()
        """Subscriptions of events, and whether their listener is at a socket."""
        self.cri = cast(Cri, Face(self, remote=False))
        self.at_socket = cast(Cri, Face(self, remote=True))

    def open(self, runtime: Runtime) -> None:
        """Let `runtime` answer."""
        self.runtime, self._records = runtime, runtime.records
        runtime.events.loses = self._loses

    def shut(self, reason: str) -> None:
        """Nothing answers any more; calls under way go on."""
        self.runtime, self.reason = None, reason

    def crash(self, reason: str = "") -> None:
        """At this instruction the core behind has died: nobody gets anything from it any more. With a
        `reason` connections do not break: callers at sockets hear it, too."""
        self._last_words = reason or CRASHED
        self.shut(self._last_words)
        self._crashes += 1
        for task, flight in self._flights.items():
            if (reason or not flight.remote) and not flight.landing.done():
                flight.landing.set_exception(Unavailable(self._last_words))
            self._dead.add(task)
        self._flights.clear()
        for subscription, remote in list(self._streams.items()):
            if reason or not remote:
                subscription.put(_END)
        self._streams.clear()

    async def bury(self) -> None:
        """End what the calls of the dead core were waiting for."""
        while self._dead:
            for task in self._dead:
                task.cancel()
            done, self._dead = await asyncio.wait(self._dead, timeout=0.1)
            for task in done:
                # It has been told to the caller, or there is none.
                _ = task.cancelled() or task.exception()

    # One call

    async def ask(self, rpc: str, name: str, request: Message, remote: bool) -> Any:
        """Hand a call to the core's method `name`: recorded, and struck by the faults for `rpc`."""

        def work(runtime: Runtime) -> Coroutine[Any, Any, Any] | None:
            method = getattr(runtime, name, None)
            return None if method is None else cast(Coroutine[Any, Any, Any], method(request))

        return await self._recorded(rpc, request, work, remote)

    async def talk(
        self, rpc: str, request: Message, work: Callable[[Runtime], Coroutine[Any, Any, T]], remote: bool
    ) -> T:
        """Hand streams to the core without a URL in between: recorded and struck as the call `rpc` with
        `request`, which is under way as long as they are."""
        answer: T = await self._recorded(rpc, request, work, remote)
        return answer

    async def _recorded(self, rpc: str, request: Message, work: Work, remote: bool) -> Any:
        call = self.calls.begin(rpc, request, subject_of(request, self._records), remote)
        crashes = self._crashes
        try:
            answer = await self._ask(call, work, remote)
        except BaseException as error:
            # A caller at a socket is cancelled when its connection breaks.
            died = crashes != self._crashes and isinstance(error, asyncio.CancelledError)
            self.calls.end(call, None, Unavailable(CRASHED) if died else error)
            raise
        self.calls.end(call, answer if isinstance(answer, (Message, bytes)) else None)
        return answer

    async def _ask(self, call: Call, work: Work, remote: bool) -> Any:
        crash = await self._strike(call, remote)
        asked = work(await self.answering(remote))
        if asked is None:
            if crash is not None:
                await self._crash(crash, remote)
            raise Unimplemented(f"podwright has no {call.rpc}")
        answer = await self.fly(asked, remote)
        if call.rpc in _MADE:
            call.subject = with_id(call.subject, getattr(answer, _MADE[call.rpc]))
        if crash is not None:
            await self._crash(crash, remote)
        return answer

    async def _strike(self, call: Call, remote: bool) -> Fault | None:
        """Let the faults for this call strike; returns the crash that shall follow it."""
        meeting = self.world.faults.meet(call.rpc, call.subject)
        if meeting.latency:
            await self.fly(self.world.clock.sleep(meeting.latency), remote)
        if meeting.error is not None:
            raise meeting.error
        if meeting.crash is not None and meeting.crash.crash == "before":
            await self._crash(meeting.crash, remote)
        return meeting.crash

    async def answering(self, remote: bool) -> Runtime:
        if self.runtime is None:
            if remote and self.reason == CRASHED:
                await forever()  # its connection is about to break
            raise Unavailable(self.reason)
        return self.runtime

    async def _crash(self, fault: Fault, remote: bool) -> NoReturn:
        assert self.world.on_crash is not None
        self.world.on_crash(fault)
        if remote:
            await forever()
        raise Unavailable(CRASHED)

    async def fly(self, work: Coroutine[Any, Any, T], remote: bool) -> T:
        """Run `work` so that a crash can end it at any await, whatever it does about it.

        A caller that goes away cancels it, and leaves when it has cleaned up.
        """
        loop = asyncio.get_running_loop()
        task, left = loop.create_task(work), False
        task.add_done_callback(self._land)
        while True:
            flight = self._flights[task] = _Flight(loop.create_future(), remote)
            try:
                answer: T = await flight.landing
            except asyncio.CancelledError:
                if task not in self._flights:
                    raise  # it was cancelled itself, or died
                left = True
                task.cancel()
            except BaseException:
                if left:
                    raise asyncio.CancelledError from None
                raise
            else:
                if left:
                    raise asyncio.CancelledError
                return answer

    def _land(self, task: asyncio.Task[Any]) -> None:
        flight = self._flights.pop(task, None)
        if flight is None or flight.landing.done():
            _ = task.cancelled() or task.exception()
        elif task.cancelled():
            flight.landing.cancel()
        elif (error := task.exception()) is not None:
            flight.landing.set_exception(error)
        else:
            flight.landing.set_result(task.result())

    # Events

    def listen(self, rpc: str, request: Message, remote: bool) -> AsyncGenerator[bytes, None]:
        """The stream of events from now on, encoded, until the client leaves or the node crashes."""
        call = self.calls.begin(rpc, request, Subject(), remote)
        subscription = None
        if self.runtime is not None:
            subscription = self.runtime.events.subscribe()
            self._streams[subscription] = remote
        return self._listening(call, subscription, remote)

    async def _listening(
        self, call: Call, subscription: Subscription | None, remote: bool
    ) -> AsyncGenerator[bytes, None]:
        error: BaseException | None = None
        try:
            await self._strike(call, remote)
            if subscription is None:
                await self.answering(remote)
                raise Unavailable(self.reason)
            async for event in subscription:
                if event == _END:
                    raise Unavailable(self._last_words)
                yield event
        except GeneratorExit:
            raise  # the client left: no error
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.calls.end(call, None, error)
            # The error knows this frame: did this frame know it, neither would go, nor the subscription.
            error = None

    # Streams that end

    async def stream(self, rpc: str, name: str, request: Message, remote: bool) -> AsyncGenerator[Any, None]:
        """What the core's method `name` streams: recorded, and struck by the faults for `rpc`, as a call."""
        call = self.calls.begin(rpc, request, subject_of(request, self._records), remote)
        error: BaseException | None = None
        try:
            crash = await self._strike(call, remote)
            runtime = await self.answering(remote)
            method = getattr(runtime, name, None)
            if method is not None:
                answer = method(request)
                while (part := await self.fly(_next_or_none(answer), remote)) is not None:
                    yield part
            if crash is not None:
                await self._crash(crash, remote)
            if method is None:
                raise Unimplemented(f"podwright has no {rpc}")
        except GeneratorExit:
            raise  # the client left: no error
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.calls.end(call, None, error)
            error = None  # as in `_listening`

    # Pulls

    def watch_pulls(
        self, request: own.WatchPullsRequest, remote: bool
    ) -> AsyncGenerator[own.PullProgress, None]:
        """How far pulls are, until the watcher leaves or the node crashes. Not recorded: it is no call of the
        CRI."""
        return self._watching(None if self.runtime is None else self.runtime.watch_pulls(request), remote)

    async def _watching(
        self, states: AsyncIterator[own.PullProgress] | None, remote: bool
    ) -> AsyncGenerator[own.PullProgress, None]:
        if states is None:
            await self.answering(remote)
            raise Unavailable(self.reason)
        while True:
            yield await self.fly(_next(states), remote)

    def _loses(self, kind: cri.ContainerEventType, id: str) -> bool:
        faults = self.world.faults
        if not faults.active():
            return False
        records = self._records
        assert records is not None
        name = cri.ContainerEventType.Name(kind)
        meeting = faults.meet(f"event.{name}", subject_of_id(id, records))
        if meeting.crash is not None:
            assert self.world.on_crash is not None
            self.world.on_crash(meeting.crash)
            return True
        return meeting.lose


async def _next(states: AsyncIterator[T]) -> T:
    return await anext(states)


async def _next_or_none(parts: AsyncIterator[T]) -> T | None:
    return await anext(parts, None)
