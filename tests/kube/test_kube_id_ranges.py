"""Pods with users of their own: which of the host's ids they get, and what the runtime is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podwright.errors import ResourceExhausted
from podwright.kube import volumes
from podwright.kube.files import id_ranges
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests import manifest
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import translate
from podwright.wire import cri_pb2 as cri


def directory(root: Path, name: str) -> PodDirectory:
    return PodDirectory.below(root, "default", name, f"uid-of-{name}")


def test_each_pod_keeps_a_range_of_its_own(tmp_path: Path) -> None:
    one, two, three = (directory(tmp_path, name) for name in ("one", "two", "three"))
    assert id_ranges.claim(tmp_path, one) == 65536
    assert id_ranges.claim(tmp_path, two) == 131072
    assert id_ranges.claim(tmp_path, one) == 65536
    assert id_ranges.foreseen(tmp_path, three) == 196608
    assert not three.path.exists()
    volumes.remove(one)
    assert id_ranges.claim(tmp_path, three) == 65536


def test_pods_of_earlier_versions_keep_theirs(tmp_path: Path) -> None:
    old = tmp_path / "pods" / "default_old_1234" / ".pod"
    old.mkdir(parents=True)
    (old / "user-ids").write_text("65536\n")
    assert id_ranges.claim(tmp_path, directory(tmp_path, "new")) == 131072


def test_claims_at_once_do_not_meet(tmp_path: Path) -> None:
    pods = [directory(tmp_path, f"pod-{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda each: id_ranges.claim(tmp_path, each), pods))
    assert found == {65536 * number for number in range(1, 41)}


def test_the_last_range_ends_below_the_last_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (id_ranges._LAST + 1) * id_ranges.LENGTH <= 2**32 - 1 < (id_ranges._LAST + 2) * id_ranges.LENGTH
    monkeypatch.setattr(id_ranges, "_LAST", 2)
    for name in ("one", "two"):
        id_ranges.claim(tmp_path, directory(tmp_path, name))
    with pytest.raises(ResourceExhausted, match="2 ranges"):
        id_ranges.claim(tmp_path, directory(tmp_path, "three"))


def test_what_the_runtime_is_asked_for(tmp_path: Path) -> None:
    (pod,) = manifest.parse(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: web}
        spec:
          hostUsers: false
          hostAliases: [{ip: 10.0.0.1, hostnames: [far]}]
          volumes: [{name: v}]
          containers: [{name: c, image: x, volumeMounts: [{name: v, mountPath: /v}]}]
        """
    )
    here, facts = Node(root=tmp_path), PodFacts(ips=("10.0.0.2",), user_ids=131072)
    ids = [cri.IDMapping(host_id=131072, container_id=0, length=65536)]
    wanted = cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)
    config = translate.sandbox_config(pod, here, facts, "/logs", 0)
    assert config.linux.security_context.namespace_options.userns_options == wanted
    place = PodDirectory.of(here, pod.namespace, pod.name, pod.uid)
    mounts = volumes.planned_mounts(pod, pod.containers[0], here, facts, place, {})
    container = translate.container_config(
        pod, pod.containers[0], cri.Image(), here, facts, mounts=mounts, environment={}, attempt=0
    )
    assert container.linux.security_context.namespace_options.userns_options == wanted
    assert [each.container_path for each in container.mounts] == ["/v", "/etc/hosts", "/dev/termination-log"]
    for each in container.mounts:
        assert list(each.uidMappings) == list(each.gidMappings) == ids


def test_without_it_users_are_the_hosts(tmp_path: Path) -> None:
    (pod,) = manifest.parse(
        "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: x}]}}"
    )
    config = translate.sandbox_config(pod, Node(root=tmp_path), PodFacts(), "/logs", 0)
    userns = config.linux.security_context.namespace_options.userns_options
    assert userns == cri.UserNamespace(mode=cri.NODE)
