"""Others that listen to a container while its log is written."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.linux.readiness import readable
from podwright.logs import writer_listeners
from podwright.logs.limits import Limits
from podwright.logs.writer import END, LINGER
from podwright.logs.writing import LogWriter

PATIENCE = 60.0
FULL = 4 << 20
"""Bytes, more than all pipes on the way have room for."""


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[LogWriter, Path]]:
    """A writer, and the directory with the FIFOs of container "a"."""
    writer = LogWriter(tmp_path / "logs")
    await writer.open()
    try:
        yield writer, await writer.add("a", str(tmp_path / "0.log"), Limits(), raw=("stdout", "stderr"))
        await writer.finish("a")
    finally:
        await writer.close()


async def said(file: FileIO, count: int = 1 << 30) -> bytes:
    """What comes, up to its end or `count` bytes."""
    found = b""
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            part = file.read(count - len(found))
            if part is None:
                await readable(file.fileno())
            elif part:
                found += part
            else:
                break
    return found


def writing(fifo: Path) -> int:
    return os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)


def fill(fd: int, size: int) -> None:
    """In a thread: it may have to wait."""
    line = b"x" * 99 + b"\n"
    for _ in range(size // len(line)):
        os.write(fd, line)
    os.close(fd)


async def is_held_up(log: Path, task: asyncio.Future[None]) -> bool:
    """Whether nothing comes into the log any more though there is more to come."""
    size, same = -1, 0
    async with asyncio.timeout(PATIENCE):
        while same < 20 and not task.done():
            await asyncio.sleep(0.02)
            now = log.stat().st_size
            size, same = now, same + 1 if now == size else 0
    return not task.done()


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not so():  # noqa: ASYNC110 - of another process nobody is told
            await asyncio.sleep(0.01)


def files(pid: int) -> int:
    """How many it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def test_who_listens_has_what_comes_from_then_on_and_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as (writer, room):
        out, err = writing(room / "stdout"), writing(room / "stderr")
        os.write(out, b"before\n")
        async with writer.attached("a", ["stdout", "stderr"]) as first:
            os.write(out, b"both")
            async with writer.attached("a", ["stdout"]) as second:
                os.write(out, b" hear\n")
                os.write(err, b"oops\n")
                assert await said(first["stdout"], 10) == b"both hear\n"
                assert await said(second["stdout"], 6) == b" hear\n"
            os.write(out, b"alone\n")
            os.close(out)
            assert await said(first["stdout"]) == b"alone\n"
            assert writer.has("a") and first[END].read(1) is None
            # A stream that has ended ends at once.
            async with writer.attached("a", ["stdout", "stderr"]) as late:
                assert await said(late["stdout"]) == b""
                os.write(err, b"last\n")
                assert await said(late["stderr"], 5) == b"last\n"
            os.close(err)
            assert await said(first["stderr"]) == b"oops\nlast\n"
            assert await said(first[END]) == b"" and not writer.has("a")
        with pytest.raises(FailedPrecondition, match="ended"):
            async with writer.attached("a", ["stdout"]):
                pass
    text = (tmp_path / "0.log").read_text()
    assert [line.split(" ", 3)[3] for line in text.splitlines() if "stdout" in line] == [
        "before",
        "both hear",
        "alone",
    ]


@pytest.mark.parametrize("streams", [["stdout"], ["stdout", "stderr"]])
async def test_who_went_long_ago_has_nothing_to_do_with_who_came_then(
    tmp_path: Path, streams: list[str]
) -> None:
    async with opened(tmp_path) as (writer, room):
        other = await writer.add("b", str(tmp_path / "1.log"), Limits(), raw=("stdout", "stderr"))
        out, err, theirs = writing(room / "stdout"), writing(room / "stderr"), writing(other / "stdout")
        pid = int(str((await writer.status())["pid"]))
        before = files(pid)
        async with writer.attached("a", ["stdout"]):
            pass
        await until(lambda: files(pid) == before)
        # The writer gives these the numbers of those that went.
        async with writer.attached("b", streams) as heard:
            os.close(out)
            os.close(err)
            await until(lambda: not writer.has("a"))
            os.write(theirs, b"still there\n")
            assert await said(heard["stdout"], 12) == b"still there\n"
            assert heard[END].read(1) is None and (await writer.status())["pid"] == pid
        os.close(theirs)
        await writer.finish("b")


async def test_the_slowest_holds_the_container_up_until_it_goes(tmp_path: Path) -> None:
    async with opened(tmp_path) as (writer, room):
        out = writing(room / "stdout")
        async with writer.attached("a", ["stdout"]) as quick:
            reading = asyncio.ensure_future(said(quick["stdout"]))
            async with writer.attached("a", ["stdout"]):
                filling = asyncio.ensure_future(asyncio.to_thread(fill, out, FULL))
                assert await is_held_up(tmp_path / "0.log", filling)
                # The other streams go on, and the other conversation.
                err = writing(room / "stderr")
                os.write(err, b"oops\n")
                await writer.status()
            await asyncio.wait_for(filling, PATIENCE)
            assert len(await reading) == FULL // 100 * 100
            os.close(err)
    assert (tmp_path / "0.log").read_text().count("\n") == FULL // 100 + 1


async def test_whoever_does_not_read_is_not_waited_for_at_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as (writer, room):
        out = writing(room / "stdout")
        async with writer.attached("a", ["stdout"]) as slow:
            filling = asyncio.ensure_future(asyncio.to_thread(fill, out, FULL))
            assert await is_held_up(tmp_path / "0.log", filling)
            await writer.hasten("a")
            await asyncio.wait_for(filling, PATIENCE)
            pid = int(str((await writer.status())["pid"]))
            await writer.finish("a")
            assert (tmp_path / "0.log").read_text().count("\n") == FULL // 100
            # It is all there for it, too, and the writer stays until it is taken.
            ended = asyncio.ensure_future(spawn.exited(pid))
            await asyncio.wait([ended], timeout=1.5 * LINGER)
            assert not ended.done()
            assert len(await said(slow["stdout"])) == FULL // 100 * 100
            await asyncio.wait_for(ended, PATIENCE)
    await writer.hasten("a")


async def test_who_is_too_far_behind_at_the_end_is_let_go(tmp_path: Path) -> None:
    async with opened(tmp_path) as (writer, room):
        out = writing(room / "stdout")
        async with writer.attached("a", ["stdout"]) as slow:
            await writer.hasten("a")
            size = 2 * writer_listeners.MOST_BEHIND
            await asyncio.to_thread(fill, out, size)
            assert len(await said(slow["stdout"])) < size // 2
            await writer.finish("a")
    assert (tmp_path / "0.log").read_text().count("\n") == size // 100


async def test_a_dead_writers_listeners_can_tell_and_come_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (writer, room):
        out, err = writing(room / "stdout"), writing(room / "stderr")
        async with writer.attached("a", ["stdout"]) as first:
            pid = int(str((await writer.status())["pid"]))
            os.kill(pid, signal.SIGKILL)
            await spawn.exited(pid)
            assert await said(first[END]) == b"" and writer.has("a")
        os.write(out, b"meanwhile\n")
        async with writer.attached("a", ["stdout"]) as second:
            os.write(out, b"again\n")
            assert await said(second["stdout"], 6) == b"again\n"
        os.close(out)
        os.close(err)
    assert (tmp_path / "0.log").read_text().count("\n") == 2


async def test_without_a_file_a_container_is_read_and_heard(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "logs")
    await writer.open()
    room = await writer.add("a", "", Limits(), raw=("stdout",))
    out = writing(room / "stdout")
    os.write(out, b"before\n")
    async with writer.attached("a", ["stdout"]) as pipes:
        await writer.reopen("a")
        os.write(out, b"after\n")
        os.close(out)
        assert await said(pipes["stdout"]) == b"after\n"
    await writer.finish("a")
    await writer.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["logs"]
