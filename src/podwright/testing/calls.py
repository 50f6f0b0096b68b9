"""The log of calls: every one with its arguments, in order, with its outcome, and assertions over them.

Messages are kept encoded and decoded when somebody looks at them: a node under load is asked thousands of
times a minute, and parsed messages take five times the room.
Requests may carry credentials: they are here to be asserted, and no text made here shows them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from podwright.core.images import credentials_for
from podwright.engines.base import Credentials
from podwright.engines.fake.faults import ERRORS
from podwright.engines.fake.scenario import Match
from podwright.engines.fake.subject import Subject
from podwright.errors import InvalidArgument, PodwrightError
from podwright.wire import cri_pb2 as cri

KEPT = 100_000
"""Calls remembered unless told otherwise."""

ROOM = 64 << 20
"""Bytes that they may take; the oldest are forgotten for it, too."""

LONG = 1 << 20
"""Bytes of an answer that is not kept: a list of tens of thousands is asked for again and again."""

_OWN = 1 << 10
"""Bytes, about, that a call takes besides its messages."""

SHOWN = 30
"""Calls that a failed assertion lists."""

_CODES = {*ERRORS, "InvalidArgument"}
"""What scenarios call errors; others are Unknown to a client."""

_METHODS = {
    method.name: method for service in cri.DESCRIPTOR.services_by_name.values() for method in service.methods
}
REQUESTS = {name: GetMessageClass(method.input_type) for name, method in _METHODS.items()}
RESPONSES = {name: GetMessageClass(method.output_type) for name, method in _METHODS.items()}
"""What each rpc is asked with, and what it answers with."""


@dataclass(eq=False, slots=True, repr=False)
class Call:
    number: int
    """From 1, in the order in which the calls arrived."""
    rpc: str
    """As on the wire: "CreateContainer"."""
    request_wire: bytes
    """The request message, encoded."""
    subject: Subject
    """Whom it was about, as far as that was known: ids are those of containers, or else of pods."""
    started: int
    """Nanoseconds since the epoch by the node's clock."""
    remote: bool = False
    """It came over a socket."""
    ended: int = 0
    """0 while it is under way; for a stream, when the client left."""
    error: BaseException | None = None
    response_wire: bytes | None = None

    @property
    def request(self) -> Any:
        """The request message."""
        return REQUESTS[self.rpc].FromString(self.request_wire)

    @property
    def response(self) -> Any:
        """The response message; None while the call is under way, after an error, of a stream, and when it
        was too long to be kept (`LONG`)."""
        return None if self.response_wire is None else RESPONSES[self.rpc].FromString(self.response_wire)

    @property
    def room(self) -> int:
        """Bytes that it takes, about."""
        return _OWN + len(self.request_wire) + len(self.response_wire or b"")

    @property
    def seconds(self) -> float:
        return max(0, self.ended - self.started) / 1e9

    @property
    def outcome(self) -> str:
        """ "ok", "under way", or the error."""
        if self.error is not None:
            if isinstance(self.error, asyncio.CancelledError):
                return "the client left"
            name = type(self.error).__name__
            words = str(self.error).removeprefix(f"{name}: ")  # some name themselves
            if isinstance(self.error, PodwrightError) and name not in _CODES:
                name = "Unknown"
            return f"{name}: {words}"
        return "ok" if self.ended else "under way"

    @property
    def title(self) -> str:
        """Whom it was about, in a word: "pod/container", an image, "pod", an id; "-" for nobody."""
        about = self.subject
        if about.container:
            return f"{about.pod}/{about.container}"
        return about.image or about.pod or about.id[:12] or "-"

    def __repr__(self) -> str:
        return f"<Call {self.number} {self.rpc} {self.title}: {self.outcome}>"


@dataclass(eq=False, slots=True)
class _Waiter:
    fits: Callable[[Call], bool]
    missing: int
    woken: asyncio.Future[None]


class Calls:
    """What was asked of a node. `for call in calls` goes through what is remembered, oldest first."""

    def __init__(self, kept: int = KEPT, clock: Callable[[], int] = time.time_ns) -> None:
        self._calls: deque[Call] = deque()
        self._kept = kept
        self._room = ROOM
        """Bytes that are left."""
        self._clock = clock
        self._waiters: list[_Waiter] = []
        self.total = 0
        """Calls that ever arrived."""
        self.dropped = 0
        """The oldest, forgotten because there were more than can be kept."""

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    # Written by the front

    def begin(self, rpc: str, request: Message, subject: Subject, remote: bool) -> Call:
        self.total += 1
        call = Call(self.total, rpc, request.SerializeToString(), subject, self._clock(), remote)
        self._calls.append(call)
        self._room -= call.room
        self._forget()
        return call

    def end(self, call: Call, answer: Message | bytes | None, error: BaseException | None = None) -> None:
        before = call.room
        call.ended, call.error = self._clock(), _without_frames(error) if error is not None else None
        wire = answer.SerializeToString() if isinstance(answer, Message) else answer
        call.response_wire = wire if wire is None or len(wire) <= LONG else None
        if self._calls and call.number >= self._calls[0].number:
            self._room -= call.room - before
            self._forget()
        if self._waiters:
            for waiter in [each for each in self._waiters if each.fits(call)]:
                waiter.missing -= 1
                if waiter.missing <= 0 and not waiter.woken.done():
                    waiter.woken.set_result(None)

    def _forget(self) -> None:
        while len(self._calls) > self._kept or (self._room < 0 and len(self._calls) > 1):
            self._room += self._calls.popleft().room
            self.dropped += 1

    # Questions

    def of(
        self,
        rpc: str = "*",
        *,
        pod: str = "",
        namespace: str = "",
        container: str = "",
        image: str = "",
        id: str = "",
        labels: dict[str, str] | None = None,
        failed: bool | None = None,
    ) -> list[Call]:
        """The calls that fit, oldest first. Texts are patterns (fnmatch(3)); `failed` asks for errors.

        InvalidArgument when no call is named so: it would never be found, whatever happened.
        """
        _named(rpc)
        match = Match(
            id=id, pod=pod, namespace=namespace, container=container, image=image, labels=labels or {}
        )
        return [call for call in self if _fits(call, rpc, match, failed)]

    def last(self, rpc: str = "*", **whom: Any) -> Call:
        """The newest call that fits (see `of`); AssertionError when there is none."""
        return self.assert_called(rpc, **whom)[-1]

    def names(self) -> list[str]:
        """The rpcs in the order of their calls."""
        return [call.rpc for call in self._calls]

    def clear(self) -> None:
        """Forget what happened so far; numbers go on."""
        self._calls.clear()
        self._room, self.dropped = ROOM, 0

    async def wait(self, rpc: str, *, times: int = 1, **whom: Any) -> Call:
        """Wait until `times` calls that fit (see `of`) have ended, those of the past included; the last.

        Bound it with asyncio.timeout: it waits as long as it takes.
        """
        failed = whom.pop("failed", None)
        match = Match(**whom)
        ended = sum(1 for call in self.of(rpc, failed=failed, **whom) if call.ended)
        if ended < times:
            woken = asyncio.get_running_loop().create_future()
            waiter = _Waiter(lambda call: _fits(call, rpc, match, failed), times - ended, woken)
            self._waiters.append(waiter)
            try:
                await woken
            finally:
                self._waiters.remove(waiter)
        return [call for call in self.of(rpc, failed=failed, **whom) if call.ended][-1]

    # Assertions

    def assert_called(self, rpc: str, *, times: int | None = None, **whom: Any) -> list[Call]:
        """That a call that fits (see `of`) was made: `times` times, or at least once. Returns the calls."""
        found = self.of(rpc, **whom)
        if times is None and not found:
            raise AssertionError(f"{_wanted(rpc, whom)} was not called.\n{self._told(rpc)}")
        if times is not None and len(found) != times:
            count = f"{_times(len(found))}, not {_times(times)}"
            raise AssertionError(f"{_wanted(rpc, whom)} was called {count}.\n{self._told(rpc)}")
        return found

    def assert_not_called(self, rpc: str, **whom: Any) -> None:
        """That no call that fits (see `of`) was made."""
        if found := self.of(rpc, **whom):
            raise AssertionError(
                f"{_wanted(rpc, whom)} was called {_times(len(found))}, not never.\n{_lines(found)}"
            )

    def assert_order(self, expected: Sequence[str]) -> None:
        """That these calls were made in this order, others between them or not.

        Each is an rpc, or an rpc and whom it is about as a pattern: "StartContainer web/main".
        """
        expected = [expected] if isinstance(expected, str) else expected
        calls = iter(self)
        for index, step in enumerate(expected):
            rpc, _, title = step.partition(" ")
            _named(rpc)
            if not any(
                fnmatchcase(call.rpc, rpc) and fnmatchcase(call.title, title or "*") for call in calls
            ):
                before = " after " + ", ".join(expected[:index]) if index else ""
                raise AssertionError(f"{step} was not called{before}.\n{self._told('*')}")

    def assert_pulled(
        self,
        image: str,
        *,
        username: str | None = None,
        password: str | None = None,
        times: int | None = None,
    ) -> list[Call]:
        """That `image` was pulled, and with which credentials: those that would have reached the registry.

        `username=""` asserts an anonymous pull.
        """
        pulls = self.assert_called("PullImage", image=image)
        fitting = [call for call in pulls if _with(_credentials(call), username, password)]
        count = len(fitting)
        if count == 0 or (times is not None and count != times):
            who = "" if username is None else f" by {username!r}" if username else " by nobody in particular"
            secret = "" if password is None else " with that password"
            seen = ", ".join(sorted({_who(_credentials(call)) for call in pulls}))
            found = f"{_times(count)}, not {_times(times)}" if times is not None else "never"
            all = "was 1 pull" if len(pulls) == 1 else f"were {len(pulls)} pulls"
            raise AssertionError(f"{image} was pulled{who}{secret} {found}; there {all} of it: by {seen}")
        return fitting

    def _told(self, rpc: str) -> str:
        """The calls that a failed assertion should show: those of the same rpc, or else all."""
        return _lines(self.of(rpc) or list(self._calls), self.dropped)


def _fits(call: Call, rpc: str, match: Match, failed: bool | None) -> bool:
    return (
        fnmatchcase(call.rpc, rpc)
        and match.fits(call.subject)
        and (failed is None or (call.error is not None) is failed)
    )


def _named(rpc: str) -> None:
    if not any(fnmatchcase(name, rpc) for name in REQUESTS):
        near = get_close_matches(rpc, REQUESTS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidArgument("rpc", f"no call of the CRI is named {rpc!r}{hint}")


def _without_frames(error: BaseException) -> BaseException:
    """A traceback keeps alive whatever its frames knew: a subscription would go on collecting events."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin


def with_id(subject: Subject, id: str) -> Subject:
    return replace(subject, id=id)


def _wanted(rpc: str, whom: dict[str, Any]) -> str:
    words = [f"{key}={value!r}" for key, value in whom.items() if value not in ("", None)]
    return f"{rpc} ({', '.join(words)})" if words else rpc


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _lines(calls: Sequence[Call], dropped: int = 0) -> str:
    if not calls:
        return "No call was made at all."
    shown = [f"  {call.number:>5} {call.rpc} {call.title}: {call.outcome}" for call in calls[-SHOWN:]]
    hidden = len(calls) - len(shown) + dropped
    head = f"The calls ({hidden} earlier ones not shown):" if hidden else "The calls:"
    return "\n".join((head, *shown))


def _credentials(call: Call) -> Credentials | None:
    request = call.request
    try:
        return credentials_for(request.image.image, request.auth) if request.HasField("auth") else None
    except PodwrightError:
        return None  # the pull was refused for it


def _with(given: Credentials | None, username: str | None, password: str | None) -> bool:
    given = given or Credentials()
    return (username is None or given.username == username) and (
        password is None or given.password == password
    )


def _who(given: Credentials | None) -> str:
    if given is None or given.withheld:
        return "nobody in particular"
    return repr(given.username) if given.username else "the bearer of a token"
