"""cp: trees through tar and back, and archives that want to write where they were not asked to."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from podwright.cli.copy import Place, place
from podwright.cli.copy_tree import Owner, pack, unpack
from podwright.errors import PodwrightError
from tests.cli.host_node import LIMIT, HostNode, command, host_node
from tests.cli.test_exec_cli import Done

Facts = dict[str, tuple[int, str | bytes | None, int]]


def tree(top: Path) -> Path:
    """Everything that a tree may have: odd names, modes, links, an empty directory, files that are one."""
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "a").write_bytes(b"a")
    (top / "sub" / "-rf * 'x' \n ü").write_bytes(b"odd")
    (top / "sub" / os.fsdecode(b"\xff\xfe")).write_bytes(b"no utf-8")
    (top / "sub" / ("long" * 50)).write_bytes(b"long")
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "run").chmod(0o751)
    (top / "big").write_bytes(os.urandom(3_000_001))
    (top / "link").symlink_to("/etc/passwd")
    (top / "up").symlink_to("../..")
    os.link(top / "a", top / "hard")
    (top / "sub").chmod(0o711)
    for path in (top / "a", top / "sub", top):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return top


def facts(top: Path) -> Facts:
    """Mode, content and time of each thing in a tree."""
    found: Facts = {}
    for path in (top, *top.rglob("*")):
        info = path.lstat()
        content: str | bytes | None = None
        if stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)  # noqa: PTH115
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        when = 0 if stat.S_ISLNK(info.st_mode) else int(info.st_mtime)
        found[str(path.relative_to(top))] = (info.st_mode, content, when)
    return found


# Without a container


def copied(source: Path, target: Path, as_name: str) -> list[str]:
    """Pack `source` in one thread and unpack it in `target` in this one; what was reported."""
    read, write = os.pipe()
    reports: list[str] = []

    def packing() -> None:
        parent = os.open(source.parent, os.O_RDONLY)
        with open(write, "wb") as out:
            pack(parent, source.name, "wanted", out, reports.append)
        os.close(parent)

    thread = threading.Thread(target=packing)
    thread.start()
    goal = os.open(target, os.O_RDONLY)
    with open(read, "rb") as file:
        unpack(file, goal, "wanted", as_name, None, reports.append)
    os.close(goal)
    thread.join()
    return reports


def test_a_tree_is_the_same_after_packing_and_unpacking(tmp_path: Path) -> None:
    source, target = tree(tmp_path / "source"), tmp_path / "target"
    target.mkdir()
    assert copied(source, target, "copy") == []
    assert facts(target / "copy") == facts(source)
    assert (target / "copy" / "a").stat().st_ino == (target / "copy" / "hard").stat().st_ino


def test_a_copy_over_a_copy_replaces_files_and_keeps_others(tmp_path: Path) -> None:
    source, target = tree(tmp_path / "source"), tmp_path / "target"
    (target / "copy").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (target / "copy" / "a").symlink_to(outside)
    os.link(outside, target / "copy" / "run")
    (target / "copy" / "mine").write_bytes(b"mine")
    copied(source, target, "copy")
    assert outside.read_bytes() == b"precious"
    made = facts(target / "copy")
    assert made.pop("mine")[1] == b"mine"
    assert made == facts(source)


def test_what_is_no_file_is_reported_and_left_out(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    os.mkfifo(source / "fifo")
    (source / "file").write_bytes(b"x")
    assert copied(source, target, "copy") == ["source/fifo is no file, directory or link: left out"]
    assert [path.name for path in (target / "copy").iterdir()] == ["file"]


Member = tuple[str, str, str | bytes]
"""Kind, name, content or target."""


def archive(*members: Member) -> io.BytesIO:
    kinds = {
        "dir": tarfile.DIRTYPE,
        "file": tarfile.REGTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for kind, name, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kinds[kind], 0o6777
            if isinstance(content, str):
                member.linkname = content
                made.addfile(member)
            else:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


HOSTILE = {
    "a name that leads up": [("file", "x/../../evil", b"evil")],
    "an absolute name": [("file", "/evil", b"evil")],
    "another name": [("file", "y/evil", b"evil")],
    "the name's beginning": [("file", "xy", b"evil")],
    "through a link": [("dir", "x", ""), ("link", "x/out", ".."), ("file", "x/out/evil", b"evil")],
    "through a link to /": [("dir", "x", ""), ("link", "x/out", "/"), ("file", "x/out/tmp/evil", b"evil")],
    "a link for the root": [("link", "x", ".."), ("file", "x/evil", b"evil")],
    "a directory that is a link": [
        ("dir", "x", ""),
        ("link", "x/out", ".."),
        ("dir", "x/out", ""),
        ("file", "x/out/evil", b"evil"),
    ],
    "a hard link out": [("dir", "x", ""), ("hard", "x/evil", "../precious")],
    "a hard link to a link's target": [
        ("dir", "x", ""),
        ("link", "x/out", ".."),
        ("hard", "x/evil", "x/out/precious"),
    ],
    "a directory's mode through a link": [("dir", "x", ""), ("dir", "x/d", ""), ("link", "x/d", "..")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_writes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    target = tmp_path / "top" / "target"
    target.mkdir(parents=True)
    target.parent.chmod(0o750)
    (target.parent / "precious").write_bytes(b"precious")
    members: list[Member] = HOSTILE[name]  # type: ignore[assignment]
    goal = os.open(target, os.O_RDONLY)
    try:
        with pytest.raises((PodwrightError, OSError)):
            unpack(archive(*members), goal, "x", "x", None, lambda words: None)
    finally:
        os.close(goal)
    assert sorted(path.name for path in target.parent.iterdir()) == ["precious", "target"]
    assert (target.parent / "precious").read_bytes() == b"precious"
    assert stat.S_IMODE(target.parent.stat().st_mode) == 0o750
    assert not list(target.rglob("evil")) or not (target / "x" / "evil").exists()


@pytest.mark.parametrize(("owner", "mode"), [(None, 0o777), (Owner(os.getuid(), os.getgid()), 0o6777)])
def test_rights_to_be_somebody_else_are_not_taken_from_a_container(
    tmp_path: Path, owner: Owner | None, mode: int
) -> None:
    goal = os.open(tmp_path, os.O_RDONLY)
    reports: list[str] = []
    members: list[Member] = [("dir", "x", ""), ("file", "x/f", b""), ("char", "x/null", "")]
    unpack(archive(*members), goal, "x", "x", owner, reports.append)
    os.close(goal)
    for path in (tmp_path / "x", tmp_path / "x" / "f"):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert reports == ["x/null is no file, directory or link: left out"]


@pytest.mark.parametrize("cut", [0, 100, 700, 5000])
def test_an_archive_that_is_cut_short_is_an_error(tmp_path: Path, cut: int) -> None:
    whole = archive(("file", "x", b"x" * 10_000)).getvalue()
    goal = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(PodwrightError, match="no whole tar archive"):
            unpack(io.BytesIO(whole[:cut]), goal, "x", "x", None, lambda words: None)
    finally:
        os.close(goal)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("main:/etc/hosts", Place("main", "/etc/hosts")),
        ("pod/main:etc/", Place("pod/main", "/etc/")),
        ("main:/a/../etc//x", Place("main", "/etc/x")),
        ("main:", Place("main", "/")),
        ("main:/etc/.", Place("main", "/etc/.")),
        ("main:/a:b", Place("main", "/a:b")),
        ("./main:x", Place("", "./main:x")),
        ("/main:x", Place("", "/main:x")),
        ("file", Place("", "file")),
        (":x", Place("", ":x")),
        ("-", Place("", "-")),
    ],
)
def test_how_places_are_written(text: str, meant: Place) -> None:
    assert place(text) == meant


# By a container's tar


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[HostNode]:
    (tmp_path / "node").mkdir()
    async with host_node(tmp_path / "node") as made:
        yield made


Copy = Callable[..., "asyncio.Future[Done]"]


@pytest.fixture
def cp(node: HostNode, tmp_path: Path) -> Copy:
    async def run(*arguments: str, input: bytes = b"") -> Done:
        child = await asyncio.create_subprocess_exec(
            *command(tmp_path / "node", "cp", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        out, err = await asyncio.wait_for(child.communicate(input), LIMIT)
        assert child.returncode is not None
        return Done(child.returncode, out, err)

    return run  # type: ignore[return-value]


DONE = Done(0, b"", b"")


async def test_a_tree_goes_in_and_comes_out_the_same(cp: Copy, tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    assert await cp("source", f"main:{tmp_path}/inside") == DONE
    assert facts(tmp_path / "inside") == facts(source)
    assert await cp(f"main:{tmp_path}/inside", "outside") == DONE
    assert facts(tmp_path / "outside") == facts(source)


async def test_into_a_directory_that_is_there_or_under_a_new_name(cp: Copy, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("f")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in d").write_text("in d")
    (tmp_path / "there").mkdir()
    for source, target in (("main:", ""), ("", "main:")):
        for name in ("f", "d", "d/."):
            for goal in ("there", f"new-{name[0]}", "there/"):
                assert await cp(f"{source}{tmp_path}/{name}", f"{target}{tmp_path}/{goal}") == DONE
        assert (tmp_path / "there" / "f").read_text() == "f"
        assert (tmp_path / "there" / "d" / "in d").read_text() == "in d"
        assert (tmp_path / "there" / "in d").read_text() == "in d"
        assert (tmp_path / "new-f").read_text() == "f"
        assert (tmp_path / "new-d" / "in d").read_text() == "in d"
        for left in ("new-f", "new-d", "there"):
            (tmp_path / left).rename(tmp_path / f"{left}{source}-done")
        (tmp_path / "there").mkdir()


async def test_an_archive_is_read_from_stdin_and_written_to_stdout(cp: Copy, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    members: list[Member] = [("dir", "d", ""), ("file", "d/f", b"content")]
    given = archive(*members).getvalue()
    assert await cp("-", f"main:{tmp_path}/into", input=given) == DONE
    assert (tmp_path / "into" / "d" / "f").read_bytes() == b"content"
    done = await cp(f"main:{tmp_path}/into/d", "-")
    assert (done.status, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as got:
        assert got.getnames() == ["d", "d/f"]


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("main:/nowhere/x", "here", b"tar in the container: tar: /nowhere"),
        ("missing", "main:/tmp", b"missing: no such file or directory"),
        ("a", "b", b"one of SRC and DST is CONTAINER:PATH"),
        ("main:/x", "main:/y", b"one of SRC and DST is CONTAINER:PATH"),
        ("main:/etc/passwd", "no/such/place", b"no/such: No such file or directory"),
        ("main:/etc/passwd", "nothing/", b"nothing/ is no directory"),
        ("node", "main:/no/such/place", b"main:/no/such is no directory"),
        ("node", "main:/etc/passwd/", b"is no directory"),
        ("-", "main:/no/such", b"main:/no/such is no directory"),
        ("nobody:/x", ".", b"no container has the id or name 'nobody'"),
    ],
)
async def test_what_cannot_be_copied_is_told(
    cp: Copy, tmp_path: Path, source: str, target: str, words: bytes
) -> None:
    done = await cp(source, target)
    assert done.status == 1
    assert done.stderr.startswith(b"podwright: ") and words in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node"]


async def test_a_container_that_lies_about_its_names_is_refused(
    cp: Copy, node: HostNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin" / "tar"
    fake.parent.mkdir()
    (tmp_path / "hostile.tar").write_bytes(archive(("file", "x/../../evil", b"evil")).getvalue())
    fake.write_text(f"#!/bin/sh\nexec cat {tmp_path}/hostile.tar\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    (tmp_path / "a" / "b").mkdir(parents=True)
    done = await cp("main:/x", "a/b")
    assert done.status == 1 and b"not below 'x'" in done.stderr
    assert not list(tmp_path.rglob("evil"))


async def test_without_tar_and_without_a_root_directory_here_it_says_so(cp: Copy, node: HostNode) -> None:
    node.host.missing = ("tar",)
    done = await cp("main:/etc/passwd", "here")
    assert done.status == 1
    assert b"container pod/main has no tar, and its files cannot be reached from here" in done.stderr
