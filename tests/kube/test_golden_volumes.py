"""Mounts, volumes and hosts files as a real kubelet made them for the same Pods: every recorded case."""

from __future__ import annotations

import base64
import json
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from podwright.kube import volumes
from podwright.kube.failures import MountError
from podwright.kube.files import hosts
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.manifests.objects import Secret
from podwright.kube.node import Node, PodFacts
from podwright.kube.requests import env
from podwright.linux import mounts
from tests.kube.volume_pods import UID, Recording, node, recordings

ROOT = Path("/kubelet")
NODE = node(ROOT)
USERS = 1 << 16

ADMITTED = {
    "service-account-token": "admission adds a volume with a token to it; there is no API server here",
}
"""Cases whose recorded Pod is not the one in the file."""
TOKEN = Secret("default", "brought", {"token": b"${GENERATED}"}, "kubernetes.io/service-account-token")
"""What the API server would have issued."""

CREATED = [
    pytest.param(case, call["request"], id=f"{case.name}-{call['request']['config']['metadata']['name']}")
    for case in recordings()
    for call in case.calls
    if call.get("call") == "CreateContainer"
    # The same again in later attempts.
    and not call["request"]["config"]["metadata"].get("attempt")
]


def directory_of(manifest: Manifest, of: Node = NODE) -> PodDirectory:
    return PodDirectory.of(of, manifest.namespace, manifest.name, manifest.uid)


def facts_of(case: Recording) -> PodFacts:
    return replace(case.facts, user_ids=USERS if case.name in ("user-namespace", "proc-mount") else None)


def test_all_cases_are_there() -> None:
    assert len(recordings()) >= 113
    assert len(CREATED) >= 120
    assert {case.name for case in recordings()} >= set(ADMITTED)


@pytest.mark.parametrize(("case", "request_"), CREATED)
def test_mounts_are_those_of_the_kubelet(case: Recording, request_: dict[str, Any]) -> None:
    manifest = case.manifest()
    container = manifest.container(request_["config"]["metadata"]["name"])
    assert container is not None

    def read(volume: str, path: str) -> str:
        return "COLOR='blue'\nSIZE='two words'\n"

    variables = env.environment(manifest, container, NODE, facts_of(case), read)
    found = volumes.planned_mounts(
        manifest, container, NODE, facts_of(case), directory_of(manifest), variables,
        images={one.name: "${IMAGE_ID:data:1}" for one in manifest.spec.volumes or [] if one.image},
    )  # fmt: skip
    told = [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in found]
    text = json.dumps(told).replace(str(ROOT), "${KUBELET_ROOT}").replace(UID, "${POD_UID}")
    text = re.sub(r"(/containers/[\w-]+)/[0-9a-f]{8}\"", r'\1/${RANDOM}"', text)
    told = json.loads(text.replace(f'"host_id": {USERS}', '"host_id": "${USERNS_HOST_ID}"'))
    recorded = request_["config"]["mounts"]
    if case.name in ADMITTED:
        recorded = [one for one in recorded if "kube-api-access" not in one.get("host_path", "")]
        assert len(recorded) >= len(request_["config"]["mounts"]) - 1
    assert told == recorded


@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.name) for one in recordings() if "hostsFile" in one.status]
)
def test_hosts_files_are_those_of_the_kubelet(case: Recording) -> None:
    facts = replace(FACTS_OF_HOSTS, source=case.facts.source)
    text = hosts.content(case.manifest(), NODE, facts, b"")
    assert text.decode() == case.status["hostsFile"]


FACTS_OF_HOSTS = PodFacts(ips=("${POD_IP}",))


# What lies on the disk, for real


@pytest.fixture
def srv(tmp_path: Path) -> Iterator[Path]:
    """What the recordings have at /srv/golden."""
    place = tmp_path / "srv"
    (place / "dir" / "sub").mkdir(parents=True)
    (place / "file.txt").write_text("golden\n")
    (place / "shared").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "sock"))
        yield place


@pytest.mark.root
@pytest.mark.parametrize(
    "case", [pytest.param(one, id=one.name) for one in recordings() if one.status.get("volumes")]
)
def test_volumes_are_those_of_the_kubelet(case: Recording, tmp_path: Path, srv: Path) -> None:
    manifest = case.manifest(srv)
    secrets = {**manifest.objects.secrets, ("default", "brought"): TOKEN}
    manifest = replace(manifest, objects=replace(manifest.objects, secrets=secrets))
    here = node(tmp_path)
    directory = directory_of(manifest, here)
    try:
        volumes.make(manifest, here, facts_of(case), directory)
        found = {
            f"{path.parent.name}/{path.name}": described(path)
            for path in sorted(directory.volumes.glob("*/*"))
        }
        recorded = case.status["volumes"]
        if case.name in ADMITTED:
            recorded = {name: one for name, one in recorded.items() if "kube-api-access" not in name}
        assert found == recorded
    finally:
        volumes.remove(directory)
    assert not directory.path.exists()
    assert not mounts.mounts_below(tmp_path)
    assert (srv / "dir" / "sub").is_dir()


@pytest.mark.root
@pytest.mark.parametrize("name", ["hostpath-wrong-type", "configmap-volume-missing"])
def test_volumes_that_cannot_be_made_fail_in_the_kubelet_s_words(name: str, tmp_path: Path) -> None:
    case = Recording(name)
    here = node(tmp_path)
    manifest = case.manifest()
    with pytest.raises(MountError) as failed:
        volumes.make(manifest, here, case.facts, directory_of(manifest, here))
    first = next(one for one in case.status["events"] if one["reason"] == "FailedMount")
    assert (failed.value.reason, failed.value.message) == ("FailedMount", first["message"])
    volumes.remove(directory_of(manifest, here))


def described(path: Path) -> dict[str, Any]:
    """As the recordings describe a volume."""
    found: dict[str, Any] = owned(path)
    if mounts.is_mounted(path):
        (row,) = mounts.mounts_below(path)
        options = ["rw", *sorted(row.super_options - {"rw", "relatime"}, key=_order)]
        found["mount"] = f"{row.fstype} {','.join(options)}"
    if "empty-dir" in path.parent.name:
        return found
    files = {
        str(one.relative_to(path / "..data")): {**owned(one), "text": _text(one.read_bytes())}
        for one in (path / "..data").resolve().rglob("*") if one.is_file()
        for one in [path / "..data" / one.relative_to((path / "..data").resolve())]
    }  # fmt: skip
    for name in files:
        assert (path / name).read_bytes(), name  # where a container sees it
    return {**found, "files": files} if files else found


def owned(path: Path) -> dict[str, Any]:
    one = path.stat()
    return {"mode": f"{stat.S_IMODE(one.st_mode):04o}", "uid": one.st_uid, "gid": one.st_gid}


def _order(option: str) -> int:
    return ["size", "noswap", "pagesize"].index(option.partition("=")[0])


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "base64:" + base64.b64encode(data).decode()
    return text
