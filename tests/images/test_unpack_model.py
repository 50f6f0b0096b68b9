"""Random layers, one over the other, unpack to what a simple model says, seen through a real overlayfs.

Some dozens of examples; thousands with PODWRIGHT_PROOF=deep.
"""

from __future__ import annotations

import copy
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.images.unpack_model import Impossible, Made, Model
from tests.images.unpacked import Refused, Seen, Stack, look, same_files

pytestmark = pytest.mark.root

DEEP = os.environ.get("PODWRIGHT_PROOF") == "deep"
DIRECTORY, LINK, HARD = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
OPAQUE = b".wh..wh..opq"

# Few names, so that they meet.
plain = st.sampled_from([b"a", b"b", b"c", b"\xff"])
odd = st.sampled_from([b"..", b".", b"", OPAQUE, b".wh.a", b".wh.b", b".wh.c", b".wh..wh.plnk"])
parts = st.lists(plain | plain | plain | plain | odd, min_size=1, max_size=4)
paths = st.builds(lambda names, end: b"/".join(names) + end, parts, st.sampled_from([b"", b"", b"", b"/"]))
whiteouts = st.builds(
    lambda above, name: b"/".join([*above, name]),
    st.lists(plain, max_size=2),
    st.sampled_from([b".wh.a", b".wh.b", b".wh.c", OPAQUE]),
)
targets = st.builds(
    lambda start, names: start + b"/".join(names),
    st.sampled_from([b"", b"", b"/", b"../", b"../../"]),
    st.lists(plain | st.sampled_from([b"..", b"."]), min_size=1, max_size=3),
)
modes = st.sampled_from([0o644, 0o755, 0o700, 0o4755, 0o2711, 0o1777, 0])
notes = st.sampled_from([b"", b"", b"\0="])
entries = st.one_of(
    st.builds(
        Made, paths, content=st.binary(max_size=3), mode=modes, note=st.sampled_from([b"", b"", b"\0="])
    ),
    st.builds(Made, paths, st.just(DIRECTORY), mode=modes, uid=st.integers(0, 2), mtime=st.integers(1, 3)),
    st.builds(Made, paths, st.just(LINK), targets),
    st.builds(Made, paths, st.just(HARD), paths),
    st.builds(Made, paths, st.sampled_from([tarfile.FIFOTYPE, tarfile.CHRTYPE]), device=st.integers(0, 1)),
    st.builds(Made, whiteouts),
)
layers = st.lists(st.lists(entries, min_size=1, max_size=12), min_size=1, max_size=4)


def archive(made: Sequence[Made]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for each in made:
            entry = tarfile.TarInfo(os.fsdecode(each.name))
            entry.type, entry.mode, entry.uid, entry.mtime = each.type, each.mode, each.uid, each.mtime
            if each.type == tarfile.REGTYPE:
                entry.size = len(each.content)
            else:
                entry.linkname = os.fsdecode(each.content)
            if each.type == tarfile.CHRTYPE and each.device:
                entry.devmajor, entry.devminor = 1, each.device
            if each.note:
                entry.pax_headers = {"SCHILY.xattr.user.note": os.fsdecode(each.note)}
            tar.addfile(entry, io.BytesIO(each.content))
    return buffer.getvalue()


def possible(model: Model, made: Sequence[Made]) -> tuple[Model, list[Made], list[Made]]:
    """A layer without the entries that no tree can come of: the model with it, what is left of it, and how it
    is with the last of the others."""
    kept: list[Made] = []
    refused: list[Made] = []
    for each in made:
        tried = copy.deepcopy(model)
        try:
            tried.add([*kept, each])
        except Impossible:
            refused = [*kept, each]
        else:
            kept.append(each)
    after = copy.deepcopy(model)
    after.add(kept)
    return after, kept, refused


def check(stacked: Sequence[Sequence[Made]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as temporary:
        stack, refused = Stack(Path(temporary)), list[Made]()
        for made in stacked:
            before = [*stack.layers]
            model, kept, refused = possible(model, made)
            root = stack.add(archive(kept))
            du = subprocess.run(["du", "-s", "--block-size=1", root], capture_output=True, check=True)
            assert stack.sizes[-1] == (int(du.stdout.split()[0]), _inodes(root))
        if refused:
            beside = Stack(Path(temporary) / "beside", layers=before)
            with pytest.raises(Refused) as said:
                beside.add(archive(refused))
            assert said.value.kind == "bad"
        expected = model.names()
        with stack.merged() as merged:
            found = look(merged)
            groups = same_files(merged, [name for name, seen in found.items() if seen.kind == "file"])
    assert found.keys() == expected.keys()
    for name, node in expected.items():
        seen = found[name]
        mtime = seen.mtime if node.mtime is None else node.mtime * 10**9
        notes = {"user.note": node.note} if node.note else {}
        assert seen == Seen(node.kind, node.mode, (node.uid, 0), mtime, node.content, notes), name
    by_node: dict[int, set[bytes]] = {}
    for name, node in expected.items():
        if node.kind == "file":
            by_node.setdefault(id(node), set()).add(name)
    assert groups == {frozenset(group) for group in by_node.values()}


def _inodes(root: Path) -> int:
    listed = subprocess.run(["find", root, "-printf", "%i\n"], capture_output=True, check=True)
    return len(set(listed.stdout.split()))


FOUND: list[list[list[Made]]] = [
    # A directory that takes the place of a file hides what was below that.
    [[Made(b"a/b")], [Made(b"a"), Made(b"a/c", DIRECTORY)]],
    [[Made(b"a/b")], [Made(b"a"), Made(b"a", DIRECTORY)]],
    # A whiteout, then something below its name.
    [[Made(b"a/b")], [Made(b".wh.a"), Made(b"a/c")]],
    # A directory that nobody describes, in one with a setgid bit.
    [[Made(b"./", DIRECTORY, mode=0o2711), Made(b"a/b")], [Made(b".wh.a"), Made(b"a/c/d")]],
    # Only the oldest form of tar means a directory by a slash.
    [[Made(b"a/")], [Made(b"a/b/", content=b"1")]],
    # Whiteouts in a directory that becomes opaque only then.
    [[Made(b"a/b/c"), Made(b"a/d")], [Made(b"a/b/.wh.c"), Made(b"a/.wh.d"), Made(b"a/" + OPAQUE)]],
    [[Made(b"a/b/c"), Made(b"d")], [Made(b"a/b/.wh.c"), Made(b".wh.d"), Made(OPAQUE), Made(b"a/e")]],
    [[Made(b"a/b/c")], [Made(b"a/b/.wh.c"), Made(b"a", DIRECTORY, mtime=3), Made(b".wh.a"), Made(b"a/f")]],
    # Whiteouts where nothing is left to hide, in a directory that was open before.
    [[Made(b"a/b/c")], [Made(b"a/b/x"), Made(b"a/" + OPAQUE), Made(b"a/b/.wh.c"), Made(b"a/.wh.b")]],
    [[Made(b"a/b")], [Made(b"a/" + OPAQUE), Made(b"a/.wh.b")]],
    # What an opaque directory hides is no model for a parent two layers above.
    [[Made(b"a/b", DIRECTORY, mode=0o700)], [Made(b"a/" + OPAQUE), Made(b"a/c")], [Made(b"a/b/d")]],
    # A directory that has been closed keeps its time when its whiteouts go.
    [
        [Made(b"a/b/c")],
        [Made(b"a/b", DIRECTORY, mtime=3), Made(b"a/b/.wh.c")]
        + [Made(b"%d" % number, DIRECTORY) for number in range(120)]
        + [Made(b"a/" + OPAQUE)],
    ],
    # Two names below, of which one is linked again above.
    [[Made(b"a", content=b"1"), Made(b"b", HARD, b"a")], [Made(b"c", HARD, b"a", mode=0o755)]],
]


@pytest.mark.parametrize("stacked", FOUND)
def test_what_once_went_wrong(stacked: list[list[Made]]) -> None:
    check(stacked)


@pytest.mark.timeout(7200)
@settings(
    max_examples=4000 if DEEP else 40,
    deadline=None,
    derandomize=not DEEP,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(layers)
@example([[Made(b"./", DIRECTORY, mode=0o1711, mtime=2)], [Made(b"a")]])
def test_layers_unpack_to_what_the_rules_say(stacked: list[list[Made]]) -> None:
    check(stacked)
