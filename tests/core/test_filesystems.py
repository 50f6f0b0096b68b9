"""ImageFsInfo of an engine whose images are in several places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from podwright.clock import SYSTEM
from podwright.core.images import Images
from podwright.engines.base import FilesystemUse


async def test_every_place_is_told_the_first_before_the_others() -> None:
    use = FilesystemUse("/first", 1, 2, [FilesystemUse("/second", 3, 4)])

    async def filesystem_use() -> FilesystemUse:
        return use

    engine = SimpleNamespace(images=SimpleNamespace(filesystem_use=filesystem_use))
    answer = await Images(cast(Any, SimpleNamespace(engine=engine, clock=SYSTEM))).filesystem()
    told = [
        (each.fs_id.mountpoint, each.used_bytes.value, each.inodes_used.value)
        for each in answer.image_filesystems
    ]
    assert told == [("/first", 1, 2), ("/second", 3, 4)]
    assert all(each.timestamp > 0 for each in answer.image_filesystems)
    assert list(answer.container_filesystems) == list(answer.image_filesystems)
