"""Whole files as clusters and charts give them: all of it is understood, and what has no effect is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.errors import InvalidArgument
from podwright.kube.manifests import manifest

STREAMS = Path(__file__).parent / "streams"
MACHINE = "has no effect here: there is one machine to run on"

NOTES = {
    "exported": [
        f"spec.affinity {MACHINE}",
        f"spec.tolerations {MACHINE}",
        f"spec.topologySpreadConstraints {MACHINE}",
        "spec.volumes[1] has no effect here: it is a cluster's volume for a service account's token",
    ],
    "chart": [
        f"spec.nodeSelector {MACHINE}",
        "spec.automountServiceAccountToken has no effect here: there is no API server to issue a token, and "
        "no Secret of type kubernetes.io/service-account-token for 'release-chart' beside the Pod",
    ],
    "coredns": ["Deployment coredns: no effect here: spec.strategy", f"spec.tolerations {MACHINE}"],
}


@pytest.mark.parametrize(("stream", "notes"), NOTES.items())
def test_streams_are_understood(stream: str, notes: list[str]) -> None:
    first, *others = manifest.read(STREAMS / f"{stream}.yaml")
    assert list(first.notes) == notes
    assert [one.notes for one in others] == [()] * (stream == "chart")


@pytest.mark.parametrize("stream", NOTES)
def test_line_ends_and_byte_order_marks_do_not_matter(stream: str, tmp_path: Path) -> None:
    text = (STREAMS / f"{stream}.yaml").read_text()
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    ours, theirs = manifest.parse(text, str(path)), manifest.read(path)
    for one in (*ours, *theirs):
        assert one.pod.metadata is not None
        one.pod.metadata.uid = "same"
    assert [one.pod for one in ours] == [one.pod for one in theirs]


def test_several_files_are_one_stream(tmp_path: Path) -> None:
    one, two = tmp_path / "config.yaml", tmp_path / "pod.yaml"
    one.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n")
    two.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'x:1'}]}\n"
    )
    (pod,) = manifest.read_all([one, two])
    assert pod.objects.config_map("default", "c") is not None and pod.source == str(two)
    with pytest.raises(InvalidArgument, match="holds Pod default/p more than once"):
        manifest.read_all([two, two])
    with pytest.raises(InvalidArgument, match="holds no Pod, and nothing that runs as Pods"):
        manifest.read(one)
