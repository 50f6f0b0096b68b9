"""What mounts of snapshots say of directories on this host; and snapshots of a real containerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.images import Images
from podwright.engines.containerd.snapshots import Snapshots, shown, unsynced
from podwright.errors import AlreadyExists, FailedPrecondition, NotFound
from podwright.linux import mounts
from podwright.wire.containerd import types_pb2
from tests.containerd.daemon import BUSYBOX, Daemon


def _mount(kind: str, source: str = "overlay", *options: str) -> types_pb2.Mount:
    return types_pb2.Mount(type=kind, source=source, options=options)


OVERLAY = _mount("overlay", "overlay", "index=off", "workdir=/w", "upperdir=/u", r"lowerdir=/b\:c:/a\,\\d")


@pytest.mark.parametrize(
    ("found", "lower", "upper"),
    [
        ([OVERLAY], ["/b:c", r"/a,\d"], "/u"),
        ([_mount("overlay", "overlay", "lowerdir=/2:/1")], ["/2", "/1"], None),
        ([_mount("bind", "/one/layer", "ro", "rbind")], ["/one/layer"], None),
        ([_mount("ext4", "/dev/mapper/it", "discard")], [], None),
        ([_mount("format/erofs", "/x"), OVERLAY], [], None),
        ([], [], None),
    ],
    ids=["overlay", "view", "one-layer", "device", "several", "none"],
)
def test_layers_are_directories_only_where_they_are(
    found: list[types_pb2.Mount], lower: list[str], upper: str | None
) -> None:
    assert Snapshots.lower_dirs(found) == [Path(each) for each in lower]
    assert Snapshots.upper_dir(found) == (Path(upper) if upper else None)


def test_only_what_is_written_goes_unsynced() -> None:
    view = _mount("overlay", "overlay", "lowerdir=/2:/1")
    written, read = unsynced([OVERLAY, view])
    assert written.options[-1] == "volatile" and read == view
    assert unsynced([written]) == [written] and "volatile" not in OVERLAY.options


@pytest.mark.root
async def test_a_snapshot_from_its_making_to_its_removal(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    snapshots, key = Snapshots(api), "d" * 64
    images = Images(api, Config(root=str(tmp_path / "root"), containerd=daemon.config))
    image = await images.find(BUSYBOX)
    assert image is not None
    base = await images.chain(image.id, "overlayfs")
    found = await snapshots.prepare(key, base, "overlayfs", {"podwright.io/root": "/test"})
    try:
        with pytest.raises(AlreadyExists):
            await snapshots.prepare(key, base, "overlayfs")
        assert found == await snapshots.mounts(key, "overlayfs")
        assert await snapshots.parent(key, "overlayfs") == base
        (mine,) = await snapshots.list("overlayfs", f'name=="{key}"')
        assert mine.labels["podwright.io/root"] == "/test" and mine.labels["containerd.io/gc.root"]
        async with shown(found, tmp_path / "shown", readonly=False) as root:
            (root / "new").write_text("x" * 10_000)
        async with shown(found, tmp_path / "shown") as root:
            assert (root / "new").exists() and (root / "bin/sh").exists()
            with pytest.raises(OSError, match="Read-only"):
                (root / "newer").touch()
        assert not (tmp_path / "shown").exists() and not mounts.mounts_below(tmp_path)
        upper = snapshots.upper_dir(found)
        assert upper is not None and (upper / "new").exists()
        size, inodes = await snapshots.usage(key, "overlayfs")
        assert size >= 10_000 and inodes >= 1
        with pytest.raises(FailedPrecondition, match="format/erofs cannot be made outside containerd"):
            async with shown([_mount("format/erofs", "/x")], tmp_path / "shown"):
                pass
    finally:
        await snapshots.remove(key, "overlayfs")
        await snapshots.remove(key, "overlayfs")
    with pytest.raises(NotFound):
        await snapshots.mounts(key, "overlayfs")
