"""conmon, the supervisor of every process that a runtime makes: it outlives podwright.

One conmon a container holds its output, writes the CRI log, waits for its end and then writes the exit
code to a file. Spoken to by its documented interface: options, the sync pipe, the control FIFO.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from podwright import structs
from podwright.errors import CommandFailed, FailedPrecondition, InvalidArgument
from podwright.linux import inotify, proc, spawn

LOG_MODE = 0o640
MAX_SIZE = 1000
"""Of a terminal, in characters; conmon refuses more."""
RESTORE_OPTIONS = ("--tcp-established", "--file-locks")
"""Of the runtime's `restore`: what a checkpoint may hold."""
_REOPEN = b"2 0 0\n"
"""Message type 2 of the control FIFO; the two numbers belong to type 1, a terminal's size."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """What conmon is to make and to watch."""

    id: str
    name: str
    bundle: Path
    exits: Path
    log_path: str = ""
    """Absolute; "" discards the output."""
    log_fifo: Path | None = None
    """Where the records go instead, when a writer of our own makes the file."""
    stdin: bool = False
    stdin_once: bool = False
    """Close the program's stdin when the first client that attached goes."""
    terminal: bool = False
    restore: Path | None = None
    """CRIU's images, when it is not created but restored."""
    search_path: str = ""
    """PATH of the runtime; "": ours."""


class _Report(msgspec.Struct):
    """The line that conmon writes to the sync pipe."""

    pid: int = 0
    message: str = ""


async def create(program: str, task: Supervised, runtime: str, command: Sequence[str]) -> int:
    """Let conmon run the runtime's `create`, or `restore`; the host pid of the process that it made.

    `runtime` is its name for messages, `command` its program and global options: conmon adds the rest.
    Raises CommandFailed with the runtime's own words, FailedPrecondition when there is no conmon.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            started = await spawn.run(
                _command(program, task, command),
                env={
                    "PATH": task.search_path or os.environ.get("PATH", os.defpath),
                    "_OCI_SYNCPIPE": str(writing),
                },
                cwd=task.bundle,  # conmon drops its `oom` file there
                pass_fds=(writing,),
            )
        except FileNotFoundError as error:
            raise FailedPrecondition(f"{program} is not installed: no container can be supervised") from error
        finally:
            os.close(writing)
        if started.status != 0:
            raise CommandFailed("conmon", started.status, started.stderr.decode(errors="replace"))
        answer = bytearray()
        await _read(reading, answer.extend, until=lambda: answer.endswith(b"\n"))
    finally:
        os.close(reading)
    return _understand(bytes(answer), runtime)


def supervisor(bundle: Path) -> int:
    """The pid of the conmon of `bundle`, 0 when it is gone."""
    pid = read_pid(bundle / "conmon.pid")
    return pid if pid and _is_conmon(pid, bundle) else 0


def supervised(bundle: Path) -> int:
    """The pid that the runtime wrote for the process of `bundle`; 0 when it wrote none.

    The process may be gone since.
    """
    return read_pid(bundle / "pidfile")


async def kill(bundle: Path) -> None:
    """End the conmon of `bundle` at once, and with it a runtime that it is just running."""
    pid = supervisor(bundle)
    if not pid and not (bundle / "conmon.pid").exists():
        # Its first process may have been killed between the fork and the writing of the file.
        pid = await asyncio.to_thread(_find, bundle)
    if not pid:
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await spawn.exited(pid)


async def reopen_log(bundle: Path, log_path: str, timeout: float = 10.0) -> None:
    """Make conmon write to a new file at `log_path`, after somebody renamed the old one away.

    Returns when the new file is there: no later line goes to the old one. A file that is still at its
    place is kept, for conmon would replace it and its lines would be lost.
    Raises FailedPrecondition when no conmon listens, DeadlineExceeded through asyncio.timeout's owner.
    """
    path = Path(log_path)
    if path.exists():
        return
    watch = inotify.Watch()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        watch.add(path.parent, inotify.MOVED_TO)
        if not _control(bundle, _REOPEN):
            raise FailedPrecondition(f"nobody writes the log {log_path}: its supervisor is gone")
        try:
            async with asyncio.timeout(timeout):
                async for event in watch:
                    if event.name == path.name or path.exists():
                        break
        except TimeoutError:
            raise FailedPrecondition(
                f"the supervisor did not reopen the log {log_path} within {timeout:g} s"
            ) from None
    finally:
        watch.close()
    path.chmod(LOG_MODE)  # conmon makes it 0600; the kubelet's log readers are in the group


def resize(bundle: Path, width: int, height: int) -> None:
    """Give the terminal of `bundle` another size, in characters. Impossible ones, and those of a container
    that has ended, are left out."""
    if 0 < width <= MAX_SIZE and 0 < height <= MAX_SIZE:
        _control(bundle, b"1 %d %d\n" % (height, width))


def _control(bundle: Path, message: bytes) -> bool:
    """Whether there is a conmon to take it."""
    try:
        fifo = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise
        return False
    try:
        os.write(fifo, message)
    finally:
        os.close(fifo)
    return True


def _command(program: str, task: Supervised, runtime: Sequence[str]) -> list[str]:
    command = [
        program,
        "--cid",
        task.id,
        "--cuuid",
        task.id,
        "--name",
        task.name,
        "--bundle",
        str(task.bundle),
        "--container-pidfile",
        str(task.bundle / "pidfile"),
        "--conmon-pidfile",
        str(task.bundle / "conmon.pid"),
        "--exit-dir",
        str(task.exits),
        "--log-path",
        _log_driver(task),
        "--full-attach",  # the attach socket lies in the bundle, however long its path
        "--no-sync-log",  # a container's log is no database: an fsync would delay the report of its exit
        "--runtime",
        runtime[0],
    ]
    for argument in runtime[1:]:
        command.append(f"--runtime-arg={argument}")
    if task.stdin:
        command.append("--stdin")
        if not task.stdin_once:
            command.append("--leave-stdin-open")
    if task.terminal:
        command.append("--terminal")
    if task.restore is not None:
        command += ["--restore", str(task.restore)]
        for option in RESTORE_OPTIONS:
            command += ["--runtime-opt", option]
    return command


def _log_driver(task: Supervised) -> str:
    if not task.log_path:
        return "null"
    path = task.log_fifo or Path(task.log_path)
    if ":" in str(path):
        # conmon takes a colon for the end of the path. A link in the bundle stands for the directory.
        if ":" in path.name:
            raise InvalidArgument("config.log_path", f"{path.name!r}: the file's name cannot have a colon")
        link = task.bundle / "log"
        link.unlink(missing_ok=True)
        link.symlink_to(path.parent)
        path = link / path.name
    if task.log_fifo is not None:
        return f"k8s-file:{path}"
    # conmon would make it 0600. A FIFO, which a container could have put there, must not hold us up.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, LOG_MODE)
    except OSError as error:
        raise FailedPrecondition(f"cannot open the log {task.log_path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FailedPrecondition(f"the log {task.log_path} is there, and no regular file")
    finally:
        os.close(fd)
    return f"k8s-file:{path}"


def _understand(answer: bytes, runtime: str) -> int:
    if not answer:
        raise CommandFailed(runtime, 1, "it failed without a word (conmon closed the sync pipe)")
    try:
        report = structs.decode(answer, _Report)
    except msgspec.DecodeError:
        # conmon escapes the runtime's words only roughly.
        raise CommandFailed(runtime, 1, answer.decode(errors="replace")) from None
    if report.pid < 0:
        raise CommandFailed(runtime, 1, plain_words(report.message))
    return report.pid


async def _read(fd: int, take: Callable[[bytes], None], *, until: Callable[[], bool] = lambda: False) -> None:
    """Hand on what comes, until every writer has closed or `until` says that it is enough."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def read() -> None:
        try:
            chunk = os.read(fd, spawn.READ_SIZE)
        except BlockingIOError:
            return
        if chunk:
            take(chunk)
        if (not chunk or until()) and not done.done():
            done.set_result(None)

    loop.add_reader(fd, read)
    try:
        await done
    finally:
        loop.remove_reader(fd)


_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z: ", re.MULTILINE)
_LOGRUS = re.compile(r'^time="[^"]*" level=(\w+) msg="((?:[^"\\]|\\.)*)".*$', re.MULTILINE)


def plain_words(output: str) -> str:
    """A runtime's complaint without time stamps, log levels and repetitions."""
    text = _STAMP.sub("", output)
    text = _LOGRUS.sub(lambda match: re.sub(r"\\(.)", r"\1", match[2]), text)
    lines = dict.fromkeys(line.strip() for line in text.splitlines())
    return "; ".join(line for line in lines if line)


def read_pid(file: Path) -> int:
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return int(text) if text.strip().isdigit() else 0


def _find(bundle: Path) -> int:
    """The conmon of `bundle` by its command line, 0 when there is none. Takes milliseconds."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_conmon(int(entry.name), bundle):
            return int(entry.name)
    return 0


def _is_conmon(pid: int, bundle: Path) -> bool:
    """The number may have been given to another process since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(bundle) in command.split(b"\0") and proc.alive(pid)
