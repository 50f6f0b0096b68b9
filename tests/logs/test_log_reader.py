"""The CRI log format, and reading logs that are long, rotated or still written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument, NotFound
from podwright.logs import chain, lines, reader
from podwright.logs.lines import Joiner, Line

STAMP = "2026-11-21T21:37:26.960073001+00:00"
TIME = 1795297046960073001


def record(text: str, stream: str = "stdout", tag: str = "F", stamp: str = STAMP) -> str:
    return f"{stamp} {stream} {tag} {text}\n"


async def read(path: Path, **how: object) -> list[str]:
    return [line.text.decode() async for line in reader.follow(path, **how)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (f"{STAMP} stdout F hello", Line("stdout", TIME, b"hello")),
        (f"{STAMP} stderr P  two spaces \n", Line("stderr", TIME, b" two spaces ", True)),
        (f"{STAMP} stdout F \n", Line("stdout", TIME, b"")),
        (f"{STAMP} stdout F:later-tags x", Line("stdout", TIME, b"x")),
        ("2026-11-21T22:37:26.960073001+01:00 stdout F x", Line("stdout", TIME, b"x")),
        ("1970-01-01T00:00:01Z stdout F x", Line("stdout", 10**9, b"x")),
        ("1970-01-01T00:00:01.5Z stdout F x", Line("stdout", 1_500_000_000, b"x")),
    ],
)
def test_records(raw: str, expected: Line) -> None:
    assert lines.parse(raw.encode()) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "x",
        f"{STAMP} stdin F x",
        f"{STAMP} stdout X x",
        f"{STAMP} stdout F",
        "yesterday stdout F x",
        "2026-11-21T21:37:26 stdout F x",
        "2026-11-21T21:37:26.Z stdout F x",
    ],
)
def test_what_is_no_record(raw: str) -> None:
    with pytest.raises(InvalidArgument):
        lines.parse(raw.encode())


@given(st.integers(0, 4 * 10**18))
def test_times_survive_being_written(time: int) -> None:
    assert lines.parse_time(lines.format_time(time)) == time


_parts = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=5), st.booleans()), max_size=30
)


@given(_parts)
def test_joining_loses_nothing_and_keeps_streams_apart(parts: list[tuple[str, bytes, bool]]) -> None:
    joiner = Joiner()
    out = [joiner.feed(Line(stream, 0, text, partial)) for stream, text, partial in parts]
    joined = [line for line in out if line is not None]
    assert not any(line.partial for line in joined)
    joined += joiner.rest()
    for stream in ("stdout", "stderr"):
        wanted = b"".join(text + (b"" if partial else b"\n") for s, text, partial in parts if s == stream)
        got = b"".join(
            line.text + (b"" if line.partial else b"\n") for line in joined if line.stream == stream
        )
        assert got == wanted


def test_an_endless_line_is_handed_on_in_parts() -> None:
    joiner = Joiner()
    half = Line("stdout", 0, b"x" * (lines.MAX_JOINED // 2), True)
    assert joiner.feed(half) is None
    line = joiner.feed(half)
    assert line is not None and line.partial and len(line.text) == lines.MAX_JOINED


_safe = st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=6)
_log = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), _safe, st.sampled_from("FFP")), min_size=0, max_size=40
)


@given(_log, st.integers(0, 12), st.integers(1, 50))
def test_tail_is_the_end_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str, str]], tail: int, chunk: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "0.log"
    path.write_text("".join(record(text, stream, tag) for stream, text, tag in log))
    old, chain.CHUNK = chain.CHUNK, chunk
    try:
        whole = asyncio.run(reader.collect(reader.follow(path)))
        assert (
            asyncio.run(reader.collect(reader.follow(path, tail=tail))) == whole[max(0, len(whole) - tail) :]
        )
    finally:
        chain.CHUNK = old


async def test_tail_of_a_long_log_of_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(record(f"line {n}") for n in range(50_000)))
    assert await read(path, tail=2) == ["line 49998", "line 49999"]
    assert await read(path, tail=0) == []


async def test_since_and_torn_records(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(
        record("old", stamp="2026-01-01T00:00:00Z") + "torn rec\n" + record("new") + record("unfinished")[:-5]
    )
    assert await read(path, since=lines.parse_time("2026-06-01T00:00:00Z")) == ["new"]
    assert await read(path, tail=5) == ["old", "new"]


async def test_a_line_without_end_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("pro", tag="P") + record("err", "stderr") + record("mpt", tag="P"))
    found = await reader.collect(reader.follow(path))
    assert [(line.text, line.partial) for line in found] == [(b"err", False), (b"prompt", True)]
    assert await read(path, join=False) == ["pro", "err", "mpt"]


async def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await read(tmp_path / "0.log")
    with pytest.raises(NotFound):
        await read(tmp_path / "no" / "0.log", follow=True)
    with pytest.raises(InvalidArgument):
        await read(tmp_path / "0.log", tail=-1)


async def test_following_across_rotation_until_stopped(tmp_path: Path) -> None:
    path, stop = tmp_path / "0.log", asyncio.Event()
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def collect() -> None:
        async for line in reader.follow(path, follow=True, stop=stop):
            seen.put_nowait(line.text.decode())

    async def next_line() -> str:
        return await asyncio.wait_for(seen.get(), 5)

    task = asyncio.create_task(collect())
    await asyncio.sleep(0)
    with path.open("w") as log:
        log.write(record("one"))
        log.flush()
        assert await next_line() == "one"
        log.write(record("half")[:20])
        log.flush()
        log.write(record("half")[20:])
        log.flush()
        assert await next_line() == "half"
        path.rename(tmp_path / "0.log.old")
        log.write(record("still the old file"))
        log.flush()
        assert await next_line() == "still the old file"
        log.write(record("last of the old"))
    draft = tmp_path / "0.log.tmp"
    draft.write_text(record("first of the new"))
    draft.rename(path)
    assert await next_line() == "last of the old"
    assert await next_line() == "first of the new"
    with path.open("a") as log:
        log.write(record("written before the stop"))
    stop.set()
    await asyncio.wait_for(task, 60)
    assert seen.get_nowait() == "written before the stop" and seen.empty()


async def test_following_shows_the_tail_at_once(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a") + record("b") + record("c"))
    log = reader.follow(path, follow=True, tail=1)
    assert (await asyncio.wait_for(anext(log), 5)).text == b"c"
    with path.open("a") as more:
        more.write(record("d"))
    assert (await asyncio.wait_for(anext(log), 5)).text == b"d"
    await log.aclose()


async def test_a_truncated_log_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a long first line"))
    log = reader.follow(path, follow=True)
    assert (await asyncio.wait_for(anext(log), 5)).text == b"a long first line"
    path.write_text(record("b"))
    assert (await asyncio.wait_for(anext(log), 5)).text == b"b"
    await log.aclose()
