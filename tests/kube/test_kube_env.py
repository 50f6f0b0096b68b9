"""$(NAME) expansion and the sources of variables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import InvalidArgument
from podwright.kube.failures import ConfigError
from podwright.kube.manifests import manifest
from podwright.kube.manifests.objects import ConfigMap, Objects, Secret, Service, ServicePort
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import env

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


NODE = Node(name="node", ips=("10.0.0.1", "fd00::1"), cpus=4, memory=1 << 30)
FACTS = PodFacts(ips=("10.1.0.2",))


def environment(
    variables: list[dict[str, Any]],
    *,
    beside: Objects | None = None,
    files: dict[str, str] | None = None,
    links: bool | None = None,
    **container: Any,
) -> dict[str, str]:
    made = manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "uid": "u", "labels": {"app/x": "y"}, "annotations": {"note": "z"}},
            "spec": {
                "enableServiceLinks": links,
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [
                    {
                        "name": "c",
                        "image": "x:1",
                        "env": variables,
                        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                        **container,
                    }
                ],
            },
        },
        beside=beside,
    )

    def read(volume: str, path: str) -> str:
        try:
            return (files or {})[path]
        except KeyError as error:
            raise FileNotFoundError(path) from error

    return env.environment(made, made.containers[0], NODE, FACTS, read)


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


BESIDE = Objects().adding(
    ConfigMap("default", "c", {"A": "1", "with-dash": "d"}, {"blob": b"x"}),
    Secret("default", "s", {"K": b"\xff$(A)"}),
    Service("default", "web-front", "10.96.0.7", (ServicePort(80, "http"), ServicePort(53, "", "UDP"))),
    Service("default", "six", "fd00::7", (ServicePort(80),)),
    Service("default", "headless", "None", (ServicePort(80),)),
    Service("other", "far", "10.96.0.8", (ServicePort(80),)),
    Service("default", "kubernetes", "10.96.0.1", (ServicePort(443, "https"),)),
)


def test_objects_give_variables_and_the_list_wins() -> None:
    found = environment(
        [{"name": "A", "value": "own"}, {"name": "B", "value": "$(P_A)"}],
        beside=BESIDE,
        links=False,
        envFrom=[{"configMapRef": {"name": "c"}}, {"configMapRef": {"name": "c"}, "prefix": "P_"}],
    )
    own = {key: value for key, value in found.items() if not key.startswith("KUBERNETES_")}
    assert own == {"A": "own", "with-dash": "d", "P_A": "1", "P_with-dash": "d", "B": "1"}


def test_what_a_secret_holds_reaches_the_container_as_it_is() -> None:
    source = {"secretKeyRef": {"name": "s", "key": "K"}}
    found = environment([{"name": "S", "valueFrom": source}], beside=BESIDE)
    assert found["S"].encode(errors="surrogateescape") == b"\xff$(A)"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "c", "key": "Z"}}, "couldn't find key Z in ConfigMap default/c"),
        ({"secretKeyRef": {"name": "s", "key": "Z"}}, "couldn't find key Z in Secret default/s"),
        ({"configMapKeyRef": {"name": "n", "key": "Z"}}, 'configmap "n" not found'),
        ({"secretKeyRef": {"name": "n", "key": "Z"}}, 'secret "n" not found'),
    ],
)
def test_references_that_lead_nowhere(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        environment([{"name": "V", "valueFrom": source}], beside=BESIDE)
    assert (caught.value.reason, caught.value.message) == ("CreateContainerConfigError", message)


def test_services_of_the_namespace_are_told_and_the_api_servers_always() -> None:
    found = environment([{"name": "X", "value": "$(WEB_FRONT_SERVICE_HOST)"}], beside=BESIDE)
    assert found["X"] == "10.96.0.7"
    assert found["WEB_FRONT_SERVICE_PORT_HTTP"] == "80"
    assert found["WEB_FRONT_PORT_53_UDP"] == "udp://10.96.0.7:53"
    assert found["SIX_PORT"] == "tcp://[fd00::7]:80"
    assert not any(key.startswith(("HEADLESS", "FAR")) for key in found)
    without = environment([], beside=BESIDE, links=False)
    assert set(without) == {key for key in found if key.startswith("KUBERNETES_")} != set()


def of_file(key: str, *, optional: bool = False) -> dict[str, Any]:
    reference = {"volumeName": "v", "path": "f", "key": key, "optional": optional}
    return {"name": "V", "valueFrom": {"fileKeyRef": reference}}


def test_variables_come_from_files() -> None:
    assert environment([of_file("A")], files={"f": "A='1'"}) == {"V": "1"}
    assert environment([of_file("B", optional=True)], files={"f": "A='1'\nB=''"}) == {}


@pytest.mark.parametrize(
    ("files", "optional", "words"),
    [
        ({}, False, "couldn't parse env file"),
        ({}, True, "couldn't parse env file"),
        ({"f": "A=1"}, True, "couldn't parse env file"),
        ({"f": ""}, False, 'environment variable key "A" not found in file "/.*~empty-dir/v/f"'),
        ({"f": "A=''"}, False, 'environment variable key "A" not found in file "/.*~empty-dir/v/f"'),
    ],
)
def test_files_that_do_not_give_the_variable(files: dict[str, str], optional: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        environment([of_file("A", optional=optional)], files=files)


def test_labels_in_a_file_are_quoted() -> None:
    made = manifest.from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "annotations": {"b": 'two\nlines, "é"\x07', "a": "1"}},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]},
        }
    )
    text = env.pod_field(made, "metadata.annotations", NODE, FACTS)
    assert text == 'a="1"\nb="two\\nlines, \\"é\\"\\a"'
