"""Hostile layers end in the right tree or in a clear error, and reach nothing but their own directory."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.layouts import TarMaker
from tests.images.unpacked import Refused, Stack, look

pytestmark = pytest.mark.root

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
WHITEOUT = ("character", 0)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "stack")
    (tmp_path / "canary").write_bytes(b"untouched")
    before = sorted(Path("/").iterdir())
    yield made
    assert (tmp_path / "canary").read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "stack"]
    assert sorted(Path("/").iterdir()) == before
    # The deepest of them are too deep for shutil, and so for pytest.
    subprocess.run(["rm", "-rf", tmp_path / "stack"], check=True)


def names(root: Path) -> list[str]:
    return sorted(os.fsdecode(name) for name in look(root) if name != b".")


def device(major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> dict[str, Any]:
    return {"type": kind, "devmajor": major, "devminor": minor}


def raw(maker: TarMaker, **fields: bytes) -> bytes:
    """The archive with bytes of its first header replaced, and the sum put right."""
    content = bytearray(maker.done())
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "type": 156, "major": 329}
    for name, value in fields.items():
        content[places[name] : places[name] + len(value)] = value
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


# Ways out


@pytest.mark.parametrize(
    ("maker", "lands"),
    [
        (TarMaker().add("/canary", b"x"), "canary"),
        (TarMaker().add("../canary", b"x"), "canary"),
        (TarMaker().add("a/../../../canary", b"x"), "canary"),
        (TarMaker().add("./../.././../canary", b"x"), "canary"),
        (TarMaker().add("..//../canary", b"x"), "canary"),
        (TarMaker().symlink("way", "..").add("way/canary", b"x"), "canary"),
        (TarMaker().symlink("way", "../../..").add("way/deeper/canary", b"x"), "deeper/canary"),
        (TarMaker().symlink("way", "/").add("way/canary", b"x"), "canary"),
        (TarMaker().symlink("a", "b").symlink("b", "/..").add("a/canary", b"x"), "canary"),
        (TarMaker().directory("d").symlink("d/up", "../..").add("d/up/canary", b"x"), "canary"),
        (TarMaker().symlink("way", "made/later").add("way/canary", b"x"), "made/later/canary"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_way_out_ends_in_the_layer(stack: Stack, maker: TarMaker, lands: str) -> None:
    root = stack.add(maker.done())
    assert (root / lands).read_bytes() == b"x"


def test_a_directory_that_becomes_a_link_leads_no_further(stack: Stack, tmp_path: Path) -> None:
    maker = TarMaker().directory("a").directory("a/b").add("a/b/first", b"1")
    # Each later "a/b" goes through what "a" is by then.
    maker.symlink("a", str(tmp_path)).add("a/b/second", b"2")
    maker.symlink("a/canary", "/etc/passwd").add("a/canary", b"new")
    root = stack.add(maker.done())
    inside = root / str(tmp_path)[1:]
    assert (inside / "b/second").read_bytes() == b"2"
    assert (inside / "canary").read_bytes() == b"new"
    assert (root / "a").is_symlink() and not (root / "a/b/first").exists()


def test_hard_links_stay_inside(stack: Stack, tmp_path: Path) -> None:
    for target in ("/etc/passwd", "../canary", str(tmp_path / "canary")):
        with pytest.raises(Refused, match="does not exist"):
            stack.add(TarMaker().link("stolen", target).done())
    with pytest.raises(Refused, match="does not exist"):
        stack.add(TarMaker().symlink("way", str(tmp_path)).link("stolen", "way/canary").done())
    # A link to a link is a name of the link: nothing follows it.
    root = stack.add(TarMaker().symlink("way", "/etc/passwd").link("again", "way").add("again", b"x").done())
    assert (root / "again").read_bytes() == b"x" and not (root / "again").is_symlink()


def test_writing_through_a_hard_link_changes_nothing_else(stack: Stack) -> None:
    root = stack.add(TarMaker().add("a", b"old").link("b", "a").add("b", b"new").done())
    assert (root / "a").read_bytes() == b"old" and (root / "b").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (TarMaker().symlink("a", "b").symlink("b", "a").add("a/x"), "Too many levels"),
        (TarMaker().symlink("a", "a/../a/x").add("a/x"), "Too many levels"),
        (TarMaker().add("f", b"1").add("f/x"), "Not a directory"),
        (TarMaker().directory("d").add("d/f").link("d", "d/f"), "takes the place"),
        (TarMaker().link("a", "a"), "does not exist"),
        (TarMaker().directory("d").link("a", "d"), "no file"),
        (TarMaker().link("a", "/"), "root directory"),
        (TarMaker().add("./", b"x"), "replace the root"),
        (TarMaker().symlink(".", "/etc"), "replace the root"),
        (TarMaker().add(".."), "replace the root"),
        (TarMaker().add("n" * 256), "File name too long"),
        (TarMaker().add(f"d/{'n' * 300}/f"), "File name too long"),
        (TarMaker().add("f", pax_headers={"path": "with\0nul"}), "null"),
        (TarMaker().add("f", uid=2**32 - 1), "owner"),
        (TarMaker().add("f", gid=2**40), "owner"),
        (TarMaker().add("f", **device(2**12, 0)), "no device"),
        (TarMaker().add("f", **device(0, 2**20, tarfile.BLKTYPE)), "no device"),
        (TarMaker().add("f", type=b"M"), "unknown type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_by_name(stack: Stack, maker: TarMaker, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        stack.add(maker.done())
    assert refused.value.kind == "bad"


# Entries over entries


def test_whatever_comes_later_takes_the_place_of_what_was_there(stack: Stack) -> None:
    kinds: dict[str, Callable[[TarMaker, str], TarMaker]] = {
        "file": lambda maker, name: maker.add(name, b"file"),
        "directory": lambda maker, name: maker.directory(name).add(f"{name}/inside", b"inside"),
        "link": lambda maker, name: maker.symlink(name, "elsewhere"),
        "pipe": lambda maker, name: maker.add(name, type=tarfile.FIFOTYPE),
        "character": lambda maker, name: maker.add(name, **device(1, 3)),
    }
    maker = TarMaker().add("target", b"target")
    for first, make_first in kinds.items():
        for second, make_second in kinds.items():
            make_first(maker, f"{first}-{second}")
            make_second(maker, f"{first}-{second}")
        make_first(maker, f"{first}-hard")
        maker.link(f"{first}-hard", "target")
    root = stack.add(maker.done())
    tree = look(root)
    for first in kinds:
        for second in kinds:
            name = f"{first}-{second}".encode()
            assert tree[name].kind == second
            assert (name + b"/inside" in tree) == (second == "directory")
        assert (root / f"{first}-hard").stat().st_ino == (root / "target").stat().st_ino
    assert stack.sizes[0][1] == len(tree) - len(kinds)


def test_a_directory_in_the_place_of_a_file_hides_what_was_below_it(stack: Stack) -> None:
    stack.add(TarMaker().directory("d").add("d/old", b"1").done())
    stack.add(TarMaker().add("d", b"file").directory("d").add("d/new", b"2").done())
    with stack.merged() as root:
        assert names(root) == ["d", "d/new"]


def test_the_root_of_a_layer_is_like_the_one_below(stack: Stack) -> None:
    stack.add(TarMaker().directory("./", mode=0o1711, uid=7, mtime=1000).done())
    root = stack.add(TarMaker().add("f").done())
    assert stat.S_IMODE(root.stat().st_mode) == 0o1711
    assert (root.stat().st_uid, root.stat().st_mtime) == (7, 1000)


# Whiteouts


def test_whiteouts_in_every_order(stack: Stack) -> None:
    below = TarMaker()
    for name in ("gone", "kept", "opaque", "late", "twice"):
        below.directory(name).add(f"{name}/old", b"1").directory(f"{name}/sub").add(f"{name}/sub/old", b"1")
    stack.add(below.done())
    maker = TarMaker().add(".wh.gone").add("gone/new", b"2")
    maker.add("kept/new", b"2").add(".wh.kept")
    maker.add("opaque/.wh..wh..opq").add("opaque/sub/new", b"2")
    maker.add("late/sub/new", b"2").add("late/.wh..wh..opq")
    maker.add("twice/.wh.old").add("twice/.wh.old").add("twice/old", b"2").add("twice/.wh.old")
    stack.add(maker.done())
    with stack.merged() as root:
        assert names(root) == [
            *("gone", "gone/new", "kept", "kept/new", "late", "late/sub", "late/sub/new"),
            *("opaque", "opaque/sub", "opaque/sub/new"),
            *("twice", "twice/old", "twice/sub", "twice/sub/old"),
        ]
        assert (root / "twice/old").read_bytes() == b"2"


def test_a_whiteout_of_what_is_hidden_already_hides_nothing_more(stack: Stack) -> None:
    stack.add(TarMaker().directory("d").add("d/f", b"1").add("g", b"1").done())
    stack.add(TarMaker().add("d/.wh.f").add(".wh.g").done())
    root = stack.add(TarMaker().add("d/.wh.f").add(".wh.g").add(".wh.never").done())
    assert look(root).keys() == {b".", b"d"}
    stack.add(TarMaker().add("d/f", b"back").done())
    with stack.merged() as merged:
        assert names(merged) == ["d", "d/f"]


def test_a_layer_alone_has_no_whiteouts(stack: Stack) -> None:
    root = stack.add(TarMaker().add(".wh.f").add("d/.wh..wh..opq").add("d/.wh.x").add(".wh..wh..opq").done())
    assert look(root).keys() == {b".", b"d"}
    assert os.listxattr(root / "d") == []


def test_marks_of_aufs_are_passed_over(stack: Stack) -> None:
    maker = TarMaker().directory(".wh..wh.plnk").add(".wh..wh.plnk/12.34", b"x").add(".wh..wh.aufs")
    maker.directory(".wh..wh.orph").add("d/.wh..wh.x").add("f", b"1")
    assert names(stack.add(maker.done())) == ["f"]


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", "d/.wh..."])
def test_a_whiteout_of_nothing_is_refused(stack: Stack, name: str) -> None:
    with pytest.raises(Refused, match="names no file"):
        stack.add(TarMaker().add(name).done())


def test_a_device_that_overlayfs_takes_for_a_whiteout_is_one(stack: Stack) -> None:
    stack.add(TarMaker().add("f", b"1").add("g", b"1").done())
    root = stack.add(TarMaker().add("f", **device(0, 0)).add("new", **device(0, 0)).done())
    assert {(seen.kind, seen.content) for name, seen in look(root).items() if name != b"."} == {WHITEOUT}
    assert names(root) == ["f"]
    with stack.merged() as merged:
        assert names(merged) == ["g"]


# Attributes


def test_special_bits_and_large_owners_are_kept(stack: Stack) -> None:
    maker = TarMaker().add("f", mode=0o7777, uid=2**31 + 5, gid=2**32 - 2).directory("d", mode=0o3777)
    maker.add("typed", mode=0o100644)
    root = stack.add(maker.done())
    status = (root / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o7777, 2**31 + 5, 2**32 - 2)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o3777
    assert stat.S_IMODE((root / "typed").stat().st_mode) == 0o644


def test_devices_are_kept_but_for_the_program_they_are_dead(stack: Stack) -> None:
    """A later entry opens none of them, whatever is written to its name."""
    maker = TarMaker().add("sda", **device(8, 0, tarfile.BLKTYPE)).add("null", **device(1, 3))
    root = stack.add(maker.add("null", b"written").symlink("to", "sda").add("to", b"written").done())
    tree = look(root)
    assert tree[b"sda"].kind == "block" and tree[b"sda"].content == os.makedev(8, 0)
    assert tree[b"null"].content == tree[b"to"].content == b"written"


def test_attributes_of_other_hosts_and_of_overlayfs_are_dropped(stack: Stack) -> None:
    dropped = ("trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "security.ima")
    kept = {"user.note": b"a=b\n\xff\x00c", "trusted.note": b"1", "security.capability": CAPABILITY}
    headers = {f"SCHILY.xattr.{name}": "x" for name in dropped}
    headers |= {f"SCHILY.xattr.{name}": os.fsdecode(value) for name, value in kept.items()}
    root = stack.add(TarMaker().add("f", b"1", uid=5, mode=0o4755, pax_headers=headers).done())
    file = root / "f"
    assert {name: os.getxattr(file, name) for name in os.listxattr(file)} == kept
    assert stat.S_IMODE(file.stat().st_mode) == 0o4755


def test_a_capability_that_cannot_be_is_refused(stack: Stack) -> None:
    headers = {"SCHILY.xattr.security.capability": "nonsense"}
    with pytest.raises(Refused, match=r"security\.capability.*Invalid argument"):
        stack.add(TarMaker().add("f", pax_headers=headers).done())


@pytest.mark.parametrize(
    ("mtime", "seconds"),
    [("-1", 0), ("-0.5", 0), ("99999999999999999999", 0), ("1.5", 1.5), ("4000000000", 4 * 10**9)],
)
def test_times_that_no_file_can_have_become_the_epoch(stack: Stack, mtime: str, seconds: float) -> None:
    root = stack.add(TarMaker().directory("d", pax_headers={"mtime": mtime}).done())
    assert (root / "d").stat().st_mtime == seconds


def test_negative_numbers_of_a_header(stack: Stack) -> None:
    minus = b"\xff" * 12
    for field, value in {"size": minus, "uid": minus[:8], "gid": minus[:8], "mode": minus[:8]}.items():
        with pytest.raises(Refused, match="negative"):
            stack.add(raw(TarMaker().add("f"), **{field: value}))
    root = stack.add(raw(TarMaker().add("f"), mtime=minus))
    assert (root / "f").stat().st_mtime == 0


def test_sizes_beyond_everything(stack: Stack) -> None:
    huge = b"\x80" + (2**80).to_bytes(11, "big")
    with pytest.raises(Refused, match="in the middle of a file"):
        stack.add(raw(TarMaker().add("f"), size=huge))
    with pytest.raises(Refused, match="an extended header has"):
        stack.add(raw(TarMaker().add("f", pax_headers={"path": "x"}), size=b"77777777777\0"))


def test_directories_keep_their_times_whatever_comes_into_them(stack: Stack) -> None:
    maker = TarMaker()
    for number in range(300):  # more than stay open
        maker.directory(f"d{number}", mtime=1000 + number)
    for number in range(300):
        maker.add(f"d{number}/f")
    root = stack.add(maker.done())
    assert [(root / f"d{number}").stat().st_mtime for number in range(300)] == [*range(1000, 1300)]


# Size


def test_five_thousand_directories_deep(stack: Stack) -> None:
    deep = "d/" * 5000
    maker = TarMaker().add(f"{deep}f", b"1").directory("other").add(f"{deep}g", b"2")
    root = stack.add(maker.symlink("far", f"{'d/' * 2000}").add("far/h", b"3").done())
    assert stack.sizes[0][1] == 5000 + 6
    found = subprocess.run(
        ["find", root, "-type", "f", "-printf", "%d %f\n"], capture_output=True, check=True, text=True
    )
    assert sorted(found.stdout.split("\n")[:-1]) == ["2001 h", "5001 f", "5001 g"]
    # And all of it gives way to one file, and through to a layer above.
    stack.add(TarMaker().add(f"{deep}f", b"new").add("d", b"file").done())
    with stack.merged() as merged:
        assert (merged / "d").read_bytes() == b"file"


def test_names_that_are_not_utf8(stack: Stack) -> None:
    odd = os.fsdecode(b"\xff\xfe/\xe9\x80")
    maker = TarMaker(format=tarfile.GNU_FORMAT).add(odd, b"1").symlink("link", os.fsdecode(b"\xff"))
    maker.add("new\nline", b"2").add("\x1b[31mred", b"3")
    tree = look(stack.add(maker.done()))
    assert tree[b"\xff\xfe/\xe9\x80"].content == b"1"
    assert tree[b"link"].content == b"\xff"
    assert {b"new\nline", b"\x1b[31mred"} <= tree.keys()


def test_names_in_messages_are_printable_and_short(stack: Stack) -> None:
    with pytest.raises(Refused) as refused:
        stack.add(TarMaker().add(f"\x1b[31m{'n' * 5000}").done())
    assert "\x1b" not in str(refused.value) and len(str(refused.value)) < 300


def test_archives_that_are_none(stack: Stack) -> None:
    for content in (b"hello world", b"\x7fELF" + bytes(600), os.urandom(10240)):
        with pytest.raises(Refused, match=r"tar archive|in the middle"):
            stack.add(content)
    assert names(stack.add(b"")) == []
    assert names(stack.add(bytes(1024))) == []


def test_archives_cut_short_anywhere(stack: Stack) -> None:
    whole = TarMaker().add("n" * 150, b"x" * 700, pax_headers={"mtime": "1.5"}).add("g", b"y" * 100).done()
    taken = []
    for size in range(0, 4608, 256):
        try:
            stack.add(whole[:size])
            taken.append(size)
        except Refused as refused:
            assert refused.kind == "bad"
    # Between files, in the padding of one (the data ends at 2236 and 3172), and after a block of zeros.
    assert taken == [0, 2304, 2560, 3328, 3584, 4096, 4352]


def test_what_follows_the_end_is_read_for_the_digest_alone(stack: Stack) -> None:
    first, second = TarMaker().add("f").done(), TarMaker().add("g").done()
    assert names(stack.add(first + second + b"rest")) == ["f"]


def test_another_digest_is_refused(stack: Stack) -> None:
    content = TarMaker().add("f").done()
    with stack.start(content, "sha256:0") as program:
        output, _ = program.communicate(timeout=60)
    assert output.startswith(b"bad the layer's digest is sha256:") and b"says sha256:0" in output


def test_who_has_lost_its_parent_ends(stack: Stack) -> None:
    """Its successor clears the directory that it writes to."""
    content = TarMaker().add("f").done()
    with stack.start(content, "sha256:0", parent=1) as program:
        output, _ = program.communicate(timeout=60)
    assert output == b"bad the one who asked for it has gone"


def test_an_archive_may_end_before_the_padding_of_its_last_file(stack: Stack) -> None:
    """`umoci insert` of Debian 12 writes such layers."""
    whole = TarMaker().add("f", b"x" * 600).add("g", b"y" * 700).done()
    end = 3 * 512 + 512 + 700
    for size in (end, end + 1, 6 * 512 - 1, 6 * 512):
        root = stack.add(whole[:size])
        assert (root / "g").read_bytes() == b"y" * 700
    for size in (end - 1, end - 200, 2 * 512):
        with pytest.raises(Refused, match="in the middle of a file"):
            stack.add(whole[:size])
    whited = TarMaker().add(".wh.f", b"x" * 100).done()  # its data is read by nobody
    stack.add(whited[: 512 + 100])
    with pytest.raises(Refused, match="in the middle of a file"):
        stack.add(whited[: 512 + 99])
    extended = TarMaker().add("h", pax_headers={"path": "i"}).done()
    with pytest.raises(Refused, match="after an extended header"):
        stack.add(extended[: 512 + 10])
