"""The one place that starts programs.

`run` starts a program, feeds it, collects its output and reaps it through its pidfd, so that no thread
waits and no SIGCHLD handler is needed. A program whose time is up is killed with its whole process group.
`serving` is for one that is talked to through a file it is given, for as long as a context lasts; `connected`
for one whose streams somebody else has.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import CommandFailed, DeadlineExceeded
from podwright.linux import limits
from podwright.linux.waiting import to_the_end

READ_SIZE = 1 << 16
MAX_PIPE = 1 << 20
"""A pipe holds at most this much unless root raised fs.pipe-max-size."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: its status is negative when a signal killed it."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str],
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float | None = None,
    limit: int | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = 0.0,
    sigpipe: bool = True,
    owner: tuple[int, int] | None = None,
    said: bytearray | None = None,
) -> Finished:
    """Run `argv` to its end and return its output.

    At most `limit` bytes of each stream are kept; the rest is read and dropped. Output still open
    `grace` seconds after the program ended (a daemonised child holds it) is given up.
    Its standard error grows in `said`, for who wants it before the end, or when there is none.
    `owner`, a user and a group, may open the program's output again by its name (/dev/stdout).
    Without `sigpipe` the program and its children ignore SIGPIPE, so a broken pipe is an error to them.
    Raises DeadlineExceeded after `timeout` seconds; FileNotFoundError when there is no such program.
    On a timeout or a cancellation the program's process group is killed and reaped first.
    """
    # vfork and exec: half a millisecond, and a thread would hold the interpreter lock all the same.
    child = subprocess.Popen(  # noqa: ASYNC220
        list(argv),
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
        restore_signals=sigpipe,
    )
    limits.restore_open_files(child.pid)
    assert child.stdout is not None and child.stderr is not None
    if owner is not None:
        os.fchown(child.stdout.fileno(), *owner)
        os.fchown(child.stderr.fileno(), *owner)
    out, err = _Drain(child.stdout.fileno(), limit), _Drain(child.stderr.fileno(), limit, kept=said)
    feed = asyncio.ensure_future(_feed(child, input)) if input else None
    try:
        async with asyncio.timeout(timeout):
            await exited(child.pid)
        status = child.wait()
        if grace > 0 and not (out.done.done() and err.done.done()):
            await asyncio.wait([out.done, err.done], timeout=grace)
    except TimeoutError:
        raise DeadlineExceeded(f"{argv[0]} did not end within {timeout:g} s") from None
    finally:
        try:
            if child.returncode is None:
                kill_group(child.pid)
                await to_the_end(exited(child.pid))
        finally:
            # Whatever happens, cancelled twice or out of files: no zombie, no pipe, no reader is left.
            if child.returncode is None:
                child.wait()
            out.stop()
            err.stop()
            if feed is not None:
                feed.cancel()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        pass
    return Finished(status, bytes(out.kept), bytes(err.kept))


async def check(
    argv: Sequence[str],
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout: float | None = None,
) -> bytes:
    """Run `argv`, return its standard output; CommandFailed with its words when its status is not 0."""
    done = await run(argv, input=input, env=env, cwd=cwd, timeout=timeout)
    if done.status != 0:
        words = done.stderr.strip() or done.stdout.strip()
        raise CommandFailed(Path(argv[0]).name, done.status, words.decode(errors="replace"))
    return done.stdout


class Serving:
    """A program that runs; see `serving`."""

    def __init__(self, pid: int, errors: _Drain) -> None:
        self.pid = pid
        self._errors = errors

    def said(self) -> str:
        """The end of what it has written on its standard error until now."""
        self._errors.take()
        return self._errors.kept.decode(errors="replace")


@asynccontextmanager
async def serving(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (), kept: int
) -> AsyncIterator[Serving]:
    """Run `argv` inside the context, with `pass_fds` at their numbers; its process group is killed and reaped
    at the end, however that comes.

    Of its standard error the last `kept` bytes are there, its standard output is dropped. Raises
    FileNotFoundError when there is no such program.
    """
    child = subprocess.Popen(  # noqa: ASYNC220
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=env,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    limits.restore_open_files(child.pid)
    assert child.stderr is not None
    errors = _Drain(child.stderr.fileno(), kept, last=True)
    try:
        yield Serving(child.pid, errors)
    finally:
        try:
            kill_group(child.pid)
            await to_the_end(exited(child.pid))
        finally:
            child.wait()
            errors.stop()
            child.stderr.close()


@asynccontextmanager
async def connected(
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[int]:
    """Run `argv` inside the context, its streams being the given files; the context is its pid.

    At the end its process group is killed and reaped. Raises FileNotFoundError when there is no such program.
    """
    child = subprocess.Popen(  # noqa: ASYNC220
        list(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    limits.restore_open_files(child.pid)
    try:
        yield child.pid
    finally:
        try:
            kill_group(child.pid)
            await to_the_end(exited(child.pid))
        finally:
            child.wait()


@contextmanager
def echoing(argv: Sequence[str], timeout: float) -> Iterator[tuple[int, str]]:
    """Run `argv`, which ends up as cat(1), inside the context: its pid once it echoes, and ""; or 0 and what
    it said when it ended instead. It ends with its input, so also with this process.

    Blocks: for threads. Raises DeadlineExceeded when it does neither within `timeout` seconds.
    """
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={"LC_ALL": "C"},
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        try:
            os.write(child.stdin.fileno(), b"\n")
        except BrokenPipeError:
            pass  # it has ended: that is seen below
        echo = select.poll()
        echo.register(child.stdout, select.POLLIN)
        if not echo.poll(timeout * 1000):
            raise DeadlineExceeded(f"{argv[0]} did nothing within {timeout:g} s")
        if os.read(child.stdout.fileno(), 1):
            yield child.pid, ""
        else:
            yield 0, child.stderr.read().decode(errors="replace").strip()
    finally:
        kill_group(child.pid)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            pipe.close()


async def exited(pid: int) -> None:
    """Wait until our child or any other process `pid` has ended; at once when there is none."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set, ended)
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def kill_group(leader: int) -> None:
    """SIGKILL to every process of the group that `leader` leads, and to `leader`."""
    for kill in (os.killpg, os.kill):
        try:
            kill(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _feed(child: subprocess.Popen[bytes], input: bytes) -> None:
    assert child.stdin is not None
    fd = child.stdin.fileno()
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    rest = memoryview(input)
    try:
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                room: asyncio.Future[None] = loop.create_future()
                loop.add_writer(fd, _set, room)
                try:
                    await room
                finally:
                    loop.remove_writer(fd)
    except BrokenPipeError:
        pass  # it ended without reading all: its status tells whether that matters
    finally:
        try:
            child.stdin.close()
        except BrokenPipeError:
            pass


class _Drain:
    """Reads one pipe as it fills and keeps its first (or `last`) `limit` bytes; `done` is set at its end."""

    def __init__(
        self, fd: int, limit: int | None, *, last: bool = False, kept: bytearray | None = None
    ) -> None:
        self.kept = bytearray() if kept is None else kept
        self._limit = limit
        self._last = last
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def take(self) -> None:
        """Read what is there now; bounded, for a daemonised child may write on for ever."""
        for _ in range(MAX_PIPE // READ_SIZE):
            if self.done.done() or not self._read():
                break

    def stop(self) -> None:
        """Take what is there now and read no more."""
        self.take()
        self._end()

    def _read(self) -> bool:
        try:
            chunk = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return False
        if not chunk:
            self._end()
            return True
        if self._limit is None:
            self.kept += chunk
        elif self._last:
            self.kept += chunk
            del self.kept[: -self._limit]
        else:
            self.kept += chunk[: max(0, self._limit - len(self.kept))]
        return True

    def _end(self) -> None:
        if not self.done.done():
            self._loop.remove_reader(self._fd)
            self.done.set_result(None)
