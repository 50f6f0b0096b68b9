"""Logs of fake containers: the CRI format, rotation, thousands of files with few of them open."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.engines.fake.output import PART, Log, OpenLogs, Tap, records
from podwright.errors import FailedPrecondition
from podwright.logs.lines import Joiner, Line, parse
from tests.fake.containers import START, Node, open_files


def lines(data: bytes) -> list[tuple[str, bool, bytes]]:
    found = [parse(each) for each in data.split(b"\n")[:-1]]
    return [(each.stream, each.partial, each.text) for each in found]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b"one\n", [(False, b"one")]),
        (b"one\ntwo\n", [(False, b"one"), (False, b"two")]),
        (b"\n\n", [(False, b""), (False, b"")]),
        (b"no end", [(True, b"no end")]),
        (b"a\nrest", [(False, b"a"), (True, b"rest")]),
        (b"x" * PART + b"\n", [(False, b"x" * PART)]),
        (b"x" * (PART + 1) + b"\n", [(True, b"x" * PART), (False, b"x")]),
        (b"x" * (2 * PART), [(True, b"x" * PART), (True, b"x" * PART)]),
        (b"", []),
        (b"carriage\r\n", [(False, b"carriage\r")]),
    ],
)
def test_records(written: bytes, expected: list[tuple[bool, bytes]]) -> None:
    assert lines(records(START, "stderr", written)) == [("stderr", *each) for each in expected]


@given(st.lists(st.binary(max_size=40) | st.binary(max_size=3).map(lambda each: each * 5000)))
def test_what_was_written_can_be_read_again(writes: list[bytes]) -> None:
    joiner, read, parts = Joiner(), bytearray(), list[Line]()
    for written in writes:
        parts += [parse(each) for each in records(START, "stdout", written).split(b"\n")[:-1]]
    for part in parts:
        assert len(part.text) <= PART and part.time == START
        line = joiner.feed(part)
        if line is not None:
            read += line.text + (b"" if line.partial else b"\n")
    for line in joiner.rest():
        read += line.text
    assert bytes(read) == b"".join(writes)


async def test_a_log_has_both_streams_and_the_clocks_time(tmp_path: Path) -> None:
    case = await Node(tmp_path).shell("echo out; sleep 1.5; echo err >&2; printf rest")
    first, second, third = case.log_file.read_text().splitlines()
    assert first == "2023-11-14T22:13:20.000000000Z stdout F out"
    assert second == "2023-11-14T22:13:21.500000000Z stderr F err"
    assert third.endswith(" stdout P rest")


async def test_a_terminal_has_one_stream_and_ends_lines_as_one(tmp_path: Path) -> None:
    case = await Node(tmp_path).shell("echo out; echo err >&2; [ -t 1 ] && echo $TERM", tty=True)
    assert [(each.stream, each.text) for each in case.lines()] == [
        ("stdout", b"out\r"),
        ("stdout", b"err\r"),
        ("stdout", b"xterm\r"),
    ]


async def test_a_log_is_there_from_the_start_and_not_for_everyone(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    assert case.log_file.read_bytes() == b""
    assert stat.S_IMODE(case.log_file.stat().st_mode) & 0o007 == 0


async def test_without_a_path_output_is_discarded(tmp_path: Path) -> None:
    case = await Node(tmp_path).shell("echo gone; exit 3", log=False)
    assert case.code == 3 and list(tmp_path.iterdir()) == []


async def test_a_log_that_cannot_be_written_fails_the_start(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match=rf"cannot open the log {tmp_path}/file/0\.log"):
        await node.start("true", name="file")
    (tmp_path / "dir" / "0.log").mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match=r"0\.log"):
        await node.start("true", name="dir")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "0.log")
    with pytest.raises(FailedPrecondition, match=r"pipe/0\.log"):
        await node.start("true", name="pipe")


async def test_a_restarted_container_writes_behind_what_is_there(tmp_path: Path) -> None:
    node = Node(tmp_path)
    await node.run("echo", "one", name="app")
    case = await node.run("echo", "two", name="app")
    assert case.output() == "one\ntwo\n"


async def test_rotation_takes_effect_with_the_reopening(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.shell("i=0; while :; do echo $i; i=$((i+1)); sleep 10; done", seconds=5)
    old = case.log_file.with_name("0.log.1")
    case.log_file.rename(old)
    await node.clock.advance(10)
    assert not case.log_file.exists()
    await node.engine.reopen_log(case.container)
    assert case.log_file.exists()
    await node.clock.advance(10)
    assert case.output() == "2\n"
    assert [parse(each).text for each in old.read_bytes().splitlines()] == [b"0", b"1"]


async def test_the_log_of_a_silent_container_can_be_reopened(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    case.log_file.rename(case.log_file.with_suffix(".old"))
    await case.node.engine.reopen_log(case.container)
    assert case.log_file.exists()


async def test_more_logs_than_files_may_be_open(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.world.logs = OpenLogs(limit=4)
    before = open_files()
    script = "i=0; while [ $i -lt 3 ]; do sleep 10; echo $i; i=$((i+1)); done; sleep inf"
    cases = [await node.start("sh", "-c", script) for _ in range(12)]
    await node.clock.advance(15)
    assert open_files() <= before + 4 and len(node.world.logs) == 4
    # Each was renamed, most of them while closed: what comes before the reopening goes to the old file.
    for case in cases:
        case.log_file.rename(case.log_file.with_name("0.log.20231114"))
    await node.clock.advance(10)
    assert not any(case.log_file.exists() for case in cases)
    for case in cases:
        await node.engine.reopen_log(case.container)
    await node.clock.advance(10)
    assert [case.output() for case in cases] == ["2\n"] * 12
    for case in cases:
        old = case.log_file.with_name("0.log.20231114").read_bytes().splitlines()
        assert [parse(each).text for each in old] == [b"0", b"1"]
    node.world.close()
    await asyncio.sleep(0)
    assert open_files() == before


def test_a_directory_removed_under_a_log_harms_nobody(tmp_path: Path) -> None:
    files = OpenLogs()
    log = Log(files, str(tmp_path / "d" / "0.log"))
    log.make()
    log.append(b"x\n")
    log.close()
    (tmp_path / "d" / "0.log").unlink()
    (tmp_path / "d").rmdir()
    log.append(b"y\n")
    assert len(files) == 0


async def test_taps_hear_what_is_written(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.shell("while :; do sleep 10; echo out; echo err >&2; done", seconds=11)
    both, one = Tap("stdout", "stderr"), Tap("stderr")
    assert case.made.inside is not None
    case.made.inside.output.taps += [both, one]
    await node.clock.advance(10)
    assert {name: await pipe.take(10) for name, pipe in both.pipes.items()} == {
        "stdout": b"out\n",
        "stderr": b"err\n",
    }
    assert await one.pipes["stderr"].take(10) == b"err\n"
    assert case.output() == "out\nout\n"
