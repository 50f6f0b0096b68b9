"""Env files: the format, and a file that a container has laid out to lead us astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.kube.files import env_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A='b'\n", "b"),
        ("# first\n\n  A='b'  # why\nA='c'", "b"),
        ("B='x'\nA='two\nlines'\n", "two\nlines"),
        ("A='$(X) \"y\" \\n'", '$(X) "y" \\n'),
        ("A='b'\r\n", "b"),
        ("A= 'b'\n", ""),
        ("A=''", ""),
        ("B='A'\n", None),
        ("", None),
        ("A='b'\nthis is none of it", "b"),
    ],
)
def test_values(text: str, value: str | None) -> None:
    assert env_file.value(text, "A") == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("B", "line 1: missing '='"),
        ("\n='x'", "line 2: empty variable name"),
        ("A ='x'", "line 1: whitespace before '=' is not allowed"),
        ("A=x", "line 1: value must be enclosed in single quotes"),
        ('A="x"', "line 1: value must be enclosed in single quotes"),
        ("B='x\ny' z", "line 2: unexpected content after closing quote"),
        ("#\nA='x\n", "starting at line 2: unclosed single quote"),
    ],
)
def test_faults(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        env_file.value(text, "A")


def test_links_stay_inside_the_volume(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("A='the host'")
    volume = tmp_path / "volume"
    (volume / "d").mkdir(parents=True)
    (volume / "file").write_text("A='inside'")
    for name, target in (("up", "../../../file"), ("absolute", "/file"), ("d/near", "../file")):
        (volume / name).symlink_to(target)
        assert env_file.read(volume, name) == "A='inside'"
    (volume / "out").symlink_to(secret)
    with pytest.raises(FileNotFoundError):
        env_file.read(volume, "out")


def test_what_is_no_small_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(bytes(env_file.MAX_BYTES + 1))
    for name in ("pipe", "long"):
        with pytest.raises(OSError, match=name):
            env_file.read(tmp_path, name)
