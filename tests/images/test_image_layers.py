"""Layers unpack to what the OCI image specification says, and nothing in them reaches the host."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from podwright.errors import PodwrightError
from podwright.images.layers import Layer, Layers, chain_ids
from podwright.linux import mounts, spawn
from podwright.state.database import Database
from tests.images.layouts import TarMaker, digest, write_layout

pytestmark = pytest.mark.root

OPAQUE = "trusted.overlay.opaque"
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


class Bench:
    """Unpacks layers one over the other and shows them merged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.database = Database.open(root / "db")
        self.layers = Layers(root / "store", self.database)
        self.layers.open()
        self._empty = self.layers.use()
        self.below: list[Layer] = []
        self.diff_ids: list[str] = []

    async def add(self, content: bytes, *, pack: Callable[[bytes], bytes] = gzip.compress) -> Path:
        blob = self.root / "blob"
        blob.write_bytes(pack(content))
        diff_ids = [*self.diff_ids, digest(content)]
        layer = await self.layers.ensure(chain_ids(diff_ids)[-1], self.below, diff_ids[-1], blob)
        self.diff_ids = diff_ids
        self.below.append(layer)
        return self.layers.directory(layer.number)

    def directories(self) -> list[Path]:
        return [self.layers.directory(layer.number) for layer in reversed(self.below)]

    def use(self) -> tuple[int, int]:
        """Bytes and inodes of the layers alone."""
        return tuple(now - empty for now, empty in zip(self.layers.use(), self._empty, strict=True))  # type: ignore[return-value]

    @contextmanager
    def merged(self) -> Iterator[Path]:
        for name in ("upper", "work", "merged"):
            (self.root / name).mkdir(exist_ok=True)
        target = self.root / "merged"
        mounts.overlay(target, self.directories(), self.root / "upper", self.root / "work")
        try:
            yield target
        finally:
            mounts.unmount(target)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


def names(directory: Path) -> Sequence[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


async def test_every_kind_of_file_keeps_its_attributes(bench: Bench) -> None:
    tar = TarMaker()
    tar.directory("./", mode=0o711)
    tar.directory("d/", mode=0o1777, uid=5, gid=6, mtime=1000)
    tar.add("d/f", b"content", mode=0o4755, uid=7, gid=8, pax_headers={"mtime": "1234567890.123456789"})
    tar.add("d/again", type=tarfile.LNKTYPE, linkname="d/f", mode=0o4755, uid=7, gid=8, mtime=1234567890)
    tar.symlink("d/s", "/nowhere/at/all")
    tar.add("d/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    tar.add("d/disk", type=tarfile.BLKTYPE, devmajor=7, devminor=9)
    tar.add("d/pipe", type=tarfile.FIFOTYPE, mode=0o600)
    capability = CAPABILITY.decode("utf-8", "surrogateescape")
    tar.add("d/ping", b"#!", pax_headers={"SCHILY.xattr.security.capability": capability}, uid=9)
    tar.add("d/noted", b"", pax_headers={"SCHILY.xattr.user.note": "käse"})
    long = "/".join(["long" * 20] * 4)
    tar.add(long, b"x")
    unprintable = os.fsdecode(b"caf\xe9")
    tar.add(unprintable, b"latin-1")
    root = await bench.add(tar.done())

    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    directory, file = (root / "d").stat(), (root / "d/f").stat()
    assert (stat.S_IMODE(directory.st_mode), directory.st_uid, directory.st_gid) == (0o1777, 5, 6)
    assert directory.st_mtime_ns == 1000 * 10**9
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (0o4755, 7, 8)
    assert file.st_mtime_ns == 1234567890 * 10**9
    assert (root / "d/again").stat().st_ino == file.st_ino
    assert (root / "d/s").readlink() == Path("/nowhere/at/all")
    null, disk = (root / "d/null").stat(), (root / "d/disk").stat()
    assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(null.st_mode) == 0o666
    assert stat.S_ISBLK(disk.st_mode) and disk.st_rdev == os.makedev(7, 9)
    assert stat.S_ISFIFO((root / "d/pipe").stat().st_mode)
    assert os.getxattr(root / "d/ping", "security.capability") == CAPABILITY
    assert os.getxattr(root / "d/noted", "user.note") == "käse".encode()
    assert (root / long).read_bytes() == b"x"
    assert (root / unprintable).read_bytes() == b"latin-1"


@pytest.mark.parametrize("kind", ["gzip", "two gzip members", "plain", "zstd"])
async def test_compressions(bench: Bench, kind: str) -> None:
    content = TarMaker().add("f", os.urandom(3_000_000)).done()

    def pack(raw: bytes) -> bytes:
        if kind == "gzip":
            return gzip.compress(raw)
        if kind == "two gzip members":
            return gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]) + bytes(512)
        if kind == "zstd":
            return subprocess.run(["zstd", "-c"], input=raw, check=True, capture_output=True).stdout
        return raw

    root = await bench.add(content, pack=pack)
    assert (root / "f").stat().st_size == 3_000_000


async def test_a_sparse_file_stays_sparse(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.write(b"begin")
        file.seek(50 << 20)
        file.write(b"end")
        file.truncate(64 << 20)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        made = ["tar", "--sparse", f"--format={form}", "-C", str(tmp_path), "-cf", str(archive), "sparse"]
        await spawn.check(made)
        copy = await bench.add(archive.read_bytes()) / "sparse"
        assert copy.read_bytes() == source.read_bytes()
        assert copy.stat().st_blocks * 512 < 1 << 20


async def test_whiteouts_hide_what_is_below(bench: Bench) -> None:
    tar = TarMaker().directory("d").add("d/a", b"1").add("d/b", b"1").directory("d/sub").add("d/sub/x", b"1")
    await bench.add(tar.directory("o").add("o/old", b"1").add("kept", b"1").done())
    tar = TarMaker().directory("d").add("d/.wh.a").add("d/.wh.sub").add("d/.wh.never-was")
    top = await bench.add(tar.directory("o").add("o/new", b"2").add("o/.wh..wh..opq").done())

    assert is_whiteout(top / "d/a") and is_whiteout(top / "d/sub")
    assert not os.path.lexists(top / "d/never-was")
    assert os.getxattr(top / "o", OPAQUE) == b"y"
    with bench.merged() as root:
        assert names(root) == ["d", "d/b", "kept", "o", "o/new"]


@pytest.mark.parametrize("whiteout_first", [True, False])
async def test_a_whiteout_spares_what_its_own_layer_brings(bench: Bench, whiteout_first: bool) -> None:
    tar = TarMaker().directory("etc").add("etc/old", b"1").add("f", b"1")
    await bench.add(tar.done())
    tar = TarMaker()
    if whiteout_first:
        tar.add(".wh.etc").add(".wh.f")
    tar.directory("etc").add("etc/new", b"2").add("f", b"2")
    if not whiteout_first:
        tar.add(".wh.etc").add(".wh.f")
    await bench.add(tar.done())
    with bench.merged() as root:
        assert names(root) == ["etc", "etc/new", "f"]
        assert (root / "f").read_bytes() == b"2"


async def test_an_opaque_root_hides_everything_below(bench: Bench) -> None:
    await bench.add(TarMaker().directory("d").add("d/x").add("f").done())
    await bench.add(TarMaker().add(".wh..wh..opq").directory("d").add("d/y").done())
    with bench.merged() as root:
        assert names(root) == ["d", "d/y"]


async def test_directories_and_files_replace_each_other(bench: Bench) -> None:
    await bench.add(TarMaker().directory("a").add("a/x").add("b").symlink("c", "a").done())
    await bench.add(TarMaker().add("a", b"file").directory("b").add("b/y").directory("c").add("c/z").done())
    with bench.merged() as root:
        assert names(root) == ["a", "b", "b/y", "c", "c/z"]
        assert (root / "a").read_bytes() == b"file"
        assert not (root / "c").is_symlink()


async def test_the_last_entry_of_a_name_wins_within_a_layer(bench: Bench) -> None:
    tar = TarMaker().add("f", b"1").directory("d").directory("d/e").add("d/e/x").add("f", b"2")
    tar.add("d", b"now a file").symlink("g", "h").directory("g", mode=0o700).add("g/x")
    root = await bench.add(tar.done())
    assert names(root) == ["d", "f", "g", "g/x"]
    assert (root / "f").read_bytes() == b"2"


async def test_a_parent_that_a_layer_does_not_bring_is_the_one_below(bench: Bench) -> None:
    tar = TarMaker().directory("tmp", mode=0o1777, uid=3).directory("usr").directory("usr/lib", mode=0o750)
    await bench.add(tar.symlink("lib", "usr/lib").symlink("far", "/lib/../../usr").done())
    top = await bench.add(TarMaker().add("tmp/x").add("lib/y").add("far/z").add("new/deep/w").done())
    assert names(top) == [
        "new",
        "new/deep",
        "new/deep/w",
        "tmp",
        "tmp/x",
        "usr",
        "usr/lib",
        "usr/lib/y",
        "usr/z",
    ]
    with bench.merged() as root:
        assert (root / "lib").is_symlink()
        assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
        assert (root / "tmp").stat().st_uid == 3
        assert stat.S_IMODE((root / "usr/lib").stat().st_mode) == 0o750
        assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755


async def test_a_hard_link_may_name_a_file_of_a_lower_layer(bench: Bench) -> None:
    await bench.add(TarMaker().directory("d", mode=0o700).add("d/f", b"below", mode=0o4711, uid=4).done())
    link = TarMaker().add("same", type=tarfile.LNKTYPE, linkname="d/f", mode=0o4711, uid=4)
    top = await bench.add(link.done())
    assert (top / "same").read_bytes() == b"below"
    assert (top / "same").stat().st_ino == (top / "d/f").stat().st_ino
    assert stat.S_IMODE((top / "same").stat().st_mode) == 0o4711


@pytest.mark.parametrize(
    "hostile",
    [
        TarMaker().add("../../../../../../../../tmp/podwright-escaped", b"x"),
        TarMaker().add("/tmp/podwright-escaped", b"x"),
        TarMaker().symlink("way", "/").add("way/tmp/podwright-escaped", b"x"),
        TarMaker().symlink("way", "../../../../../../..").add("way/tmp/podwright-escaped", b"x"),
        TarMaker().symlink("way", "/tmp").symlink("further", "way").add("further/podwright-escaped", b"x"),
        TarMaker().symlink("podwright-escaped", "/tmp/podwright-escaped").add("podwright-escaped", b"x"),
    ],
)
async def test_no_name_or_link_reaches_the_host(bench: Bench, hostile: TarMaker) -> None:
    root = await bench.add(hostile.done())
    assert not os.path.lexists("/tmp/podwright-escaped")
    assert "podwright-escaped" in {path.name for path in root.rglob("*")}


@pytest.mark.parametrize("way", ["/etc/passwd", "../../../../../etc/passwd", "way/passwd"])
async def test_no_hard_link_reaches_the_host(bench: Bench, way: str) -> None:
    with pytest.raises(PodwrightError, match="does not exist"):
        await bench.add(TarMaker().symlink("way", "/etc").link("stolen", way).done())
    assert bench.layers.strays() == []


async def test_a_link_in_a_lower_layer_does_not_lead_out(bench: Bench) -> None:
    await bench.add(TarMaker().symlink("way", "/tmp").symlink("loop", "loop").done())
    top = await bench.add(TarMaker().add("way/podwright-escaped", b"x").done())
    assert names(top) == ["tmp", "tmp/podwright-escaped"]
    assert not os.path.lexists("/tmp/podwright-escaped")
    with pytest.raises(PodwrightError, match="Too many levels"):
        await bench.add(TarMaker().add("loop/x").done())


async def test_marks_of_overlayfs_in_a_layer_are_dropped(bench: Bench) -> None:
    marks = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y"}
    root = await bench.add(TarMaker().directory("d", pax_headers=marks).done())
    assert os.listxattr(root / "d") == []


@pytest.mark.parametrize("bad", [".wh.", ".wh..", ".wh..."])
async def test_a_whiteout_of_no_file_is_refused(bench: Bench, bad: str) -> None:
    with pytest.raises(PodwrightError, match="names no file"):
        await bench.add(TarMaker().directory("d").add(f"d/{bad}").done())


async def test_a_layer_that_is_not_what_its_image_says_leaves_nothing(bench: Bench) -> None:
    blob = bench.root / "blob"
    blob.write_bytes(gzip.compress(TarMaker().add("f", b"other").done()))
    wanted = digest(b"something else")
    with pytest.raises(PodwrightError, match=f"its image says {wanted}"):
        await bench.layers.ensure(wanted, [], wanted, blob)
    assert bench.layers.strays() == []
    assert bench.use() == (0, 0)


async def test_a_layer_that_is_cut_short_leaves_nothing(bench: Bench) -> None:
    content = TarMaker().add("f", os.urandom(100_000)).done()
    with pytest.raises(PodwrightError, match=r"cut short|middle"):
        await bench.add(content, pack=lambda raw: gzip.compress(raw)[:50_000])
    assert bench.layers.strays() == []


async def test_deep_directories_unpack_and_go_away(bench: Bench) -> None:
    deep = "d/" * 1900
    await bench.add(TarMaker().add(f"{deep}f").done())
    await bench.layers.collect(())
    assert bench.layers.strays() == []
    assert bench.use() == (0, 0)


async def test_a_full_stack_of_layers_mounts(bench: Bench) -> None:
    for number in range(60):
        await bench.add(TarMaker().add(f"f{number}").done())
    with bench.merged() as root:
        assert len(names(root)) == 60


async def test_use_counts_bytes_and_inodes_once(bench: Bench) -> None:
    await bench.add(TarMaker().add("a", bytes(1 << 20)).link("b", "a").directory("d").done())
    size, inodes = bench.use()
    assert 1 << 20 <= size <= (1 << 20) + (64 << 10)
    assert inodes == 3


def test_an_import_is_written_as_a_layout(tmp_path: Path) -> None:
    """The tests' own layouts are what skopeo reads."""
    write_layout(tmp_path / "l", [TarMaker().add("f").done()])
    subprocess.run(["skopeo", "inspect", f"oci:{tmp_path / 'l'}:v1"], check=True, capture_output=True)
