"""The log writer as the process that it is: killed, left alone, found again, beside a kubelet."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition
from podwright.linux import spawn
from podwright.logs import reader, rotation
from podwright.logs.limits import Limits
from podwright.logs.lines import format_time
from podwright.logs.writer import LINGER
from podwright.logs.writing import LogWriter

ROTATED = Limits(max_size=1 << 16, max_files=10_000, compress=True)
BEGIN = 1_790_000_000_000_000_000


def record(number: int) -> bytes:
    """As conmon does, it gives the same time to several."""
    return f"{format_time(BEGIN + number // 7 * 1000)} stdout F line {number}\n".encode()


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[LogWriter]:
    """At the end: no writer, no file of it."""
    writer = LogWriter(tmp_path / "run")
    await writer.open()
    try:
        yield writer
    finally:
        for each in list((tmp_path / "run").glob("*/")):
            await writer.finish(each.name)
        await writer.close()
        left = sorted(each.name for each in (tmp_path / "run").iterdir())
        assert left in (["control", "lock"], []), left


async def pid_of(writer: LogWriter) -> int:
    pid = (await writer.status())["pid"]
    assert isinstance(pid, int)
    return pid


async def numbers(path: Path, **how: object) -> list[int]:
    found = await reader.collect(reader.follow(path, **how))  # type: ignore[arg-type]
    return [int(line.text.split()[1]) for line in found if line.text.startswith(b"line")]


class Supervisor:
    """Writes records into a FIFO as conmon does: as fast as it can, and what nobody reads is lost."""

    def __init__(self, fifo: Path, count: int) -> None:
        self.fd = os.open(fifo, os.O_WRONLY)
        self.done = 0
        self.lost = 0
        self._count = count
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        chance = random.Random(3)
        while self.done < self._count:
            upto = min(self._count, self.done + chance.randrange(1, 300))
            rest = b"".join(record(each) for each in range(self.done, upto))
            while rest:
                try:
                    rest = rest[os.write(self.fd, rest) :]
                except BrokenPipeError:
                    self.lost += upto - self.done
                    break
            self.done = upto
        os.close(self.fd)

    async def has_done(self, count: int) -> None:
        while self.done < count:  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(0.001)

    async def ended(self) -> None:
        await asyncio.to_thread(self.thread.join)


async def test_a_killed_writer_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "pod" / "0.log", 60_000
    async with opened(tmp_path) as writer:
        supervisor = Supervisor(await writer.add("a", str(path), ROTATED), count)
        killed = set()
        for number in range(6):
            await supervisor.has_done(number * 8_000)
            pid = await pid_of(writer)
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        await supervisor.ended()
        await writer.finish("a")
        assert len(killed) == 6 and supervisor.lost == 0
    assert await numbers(path) == list(range(count))


async def test_a_dead_writer_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    async with opened(tmp_path) as writer:
        fifo = os.open(await writer.add("a", str(path), ROTATED), os.O_WRONLY)
        lines = reader.follow(path, follow=True)
        os.write(fifo, record(0))
        assert (await asyncio.wait_for(anext(lines), 30)).text == b"line 0"
        os.kill(await pid_of(writer), signal.SIGKILL)
        os.write(fifo, record(1))
        assert (await asyncio.wait_for(anext(lines), 30)).text == b"line 1"
        os.close(fifo)
        await lines.aclose()


async def test_the_writer_goes_on_without_podwright_and_ends_with_its_last_log(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    first = LogWriter(tmp_path / "run")
    fifo = os.open(await first.add("a", str(path), ROTATED), os.O_WRONLY)
    pid = await pid_of(first)
    await first.close()
    os.write(fifo, record(0))
    async with opened(tmp_path) as second:
        assert await pid_of(second) == pid
        os.write(fifo, record(1))
        os.close(fifo)
        await second.finish("a")
        assert await numbers(path) == [0, 1]
    await asyncio.wait_for(spawn.exited(pid), 30)


async def test_a_log_ends_with_its_supervisor_though_nobody_says_so(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    async with opened(tmp_path) as writer:
        supervisor = Supervisor(await writer.add("a", str(path), Limits(rate_lines=10)), 1000)
        await supervisor.ended()
        pid = await pid_of(writer)
        while writer.has("a"):  # noqa: ASYNC110 - what the writer removes
            await asyncio.sleep(0.001)
        assert b"dropped" in path.read_bytes().splitlines()[-1]
        await writer.close()
        await asyncio.wait_for(spawn.exited(pid), 30)


async def test_without_writer_and_podwright_nobody_waits(tmp_path: Path) -> None:
    path, count = tmp_path / "0.log", 30_000
    first = LogWriter(tmp_path / "run")
    fifo = await first.add("a", str(path), ROTATED)
    last = os.open(fifo, os.O_WRONLY)
    pid = await pid_of(first)
    await first.close()
    os.kill(pid, signal.SIGKILL)
    await spawn.exited(pid)
    supervisor = await asyncio.to_thread(_without_reader, fifo, count)
    assert supervisor > 0
    async with opened(tmp_path) as second:
        os.write(last, record(count))
        os.close(last)
        await second.finish("a")
    assert (await numbers(path))[-1] == count


def _without_reader(fifo: Path, count: int) -> int:
    """Write though nobody reads; how many records were refused."""
    # The end that waits for a reader was opened while there was one.
    fd = os.open(fifo, os.O_RDWR)
    writing = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    os.close(fd)
    refused = 0
    try:
        for number in range(count):
            try:
                os.write(writing, record(number))
            except BrokenPipeError:
                refused += 1
    finally:
        os.close(writing)
    return refused


async def test_the_kubelet_and_we_rotate_one_log(tmp_path: Path) -> None:
    path, count = tmp_path / "0.log", 40_000
    async with opened(tmp_path) as writer:
        stop = asyncio.Event()
        following = asyncio.create_task(numbers(path, follow=True, stop=stop))
        fifo = await writer.add("a", str(path), ROTATED)
        supervisor, lasting = Supervisor(fifo, count), os.open(fifo, os.O_WRONLY)
        for number in range(10):
            await supervisor.has_done(number * 3_500)
            try:
                path.rename(f"{path}.20260921-1000{number:02d}")
            except FileNotFoundError:
                pass  # the moment between our own two steps
            await writer.reopen("a")
            assert path.exists()
        await supervisor.ended()
        os.close(lasting)
        await writer.finish("a")
        stop.set()
        assert await following == list(range(count))
    assert await numbers(path) == list(range(count))
    stamps = [each.stamp for each in rotation.rotated(str(path))]
    assert any("." in each for each in stamps) and any("." not in each for each in stamps)


async def test_what_a_container_writes_itself_becomes_records(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    async with opened(tmp_path) as writer:
        room = await writer.add("a", str(path), Limits(), raw=("stdout", "stderr"))
        out, err = (os.open(room / each, os.O_WRONLY) for each in ("stdout", "stderr"))
        os.write(out, b"one\r\ntwo\nrest")
        os.write(err, b"x" * 20_000 + b"\n")
        for fd in (out, err):
            os.close(fd)
        await writer.finish("a")
    found = await reader.collect(reader.follow(path))
    assert sorted((each.stream, each.text, each.partial) for each in found) == [
        ("stderr", b"x" * 20_000, False),
        ("stdout", b"one", False),
        ("stdout", b"rest", True),
        ("stdout", b"two", False),
    ]
    assert path.stat().st_mode & 0o777 == 0o640


async def test_limits_change_while_a_log_is_written(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    async with opened(tmp_path) as writer:
        fifo = os.open(await writer.add("a", str(path), Limits(max_size=4096)), os.O_WRONLY)
        os.write(fifo, b"".join(record(each) for each in range(200)))
        await writer.set_limits("a", Limits(max_size=1 << 20))
        os.write(fifo, record(200))
        os.close(fifo)
        await writer.finish("a")
    text = path.read_text()
    assert "limit of 4096 bytes reached, lines are dropped from here on" in text
    assert text.splitlines()[-1].endswith("line 200")


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path) as writer:
        (tmp_path / "0.log").mkdir()
        with pytest.raises(FailedPrecondition, match="log cannot be written"):
            await writer.add("a", str(tmp_path / "0.log"), ROTATED)
        with pytest.raises(FailedPrecondition, match="ended, or never began"):
            await writer.reopen("a")


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    from podwright.linux import mounts, syscalls

    place.mkdir()
    syscalls.mount("tmpfs", place, "tmpfs", 0, "size=64k")
    try:
        yield
    finally:
        mounts.unmount(place)


@pytest.mark.root
async def test_a_full_disk_holds_up_nobody_and_is_told(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    path = place / "0.log"
    with small_disk(place):
        ballast = place / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        async with opened(tmp_path) as writer:
            fifo = await writer.add("a", str(path), Limits(max_size=1 << 30))
            supervisor, lasting = Supervisor(fifo, 3000), os.open(fifo, os.O_WRONLY)
            await supervisor.ended()
            await writer.set_limits("a", Limits(max_size=1 << 20))  # all is written that was there
            seen = await numbers(path)
            assert 0 < len(seen) < 3000 and seen == sorted(set(seen))
            ballast.unlink()
            os.write(lasting, record(3000))
            os.close(lasting)
            await writer.finish("a")
            *_, told, last = path.read_text().splitlines()
            assert last.endswith("line 3000")
            assert told.endswith(
                f"stderr F podwright: {3000 - len(seen)} lines lost: No space left on device"
            )


async def test_a_writer_stays_for_the_next_log_while_somebody_is_connected(tmp_path: Path) -> None:
    staying = LogWriter(tmp_path / "run", linger=300)
    try:
        pid = await pid_of(staying)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(spawn.exited(pid), 2 * LINGER)
        assert await pid_of(staying) == pid
    finally:
        await staying.close()
    await asyncio.wait_for(spawn.exited(pid), 30)


async def test_a_writer_that_would_stay_goes_when_its_podwright_is_gone(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys; from podwright.logs.writing import LogWriter\n"
        "print(asyncio.run(LogWriter(pathlib.Path(sys.argv[1]), linger=300).status())['pid'])"
    )
    done = await spawn.run([sys.executable, "-c", code, str(tmp_path / "run")], timeout=60)
    await asyncio.wait_for(spawn.exited(int(done.stdout)), 30)
