"""Changes arrive with the path they are about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from podwright.linux import inotify


async def test_finished_files_and_their_names_arrive(tmp_path: Path) -> None:
    watch = inotify.Watch()
    watch.add(tmp_path, inotify.CHANGES)
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    events = [await anext(watch) for _ in range(4)]
    assert [(event.name, event.path) for event in events] == [(name, tmp_path) for name in "aabb"]
    assert [event.mask for event in events] == [
        inotify.CLOSE_WRITE,
        inotify.MOVED_FROM,
        inotify.MOVED_TO,
        inotify.DELETE,
    ]
    watch.close()


async def test_a_reader_that_waits_is_woken_and_close_ends_it(tmp_path: Path) -> None:
    watch = inotify.Watch()
    watch.add(tmp_path, inotify.CREATE)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    (tmp_path / "new").touch()
    assert (await waiting).name == "new"

    async def rest() -> list[inotify.Event]:
        return [event async for event in watch]

    reading = asyncio.create_task(rest())
    await asyncio.sleep(0)
    watch.close()
    assert await reading == []


async def test_a_removed_directory_says_that_it_is_gone(tmp_path: Path) -> None:
    watched = tmp_path / "sub"
    watched.mkdir()
    watch = inotify.Watch()
    watch.add(watched, inotify.CHANGES)
    watched.rmdir()
    assert (await anext(watch)).gone
    watch.close()


async def test_remove_stops_the_events_of_one_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    watch = inotify.Watch()
    for each in (one, two):
        each.mkdir()
        watch.add(each, inotify.CREATE)
    watch.remove(one)
    watch.remove(one)
    (one / "x").touch()
    (two / "y").touch()
    assert (await anext(watch)).name == "y"
    assert watch.pending() == []
    watch.close()


async def test_a_missing_path_is_named(tmp_path: Path) -> None:
    watch = inotify.Watch()
    with pytest.raises(FileNotFoundError, match="absent"):
        watch.add(tmp_path / "absent", inotify.CREATE)
    watch.close()


async def test_a_lost_event_is_reported(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    watch = inotify.Watch()
    watch.add(tmp_path, inotify.CREATE | inotify.DELETE)
    if limit > 50_000:
        pytest.skip(f"the queue holds {limit} events")
    for number in range(limit // 2 + 2):  # different names: equal events next to each other are merged
        file = tmp_path / str(number)
        file.touch()
        file.unlink()
    events = watch.pending()
    while more := watch.pending():
        events += more
    assert events[-1].overflow
    watch.close()
