"""Compressions, forms of tar and of sparse files, limits: read right, or refused with words."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podwright.config import ImageConfig
from podwright.errors import FailedPrecondition, PodwrightError, ResourceExhausted
from podwright.images import layers as rooms
from podwright.images.layers import Layers
from podwright.linux import mounts
from podwright.state.database import Database
from tests.images.layouts import TarMaker, digest
from tests.images.unpacked import Refused, Stack, look

pytestmark = pytest.mark.root

DEEP = os.environ.get("PODWRIGHT_PROOF") == "deep"
MIB = 1 << 20


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path / "stack")


def zstd(content: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-c", *options], input=content, check=True, capture_output=True).stdout


def gnu_tar(directory: Path, *options: str) -> bytes:
    command = ["tar", "-C", str(directory), "--sort=name", *options, "-c", "."]
    return subprocess.run(command, check=True, capture_output=True).stdout


# Compression

CONTENT = TarMaker().add("f", os.urandom(3 * MIB)).add("g", b"end").done()
SKIPPABLE = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT,
        gzip.compress(CONTENT, 1),
        gzip.compress(CONTENT[:1000], 1) + gzip.compress(b"") + gzip.compress(CONTENT[1000:], 1) + bytes(512),
        gzip.compress(CONTENT, 1) + b"padding that is no member",
        zstd(CONTENT),
        zstd(CONTENT[:1000]) + zstd(CONTENT[1000:]),
        SKIPPABLE + zstd(CONTENT) + SKIPPABLE,
        zstd(CONTENT, "--long=27"),
    ],
    ids=["plain", "gzip", "members", "padded", "zstd", "frames", "skippable", "long"],
)
def test_every_compression_is_seen_by_its_bytes(stack: Stack, packed: bytes) -> None:
    root = stack.add(CONTENT, packed=packed)
    assert (root / "f").stat().st_size == 3 * MIB and (root / "g").read_bytes() == b"end"


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (lzma.compress, "compressed by xz: only gzip and zstd"),
        (bz2.compress, "compressed by bzip2: only gzip and zstd"),
        (lambda content: gzip.compress(content)[:-9], "gzip stream is cut short"),
        (lambda content: b"\x1f\x8b\x08\x00garbage" * 50, "gzip stream is damaged"),
        (lambda content: zstd(content)[:-9], "zstd stream is damaged"),
        (lambda content: b"\x28\xb5\x2f\xfdgarbage", "zstd stream is damaged"),
        (lambda content: gzip.compress(content[:-700]), "digest is|in the middle"),
    ],
    ids=["xz", "bzip2", "short gzip", "no gzip", "short zstd", "no zstd", "short tar"],
)
def test_compressions_that_are_not_read(stack: Stack, pack: Callable[[bytes], bytes], words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        stack.add(CONTENT, packed=pack(CONTENT))
    assert refused.value.kind == "bad"


def test_zstd_that_is_not_installed_is_named(tmp_path: Path) -> None:
    stack = Stack(tmp_path, path=str(tmp_path / "nothing"))
    with pytest.raises(Refused, match="zstd, which is not installed") as refused:
        stack.add(CONTENT, packed=zstd(CONTENT))
    assert refused.value.kind == "missing"
    stack.add(CONTENT, packed=gzip.compress(CONTENT, 1))


@pytest.fixture
def programs() -> Iterator[Path]:
    """A directory that nobody can reach as well, which pytest's are not."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_decompressors_are_nobody_and_have_nothing(stack: Stack, programs: Path) -> None:
    """A program in zstd's place says what it is."""
    script = programs / "zstd"
    script.write_text(
        "#!/bin/sh\n"
        "{ echo; /usr/bin/id -u; /usr/bin/id -G; /bin/grep NoNewPrivs /proc/self/status\n"
        "/bin/ls /proc/self/fd; pwd; echo content >/tmp/podwright-written; } >&2; exit 3\n"
    )
    script.chmod(0o755)
    stack.path = str(programs)
    written = Path("/tmp/podwright-written")
    try:
        with pytest.raises(Refused) as refused:
            stack.add(b"", packed=zstd(b""))
        assert not written.exists() or not written.stat().st_size
    finally:
        written.unlink(missing_ok=True)
    said = str(refused.value).partition("damaged:")[2].split()
    # Its three streams, and the directory that ls reads.
    assert said[:9] == ["65534", "65534", "NoNewPrivs:", "1", "0", "1", "2", "3", "/"]


def test_a_program_beside_zlib_reads_what_zlib_reads(stack: Stack, programs: Path) -> None:
    """igzip is used where it is installed; gzip in its place tells that, and that the digest decides."""
    (programs / "igzip").symlink_to("/bin/gzip")
    stack.path = str(programs)
    packed = gzip.compress(CONTENT, 1)
    assert (stack.add(CONTENT, packed=packed) / "g").read_bytes() == b"end"
    (programs / "igzip").unlink()
    (programs / "igzip").symlink_to("/bin/true")
    with pytest.raises(Refused, match="the layer's digest is"):
        stack.add(CONTENT, packed=packed)


# Forms of tar


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_every_form_of_gnu_tar(stack: Stack, tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d/f").write_bytes(b"1" * 2000)
    (source / "empty").touch(0o4711)
    (source / "link").symlink_to("d/f")
    (source / "hard").hardlink_to(source / "d/f")
    os.utime(source / "d/f", (1000, 1000))
    if form != "v7":
        os.mkfifo(source / "pipe")
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    if form not in ("v7", "ustar"):
        long = "/".join(["n" * 120] * 4)
        (source / long).mkdir(parents=True)
        (source / long / ("f" * 200)).write_bytes(b"2")
        (source / "long").symlink_to(long)
    if form == "posix":
        os.utime(source / "empty", ns=(10**18 + 5, 10**18 + 5))
        os.setxattr(source / "empty", "user.note", b"1")
    root = stack.add(gnu_tar(source, f"--format={form}", "--xattrs"))
    expected, found = look(source), look(root)
    for tree in (expected, found):  # of these forms only one knows parts of seconds
        tree.pop(b".")
    if form != "posix":
        whole = {name: seen.mtime // 10**9 for name, seen in expected.items()}
        assert {name: seen.mtime // 10**9 for name, seen in found.items()} == whole
        assert {name: (s.kind, s.mode, s.content) for name, s in found.items()} == {
            name: (s.kind, s.mode, s.content) for name, s in expected.items()
        }
    else:
        assert found == expected
    assert (root / "hard").stat().st_ino == (root / "d/f").stat().st_ino


def test_a_directory_of_the_oldest_form_is_a_file_with_a_slash(stack: Stack) -> None:
    content = bytearray(TarMaker(format=tarfile.USTAR_FORMAT).add("d/").done())
    content[156] = 0
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    assert (stack.add(bytes(content)) / "d").is_dir()


def test_a_global_header_says_nothing_about_files(stack: Stack) -> None:
    header = tarfile.TarInfo.create_pax_global_header({"path": "other", "comment": "a commit"})
    root = stack.add(header + TarMaker().add("f", b"1").done())
    assert look(root).keys() == {b".", b"f"}


def test_wrong_sums_are_refused(stack: Stack) -> None:
    content = bytearray(TarMaker().add("f", b"1").done())
    content[0] ^= 1
    with pytest.raises(Refused, match="sum is wrong"):
        stack.add(bytes(content))


# Sparse files


@pytest.mark.parametrize(
    "options",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
    ids=lambda options: options[-1].removeprefix("--"),
)
def test_sparse_files_stay_sparse(stack: Stack, tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "pieces").open("wb") as file:
        for number in range(70):  # more than a header of GNU's has room for
            file.seek(number * MIB)
            file.write(b"%d" % number)
        file.truncate(80 * MIB)
    with (source / "huge").open("wb") as file:
        file.truncate(1 << 43)
    (source / "hole").touch()
    os.truncate(source / "hole", MIB)
    (source / "last").write_bytes(b"what comes after them")
    root = stack.add(gnu_tar(source, "--sparse", *options))
    for name in ("pieces", "hole", "last"):
        assert (root / name).read_bytes() == (source / name).read_bytes()
    assert (root / "huge").stat().st_size == 1 << 43
    assert sum((root / name).stat().st_blocks * 512 for name in ("pieces", "huge", "hole")) <= MIB
    assert stack.sizes[0][0] < 2 * MIB


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"GNU.sparse.map": "0,1,0,1", "GNU.sparse.size": "9"}, "overlap"),
        ({"GNU.sparse.map": "0,5", "GNU.sparse.size": "3"}, "beyond its size"),
        ({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}, "not as many"),
        ({"GNU.sparse.map": "0", "GNU.sparse.size": "9"}, "odd number"),
        ({"GNU.sparse.map": "0,-5", "GNU.sparse.size": "9"}, "no number"),
        ({"GNU.sparse.map": "0,5"}, "has no size"),
        ({"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, "unknown form"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, "no list"),
        ({"GNU.sparse.map": "0,5", "GNU.sparse.size": str(2**62)}, "too large|File too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sparse_maps_that_cannot_be(stack: Stack, headers: dict[str, str], words: str) -> None:
    with pytest.raises(Refused, match=words):
        stack.add(TarMaker().add("f", b"12345", pax_headers=headers).done())


# Limits


def test_a_bomb_ends_at_the_limit(stack: Stack) -> None:
    content = TarMaker().add("f", bytes(64 * MIB)).done()
    for packed in (gzip.compress(content), zstd(content)):
        with pytest.raises(Refused, match=r"more than 1048576 bytes \(images.max_layer_bytes\)") as refused:
            stack.add(content, packed=packed, most_bytes=MIB)
        assert refused.value.kind == "large"
    # What would only be thrown away is counted, too.
    with pytest.raises(Refused, match="max_layer_bytes"):
        stack.add(b"", packed=gzip.compress(bytes(64 * MIB)), most_bytes=MIB)


def test_many_small_files_count_as_what_they_occupy(stack: Stack) -> None:
    maker = TarMaker(format=tarfile.USTAR_FORMAT)
    for number in range(500):
        maker.add(f"f{number}", b"1")
    content = maker.done()
    assert len(content) < MIB < 500 * 4096
    with pytest.raises(Refused, match="max_layer_bytes"):
        stack.add(content, most_bytes=MIB)
    with pytest.raises(Refused, match=r"more than 499 entries \(images.max_layer_entries\)"):
        stack.add(content, most_entries=499)
    stack.add(content, most_entries=500)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        mounts.unmount(place)


async def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, small_disk: Path) -> None:
    content = TarMaker().add("f", os.urandom(24 * MIB)).done()
    blob = tmp_path / "blob"
    blob.write_bytes(content)
    database = Database.open(tmp_path / "db")
    try:
        for limits, words in (
            (ImageConfig(), "nine tenths of what is free"),
            (ImageConfig(max_layer_bytes=100 * MIB), "No space left"),
            (ImageConfig(max_layer_bytes=3 * MIB), r"\(images.max_layer_bytes\)"),
        ):
            store = Layers(small_disk / "store", database, limits)
            store.open()
            with pytest.raises(ResourceExhausted, match=words):
                await store.ensure(digest(content), [], digest(content), blob)
            assert store.strays() == []
    finally:
        database.close()


async def test_what_the_program_answers_becomes_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(tmp_path / "db")
    blob = tmp_path / "blob"
    blob.write_bytes(zstd(CONTENT))
    store = Layers(tmp_path / "store", database)
    store.open()
    try:
        with monkeypatch.context() as patch:
            (tmp_path / "rm").symlink_to("/bin/rm")
            patch.setattr(rooms, "ENVIRONMENT", {"PATH": str(tmp_path)})
            with pytest.raises(FailedPrecondition, match="zstd, which is not installed"):
                await store.ensure(digest(CONTENT), [], digest(CONTENT), blob)
        blob.write_bytes(b"nonsense" * 100)
        with pytest.raises(PodwrightError, match=r"cannot unpack the layer sha256:.*: this is no tar"):
            await store.ensure(digest(CONTENT), [], digest(CONTENT), blob)
        assert store.strays() == []
    finally:
        database.close()


@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_entries(tmp_path: Path) -> None:
    """Two million with PODWRIGHT_PROOF=deep."""
    few, many = (_peak(tmp_path / f"{count}", count) for count in (1000, 2_000_000 if DEEP else 12_000))
    assert many < few + 4 * MIB, f"{few / MIB:.1f} MiB for few entries, {many / MIB:.1f} MiB for many"
    assert many < 48 * MIB


def _peak(root: Path, count: int) -> int:
    """The most memory that the program had for a layer of `count` entries, half of them directories."""
    root.mkdir()
    maker = TarMaker(format=tarfile.USTAR_FORMAT)
    for number in range(count // 2):
        name = f"{number % 97}/{number}"
        maker.directory(name).add(f"{name}/file", b"")
        maker.tar.members.clear()  # type: ignore[attr-defined]
    content = maker.done()
    stack, peak = Stack(root / "stack"), 0
    with stack.start(content, digest(content)) as program:
        status = Path(f"/proc/{program.pid}/status")
        while program.poll() is None:
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = max(peak, int(line.split()[1]) * 1024)
            time.sleep(0.002)
        assert program.stdout is not None
        assert program.stdout.read().startswith(b"ok ")
    subprocess.run(["rm", "-rf", root], check=True)
    return peak
