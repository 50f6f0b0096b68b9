"""What a person means by a word: the rule alone."""

from __future__ import annotations

import pytest

from podwright.cli.find import Found, Kind, choose
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
from podwright.wire import cri_pb2 as cri


def item(kind: Kind, id: str, name: str, pod: str = "", created_at: int = 0) -> Found:
    return Found(kind, id, name, pod or name, "default", created_at, 0)


WEB = item("pod", "aaa1", "web")
HTTP = item("container", "bbb1", "http", "web", 1)
HTTP_AGAIN = item("container", "bbb2", "http", "web", 2)
OTHER = item("container", "ccc1", "http", "other", 3)
ODD = item("container", "ddd1", "bbb", "odd", 4)
ALL = [WEB, HTTP, HTTP_AGAIN, OTHER, ODD]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("aaa1", WEB),
        ("a", WEB),
        ("web", WEB),
        ("default/web", WEB),
        ("bbb1", HTTP),
        ("web/http", HTTP_AGAIN),  # the newest attempt
        ("other/http", OTHER),
        ("default/other/http", OTHER),
        ("bbb", ODD),  # a name beats the beginning of an id
    ],
)
def test_a_word_finds(word: str, found: Found) -> None:
    assert choose(word, ALL) == found


def up(kind: Kind, id: str, name: str, pod: str, created_at: int, sandbox: str = "") -> Found:
    state = cri.CONTAINER_RUNNING if kind == "container" else cri.SANDBOX_READY
    return Found(kind, id, name, pod, "default", created_at, state, sandbox)


def test_what_is_up_is_meant_before_a_newer_one_that_has_ended() -> None:
    running = up("container", "eee1", "http", "web", 0)
    assert choose("web/http", [running, HTTP, HTTP_AGAIN]) == running


def test_two_pods_of_one_name_that_are_up_are_ambiguous() -> None:
    with pytest.raises(InvalidArgument, match=r"web \(aaa2\), pod web \(aaa3\)"):
        choose("web", [WEB, up("pod", "aaa2", "web", "web", 2), up("pod", "aaa3", "web", "web", 3)])


def test_a_pod_stands_for_its_only_container() -> None:
    alone = up("container", "fff1", "main", "web", 1, "aaa1")
    assert choose("web", [WEB, alone, OTHER], ("container",)) == alone
    assert choose("aaa", [WEB, alone, OTHER], ("container",)) == alone
    with pytest.raises(InvalidArgument, match=r"web/main \(fff1\), container web/side \(fff2\)"):
        choose("web", [WEB, alone, up("container", "fff2", "side", "web", 1, "aaa1")], ("container",))
    with pytest.raises(FailedPrecondition, match="has no container"):
        choose("web", [WEB, OTHER], ("container",))


def test_a_name_in_two_pods_is_ambiguous() -> None:
    with pytest.raises(InvalidArgument, match=r"web/http \(bbb2\).*other/http \(ccc1\)"):
        choose("http", ALL)


@pytest.mark.parametrize("word", ["", "zzz", "web/", "/http", "b1"])
def test_nothing_fits(word: str) -> None:
    with pytest.raises(NotFound, match="no container or pod has"):
        choose(word, ALL)
