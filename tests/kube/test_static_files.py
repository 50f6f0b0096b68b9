"""A directory of manifests: which files count, what a broken one says, and which of two counts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwright.kube.manifests import static_pods
from podwright.kube.node import Node
from podwright.kube.static.files import MAX_BYTES, SETTLED, ManifestFiles, Reading, changes

NODE = Node(name="node-1")
Write = Callable[..., Path]


def pod(name: str = "web", image: str = "example.test/web:1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


def text(*trees: dict[str, Any]) -> str:
    return yaml.safe_dump_all(trees)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def write(directory: Path) -> Write:
    def do(name: str, content: str, age: float = 60.0) -> Path:
        path = directory / name
        path.write_text(content)
        moment = time.time() - age
        os.utime(path, (moment, moment))
        return path

    return do


@pytest.fixture
def files(directory: Path) -> ManifestFiles:
    return begun(directory)


def begun(directory: Path) -> ManifestFiles:
    kept = directory.parent / "kept"
    kept.mkdir(exist_ok=True)
    return ManifestFiles(directory, NODE, kept)


def names(reading: Reading) -> list[str]:
    return sorted(name for _, name in reading.pods)


def test_files_count_by_their_names(files: ManifestFiles, write: Write, directory: Path) -> None:
    for name in ("a.yaml", "b.yml", ".hidden.yaml", "old.yaml~", "notes.txt", "d.yaml.swp"):
        write(name, text(pod(name.partition(".")[0] or "hidden")))
    write("c.json", '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}, "spec": {"containers": '
                    '[{"name": "main", "image": "example.test/web:1"}]}}')  # fmt: skip
    (directory / "sub.yaml").mkdir()
    reading = files.read()
    assert names(reading) == ["a-node-1", "b-node-1", "c-node-1"]
    assert reading.faults == {str(directory / "sub.yaml"): "is no file"}


def test_the_uid_is_a_kubelets(files: ManifestFiles, write: Write) -> None:
    path = write("web.yaml", text(pod()))
    (made,) = files.read().pods.values()
    (kubelet,) = static_pods.parse(path.read_text(), str(path), NODE)
    assert (made.uid, made.pod.metadata) == (kubelet.uid, kubelet.pod.metadata)


def test_a_second_document_leaves_the_first_ones_pod(files: ManifestFiles, write: Write) -> None:
    write("web.yaml", text(pod()))
    (before,) = files.read().pods.values()
    write("web.yaml", text(pod(), pod("more")))
    after = files.read().pods
    assert after["default", "web-node-1"].uid == before.uid and len(after) == 2


def test_another_content_is_another_pod(files: ManifestFiles, write: Write) -> None:
    write("web.yaml", text(pod()))
    (before,) = files.read().pods.values()
    write("web.yaml", text(pod(image="example.test/web:2")))
    (after,) = files.read().pods.values()
    assert before.name == after.name and before.uid != after.uid


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no Pod"),
        ("kind: [", "is not YAML"),
        ("kind: Pod\n", "no kind and apiVersion"),
        (text(pod(), pod("more", unknown=1)), "spec.unknown: no such field"),
        (text({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}}), "CronJob"),
        ("\0", "is not YAML"),
        ("#" * (MAX_BYTES + 1), "more than"),
    ],
)
def test_a_broken_file_names_its_fault_and_says_what_it_said(
    files: ManifestFiles, write: Write, directory: Path, content: str, words: str
) -> None:
    write("other.yaml", text(pod("other")))
    path = write("web.yaml", text(pod()))
    before = files.read()
    write("web.yaml", content)
    broken = files.read()
    assert broken.pods == before.pods
    assert list(broken.faults) == [str(path)] and words in broken.faults[str(path)]
    later = begun(directory).read()
    assert later.pods == before.pods and later.faults == broken.faults
    write("web.yaml", text(pod("new")))
    assert names(files.read()) == ["new-node-1", "other-node-1"] and not files.read().faults


def test_a_broken_file_that_never_said_anything_says_nothing(files: ManifestFiles, write: Write) -> None:
    write("web.yaml", "nothing")
    reading = files.read()
    assert not reading.pods and len(reading.faults) == 1


def test_what_a_file_said_is_forgotten_with_it(files: ManifestFiles, write: Write, directory: Path) -> None:
    path = write("web.yaml", text(pod()))
    files.read()
    path.unlink()
    assert not files.read().pods
    write("web.yaml", "broken")
    assert not files.read().pods and not begun(directory).read().pods
    write("web.yaml", text(pod()))
    files.read()
    path.unlink()
    later = begun(directory)
    later.read()
    later.forget_others()
    assert list((directory.parent / "kept").iterdir()) == []


def test_a_file_that_is_being_written_is_looked_at_later(files: ManifestFiles, write: Write) -> None:
    write("web.yaml", text(pod()))
    before = files.read()
    write("web.yaml", text(pod("half")), age=0)
    reading = files.read()
    assert reading.pods == before.pods and not reading.faults
    assert reading.again is not None and 0 < reading.again <= SETTLED
    whole = files.read(frozenset({"web.yaml"}))
    assert names(whole) == ["half-node-1"] and whole.again is None
    assert files.read().again is None


def test_a_swapped_link_as_of_a_config_map_is_a_change(files: ManifestFiles, directory: Path) -> None:
    for version in ("1", "2"):
        (directory / f"..{version}").mkdir()
        (directory / f"..{version}" / "web.yaml").write_text(text(pod(image=f"example.test/web:{version}")))
        os.utime(directory / f"..{version}" / "web.yaml", (1, 1))
    (directory / "..data").symlink_to("..1")
    (directory / "web.yaml").symlink_to("..data/web.yaml")
    (before,) = files.read().pods.values()
    (directory / "..new").symlink_to("..2")
    (directory / "..new").rename(directory / "..data")
    (after,) = files.read().pods.values()
    assert [one.containers[0].image for one in (before, after)] == [
        "example.test/web:1",
        "example.test/web:2",
    ]
    (directory / "..data").unlink()
    assert not files.read().pods


def test_of_two_files_with_one_pod_the_first_counts(files: ManifestFiles, write: Write) -> None:
    second = write("b.yaml", text(pod()))
    (before,) = files.read().pods.values()
    first = write("a.yaml", text(pod(image="example.test/web:2")))
    reading = files.read()
    (made,) = reading.pods.values()
    assert made.source == str(first) and made.uid != before.uid
    assert reading.faults == {str(second): f"Pod default/web-node-1 is in {first}, too: that one counts"}
    first.unlink()
    assert list(files.read().pods.values()) == [before]


def test_pods_find_the_objects_of_all_files(files: ManifestFiles, write: Write) -> None:
    volume = {"name": "config", "configMap": {"name": "settings"}}
    write("a.yaml", text(pod(volumes=[volume])))
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    write("z.yaml", text({**settings, "data": {"a": "1"}}))
    (before,) = files.read().pods.values()
    found = before.objects.config_map("default", "settings")
    assert found is not None and found.data == {"a": "1"} and not before.refused
    write("z.yaml", text({**settings, "data": {"a": "2"}}))
    (after,) = files.read().pods.values()
    found = after.objects.config_map("default", "settings")
    assert found is not None and found.data == {"a": "2"} and after.uid == before.uid
    twice = write("zz.yaml", text({**settings, "data": {"a": "3"}}))
    reading = files.read()
    assert reading.pods == {("default", "web-node-1"): after}
    assert reading.faults == {str(twice): "ConfigMap settings is in a file before it, too: that one counts"}


def test_workloads_are_their_pods(files: ManifestFiles, write: Write) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    tree = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    write("web.yaml", text(tree))
    before = files.read().pods
    assert len(before) == 3 and all(name.endswith("-node-1") for _, name in before)
    spec["replicas"] = 2
    write("web.yaml", text(tree))
    after = files.read().pods
    assert len(after) == 2 and all(before[key].uid == one.uid for key, one in after.items())


def test_a_uid_in_the_file_is_the_pods_and_may_lead_nowhere(files: ManifestFiles, write: Write) -> None:
    tree = pod()
    tree["metadata"]["uid"] = "my-own"
    write("web.yaml", text(tree))
    assert [one.uid for one in files.read().pods.values()] == ["my-own"]
    tree["metadata"]["uid"] = "../../etc"
    write("web.yaml", text(tree))
    assert [one.uid for one in files.read().pods.values()] == ["my-own"]


def test_a_directory_that_is_not_there_has_no_pods(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    files = begun(tmp_path / "manifests")
    (tmp_path / "manifests").rmdir()
    assert files.read() == Reading()


def test_faults_are_told_once(files: ManifestFiles, write: Write, directory: Path) -> None:
    path = write("web.yaml", "nothing")
    first = files.read()
    assert [failed for failed, _ in changes(Reading(), first)] == [True]
    assert not list(changes(first, files.read()))
    write("web.yaml", text(pod()))
    assert list(changes(first, files.read())) == [(False, f"{path}: can be used again")]
