"""Users and groups against the image's own databases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.spec.inputs import RootfsFiles
from podwright.spec.linux.user import MAX_ID, resolve_user

FILES = RootfsFiles(
    passwd="root:x:0:0:root:/root:/bin/sh\n"
    "# a comment\n"
    "broken:x\n"
    "app:x:1000:1000:App:/:/bin/sh\n"
    "7777:x:1234:1235::/:\n"
    "odd:x:5:6",
    group="root:x:0:\nwheel:x:10:root\napp:x:1000:\naudio:x:29:app,odd\nstaff:x:50:\nnumbers:x:60:7777\n",
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", (0, 0, (0, 10))),
        ("root", (0, 0, (0, 10))),
        ("app", (1000, 1000, (29, 1000))),
        ("1000", (1000, 1000, (29, 1000))),
        ("app:staff", (1000, 50, (29, 50))),
        ("1000:staff", (1000, 50, (29, 50))),
        ("app:0", (1000, 0, (0, 29))),
        ("app:", (1000, 1000, (29, 1000))),
        ("4242", (4242, 0, (0,))),
        ("4242:4343", (4242, 4343, (4343,))),
        (":50", (0, 50, (10, 50))),
        ("odd", (5, 6, (6, 29))),
        # A number is an id, though somebody has it as a name.
        ("7777", (7777, 0, (0,))),
        ("1234", (1234, 1235, (60, 1235))),
        (str(MAX_ID), (MAX_ID, 0, (0,))),
    ],
)
def test_user_forms(asked: str, expected: tuple[int, int, tuple[int, ...]]) -> None:
    assert resolve_user(asked, FILES) == expected


@pytest.mark.parametrize(
    "asked",
    ["nosuch", "app:nosuch", "-1", "1000:-1", str(MAX_ID + 1), f"0:{MAX_ID + 1}", "broken", "# a comment"],
)
def test_unknown_names_and_ids_out_of_range_are_refused(asked: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve_user(asked, FILES)


@pytest.mark.parametrize("asked", ["app", "0:staff"])
def test_names_need_the_image_to_have_the_file(asked: str) -> None:
    with pytest.raises(InvalidArgument, match="has no /etc"):
        resolve_user(asked, RootfsFiles())


@pytest.mark.parametrize("asked", ["", "1000", "1000:5"])
def test_numbers_need_no_files(asked: str) -> None:
    uid, gid, groups = resolve_user(asked, RootfsFiles())
    assert groups == (gid,)
    assert uid in (0, 1000)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("app", (10, 20, 1000)), ("", (10, 20)), ("0", (0, 10, 20)), ("app:staff", (10, 20, 50))],
)
def test_strict_takes_only_what_is_asked_for(asked: str, expected: tuple[int, ...]) -> None:
    found = resolve_user(asked, FILES, supplemental=[20, 10, 20], strict=True)
    assert found.groups == expected


def test_supplemental_groups_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        resolve_user("", FILES, supplemental=[-5])


@given(st.text(), st.text(), st.text(), st.lists(st.integers(0, MAX_ID)))
def test_hostile_databases_give_sound_ids_or_a_refusal(
    asked: str, passwd: str, group: str, supplemental: list[int]
) -> None:
    try:
        found = resolve_user(asked, RootfsFiles(passwd, group), supplemental=supplemental)
    except InvalidArgument:
        return
    assert 0 <= found.uid <= MAX_ID
    assert 0 <= found.gid <= MAX_ID
    assert list(found.groups) == sorted(set(found.groups))
    assert found.gid in found.groups
    assert set(supplemental) <= set(found.groups)
