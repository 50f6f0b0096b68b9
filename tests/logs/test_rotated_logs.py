"""Logs that are rotated and compressed under their readers: each line once, in order, wherever one starts."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podwright.linux import inotify
from podwright.logs import chain, reader, rotation
from podwright.logs.lines import format_time

SECOND = 1_000_000_000
BEGIN = 1_790_000_000 * SECOND
LINES = 12_000


def record(number: int, *, tag: str = "F", text: str = "") -> bytes:
    """Line `number`, a millisecond after the one before it."""
    stamp = format_time(BEGIN + number * 1_000_000)
    return f"{stamp} stdout {tag} {text or f'line {number}'}\n".encode()


def write(file: Path, numbers: range) -> None:
    with file.open("ab") as log:
        log.write(b"".join(record(each) for each in numbers))


async def numbers(path: Path, **how: object) -> list[int]:
    found = await reader.collect(reader.follow(path, **how))  # type: ignore[arg-type]
    return [int(line.text.removeprefix(b"line ")) for line in found]


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """Lines 0 to 99 in five files: the kubelet's, ours of the same second, compressed, the current one."""
    path = tmp_path / "0.log"
    for name, these in (
        ("0.log.20260921-100000", range(20)),
        ("0.log.20260921-110000.900", range(20, 40)),
        ("0.log.20260921-110000", range(40, 60)),  # renamed in that second, but later
        ("0.log.20260921-120000", range(60, 80)),
        ("0.log", range(80, 100)),
    ):
        write(tmp_path / name, these)
    for name in ("0.log.20260921-100000", "0.log.20260921-110000"):
        rotation.compress(str(tmp_path / name))
    assert sorted(each.suffix == ".gz" for each in tmp_path.iterdir()) == [False] * 3 + [True] * 2
    return path


async def test_all_files_are_one_log(rotated: Path) -> None:
    assert await numbers(rotated) == list(range(100))


@pytest.mark.parametrize("tail", [0, 1, 19, 20, 21, 35, 61, 99, 100, 1000])
async def test_tail_counts_over_files(rotated: Path, tail: int) -> None:
    assert await numbers(rotated, tail=tail) == list(range(max(0, 100 - tail), 100))


@pytest.mark.parametrize("first", [0, 1, 19, 20, 21, 59, 60, 80, 99, 100])
async def test_since_counts_over_files(rotated: Path, first: int) -> None:
    assert await numbers(rotated, since=BEGIN + first * 1_000_000) == list(range(first, 100))


async def test_since_leaves_old_files_alone(rotated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    parse = chain.record_line

    def counted(raw: bytes) -> object:
        read.append(raw)
        return parse(raw)

    monkeypatch.setattr(chain, "record_line", counted)
    assert await numbers(rotated, since=BEGIN + 90 * 1_000_000) == list(range(90, 100))
    texts = {raw.rpartition(b" ")[2] for raw in read}
    assert b"90" in texts and b"1" not in texts and b"21" not in texts and b"61" not in texts


async def test_since_finds_its_place_in_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "0.log"
    write(path, range(20_000))
    monkeypatch.setattr(chain, "CHUNK", 2000)
    monkeypatch.setattr(chain, "LOOK_BACK", 4000)
    for first in (0, 1, 777, 10_000, 19_999):
        assert await numbers(path, since=BEGIN + first * 1_000_000) == list(range(first, 20_000))
    part = chain.Chain(path).start(since=BEGIN + 10_000 * 1_000_000)
    assert part is not None and part.part.stream.tell() > path.stat().st_size // 3
    part.part.stream.close()


async def test_a_line_that_goes_over_files_is_one(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20260921-100000").write_bytes(record(0) + record(1, tag="P", text="li"))
    path.write_bytes(record(2, text="ne 1") + record(2))
    assert await numbers(path) == [0, 1, 2]
    assert await numbers(path, tail=2) == [1, 2]


async def test_a_log_whose_new_file_has_not_come_yet(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(tmp_path / "0.log.20260921-100000", range(5))
    assert await numbers(path) == list(range(5))
    assert await numbers(path, tail=2) == [3, 4]


async def test_several_rotations_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    write(path, range(5))
    log = reader.follow(path, follow=True)
    assert [(await asyncio.wait_for(anext(log), 10)).text for _ in range(5)][-1] == b"line 4"
    write(path, range(5, 8))
    for start in range(8, 48, 10):
        old = rotation.rotate(str(path), BEGIN + start * SECOND)
        write(path, range(start, start + 10))
        if start in (8, 18):
            rotation.compress(old)  # also the one that is being read
    got = [int((await asyncio.wait_for(anext(log), 10)).text.split()[1]) for _ in range(43)]
    assert got == list(range(5, 48))
    await log.aclose()


async def test_following_ends_with_the_directory(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    write(room / "0.log", range(2))
    log = reader.follow(room / "0.log", follow=True)
    assert (await asyncio.wait_for(anext(log), 10)).text == b"line 0"
    (room / "0.log").unlink()
    room.rmdir()
    rest = [line.text async for line in log]
    assert rest == [b"line 1"]


async def test_without_inotify_it_is_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> inotify.Watch:
        raise OSError("no watch is left")

    monkeypatch.setattr(inotify, "Watch", refuse)
    monkeypatch.setattr(reader, "POLL", 0.001)
    path, stop = tmp_path / "0.log", asyncio.Event()
    write(path, range(3))
    log = reader.follow(path, follow=True, stop=stop)
    assert [(await anext(log)).text for _ in range(3)][-1] == b"line 2"
    rotation.rotate(str(path), BEGIN)
    write(path, range(3, 5))
    assert [(await asyncio.wait_for(anext(log), 10)).text for _ in range(2)][-1] == b"line 4"
    stop.set()
    assert [line async for line in log] == []


@contextmanager
def writing(path: Path, chance: random.Random, way: str) -> Iterator[Callable[[], int]]:
    """A thread that writes LINES lines as fast as it can, and rotates and compresses at random; how many it
    has written."""
    done = 0
    begin = 20260101

    def rotate(number: int) -> None:
        if way == "kubelet":
            path.rename(f"{path}.{begin + number // 1_000_000}-{number % 1_000_000:06d}")
        else:
            rotation.rotate(str(path), BEGIN + number * 1_000_000)

    def work() -> None:
        nonlocal done
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        number = 0
        while number < LINES:
            count = min(chance.randrange(1, 200), LINES - number)
            os.write(fd, b"".join(record(each) for each in range(number, number + count)))
            number += count
            done = number
            if chance.random() < 0.4:
                rotate(number)
                if way == "kubelet" and number < LINES:
                    # Its writer goes on in the old file until it is told.
                    os.write(fd, record(number))
                    number += 1
                fresh = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                os.close(fd)
                fd = fresh
                if chance.random() < 0.5:
                    for each in rotation.to_compress(str(path)):
                        rotation.compress(each)
        done = number
        os.close(fd)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: done
    finally:
        thread.join()


@pytest.mark.parametrize("way", ["kubelet", "own"])
async def test_readers_of_a_log_at_full_speed_see_each_line_once(tmp_path: Path, way: str) -> None:
    path, stop, chance = tmp_path / "0.log", asyncio.Event(), random.Random(7)

    async def read(**how: object) -> list[int]:
        found = reader.follow(path, follow=True, stop=stop, **how)  # type: ignore[arg-type]
        return [int(line.text.split()[1]) async for line in found]

    with writing(path, chance, way) as written:
        readers = [asyncio.create_task(read())]
        tails: list[asyncio.Task[list[int]]] = []
        snapshots: list[tuple[int, list[int]]] = []
        for _ in range(6):
            before = written()
            while written() < min(LINES, before + chance.randrange(2000)):  # noqa: ASYNC110 - a thread's
                await asyncio.sleep(0.001)
            readers.append(asyncio.create_task(read()))
            tails.append(asyncio.create_task(read(tail=chance.randrange(1, 500))))
            snapshots.append((written(), await numbers(path)))
        while written() < LINES:  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(0.001)
    stop.set()
    for each in readers:
        assert await each == list(range(LINES))
    for each in tails:
        got = await each
        assert got == list(range(got[0], LINES))
    for least, seen in snapshots:
        assert seen == list(range(len(seen))) and len(seen) >= least
    assert len(rotation.rotated(str(path))) > 10


def test_names_in_one_millisecond_differ(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    made = []
    for _ in range(3):
        path.write_text("x\n")
        made.append(rotation.rotate(str(path), 1_790_000_000_999_000_000))
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(1_790_000_000))
    later = time.strftime("%Y%m%d-%H%M%S", time.localtime(1_790_000_001))
    assert [each.removeprefix(f"{path}.") for each in made] == [
        f"{stamp}.999",
        f"{later}.000",
        f"{later}.001",
    ]
    assert [each.path for each in rotation.rotated(str(path))] == made


def test_compressing_keeps_content_and_owner(tmp_path: Path) -> None:
    file = tmp_path / "0.log.20260921-100000"
    write(file, range(10))
    file.chmod(0o640)
    content = file.read_bytes()
    rotation.compress(str(file))
    packed = tmp_path / "0.log.20260921-100000.gz"
    assert [*tmp_path.iterdir()] == [packed]
    assert gzip.decompress(packed.read_bytes()) == content and packed.stat().st_mode & 0o777 == 0o640
    rotation.compress(str(file))  # somebody was faster
    assert [*tmp_path.iterdir()] == [packed]


def test_the_oldest_go_first(rotated: Path) -> None:
    rotation.prune(str(rotated), 2)
    assert [each.stamp for each in rotation.rotated(str(rotated))] == [
        "20260921-110000.900",
        "20260921-120000",
    ]


async def test_tail_ends_where_the_log_ended_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.log"
    write(path, range(5))
    start = chain.Chain.start

    def overtaken(self: chain.Chain, **how: object) -> chain.Start | None:
        found = start(self, **how)  # type: ignore[arg-type]
        write(path, range(5, 9))
        return found

    monkeypatch.setattr(chain.Chain, "start", overtaken)
    log = reader.follow(path, follow=True, tail=2)
    assert [(await asyncio.wait_for(anext(log), 10)).text[-1:] for _ in range(6)] == [
        str(n).encode() for n in range(3, 9)
    ]
    await log.aclose()
    assert await numbers(path, tail=1) == [8], "who does not follow gets what was there"


async def test_a_log_is_rotated_while_the_next_file_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.log"
    write(path, range(5))
    row = chain.Chain(path)
    begin = row.start()
    assert begin is not None
    current = chain.Chain._current
    rotation.rotate(str(path), BEGIN + SECOND)
    write(path, range(5, 10))
    turns = iter([2])

    def overtaken(self: chain.Chain) -> chain.Part | None:
        for turn in turns:
            rotation.rotate(str(path), BEGIN + turn * SECOND)
            write(path, range(5 * turn, 5 * turn + 5))
        return current(self)

    monkeypatch.setattr(chain.Chain, "_current", overtaken)
    seen, part = [], begin.part
    while (following := row.successor(part)) is not None:
        part.stream.close()
        part = following
        seen.append(part.stream.read(1 << 16).count(b"\n") and part.key.time)
    part.stream.close()
    assert [(time - BEGIN) // 1_000_000 for time in seen] == [5, 10]


def test_an_empty_file_comes_after_none(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20260921-090000").touch()
    write(path, range(5))
    row = chain.Chain(path)
    begin = row.start()
    assert begin is not None and begin.part.key.time == BEGIN
    # Its writer goes on in the file that was renamed away, until it is told.
    path.rename(tmp_path / "0.log.20260921-100000")
    (tmp_path / "0.log.20260921-100001").touch()
    assert row.successor(begin.part) is None
    write(path, range(5, 9))
    following = row.successor(begin.part)
    assert following is not None and following.key.time == BEGIN + 5 * 1_000_000
    for part in (begin.part, following):
        part.stream.close()


async def test_a_log_that_was_renamed_before_its_first_line(tmp_path: Path) -> None:
    path, stop = tmp_path / "0.log", asyncio.Event()
    renamed = tmp_path / "0.log.20260921-100000"
    renamed.touch()
    assert await numbers(path) == []
    log = reader.follow(path, follow=True, stop=stop)
    first = asyncio.ensure_future(anext(log))
    await asyncio.sleep(0)
    write(renamed, range(1))
    assert (await asyncio.wait_for(first, 10)).text == b"line 0"
    write(path, range(1, 2))
    assert (await asyncio.wait_for(anext(log), 10)).text == b"line 1"
    await log.aclose()
