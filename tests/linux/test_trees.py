"""Removing directories that were made to be hard to remove."""

from __future__ import annotations

import os
from pathlib import Path

from podwright.linux import trees


def test_a_tree_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("stays")
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "link").symlink_to(kept)
    (top / "a" / "b" / "file").write_text("goes")
    os.mkfifo(top / "pipe")
    trees.remove(top)
    assert not top.exists()
    assert (kept / "file").read_text() == "stays"
    trees.remove(top)


def test_no_depth_and_no_path_is_too_long(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for level in range(2500):
        name = f"{level:0255d}" if level < 40 else "d"
        os.mkdir(name, dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    trees.remove(top)
    assert not top.exists()
