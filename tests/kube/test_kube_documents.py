"""The text of manifests, as people and programs write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests.documents import documents, read_text


def tree(text: str) -> Any:
    ((found, place),) = documents(text, "x")
    assert place == "x"
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0440", 0o440),
        ("0o440", 0o440),
        ("0x1f", 31),
        ("-7", -7),
        ("1_000", 1000),
        ("0", 0),
        ("1e3", 1000.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("100m", "100m"),
        ("'1'", "1"),
        ("yes", True),
        ("~", None),
        ("", None),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    assert tree(f"a: {text}\n") == {"a": value}


def test_bytes_that_editors_add_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_bytes(
        "\ufeff# c\r\n---\r\n# nothing but a comment\r\n---\r\na: |\r\n  x\r\n  y\r\n...\r\n".encode()
    )
    assert documents(read_text(path), "x") == [({"a": "x\ny\n"}, "x")]


def test_json_may_be_indented_by_tabs_and_come_one_after_another() -> None:
    texts = [json.dumps({"a": number}, indent="\t") for number in (1, 2)]
    assert [one for one, _ in documents("\n".join(texts), "x")] == [{"a": 1}, {"a": 2}]


def test_anchors_and_merges() -> None:
    assert tree("a: &x {q: 1, r: 1}\nb: {<<: *x, r: 2}\nc: *x\n")["b"] == {"q": 1, "r": 2}


def test_keys_are_text() -> None:
    assert tree("1: a\ntrue: b\n1.5: c\n") == {"1": "a", "true": "b", "1.5": "c"}


def test_lists_of_a_kind_say_it_for_their_items() -> None:
    text = (
        "kind: PodList\napiVersion: v1\nitems:\n- {metadata: {name: a}}\n- {kind: Pod, metadata: {name: b}}\n"
    )
    found = [one for one, _ in documents(text, "x")]
    assert [(one["kind"], one["apiVersion"], one["metadata"]["name"]) for one in found] == [
        ("Pod", "v1", "a"),
        ("Pod", "v1", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n\tb: 1", "line 2, column 1"),
        ("a: 1\na: 2", "key 'a' comes twice"),
        ('{"a": 1, "a": 2}', "key 'a' comes twice"),
        ("? [a]\n: 1", "is not a string"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("a: &a [*a]", "is nested too deeply"),
        ("items: 3\nkind: List\napiVersion: v1", "items: is no list"),
        ("# nothing\n", "holds no Pod"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        documents(text, "pod.yaml")
    assert words in str(caught.value) and "pod.yaml" in str(caught.value)


def test_aliases_that_stand_for_billions_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(InvalidArgument, match="values"):
        documents("\n".join(lines), "x")
