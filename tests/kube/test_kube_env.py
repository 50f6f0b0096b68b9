"""$(NAME) expansion and the sources of variables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.kube import env, manifest

ENV = {"A": "one", "B": "", "C_D": "$(A)"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "one"),
        ("x$(A)y$(A)", "xoneyone"),
        ("$(B)", ""),
        ("$(C_D)", "$(A)"),
        ("$(NO)", "$(NO)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$one"),
        ("$$$$", "$$"),
        ("$A ${A}", "$A ${A}"),
        ("$", "$"),
        ("$(", "$("),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("a$", "a$"),
        ("$($(A))", "$($(A))"),
        ("$(A)$", "one$"),
        ("", ""),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert env.expand(text, ENV) == expanded


@given(st.text())
def test_escaping_every_dollar_gives_the_text_back(text: str) -> None:
    assert env.expand(text.replace("$", "$$"), ENV) == text


@given(st.text().filter(lambda text: "$$" not in text))
def test_without_variables_nothing_but_escapes_changes(text: str) -> None:
    assert env.expand(text, {}) == text


def environment(variables: list[dict[str, Any]], **container: Any) -> dict[str, str]:
    made = manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "uid": "u", "labels": {"app/x": "y"}, "annotations": {"note": "z"}},
            "spec": {"containers": [{"name": "c", "image": "x:1", "env": variables, **container}]},
        }
    )
    facts = env.Facts("node", ("10.0.0.1", "fd00::1"), ("10.1.0.2",), 4, 1 << 30)
    return env.environment(made.pod, made.containers[0], facts)


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u"),
        ("metadata.labels['app/x']", "y"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "z"),
        ("spec.nodeName", "node"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "10.0.0.1"),
        ("status.hostIPs", "10.0.0.1,fd00::1"),
        ("status.podIP", "10.1.0.2"),
        ("status.podIPs", "10.1.0.2"),
    ],
)
def test_field_references(path: str, value: str) -> None:
    assert environment([field(path)]) == {"V": value}


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"env\[0\].valueFrom.fieldRef.fieldPath: 'status.phase'"):
        environment([field("status.phase")])


def test_amounts_are_rounded_up_and_fall_back_to_the_host() -> None:
    def amount(name: str, resource: str, divisor: str = "1") -> dict[str, Any]:
        return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}

    assert environment(
        [amount("M", "limits.memory", "1M"), amount("C", "requests.cpu"), amount("H", "limits.cpu")],
        resources={"limits": {"memory": "64Mi"}, "requests": {"cpu": "1500m"}},
    ) == {"M": "68", "C": "2", "H": "4"}


def test_a_name_given_twice_takes_its_last_value_and_references_the_one_so_far() -> None:
    assert environment(
        [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)"},
            {"name": "A", "value": "2"},
            {"name": "C", "value": "$(A)$(D)"},
            {"name": "D", "value": "late"},
        ]
    ) == {"A": "2", "B": "1", "C": "2$(D)", "D": "late"}


def test_an_optional_key_of_an_object_that_is_not_there_is_left_out() -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}
    assert environment([{"name": "S", "valueFrom": source}]) == {}
