"""CRIU is found, asked once, and what it complains of is told in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.errors import FailedPrecondition
from podwright.linux.criu import Criu, complaints, log_complaints

PROGRAM = """#!/bin/sh
echo "$1" >>{place}/asked
case $1 in
    --version) echo 'Warn  (criu/kerndat.c:1): something'; echo 'Version: 4.1.1' ;;
    check) [ -e {place}/works ] || {{ echo 'Error (criu/vdso.c:613): vdso: no symbols.' >&2; exit 1; }} ;;
esac
"""


def _criu(place: Path, name: str = "criu") -> Criu:
    program = place / name
    program.write_text(PROGRAM.format(place=place))
    program.chmod(0o755)
    return Criu(str(program))


async def test_it_is_asked_once_and_again_when_it_failed_or_changed(tmp_path: Path) -> None:
    criu = _criu(tmp_path)
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=r"criu 4.1.1 \(.*\) does not work here: .*no symbols$"):
            await criu.require()
    asked = tmp_path / "asked"
    assert asked.read_text().split().count("check") == 2, "somebody may have mended it meanwhile"
    assert "no symbols" in (await criu.words())["error"]
    (tmp_path / "works").touch()
    found = await criu.require()
    assert (found.version, found.fault) == ("4.1.1", "")
    before = asked.read_text()
    assert await criu.words() == {"path": str(tmp_path / "criu"), "version": "4.1.1"}
    assert (await criu.require()) is found
    assert asked.read_text() == before
    (tmp_path / "criu").write_text((tmp_path / "criu").read_text() + "# another one\n")
    await criu.require()
    assert asked.read_text() != before


async def test_without_one_the_reason_says_so(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not installed"):
        await Criu(str(tmp_path / "criu")).require()
    with pytest.raises(FailedPrecondition, match="must be called 'criu'"):
        await _criu(tmp_path, "criu-4").require()


def test_runtimes_find_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert _criu(tmp_path).search_path() == f"{tmp_path}:/usr/bin:/bin"
    assert Criu("no-such-program").search_path() == "/usr/bin:/bin"


def test_the_last_errors_of_a_log_are_told(tmp_path: Path) -> None:
    lines = [f"(00.00{number}) Error (criu/x.c:{number}): problem {number}." for number in range(5)]
    text = "\n".join(["(00.000) Warn  (criu/y.c:1): never mind", *lines, lines[-1]])
    assert complaints(text) == "problem 2; problem 3; problem 4"
    (log := tmp_path / "dump.log").write_text("x" * (2 << 20) + "\n" + text)
    assert log_complaints(log) == "problem 2; problem 3; problem 4"
    assert log_complaints(tmp_path / "absent") == ""
