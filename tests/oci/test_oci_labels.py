"""SELinux levels of pods, and relabelled volumes. The attribute can be set without SELinux, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.node.labels import ATTRIBUTE, Levels, relabel
from podwright.engines.node.places import Places
from podwright.errors import ResourceExhausted
from podwright.spec.draft import Relabel
from podwright.spec.inputs import HostFacts
from podwright.spec.selinux import Context, SELinux
from podwright.wire import cri_pb2 as cri

HOST = HostFacts(
    hostname="h",
    selinux=SELinux(
        Context.parse("system_u:system_r:container_t:s0", "process"),
        Context.parse("system_u:object_r:container_file_t:s0", "file"),
    ),
)


def levels(root: Path, host: HostFacts = HOST, categories: int = 1024) -> Levels:
    return Levels(Places(Config(root=str(root), run=str(root / "run"))), host, categories)


def pod(level: str = "") -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig()
    config.linux.security_context.selinux_options.level = level
    return config


def test_a_pod_keeps_its_level_across_restarts_and_no_other_has_it(tmp_path: Path) -> None:
    drawn = {id: levels(tmp_path, categories=3).of_pod(id, pod()) for id in ("a", "b", "c")}
    assert len(set(drawn.values())) == 3
    assert {id: levels(tmp_path, categories=3).of_pod(id, pod()) for id in drawn} == drawn
    with pytest.raises(ResourceExhausted):
        levels(tmp_path, categories=3).of_pod("d", pod())


def test_a_level_that_a_request_names_is_taken(tmp_path: Path) -> None:
    assert levels(tmp_path).of_pod("a", pod("s0:c0,c1")) == "s0:c0,c1"
    assert levels(tmp_path, categories=2).of_pod("a", pod("s0:c0,c1")) == "s0:c0,c1"
    with pytest.raises(ResourceExhausted):
        levels(tmp_path, categories=2).of_pod("b", pod())


def test_without_selinux_nothing_is_drawn(tmp_path: Path) -> None:
    assert levels(tmp_path, HostFacts(hostname="h")).of_pod("a", pod()) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_tree_is_relabelled_without_following_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    volume = tmp_path / "volume"
    (volume / "below").mkdir(parents=True)
    (volume / "below" / "file").touch()
    (volume / "link").symlink_to(outside)
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    before = _label(outside)
    relabel([Relabel(str(volume), label, "config.mounts[0].selinux_relabel", False)])
    labelled = {str(path): _label(path) for path in (volume, volume / "below", volume / "below" / "file")}
    assert set(labelled.values()) == {label}
    assert _label(outside) == before


@pytest.mark.root
def test_a_tree_that_has_the_label_is_left_alone_when_asked_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    relabel([Relabel(str(tmp_path / "file"), "a:b:c:s0", "field", False)])
    (tmp_path / "top").mkdir()
    os.setxattr(tmp_path / "top", ATTRIBUTE, b"a:b:c:s0\0")
    (tmp_path / "top" / "inside").touch()
    before = _label(tmp_path / "top" / "inside")
    relabel([Relabel(str(tmp_path / "top"), "a:b:c:s0", "field", True)])
    assert _label(tmp_path / "top" / "inside") == before != "a:b:c:s0"
    relabel([Relabel(str(tmp_path / "top"), "a:b:c:s0", "field", False)])
    assert _label(tmp_path / "top" / "inside") == "a:b:c:s0"


def _label(path: Path) -> str:
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=False).decode().rstrip("\0")
    except OSError:
        return ""
