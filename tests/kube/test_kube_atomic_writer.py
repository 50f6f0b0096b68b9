"""Files that change together: what a reader sees, and what a writer that was killed leaves behind."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.kube.volumes import atomic_writer
from podwright.kube.volumes.atomic_writer import File


def seen(volume: Path) -> dict[str, bytes]:
    """What a container finds: everything but the names that are the writer's."""
    found = {}
    for here, directories, files in os.walk(volume, followlinks=True):
        if Path(here) == volume:
            directories[:] = [one for one in directories if not one.startswith("..")]
        for name in files:
            path = Path(here, name)
            found[str(path.relative_to(volume))] = path.read_bytes()
    return found


def link(path: Path) -> str:
    return str(path.readlink())


def names_in(directory: Path) -> set[str]:
    return {one.name for one in directory.iterdir()}


def of(**texts: str) -> dict[str, File]:
    return {name: File(text.encode()) for name, text in texts.items()}


def test_files_lie_where_programs_look_for_them(tmp_path: Path) -> None:
    assert atomic_writer.write(tmp_path, {"a": File(b"1", 0o400), "d/e/f": File(b"2", 0o440)})
    assert seen(tmp_path) == {"a": b"1", "d/e/f": b"2"}
    assert link(tmp_path / "a") == "..data/a"
    assert link(tmp_path / "d") == "..data/d"
    version = link(tmp_path / "..data")
    assert version.startswith("..2") and (tmp_path / version).is_dir()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "d/e").stat().st_mode) == 0o755


def test_an_update_leaves_nothing_of_the_old_version(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, {"a": File(b"1"), "gone": File(b"x"), "d/gone": File(b"x")})
    old = link(tmp_path / "..data")
    assert atomic_writer.write(tmp_path, of(a="2", b="3"))
    assert seen(tmp_path) == {"a": b"2", "b": b"3"}
    new = link(tmp_path / "..data")
    assert new != old
    assert names_in(tmp_path) == {"..data", new, "a", "b"}


def test_without_a_change_nothing_is_written(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, of(a="1"))
    version = link(tmp_path / "..data")
    assert not atomic_writer.write(tmp_path, of(a="1"))
    assert link(tmp_path / "..data") == version


def test_an_open_file_and_what_is_not_ours_stay(tmp_path: Path) -> None:
    atomic_writer.write(tmp_path, of(a="1"))
    (tmp_path / "made-by-hand").write_text("x")
    with (tmp_path / "a").open() as reader:
        atomic_writer.write(tmp_path, of(b="2"))
        assert reader.read() == "1"
    assert seen(tmp_path) == {"b": b"2", "made-by-hand": b"x"}


@pytest.mark.parametrize(
    "path", ["", "/abs", "a/../b", "..", "..data", "..x/y", "a" * 256, "/".join(["a" * 200] * 21)]
)
def test_paths_that_no_file_may_have(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="invalid path"):
        atomic_writer.write(tmp_path, {path: File(b"")})
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """The writer is no more."""


STEPS = ("mkdir", "symlink_to", "rename", "unlink", "rmdir", "chmod")


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Let the `step`-th change of the file system be the one before which the writer is killed; returns how
    many there were."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            return real(*arguments, **named)

        return call

    for name in STEPS:
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    for name in ("open", "unlink", "rmdir", "fchmod"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: count


def test_a_writer_may_be_killed_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = {"a": File(b"1"), "c/d": File(b"1")}, {"a": File(b"2"), "b": File(b"2"), "c/e": File(b"2")}
    versions: list[Mapping[str, bytes]] = [
        {name: one.data for name, one in each.items()} for each in (old, new)
    ]
    survived = set()
    step = 0
    while True:
        step += 1
        volume = tmp_path / str(step)
        volume.mkdir()
        atomic_writer.write(volume, old)
        with monkeypatch.context() as patch:
            count = killed_at(patch, step)
            try:
                atomic_writer.write(volume, new)
            except Killed:
                pass
            ended = count() < step
        # Names of the new version may be there already, and lead nowhere: they are no files yet.
        found = readable(volume)
        known = [one for one in versions if all(found.get(name) == data for name, data in one.items())]
        assert len(known) == 1, (step, found)
        survived.add(versions.index(known[0]))
        assert len(set(found.values())) == 1, (step, found)
        atomic_writer.write(volume, new)
        assert seen(volume) == versions[1]
        assert len(names_in(volume)) == 5  # three names, "..data" and one version
        if ended:
            break
    assert survived == {0, 1}
    assert step > 10


def readable(volume: Path) -> dict[str, bytes]:
    found = {}
    for path in volume.rglob("*"):
        if not str(path.relative_to(volume)).startswith("..") and path.is_file():
            found[str(path.relative_to(volume))] = path.read_bytes()
    for name in ("c/d", "c/e"):  # rglob does not follow links
        if (volume / name).is_file():
            found[name] = (volume / name).read_bytes()
    return found


names = st.sampled_from(["a", "b", "c", "d/a", "d/b", "e/f/g"])


@given(st.lists(st.dictionaries(names, st.binary(max_size=4)), max_size=5))
def test_whatever_the_versions_the_last_one_is_seen(
    tmp_path_factory: Any, versions: list[dict[str, bytes]]
) -> None:
    volume = tmp_path_factory.mktemp("volume")
    for version in versions:
        atomic_writer.write(volume, {name: File(data) for name, data in version.items()})
        assert seen(volume) == version
