"""What a writer does that takes up the work of one that was killed, wherever that was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.logs import rotation
from podwright.logs.limits import Limits
from podwright.logs.writer_files import LogFile
from podwright.logs.writer_sources import ENDED, IDLE, MORE, Glance, Records, Stream


class Killed(Exception):
    pass


class Dying(Glance):
    """Dies when it should take out what has been written."""

    def take(self, fifo: int, count: int) -> None:
        raise Killed


class Vanishing(LogFile):
    """Its writer is killed when it should write."""

    def take(self, records: bytes) -> None:
        raise Killed


def record(number: int) -> bytes:
    return b"2026-11-22T06:42:44.%09dZ stdout F line %d\n" % (number // 3, number)


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_size=4096, max_files=9)], ids=["one file", "rotated"]
)
@pytest.mark.parametrize("torn", [0, 1, 30])
def test_what_was_written_and_not_taken_out_is_not_written_again(
    tmp_path: Path, limits: Limits, torn: int
) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "0.log"
    os.mkfifo(fifo)
    first = LogFile(str(path), limits)
    dying = Records(str(fifo), Dying(), first)
    supervisor = os.open(fifo, os.O_WRONLY)
    os.write(supervisor, b"".join(record(n) for n in range(150)))
    with pytest.raises(Killed):
        dying.pull()
    if torn:
        os.truncate(path, path.stat().st_size - torn)
    os.write(supervisor, b"".join(record(n) for n in range(150, 200)))
    second = LogFile(str(path), limits)
    going_on = Records(str(fifo), Glance(), second)
    assert going_on.pull() == MORE
    os.close(supervisor)
    assert going_on.pull() == ENDED
    second.close()
    files = [*(each.path for each in rotation.rotated(str(path))), str(path)]
    assert len(files) == (1 if not limits.max_files else len(files)) and (len(files) > 1) == bool(
        limits.max_files
    )
    assert b"".join(Path(each).read_bytes() for each in files) == b"".join(record(n) for n in range(200))


def test_a_log_taken_up_before_anything_new_came_repeats_nothing_later(tmp_path: Path) -> None:
    fifo, path = tmp_path / "fifo", tmp_path / "0.log"
    path.write_bytes(record(1))
    os.mkfifo(fifo)
    file = LogFile(str(path), Limits())
    source = Records(str(fifo), Glance(), file)
    supervisor = os.open(fifo, os.O_WRONLY)
    assert source.pull() == IDLE
    os.write(supervisor, record(1))  # the same line again, and not the one that was there
    assert source.pull() == MORE
    os.close(supervisor)
    file.close()
    assert path.read_bytes() == record(1) * 2


@pytest.mark.parametrize("written", [False, True], ids=["before it wrote", "before it took out"])
def test_what_a_container_wrote_itself_is_not_lost_with_its_writer(tmp_path: Path, written: bool) -> None:
    """It may be written twice: there is nothing to know it by."""
    fifo, path = tmp_path / "fifo", tmp_path / "0.log"
    os.mkfifo(fifo)
    if written:
        dying = Stream(str(fifo), Dying(), "stdout", LogFile(str(path), Limits()))
    else:
        dying = Stream(str(fifo), Glance(), "stdout", Vanishing(str(path), Limits()))
    container = os.open(fifo, os.O_WRONLY)
    lines = [b"line %d" % number for number in range(100)]
    os.write(container, b"".join(each + b"\n" for each in lines))
    with pytest.raises(Killed):
        dying.pull()
    os.write(container, b"the last\n")
    second = LogFile(str(path), Limits())
    going_on = Stream(str(fifo), Glance(), "stdout", second)
    assert going_on.pull() == MORE
    os.close(container)
    assert going_on.pull() == ENDED
    second.close()
    texts = [each.split(b" ", 3)[3] for each in path.read_bytes().splitlines()]
    assert texts == [*(lines if written else []), *lines, b"the last"]
