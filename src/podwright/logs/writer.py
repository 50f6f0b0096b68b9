"""The log writer: one small process for all containers whose logs have limits. It outlives podwright.

Each container has a directory with its `settings.json` and the FIFOs that are read: `log`, records that
conmon makes, or `stdout` and `stderr`. A writer that starts takes up every directory it finds, so nobody has
to remember anything for it. It ends when no container is left. `writing.py` starts it and speaks to its
socket: a JSON object a message, each answered by one.

Of `stdout` and `stderr` others may have copies as they come ("attach"), in pipes that they send. Such a
listener that does not read holds its stream up, and with it the container; one that goes is forgotten.

Not asyncio, and the standard library only: what it has in memory it has for as long as containers live.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

from podwright.logs import rotation
from podwright.logs.limits import Limits
from podwright.logs.writer_listeners import Listeners
from podwright.logs.writer_log import SETTINGS, Log
from podwright.logs.writer_sources import ENDED, MORE, PARTIAL, Glance, Records, Stream

LINGER = 1.0
"""Seconds for which it stays with nothing to write: the next container mostly comes soon. Who starts it may
want it to stay longer, as long as somebody is connected."""
PARTIAL_WAIT = 0.005
"""Seconds until a record that is being written is looked at again: it would be told of without a pause."""
LOOK_AROUND = 60.0
"""Seconds between two looks whether directories were removed under it."""
DRAINING_PULLS = 64
"""A container that is still written to must not keep the writer for ever."""
MAX_MESSAGE = 1 << 16
END = "end"
"""Beside the streams: the pipe of this name says nothing, and ends with the log."""

Message = dict[str, object]


class Writer:
    def __init__(self, base: str, listening: socket.socket, linger: float = LINGER) -> None:
        self._base = base
        self._linger = linger
        self._glance = Glance()
        self._poll = select.epoll()
        self._listening = listening
        listening.setblocking(False)
        self._clients: dict[int, socket.socket] = {}
        self._logs: dict[str, Log] = {}
        self._sources: dict[int, tuple[str, Records | Stream]] = {}
        self._partial: set[int] = set()
        self._listeners = Listeners(self._poll)
        self._compressing = -1
        """pidfd of the child that compresses."""
        self._to_compress: set[str] = set()
        self._leaving = False
        self._idle_since = time.monotonic()
        self._looked = time.monotonic()
        self._poll.register(listening, select.EPOLLIN)

    def run(self) -> None:
        """Write until there is nothing to write for."""
        for id in _entries(self._base):
            self._try_open(id)
        while not self._done():
            for fd, events in self._poll.poll(self._timeout()):
                self._handle(fd, events)
            for fd in self._partial:
                self._poll.register(fd, select.EPOLLIN)
            self._partial.clear()
            self._pass_time()

    def _handle(self, fd: int, events: int) -> None:
        if fd in self._sources:
            self._pull(fd)
        elif fd in self._listeners:
            self._listeners.serve(fd, events)
        elif fd == self._listening.fileno():
            client, _ = self._listening.accept()
            client.setblocking(False)
            self._clients[client.fileno()] = client
            self._poll.register(client, select.EPOLLIN)
        elif fd in self._clients:
            self._converse(self._clients[fd])
        elif fd == self._compressing:
            os.close(fd)
            self._compressing = -1
            os.waitpid(-1, os.WNOHANG)

    def _pull(self, fd: int) -> None:
        id, source = self._sources[fd]
        found = source.pull()
        log = self._logs[id]
        if log.file.rotated:
            log.file.rotated = False
            if log.file.keeper.limits.compress:
                self._to_compress |= set(log.file.to_compress())
        if found == PARTIAL:
            self._poll.unregister(fd)
            self._partial.add(fd)
        elif found == ENDED:
            self._drop_source(fd)
            source.finish()
            if isinstance(source, Stream):
                self._listeners.end(source.listeners)
            if not any(each == id for each, _ in self._sources.values()):
                self._close(id)
        elif isinstance(source, Stream) and source.listeners:
            self._listeners.mind(source, wait=not log.hurried)

    def _drop_source(self, fd: int) -> None:
        held_up = self._listeners.drop(fd)
        if self._sources.pop(fd, None) is not None and fd not in self._partial and not held_up:
            self._poll.unregister(fd)
        self._partial.discard(fd)

    # Who listens

    def _attach(self, id: str, names: list[str], fds: list[int]) -> None:
        """Hand on what comes from now on on the streams with these names; what is not there ends at once."""
        log = self._known(id)
        self._drain(log)
        streams = {each.name: each for each in log.streams() if each.fd in self._sources}
        for name in names:
            fd = fds.pop(0)
            if name == END:
                self._listeners.watch(fd, log.watchers)
            elif name in streams:
                self._listeners.add(fd, streams[name])
            else:
                os.close(fd)

    def _hasten(self, log: Log) -> None:
        """Nobody is waited for any more, so that all that is on its way gets into the log."""
        log.hurried = True
        for each in log.streams():
            self._listeners.let_on(each)

    # What podwright asks

    def _converse(self, client: socket.socket) -> None:
        fds: list[int] = []
        try:
            message, fds, _, _ = socket.recv_fds(client, MAX_MESSAGE, 8, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return  # it was another one that had its number and said something
        except OSError:
            message = b""
        if not message:
            self._poll.unregister(client)
            del self._clients[client.fileno()]
            client.close()
            return
        try:
            answer = self._answer(json.loads(message), fds)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            answer = {"error": str(error)}
        for fd in fds:
            os.close(fd)
        try:
            client.send(json.dumps(answer).encode())
        except OSError:
            pass  # it is about to be seen that it has gone

    def _answer(self, message: Message, fds: list[int]) -> Message:
        """Of `fds` those that are taken are taken out."""
        id = str(message.get("id", ""))
        match message["do"]:
            case "open":
                if id not in self._logs:
                    self._open(id)
            case "reopen":
                self._known(id).file.reopen()
            case "close":
                if id in self._logs:
                    self._close(id)
            case "limits":
                self._drain(self._known(id))
                self._known(id).file.set_limits(Limits(**message["limits"]))  # type: ignore[arg-type]
            case "attach":
                self._attach(id, message["streams"], fds)  # type: ignore[arg-type]
            case "hasten":
                self._hasten(self._known(id))
            case "status":
                return {"pid": os.getpid(), "logs": {id: each.file.path for id, each in self._logs.items()}}
            case "leave":
                self._leaving = True
                return {"pid": os.getpid()}
            case unknown:
                return {"error": f"there is no {unknown!r}"}
        return {}

    def _known(self, id: str) -> Log:
        if id not in self._logs:
            raise ValueError(f"it has ended, or never began: {id}")
        return self._logs[id]

    def _try_open(self, id: str) -> None:
        try:
            self._open(id)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # half made, or half removed: whose it is sees to it

    def _open(self, id: str) -> None:
        log = self._logs[id] = Log(os.path.join(self._base, id), self._glance)
        for source in log.sources:
            self._sources[source.fd] = id, source
            self._poll.register(source.fd, select.EPOLLIN)
        self._leaving = False

    def _drain(self, log: Log, *, all: bool = False) -> None:
        """Write what is there by now; `all` of it, or only what nobody holds up."""
        for source in log.sources:
            for _ in range(DRAINING_PULLS):
                if (not all and self._listeners.holds_up(source.fd)) or source.pull() != MORE:
                    break
                if isinstance(source, Stream) and source.listeners:
                    self._listeners.mind(source, wait=not (log.hurried or all))

    def _close(self, id: str) -> None:
        """Write what is still there, and let go of the container for ever."""
        log = self._logs.pop(id)
        self._drain(log, all=True)
        for source in log.sources:
            self._drop_source(source.fd)
        listeners = [*(each for stream in log.streams() for each in stream.listeners), *log.watchers]
        log.let_go()
        # The settings go last: while they are there, the directory is a log's.
        for name in sorted(_entries(log.directory), key=lambda each: each == SETTINGS):
            _remove(os.path.join(log.directory, name))
        try:
            os.rmdir(log.directory)
        except OSError:
            pass  # somebody else has removed it
        self._listeners.end(listeners)  # only now: who sees an end and finds the files knows of a dead writer
        self._idle_since = time.monotonic()

    # Time

    def _done(self) -> bool:
        if self._logs or self._listeners or self._compressing >= 0 or self._to_compress:
            return False
        return self._leaving or time.monotonic() - self._idle_since > self._patience()

    def _patience(self) -> float:
        return self._linger if self._clients else LINGER

    def _timeout(self) -> float:
        waits = [LOOK_AROUND]
        if self._partial:
            waits.append(PARTIAL_WAIT)
        if not self._logs:
            waits.append(self._patience())
        now = time.monotonic()
        waits += [due - now for each in self._logs.values() if (due := each.file.keeper.due()) is not None]
        return max(0.0, min(waits))

    def _pass_time(self) -> None:
        now = time.monotonic()
        for each in self._logs.values():
            due = each.file.keeper.due()
            if due is not None and due <= now:
                each.file.tick()
        if now - self._looked >= LOOK_AROUND:
            self._looked = now
            for id, log in list(self._logs.items()):
                if not os.path.exists(os.path.join(log.directory, SETTINGS)):
                    self._close(id)
        if self._to_compress and self._compressing < 0:
            self._compress(sorted(self._to_compress))
            self._to_compress.clear()

    def _compress(self, files: list[str]) -> None:
        """By a child, for others' logs must not wait meanwhile."""
        pid = os.fork()
        if pid == 0:
            try:
                os.closerange(3, 1 + max(int(each) for each in os.listdir("/proc/self/fd")))
                os.nice(10)
                for each in files:
                    rotation.compress(each)
            finally:
                os._exit(0)
        self._compressing = os.pidfd_open(pid)
        self._poll.register(self._compressing, select.EPOLLIN)


def _entries(directory: str) -> Iterator[str]:
    try:
        return iter(sorted(os.listdir(directory)))
    except (FileNotFoundError, NotADirectoryError):
        return iter(())


def _remove(file: str) -> None:
    try:
        os.unlink(file)
    except FileNotFoundError:
        pass


def main() -> None:
    """`BASE FD LINGER`: the directory of all logs, the socket to be spoken to, which listens already, and the
    seconds for which it stays with nothing to write while somebody is connected."""
    base, fd, linger = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if os.fork():
        os._exit(0)  # whoever has started this waits no longer
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(each, signal.SIG_IGN)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-999")  # as conmon: who holds what all others have written goes last
    except OSError:
        pass
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lock = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # one that just ends has still files open
    Writer(base, socket.socket(fileno=fd), linger).run()


if __name__ == "__main__":
    main()
