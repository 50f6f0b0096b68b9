"""podwright's end of the log writer: starts it, finds it again, asks it.

Only containers whose logs have limits have a writer, one for all. podwright keeps their FIFOs open beside it:
as long as either lives, what a container writes waits there and nothing is lost. When both are gone the
supervisor finds no reader and drops what comes, so that no container waits for ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from io import FileIO
from pathlib import Path

import podwright
from podwright.errors import CommandFailed, FailedPrecondition, NotFound, PodwrightError, Unavailable
from podwright.linux import spawn, trees
from podwright.linux.readiness import writable
from podwright.linux.sockets import connect_unix
from podwright.logs import writer
from podwright.logs.limits import Limits
from podwright.logs.writer_log import SETTINGS
from podwright.logs.writer_sources import enlarge

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 10.0
"""Seconds within which a writer answers: it has never more to do than to empty a pipe."""
SETTLE_TIMEOUT = 2.0
"""Seconds that the end of a container waits for the end of its log: others' ends may wait behind it."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a writer that died is started again, the first time and after many times."""


class LogWriter:
    """The writer of all logs below `directory`. It stays `linger` seconds with nothing to write."""

    def __init__(self, directory: Path, *, linger: float = writer.LINGER) -> None:
        self._directory = directory
        self._linger = linger
        self._connection: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._held: dict[str, list[int]] = {}
        """The FIFOs of each container, open for reading."""
        self._attached: Counter[str] = Counter()
        """How many of us listen to each."""
        self._watch: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Take up what an earlier podwright has left: hold its FIFOs, see that somebody writes."""
        left = [each.name for each in self._logs()]
        for id in left:
            self._hold(id)
        if left:
            await self._ask({"do": "status"})

    async def close(self) -> None:
        """Let go; the writer lives as long as it has logs to write."""
        self._closing = True
        if self._watch is not None:
            self._watch.cancel()
        if self._connection is not None:
            with suppress(PodwrightError, OSError, TimeoutError):
                answer = await self._ask({"do": "leave"}, again=False)
                if not self._logs():
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        await spawn.exited(int(str(answer["pid"])))
        self._disconnect()
        for id in list(self._held):
            self._release(id)

    def has(self, id: str) -> bool:
        """Whether a log of this name is being written."""
        return (self._directory / id / SETTINGS).exists()

    async def add(self, id: str, path: str, limits: Limits, *, raw: tuple[str, ...] = ()) -> Path:
        """Have a log written to `path` (absolute; "" with `raw`: nowhere) within `limits`; where to put what
        it says.

        That is the FIFO for records or, with `raw`, the directory with a FIFO for each of these streams
        ("stdout", "stderr"). Whoever writes there must be the only one, for the log ends with it.
        Raises FailedPrecondition when the file cannot be written, or no writer be started.
        """
        directory = self._directory / id
        directory.mkdir(mode=0o700, parents=True)
        try:
            for name in raw or ("log",):
                os.mkfifo(directory / name, 0o600)
            settings = {"path": path, "raw": bool(raw), "limits": limits._asdict()}
            (directory / SETTINGS).write_text(json.dumps(settings))
            self._hold(id)
            await self._ask({"do": "open", "id": id})
        except BaseException:
            self._release(id)
            trees.remove(directory)
            raise
        return directory if raw else directory / "log"

    async def reopen(self, id: str) -> None:
        """Go on in a new file at the log's path: no later line goes to the old one. FailedPrecondition."""
        await self._ask({"do": "reopen", "id": id})

    async def set_limits(self, id: str, limits: Limits) -> None:
        """From now on. FailedPrecondition when there is no such log."""
        file = self._directory / id / SETTINGS
        try:
            settings = json.loads(file.read_text())
        except FileNotFoundError as error:
            raise NotFound(f"no log {id} is being written") from error
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(settings | {"limits": limits._asdict()}))
        draft.rename(file)
        await self._ask({"do": "limits", "id": id, "limits": limits._asdict()})

    @asynccontextmanager
    async def attached(self, id: str, streams: Sequence[str]) -> AsyncIterator[dict[str, FileIO]]:
        """Inside, what comes on `streams` of a log with `raw` from now on: a pipe for each, in non-blocking
        mode, that ends with its stream, and one more that says nothing and ends with the log (writer.END).

        Whoever does not read holds the container up, until `hasten`. When all have ended and `has` says that
        the log has not, the writer has been killed: attach again. FailedPrecondition when it has ended.
        """
        names = [*streams, writer.END]
        theirs: list[int] = []
        ours: dict[str, FileIO] = {}
        try:
            try:
                for name in names:
                    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                    theirs.append(writing)
                    ours[name] = FileIO(reading, "r")
                    enlarge(reading)
                await self._ask({"do": "attach", "id": id, "streams": names}, fds=theirs)
            finally:
                for fd in theirs:
                    os.close(fd)
            self._attached[id] += 1
            try:
                yield ours
            finally:
                self._attached[id] -= 1
                self._attached += Counter()  # those without any go
        finally:
            for file in ours.values():
                file.close()

    async def hasten(self, id: str) -> None:
        """The container is about to end: nobody who listens holds it up any more. Fine when it has ended."""
        if self._attached[id]:
            with suppress(FailedPrecondition):
                await self._ask({"do": "hasten", "id": id})

    async def finish(self, id: str) -> None:
        """Have everything written that the container has said, and forget it. Fine when that is done."""
        try:
            if self.has(id):
                await self._ask({"do": "close", "id": id})
        finally:
            self._release(id)
            if (self._directory / id).exists():
                trees.remove(self._directory / id)

    async def settle(self, id: str) -> None:
        """`finish`, before the end of container `id` is told: who follows the log stops then. A log that
        takes longer than `SETTLE_TIMEOUT` comes late, and what goes wrong is a warning."""
        if not self.has(id):
            return
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                await self.finish(id)
        except (PodwrightError, OSError, TimeoutError) as error:
            log.warning("the end of the log of %s may come late: %s", id, error)

    async def status(self) -> dict[str, object]:
        """The writer's pid, and the path of each log that it writes. Starts one if there is none."""
        return await self._ask({"do": "status"})

    # The conversation

    async def _ask(
        self, message: writer.Message, *, again: bool = True, fds: Sequence[int] = ()
    ) -> writer.Message:
        """Its answer. A writer that has just ended is started again, and asked again."""
        async with self._turn:
            for chance in range(3 if again else 1):
                try:
                    connection = self._connection or await self._connect()
                    answer = await self._exchange(connection, message, fds)
                    break
                except (ConnectionError, TimeoutError) as error:
                    self._disconnect()
                    if chance == 2 or not again:
                        raise Unavailable(f"the log writer does not answer: {error}") from error
                except BaseException:
                    self._disconnect()  # its answer would be taken for that to the next question
                    raise
        if "error" in answer:
            raise FailedPrecondition(f"the log cannot be written: {answer['error']}")
        return answer

    async def _exchange(
        self, connection: socket.socket, message: writer.Message, fds: Sequence[int]
    ) -> writer.Message:
        loop = asyncio.get_running_loop()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await _send(connection, json.dumps(message).encode(), fds)
            answer = await loop.sock_recv(connection, writer.MAX_MESSAGE)
        if not answer:
            raise ConnectionResetError("it has ended")
        if not self._closing:
            self._watch = asyncio.ensure_future(self._mind(connection))
        decoded: writer.Message = json.loads(answer)
        return decoded

    async def _connect(self) -> socket.socket:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        control = self._directory / "control"
        try:
            connection = await connect_unix(control, socket.SOCK_SEQPACKET)
        except (FileNotFoundError, ConnectionRefusedError):
            await self._start(control)
            connection = await connect_unix(control, socket.SOCK_SEQPACKET)
        self._connection = connection
        return connection

    async def _start(self, control: Path) -> None:
        """Its socket listens before it lives: whoever connects waits for it, nobody for its start."""
        control.unlink(missing_ok=True)
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listening.bind(f"/proc/self/fd/{directory}/{control.name}")
            listening.listen(8)
            room = str(Path(podwright.__file__).parents[1])
            begin = f"import sys; sys.path.append({room!r}); from podwright.logs.writer import main; main()"
            flags = ("-I", "-S", "-B", "-X", "utf8")
            told = (str(self._directory), str(listening.fileno()), str(self._linger))
            argv = [sys.executable, *flags, "-c", begin, *told]
            done = await spawn.run(
                argv, env={}, pass_fds=(listening.fileno(),), timeout=ANSWER_TIMEOUT, cwd="/"
            )
            if done.status != 0:
                raise CommandFailed("log writer", done.status, done.stderr.decode(errors="replace"))
        finally:
            listening.close()
            os.close(directory)

    async def _mind(self, connection: socket.socket) -> None:
        """When the writer dies while there is something to write, start another."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_recv(connection, 1)
        except OSError:
            pass
        pause = FIRST_PAUSE
        if self._connection is connection:
            self._watch = None  # it is this task, which the next question must not cancel
            self._disconnect()
        while self._connection is None and self._logs() and not self._closing:
            log.warning("the log writer has ended: another one is started")
            try:
                await self._ask({"do": "status"}, again=False)
            except (PodwrightError, OSError) as error:
                log.error("the log writer cannot be started again: %s", error)
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    def _disconnect(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Files

    def _logs(self) -> list[Path]:
        try:
            return [each.parent for each in self._directory.glob(f"*/{SETTINGS}")]
        except FileNotFoundError:
            return []

    def _hold(self, id: str) -> None:
        if id in self._held:
            return
        held = self._held[id] = []
        for each in (self._directory / id).iterdir():
            if each.is_fifo():
                held.append(os.open(each, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def _release(self, id: str) -> None:
        for fd in self._held.pop(id, ()):
            os.close(fd)


async def _send(connection: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    while True:
        try:
            socket.send_fds(connection, [message], fds)
            return
        except BlockingIOError:
            await writable(connection.fileno())
