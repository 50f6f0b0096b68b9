"""Docker's json-file log becomes a CRI log: each line once, whoever is killed when, and within limits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from podwright.engines.docker import log_copy
from podwright.engines.docker.log_copy import Copy, all_is_written, read_note
from podwright.engines.docker.log_lines import records, skip_written
from podwright.logs import rotation
from podwright.logs.limits import Limits

COPIER = """
import sys
from pathlib import Path
from podwright.engines.docker.log_copy import Copy
from podwright.logs.limits import Limits
source, target, note, size, files = sys.argv[1:]
copy = Copy(Path(source), target, Limits(max_size=int(size), max_files=int(files)), Path(note))
print(flush=True)
while True:
    copy.go_on()
"""


def piece(number: int, text: str, stream: str = "stdout") -> bytes:
    time = f"2026-11-22T06:42:44.{number:09d}Z"
    return json.dumps({"log": text, "stream": stream, "time": time}).encode() + b"\n"


def row(count: int, seed: int = 0) -> list[bytes]:
    """Lines of both streams, some long and in pieces of one time and text, some at the same time."""
    made: list[bytes] = []
    chance, time = random.Random(seed), 0
    while len(made) < count:
        time += chance.choice((0, 1, 1))
        stream = chance.choice(("stdout", "stderr"))
        match chance.randrange(10):
            case 0:
                time += 1
                made += [piece(time, "a" * 16384, stream)] * chance.randrange(1, 4) + [
                    piece(time, "a\n", stream)
                ]
            case 1:
                made.append(piece(time, "\n", stream))
            case 2:
                made.append(piece(time, "podwright: this is the program's\n", stream))
            case _:
                made.append(piece(time, f"line {len(made)} <é>\n", stream))
    return made


def logged(target: Path) -> bytes:
    files = [*(each.path for each in rotation.rotated(str(target))), str(target)]
    return b"".join(Path(each).read_bytes() for each in files)


def finished(source: Path, target: Path, note: Path, limits: Limits = Limits()) -> None:  # noqa: B008
    copy = Copy(source, str(target), limits, note)
    while copy.go_on():
        pass
    copy.close()


def test_pieces_are_parts_and_ends() -> None:
    lines = piece(1, "a" * 16384) + piece(1, "end\r\n") + piece(2, "no newline", "stderr") + piece(3, "\n")
    time = "2026-11-22T06:42:44.00000000"
    assert records(lines).decode() == (
        f"{time}1Z stdout P {'a' * 16384}\n{time}1Z stdout F end\n"
        f"{time}2Z stderr P no newline\n{time}3Z stdout F \n"
    )


def test_what_a_crash_of_the_host_left_in_the_file_is_no_line() -> None:
    assert records(piece(1, "a\n") + b"\0\0\0{half\n" + piece(2, "b\n")) == records(
        piece(1, "a\n") + piece(2, "b\n")
    )


def test_written_records_are_found_among_the_lines_though_limits_left_some_out() -> None:
    lines = [piece(n, f"{n}\n") for n in range(6)]
    note = b"2026-11-22T06:42:44.000000009Z stdout F podwright: more than 1 lines a second, 2 lines dropped\n"
    written = [records(lines[1]), note, records(lines[4])]
    assert skip_written(b"".join(lines), written) == (sum(map(len, lines[:5])), 3)
    assert skip_written(b"".join(lines), [note]) == (0, 0)


def test_nothing_is_repeated_or_lost_when_a_copy_goes_on(tmp_path: Path) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = row(300)
    source.write_bytes(b"".join(lines[:200]) + lines[200][:10])
    finished(source, target, note)
    assert logged(target) == records(b"".join(lines[:200]))
    assert not all_is_written(source, note)
    source.write_bytes(b"".join(lines))
    finished(source, target, note)
    assert logged(target) == records(b"".join(lines))
    assert all_is_written(source, note)


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_size=4096, max_files=90)], ids=["one file", "rotated"]
)
@pytest.mark.parametrize("torn", [0, 3, 20000])
def test_what_was_written_beyond_the_note_is_found(tmp_path: Path, limits: Limits, torn: int) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = row(200)
    source.write_bytes(b"".join(lines[:100]))
    finished(source, target, note, limits)
    source.write_bytes(b"".join(lines))
    before = note.read_bytes()
    copy = Copy(source, str(target), limits, note)
    copy.go_on()
    # As if it had been killed with what it wrote not noted, and not all of it written.
    note.write_bytes(before)
    known = read_note(note)
    assert known is not None
    if not limits.max_files:
        os.truncate(target, max(known.size, target.stat().st_size - torn))
    finished(source, target, note, limits)
    assert logged(target) == records(b"".join(lines))


def test_a_lost_note_costs_no_line(tmp_path: Path) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = row(3000)  # more than is looked at in one go
    source.write_bytes(b"".join(lines[:2000]))
    finished(source, target, note)
    source.write_bytes(b"".join(lines))
    note.unlink()
    finished(source, target, note)
    assert logged(target) == records(b"".join(lines))


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_any_moment_neither_lose_nor_double_a_line(tmp_path: Path, rotated: bool, seed: int) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = row(2000, seed)
    chance = random.Random(seed)
    limits = ("65536", "9999") if rotated else ("0", "0")
    rest = list(lines)
    with source.open("ab", buffering=0) as docker:
        for _ in range(12):
            copier = subprocess.Popen(
                [sys.executable, "-c", COPIER, str(source), str(target), str(note), *limits],
                stdout=subprocess.PIPE,
            )
            assert copier.stdout is not None
            if chance.random() < 0.7:  # else it is killed while it begins
                copier.stdout.readline()
            for _ in range(chance.randrange(len(lines) // 12)):
                docker.write(rest.pop(0))
            copier.send_signal(signal.SIGKILL)
            copier.wait()
            copier.stdout.close()
        docker.write(b"".join(rest))
    finished(source, target, note, Limits(max_size=int(limits[0]), max_files=int(limits[1])))
    assert logged(target) == records(b"".join(lines))
    assert len(rotation.rotated(str(target))) > 3 or not rotated


def test_a_renamed_log_gets_its_lines_and_the_next_one_the_later(tmp_path: Path) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    source.write_bytes(piece(1, "before\n"))
    copy = Copy(source, str(target), Limits(), note)
    copy.go_on()
    target.rename(tmp_path / "0.log.20261122-064244")
    with source.open("ab") as docker:
        docker.write(piece(2, "between\n"))
    copy.go_on()
    copy.reopen()
    with source.open("ab") as docker:
        docker.write(piece(3, "after\n"))
    copy.go_on()
    copy.close()
    assert target.read_bytes() == records(piece(3, "after\n"))
    assert logged(target) == records(piece(1, "before\n") + piece(2, "between\n") + piece(3, "after\n"))


def test_limits_hold_over_a_restart_without_saying_a_line_twice(tmp_path: Path) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = [piece(n, f"line {n}\n") for n in range(500)]
    source.write_bytes(b"".join(lines[:300]))
    finished(source, target, note, Limits(max_size=4096))
    source.write_bytes(b"".join(lines))
    finished(source, target, note, Limits(max_size=4096))
    texts = target.read_bytes().split(b"\n")
    kept = [each for each in texts if b"podwright" not in each and each]
    assert kept == records(b"".join(lines)).split(b"\n")[: len(kept)] and len(kept) > 50
    assert any(b"log limit of 4096 bytes reached" in each for each in texts)


def test_docker_s_file_gives_back_what_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_copy, "KEPT", 1 << 18)
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    lines = [piece(n, f"{n} {'x' * 4000}\n") for n in range(800)]
    source.write_bytes(b"".join(lines[:700]))
    finished(source, target, note)
    status = source.stat()
    assert status.st_blocks * 512 < status.st_size / 2
    assert source.read_bytes().endswith(lines[699])
    with source.open("ab") as docker:
        docker.write(b"".join(lines[700:]))
    note.unlink()  # then it is looked for behind the hole
    finished(source, target, note)
    assert logged(target) == records(b"".join(lines))


def test_a_file_that_somebody_emptied_is_read_from_its_beginning(tmp_path: Path) -> None:
    source, target, note = tmp_path / "json", tmp_path / "0.log", tmp_path / "note"
    source.write_bytes(piece(1, "a long line before it\n"))
    copy = Copy(source, str(target), Limits(), note)
    copy.go_on()
    source.write_bytes(piece(2, "after\n"))
    copy.go_on()
    copy.close()
    assert target.read_bytes().endswith(records(piece(2, "after\n")))
