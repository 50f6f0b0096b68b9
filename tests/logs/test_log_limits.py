"""The limits of a log on a clock that the test turns: nothing is dropped unseen, no line is cut unseen."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from podwright.logs.limits import MIN_SIZE, RESERVE, ROTATE, Keeper, Limits, marks_full
from podwright.logs.lines import Joiner, format_time, parse
from podwright.logs.splitting import MAX_LINE, Splitter

STAMP = b"2026-11-22T06:42:44.334690094Z"
_TOLD = re.compile(rb"podwright: .* (\d+) lines? \((\d+) bytes\) dropped")


def record(text: str = "x", *, stream: str = "stdout", tag: str = "F", number: int = 0) -> bytes:
    return f"{format_time(1_790_000_000_000_000_000 + number)} {stream} {tag} {text}\n".encode()


def texts(pieces: list[bytes]) -> list[str]:
    return [line.split(b" ", 3)[3].decode() for piece in pieces for line in piece.splitlines() if line]


_parts = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]), st.sampled_from("FFP"), st.text("ab stderr", max_size=6)
    ),
    max_size=12,
)
_chunks = st.lists(st.tuples(_parts, st.sampled_from([0.0, 0.01, 0.4, 3.0])), max_size=12)
_limits = st.builds(
    Limits,
    max_size=st.sampled_from([0, MIN_SIZE]),
    max_files=st.sampled_from([0, 3]),
    rate_bytes=st.sampled_from([0, 200, 5000]),
    rate_lines=st.sampled_from([0, 1, 5, 50]),
    burst=st.sampled_from([0.5, 1.0, 2.0]),
)


@given(_limits, _chunks, st.integers(0, MIN_SIZE), st.booleans())
def test_what_is_dropped_is_told_and_no_line_is_cut_unseen(
    limits: Limits, chunks: list[tuple[list[tuple[str, str, str]], float]], size: int, reopens: bool
) -> None:
    keeper, now, number = Keeper(limits, size=size), 0.0, 0
    given: list[bytes] = []
    files: list[list[bytes]] = [[]]

    def write(pieces: list[bytes]) -> None:
        for piece in pieces:
            if piece == ROTATE:
                files.append([])
            else:
                assert piece.endswith(b"\n")
                files[-1] += piece.splitlines(keepends=True)

    for turn, (parts, wait) in enumerate(chunks):
        chunk = []
        for stream, tag, text in parts:
            number += 1
            chunk.append(record(f"{number} {text}", stream=stream, tag=tag, number=number))
        given += chunk
        write(keeper.take(b"".join(chunk), now))
        now += wait
        due = keeper.due()
        if due is not None and due <= now:
            write(keeper.tick(now))
        if reopens and turn % 4 == 3:
            files.append([])
            write(keeper.reopened())
    write(keeper.end())

    written = [each for file in files for each in file]
    ours = set(given)
    kept = [each for each in written if each in ours]
    assert kept == [each for each in given if each in set(kept)], "in order, each once"
    # Without rates and size nothing is touched.
    if not (limits.max_size or limits.rate_bytes or limits.rate_lines):
        assert written == given
    told = sum(int(found[1]) for each in written if (found := _TOLD.search(each)))
    lost = len(given) - len(kept)
    if not any(tag == "P" for parts, _ in chunks for _, tag, _ in parts):
        assert told == lost, "exactly what is missing is told"
    else:
        assert told <= lost and (told > 0) == (lost > 0)
    _no_line_is_cut(given, kept, written)
    if limits.max_size:
        for first, file in enumerate(files):
            room = limits.max_size - (size if first == 0 else 0)
            longest = max((len(each) for each in file), default=0)
            assert sum(map(len, file)) <= max(room, longest, RESERVE)


def _no_line_is_cut(given: list[bytes], kept: list[bytes], written: list[bytes]) -> None:
    """A part that stands in the log begins where its line begins, and what of a line is missing is ended."""
    beginnings: dict[str, bool] = {"stdout": True, "stderr": True}
    head: dict[bytes, bool] = {}
    for each in given:
        line = parse(each)
        head[each] = beginnings[line.stream]
        beginnings[line.stream] = not line.partial
    open_: dict[str, bool] = {"stdout": False, "stderr": False}
    known = set(given)
    for each in written:
        line = parse(each)
        if each in known:
            assert head[each] == (not open_[line.stream]), "it goes on with its own line, or begins one"
        open_[line.stream] = line.partial


def test_a_rate_is_told_when_half_of_it_is_free_again() -> None:
    keeper = Keeper(Limits(rate_lines=10))
    made = keeper.take(b"".join(record(str(n)) for n in range(25)), 100.0)
    assert texts(made) == [str(n) for n in range(10)]
    assert keeper.take(record("25"), 100.2) == []
    assert keeper.due() is not None and abs(keeper.due() - 100.5) < 1e-6  # type: ignore[operator]
    assert keeper.tick(100.4) == []
    [told, *rest] = texts(keeper.take(record("26"), 100.7))
    size = sum(len(record(str(n))) for n in range(10, 26))
    assert told == f"podwright: more than 10 lines a second, 16 lines ({size} bytes) dropped"
    assert rest == ["26"] and keeper.due() is None


def test_a_silent_container_is_told_of_too() -> None:
    keeper = Keeper(Limits(rate_bytes=100, burst=2.0))
    keeper.take(record("x" * 300) + record("y"), 0.0)
    due = keeper.due()
    assert due is not None and due > 1.0
    assert "1 line (" in texts(keeper.tick(due + 0.001))[0]
    assert keeper.due() is None and keeper.end() == []


def test_a_full_log_says_so_at_once_and_how_much_when_it_goes_on() -> None:
    keeper = Keeper(Limits(max_size=MIN_SIZE))
    one = record("x" * 100)
    made = b"".join(keeper.take(one * 100, 0.0))
    *lines, last = made.splitlines(keepends=True)
    assert marks_full(last) and b"limit of 4096 bytes reached" in last
    assert len(made) <= MIN_SIZE and lines == [one] * len(lines)
    assert keeper.take(one, 1.0) == []
    [told] = texts(keeper.reopened())
    dropped = 101 - len(lines)
    assert (
        told
        == f"podwright: log limit of 4096 bytes reached, {dropped} lines ({dropped * len(one)} bytes) dropped"
    )
    assert keeper.take(one, 2.0) == [one]


def test_a_full_log_stays_full_for_the_next_writer() -> None:
    keeper = Keeper(Limits(max_size=MIN_SIZE), size=1000, marked=True)
    assert keeper.take(record(), 0.0) == []
    assert "1 line (" in texts(keeper.end())[0]


def test_files_are_rotated_before_they_are_too_large() -> None:
    keeper = Keeper(Limits(max_size=MIN_SIZE, max_files=2))
    one = record("x" * 100)
    pieces = keeper.take(one * 100, 0.0)
    each = MIN_SIZE // len(one) * len(one)
    assert [len(piece) for piece in pieces] == [each, 0, each, 0, each, 0, 100 * len(one) - 3 * each]
    huge = record("y" * 9000)
    assert keeper.take(huge + one, 0.0) == [ROTATE, huge, ROTATE, one]


_writes = st.lists(st.binary(max_size=30) | st.sampled_from([b"\r", b"\n", b"\r\n", b"x" * 40]), max_size=20)


@given(_writes, st.integers(1, 40))
def test_records_do_not_depend_on_how_output_comes(writes: list[bytes], limit: int) -> None:
    at_once, by_and_by = Splitter("stdout", limit), Splitter("stdout", limit)
    whole = b"".join(writes)
    made = b"".join(by_and_by.feed(each, STAMP) for each in writes) + by_and_by.close(STAMP)
    assert made == at_once.feed(whole, STAMP) + at_once.close(STAMP)
    joiner = Joiner()
    text = b""
    for each in made.split(b"\n")[:-1]:
        part = parse(each)
        assert part.stream == "stdout" and len(part.text) <= limit
        if (line := joiner.feed(part)) is not None:
            text += line.text + b"\n"
    text += b"".join(line.text for line in joiner.rest())
    ended, newline, rest = whole.rpartition(b"\n")
    assert text == b"".join(each.removesuffix(b"\r") + b"\n" for each in ended.split(b"\n") if newline) + rest


def test_a_line_as_long_as_allowed_is_one_record() -> None:
    splitter = Splitter("stderr")
    assert splitter.feed(b"x" * MAX_LINE + b"\r\n", STAMP).count(b" F ") == 1
    assert splitter.feed(b"x" * (MAX_LINE + 1) + b"\n", STAMP).splitlines()[-1] == STAMP + b" stderr F x"


def test_the_end_of_a_dropped_line_is_dropped_however_late_it_comes() -> None:
    keeper = Keeper(Limits(rate_lines=1))
    keeper.take(record("a") + record("begins", stream="stderr", tag="P"), 0.0)
    made = texts(keeper.take(record("b") + record("c"), 2.0))
    assert [made[0].startswith("podwright: "), *made[1:]] == [True, "b"]
    made = texts(keeper.take(record("ends", stream="stderr") + record("d", stream="stderr"), 4.0))
    assert [made[0].startswith("podwright: "), *made[1:]] == [True, "d"]
