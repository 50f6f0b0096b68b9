"""Those who listen to a container as its log is written: pipes into which its streams are copied.

Standard library only, as the writer's process is kept small.
"""

from __future__ import annotations

import os
import select

MOST_BEHIND = 8 << 20
"""Bytes that are kept for a listener whom the container does not wait for any more; who is further behind is
let go."""


class Listener:
    """The writing end of somebody's pipe, in non-blocking mode."""

    def __init__(self, fd: int, among: list[Listener]) -> None:
        """It enters itself `among` those who want the same, and leaves when it goes or there is an end."""
        self.fd = fd
        self.among = among
        among.append(self)
        self.closing = False
        """Nothing more comes: it is closed when all has been taken."""
        self._behind: list[memoryview] = []

    @property
    def behind(self) -> int:
        """Bytes that were not taken yet."""
        return sum(map(len, self._behind))

    def give(self, data: bytes) -> None:
        """What is not taken now is kept. Raises BrokenPipeError when nobody listens any more."""
        self._behind.append(memoryview(data))
        if len(self._behind) == 1:
            self.go_on()

    def go_on(self) -> None:
        """Hand on what is left, as much as is taken. Raises BrokenPipeError."""
        while self._behind:
            try:
                written = os.write(self.fd, self._behind[0])
            except BlockingIOError:
                return
            if written < len(self._behind[0]):
                self._behind[0] = self._behind[0][written:]
            else:
                del self._behind[0]


class Heard:
    """A stream that is read from `fd`, and those who listen to it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.listeners: list[Listener] = []

    def hand_on(self, data: bytes) -> None:
        for each in self.listeners:
            try:
                each.give(data)
            except BrokenPipeError:
                pass  # the poll tells of it, too


class Listeners:
    """All of them. Streams of which a listener is behind are taken out of `poll`."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._of: dict[int, tuple[Listener, Heard | None]] = {}
        self._held_up: set[int] = set()

    def __contains__(self, fd: int) -> bool:
        return fd in self._of

    def __bool__(self) -> bool:
        return bool(self._of)

    def holds_up(self, stream: int) -> bool:
        return stream in self._held_up

    def add(self, fd: int, stream: Heard) -> None:
        """One that gets what comes on `stream`."""
        self._enter(Listener(fd, stream.listeners), stream)

    def watch(self, fd: int, watchers: list[Listener]) -> None:
        """One more of `watchers`, who get nothing but an end."""
        self._enter(Listener(fd, watchers), None)

    def mind(self, stream: Heard, *, wait: bool) -> None:
        """`stream` was handed on: `wait` for those that are behind, or keep what they did not take."""
        behind = [each for each in stream.listeners if each.behind]
        for each in behind:
            if not wait and each.behind > MOST_BEHIND:
                self._forget(each.fd)
            else:
                self._poll.modify(each.fd, select.EPOLLOUT)
        if behind and wait and stream.fd not in self._held_up:
            self._held_up.add(stream.fd)
            self._poll.unregister(stream.fd)

    def serve(self, fd: int, events: int) -> None:
        """Somebody reads again, or no more."""
        listener, stream = self._of[fd]
        try:
            if events & select.EPOLLERR:
                raise BrokenPipeError
            listener.go_on()
        except BrokenPipeError:
            self._forget(fd)
        else:
            if listener.behind:
                return
            self._poll.modify(fd, 0)
            if listener.closing:
                self._forget(fd)
        if stream is not None and not any(each.behind for each in stream.listeners):
            self.let_on(stream)

    def let_on(self, stream: Heard) -> None:
        """It is read again, whoever is behind."""
        if stream.fd in self._held_up:
            self._held_up.discard(stream.fd)
            self._poll.register(stream.fd, select.EPOLLIN)

    def drop(self, stream: int) -> bool:
        """It is read no more; whether it was held up, so that the poll does not know it."""
        found = stream in self._held_up
        self._held_up.discard(stream)
        return found

    def end(self, listeners: list[Listener]) -> None:
        """They see an end when they have all that came before."""
        for each in list(listeners):
            each.closing = True
            each.among.remove(each)
            self._of[each.fd] = each, None
            if each.behind:
                self._poll.modify(each.fd, select.EPOLLOUT)
            else:
                self._forget(each.fd)

    def _enter(self, listener: Listener, stream: Heard | None) -> None:
        self._of[listener.fd] = listener, stream
        self._poll.register(listener.fd, 0)  # it is told when nobody reads any more

    def _forget(self, fd: int) -> None:
        listener, _ = self._of.pop(fd)
        self._poll.unregister(fd)
        os.close(fd)  # the next one may have its number
        if not listener.closing:
            listener.among.remove(listener)
