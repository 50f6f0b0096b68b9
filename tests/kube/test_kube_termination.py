"""Last words: the file's end, or that of the log where the policy says so and the container has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.kube.files import termination
from podwright.wire import cri_pb2 as cri

STAMP = "2026-01-01T00:00:00.000000000Z"


def status(
    tmp_path: Path, words: bytes | None = None, *, policy: str = "File", code: int = 1, reason: str = "Error"
) -> cri.ContainerStatus:
    file = tmp_path / "message"
    if words is not None:
        file.write_bytes(words)
    return cri.ContainerStatus(
        state=cri.CONTAINER_EXITED,
        exit_code=code,
        reason=reason,
        mounts=[cri.Mount(container_path="/dev/termination-log", host_path=str(file))],
        annotations={termination.PATH: "/dev/termination-log", termination.POLICY: policy},
        log_path=str(tmp_path / "0.log"),
    )


def log(tmp_path: Path, *records: str) -> None:
    (tmp_path / "0.log").write_text("".join(f"{STAMP} {one}\n" for one in records))


def test_the_file_has_the_words(tmp_path: Path) -> None:
    assert termination.read_termination_message(status(tmp_path, b"in the file\n", code=0)) == "in the file\n"


def test_of_a_long_file_the_end_counts(tmp_path: Path) -> None:
    words = termination.read_termination_message(status(tmp_path, b"x" * 5000 + b"y" * 4000))
    assert words == "x" * 96 + "y" * 4000


@pytest.mark.parametrize(
    ("policy", "code", "reason", "words", "expected"),
    [
        ("FallbackToLogsOnError", 1, "Error", b"", "one\ntwo\n"),
        ("FallbackToLogsOnError", 1, "Error", None, "one\ntwo\n"),
        ("FallbackToLogsOnError", 1, "Error", b"file", "file"),
        ("FallbackToLogsOnError", 0, "Completed", b"", ""),
        ("FallbackToLogsOnError", 128, "StartError", b"", ""),
        ("FallbackToLogsOnError", 128, "ContainerCannotRun", b"", ""),
        ("File", 1, "Error", b"", ""),
    ],
)
def test_when_the_log_stands_in(
    tmp_path: Path, policy: str, code: int, reason: str, words: bytes | None, expected: str
) -> None:
    log(tmp_path, "stdout F one", "stderr F two")
    told = termination.read_termination_message(
        status(tmp_path, words, policy=policy, code=code, reason=reason)
    )
    assert told == expected


def test_the_log_s_last_80_records_count(tmp_path: Path) -> None:
    log(tmp_path, *(f"stdout F {number}" for number in range(5000)))
    told = termination.read_termination_message(status(tmp_path, policy="FallbackToLogsOnError"))
    assert told.splitlines() == [str(number) for number in range(4920, 5000)]


def test_the_log_s_last_2048_bytes_count(tmp_path: Path) -> None:
    log(tmp_path, *(f"stdout F {'x' * 99}" for _ in range(60)), "stdout P unfinished")
    told = termination.read_termination_message(status(tmp_path, policy="FallbackToLogsOnError"))
    assert len(told) == 2048
    assert told.endswith("x\nunfinished")


def test_a_log_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    told = termination.read_termination_message(status(tmp_path, policy="FallbackToLogsOnError"))
    assert told.startswith("Error on reading termination message from logs: ")


def test_a_container_that_runs_has_no_last_words(tmp_path: Path) -> None:
    running = status(tmp_path, b"half a word")
    running.state = cri.CONTAINER_RUNNING
    assert termination.read_termination_message(running) == ""


def test_what_is_no_file_does_not_hold_the_reader(tmp_path: Path) -> None:
    (tmp_path / "message").mkdir()
    told = termination.read_termination_message(status(tmp_path))
    assert told.startswith("Error on reading termination log ")


@pytest.mark.parametrize(("containers", "left"), [(1, 5000), (3, 4096), (12, 1024), (0, 5000)])
def test_the_containers_of_a_pod_share_12_kib(containers: int, left: int) -> None:
    assert termination.cut("a" * 5000, containers) == "a" * left


def test_no_letter_is_cut_in_half() -> None:
    assert termination.cut("ä" * 5000, 3) == "ä" * 2048
