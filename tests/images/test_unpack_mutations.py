"""Damaged archives end in a refusal, or are read the same however they come; nothing else ever happens.

Each file of `corpus/` is damaged at random, thousands of times with sums put right again, so that the damage
gets past them; a hundred times as often with PODWRIGHT_PROOF=deep. What once failed is kept there, `found-*`.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podwright.images.unpacking import archive as form
from podwright.images.unpacking.archive import Archive, Entry
from podwright.images.unpacking.faults import BadLayer, TooLarge
from podwright.images.unpacking.limits import NO_LIMIT, Limits
from tests.images.unpacked import Refused, Stack

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
TIMES = 100 if os.environ.get("PODWRIGHT_PROOF") == "deep" else 1
READ, UNPACKED = 4000 * TIMES, 25 * TIMES
TELLING = (
    *(b"\0", b"\xff", b" ", b"7", b"8", b"-", b"/", b"..", b"\x80", b"g", b"x", b"L", b"K", b"S", b"1", b"5"),
    *(b"77777777777", b"\x80" + bytes(10) + b"\xff", b"\xff" * 12, b"GNU.sparse.major=1\n", b"9999999 "),
    *(b"\0" * 512, b"ustar\0", b"SCHILY.xattr.", b"size=99999999999999999999\n", b"\n", b"="),
)
FIELDS = (0, 100, 124, 136, 156, 157, 345, 386, 482, 483)
"""Where a header has its name, numbers, type, link, prefix, and the map of a sparse file."""
STEPS = (1, 512, 1024, 2048)
KINDS = {
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE), form.FILE),
    tarfile.DIRTYPE: form.DIRECTORY,
    tarfile.SYMTYPE: form.SYMLINK,
    tarfile.LNKTYPE: form.LINK,
    tarfile.FIFOTYPE: form.FIFO,
    tarfile.CHRTYPE: form.CHARACTER,
    tarfile.BLKTYPE: form.BLOCK,
}


def read(content: bytes, steps: Iterator[int], most: int = 10_000) -> list[object]:
    """What an archive says that comes in blocks of these sizes: entries with their data, and how it ends."""
    stream = io.BytesIO(content)
    limits = Limits(NO_LIMIT, "too many bytes", most, "too many entries", 4096)
    archive = Archive(lambda: stream.read(next(steps)), limits)
    said: list[object] = []
    with open(os.memfd_create("data"), "r+b", buffering=0) as sink:
        try:
            while (entry := archive.next()) is not None:
                sink.truncate(0)
                sink.seek(0)
                for _, length in entry.pieces if entry.pieces is not None else [(0, entry.size)]:
                    archive.copy(sink.fileno(), length)
                sink.seek(0)
                said.append((*(getattr(entry, name) for name in Entry.__slots__), sink.read()))
        except (BadLayer, TooLarge) as error:
            said.append(str(error))
    return said


def in_blocks(size: int) -> Iterator[int]:
    while True:
        yield size


def at_random(source: random.Random) -> Iterator[int]:
    while True:
        yield source.choice((1, 7, 511, 512, 513, 2000, 1 << 18))


def damaged(source: random.Random, content: bytes) -> bytes:
    damage: list[Callable[[bytearray, int], None]] = [
        lambda whole, at: whole.__setitem__(at, source.randrange(256)),
        lambda whole, at: whole.__setitem__(at, whole[at] ^ 1 << source.randrange(8)),
        lambda whole, at: _put(whole, at, source.choice(TELLING)),
        lambda whole, at: _put(whole, _block(at) + source.choice(FIELDS), source.choice(TELLING)),
        lambda whole, at: whole.__delitem__(slice(at, at + source.choice(STEPS))),
        lambda whole, at: whole.__setitem__(slice(_block(at), 0), whole[: source.choice(STEPS)]),
        lambda whole, at: whole.__delitem__(slice(at, None)),
        lambda whole, at: whole.__setitem__(slice(_block(at), None), source.choice(CORPUS).read_bytes()),
    ]
    whole = bytearray(content)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        if whole:
            # Headers are where it hurts, not the zeros at the end.
            source.choice(damage)(whole, min(int(source.expovariate(1 / 2000)), len(whole) - 1))
    if source.random() < 0.9:
        for start in range(0, len(whole) - 511, 512):
            if whole[start + 257 : start + 262] == b"ustar":
                whole[start + 148 : start + 156] = b" " * 8
                whole[start + 148 : start + 156] = b"%06o\0 " % sum(whole[start : start + 512])
    return bytes(whole)


def _block(at: int) -> int:
    return at // 512 * 512


def _put(whole: bytearray, at: int, what: bytes) -> None:
    whole[at : at + len(what)] = what


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_archives_are_read_as_tarfile_reads_them(file: Path) -> None:
    if file.name.startswith("found-"):
        pytest.skip("damaged")
    found = read(file.read_bytes(), in_blocks(1 << 18))
    expected = []
    with tarfile.open(file, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in tar:
            kind = KINDS[entry.type]
            data = tar.extractfile(entry) if kind == form.FILE else None
            mtime = max(0, round(entry.mtime * 1000)) * 10**6
            about = (os.fsencode(entry.name), kind, entry.mode, entry.uid, entry.gid, entry.size, mtime)
            expected.append(
                (
                    *about,
                    os.fsencode(entry.linkname),
                    entry.devmajor,
                    entry.devminor,
                    data.read() if data else b"",
                )
            )
    simple = []
    for one in found:
        assert isinstance(one, tuple)
        name, kind, mode, uid, gid, size, mtime, link, major, minor, _, pieces, content = one
        if pieces is not None:
            whole, at = bytearray(size), 0
            for offset, length in pieces:
                whole[offset : offset + length] = content[at : at + length]
                at += length
            content = bytes(whole)
        simple.append((name.rstrip(b"/"), kind, mode, uid, gid, size, mtime, link, major, minor, content))
    assert simple == expected
    assert simple


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_blocks_of_any_size_say_the_same(file: Path) -> None:
    content = file.read_bytes()
    whole = read(content, in_blocks(1 << 18))
    assert all(read(content, in_blocks(size)) == whole for size in (1, 100, 512, 513, 4096))
    assert len(read(content, in_blocks(512), most=1)) <= 2


@pytest.mark.timeout(7200)
def test_damaged_archives_are_read_or_refused(tmp_path: Path) -> None:
    source, ends = random.Random(0 if TIMES == 1 else None), set[bool]()
    for _ in range(READ):
        content = damaged(source, source.choice(CORPUS).read_bytes())
        kept = tmp_path / f"found-{hashlib.sha256(content).hexdigest()[:12]}.tar"
        try:
            said = read(content, in_blocks(1 << 18))
            assert read(content, at_random(source)) == said
        except BaseException as error:
            kept.write_bytes(content)
            raise AssertionError(f"keep {kept} in the corpus") from error
        ends.add(bool(said) and isinstance(said[-1], str))
    assert ends == {True, False}


@pytest.mark.root
@pytest.mark.timeout(7200)
def test_damaged_archives_unpack_or_are_refused(tmp_path: Path) -> None:
    canary, place = tmp_path / "canary", tmp_path / "outside"
    canary.write_bytes(b"untouched")
    source, stack, ends = random.Random(1 if TIMES == 1 else None), Stack(tmp_path / "stack"), set[str]()
    kept = [file.read_bytes() for file in CORPUS if file.name.startswith("found-")]
    for number in range(UNPACKED + len(kept)):
        content = kept.pop() if kept else damaged(source, source.choice(CORPUS).read_bytes())
        try:
            stack.add(content, most_bytes=1 << 24)
            ends.add("ok")
        except Refused as refused:
            assert refused.kind in ("bad", "large"), str(refused)
            ends.add(refused.kind)
        except BaseException as error:
            file = tmp_path / f"found-{hashlib.sha256(content).hexdigest()[:12]}.tar"
            file.write_bytes(content)
            raise AssertionError(f"keep {file} in the corpus") from error
        if number % 5 == 4:
            stack = Stack(tmp_path / f"stack{number}")
    assert {"ok", "bad"} <= ends
    assert canary.read_bytes() == b"untouched" and not place.exists()
