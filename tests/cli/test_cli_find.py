"""What a person means by a word: the rule alone."""

from __future__ import annotations

import pytest

from podwright.cli.find import Found, Kind, choose
from podwright.errors import InvalidArgument, NotFound


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


def test_a_name_in_two_pods_is_ambiguous() -> None:
    with pytest.raises(InvalidArgument, match=r"web/http \(bbb2\).*other/http \(ccc1\)"):
        choose("http", ALL)


@pytest.mark.parametrize("word", ["", "zzz", "web/", "/http", "b1"])
def test_nothing_fits(word: str) -> None:
    with pytest.raises(NotFound, match="no container or pod has"):
        choose(word, ALL)
