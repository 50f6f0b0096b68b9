"""What file trees take on the disk: what counts, and how seldom they are walked."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from podwright.stats import disk
from podwright.stats.disk import Disk, Use, measured


def tree(top: Path) -> Path:
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_bytes(b"x" * 10_000)
    os.link(top / "a" / "file", top / "a" / "b" / "same")
    (top / "link").symlink_to("/usr")
    return top


def test_files_count_once_and_links_are_not_followed(tmp_path: Path) -> None:
    top = tree(tmp_path / "t")
    use = measured([str(top), str(tmp_path / "missing")])
    assert use is not None
    parts = [top, top / "a", top / "a" / "b", top / "a" / "file", top / "link"]
    assert use.inodes == len(parts)
    assert use.bytes == sum(each.lstat().st_blocks * 512 for each in parts)
    both = measured([str(top / "a"), str(top / "a" / "b")])
    assert both is not None and both.inodes == 4, "a name is known in the second tree, too"


def test_the_way_into_a_tree_is_no_link(tmp_path: Path) -> None:
    """Nor is one that is put in the way while the tree is walked."""
    top = tree(tmp_path / "t")
    (tmp_path / "to").symlink_to(top)
    outside = measured([str(tmp_path / "to")])
    assert outside is not None and (outside.bytes, outside.inodes) == (0, 0)
    directories = 0

    def swap() -> bool:
        nonlocal directories
        directories += 1
        if directories == 2:  # "a" is about to be entered
            (top / "a").rename(tmp_path / "moved")
            (top / "a").symlink_to("/usr")
        return False

    use = measured([str(top)], swap)
    assert directories == 2 and use is not None and use.inodes == 3


def test_a_walk_can_be_ended(tmp_path: Path) -> None:
    assert measured([str(tree(tmp_path / "t"))], lambda: True) is None


class Walks:
    """Counts the walks of each tree, and holds those of one up."""

    def __init__(self) -> None:
        self.trees: list[str] = []
        self.held = ""
        self.go = threading.Event()
        self.size = 1

    def __call__(self, trees: list[str], ended: object) -> Use:
        [tree] = trees
        self.trees.append(tree)
        if tree == self.held:
            assert self.go.wait(30)
        return Use(1, self.size, 1)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    walks = Walks()
    monkeypatch.setattr(disk, "measured", walks)
    return walks


async def walked(found: Disk, key: str) -> None:
    walk = found._known[key].walk
    if walk is not None:
        await asyncio.wait([walk], timeout=30)


async def test_the_first_who_asks_gets_an_answer_the_next_the_same(walks: Walks) -> None:
    found = Disk()
    assert await found.of({"a": ["/a"], "b": ["/b"]}) == {"a": Use(1, 1, 1), "b": Use(1, 1, 1)}
    assert await found.of({"a": ["/a"]}) == {"a": Use(1, 1, 1)}
    assert walks.trees == ["/a", "/b"]
    await found.close()


async def test_what_is_due_is_walked_behind_the_answer(walks: Walks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "pause", lambda took: 0.0)
    found = Disk()
    await found.of({"a": ["/a"]})
    await walked(found, "a")
    walks.held, walks.size = "/a", 2
    assert await found.of({"a": ["/a"]}) == {"a": Use(1, 1, 1)}
    assert await found.of({"a": ["/a"]}) == {"a": Use(1, 1, 1)}
    walks.go.set()
    await walked(found, "a")
    assert walks.trees == ["/a", "/a"], "one walk for two questions"
    assert await found.of({"a": ["/a"]}) == {"a": Use(1, 2, 1)}
    await found.close()


async def test_a_large_tree_does_not_hold_up_the_answer(
    walks: Walks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "FIRST_WAIT", 0.05)
    found = Disk()
    walks.held = "/large"
    assert await found.of({"large": ["/large"]}) == {}
    assert (await found.of({"large": ["/large"], "small": ["/small"]})).keys() == {"small"}
    walks.go.set()
    await walked(found, "large")
    assert (await found.of({"large": ["/large"]}))["large"].bytes == 1
    await found.close()


@pytest.mark.parametrize(
    ("took", "pause"), [(0.01, 60.0), (0.6, 60.0), (3.0, 300.0), (12.0, 1200.0), (100.0, 1200.0)]
)
def test_the_longer_a_walk_the_later_the_next(took: float, pause: float) -> None:
    assert disk.pause(took) == pytest.approx(pause)


async def test_what_is_forgotten_stays_forgotten(walks: Walks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is just being walked."""
    monkeypatch.setattr(disk, "FIRST_WAIT", 0.01)
    found = Disk()
    walks.held = "/a"
    await found.of({"a": ["/a"]})
    walk = found._known["a"].walk
    assert walk is not None
    found.forget("a")
    walks.go.set()
    await asyncio.wait([walk], timeout=30)
    assert not found._known
    await found.close()


async def test_closing_ends_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "FIRST_WAIT", 0.0)
    reached, go, stopped = threading.Event(), threading.Event(), []

    def walking(trees: object, ended: Callable[[], bool]) -> Use | None:
        reached.set()
        assert go.wait(30)
        stopped.append(ended())
        return None

    monkeypatch.setattr(disk, "measured", walking)
    found = Disk()
    await found.of({"a": ["/a"]})
    assert await asyncio.to_thread(reached.wait, 30)
    closing = asyncio.ensure_future(found.close())
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait_for(closing, 30)
    assert stopped == [True]
