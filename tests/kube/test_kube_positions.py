"""What is wrong with a manifest is told with the line it stands in."""

from __future__ import annotations

import textwrap

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests import documents, manifest, positions

POD = textwrap.dedent("""\
    # a comment
    apiVersion: v1
    kind: Pod
    metadata: {name: web}
    spec:
      containers:
      - name: main
        image: x
        ports:
        - containerPort: 80
        - containerPort: 81
          hostPort: 70000
        env: [{name: A, value: "1"},
              {name: B, valu: "2"}]
    """)


def refusal(text: str, source: str = "pod.yaml") -> str:
    with pytest.raises(InvalidArgument) as caught:
        manifest.parse(text, source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("spec.containers[0].ports[1].hostPort", 12),
        ("spec.containers[0].env[1].name", 14),
        ("spec.containers[0].image", 8),
        ("metadata.name", 4),
        ("spec.containers[0].livenessProbe.httpGet", 7),  # is not there: the container is
        ("spec.containers[7]", 6),
        ("nothing", 2),
        ("", 2),
    ],
)
def test_the_line_of_a_field_or_of_what_is_around_it(path: str, line: int) -> None:
    ((tree, _),) = documents.documents(POD, "pod.yaml")
    assert positions.where(tree, path) == f"pod.yaml:{line}"


def test_each_fault_has_its_line() -> None:
    assert refusal(POD).splitlines() == [
        "pod.yaml: this Pod cannot run:",
        "  pod.yaml:14: spec.containers[0].env[1].valu: no such field; is it value?",
        "  pod.yaml:12: spec.containers[0].ports[1].hostPort: 70000 is not a port",
    ]


def test_a_single_fault_is_one_line() -> None:
    assert refusal(POD.replace("valu:", "value:")) == (
        "pod.yaml:12: spec.containers[0].ports[1].hostPort: 70000 is not a port"
    )


def test_a_value_of_the_wrong_type_has_a_line() -> None:
    text = POD.replace("valu:", "value:").replace("70000", "[many]")
    assert refusal(text).startswith("pod.yaml:12: Expected `int | null`, got `array`")


def test_lines_count_through_the_documents_of_a_file() -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n---\n{POD.replace('valu:', 'value:')}"
    assert refusal(text).startswith("pod.yaml:16: spec.containers[0].ports[1].hostPort")


def test_a_workloads_template_has_the_lines_of_its_own_file() -> None:
    spec = textwrap.indent(POD.replace("valu:", "value:").partition("spec:\n")[2], "    ")
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n"
        "  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n" + spec
    )
    assert refusal(text).startswith("pod.yaml:15: spec.containers[0].ports[1].hostPort: 70000")


def test_what_an_anchor_stands_for_has_the_line_of_the_anchor() -> None:
    text = "x: &c\n  name: main\n  image: x\n  imag: y\n" + textwrap.dedent("""\
        apiVersion: v1
        kind: Pod
        metadata: {name: web}
        spec: {containers: [*c]}
        """)
    assert "pod.yaml:4: spec.containers[0].imag: no such field" in refusal(text)


def test_json_has_no_lines_and_is_told_by_the_path() -> None:
    text = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}'
    assert refusal(text, "pod.json") == "pod.json: spec.containers: at least one container is needed"


def test_a_binding_may_name_a_claim() -> None:
    text = textwrap.dedent("""\
        apiVersion: v1
        kind: Pod
        metadata: {name: web}
        spec:
          containers: [{name: main, image: x}]
          volumes:
          - {name: data, persistentVolumeClaim: {claimName: big}}
          - {name: more, nfs: {server: s, path: /}}
        """)
    from pathlib import Path

    (one,) = manifest.from_trees(
        documents.documents(text, "pod.yaml"), bindings={"big": Path("/a"), "more": Path("/b")}
    )
    assert dict(one.bindings) == {"data": Path("/a"), "more": Path("/b")}
