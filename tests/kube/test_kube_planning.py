"""The planned calls of a start: those that a kubelet made on a node where nothing was yet."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import ParseDict

from podwright.kube.failures import Failure
from podwright.kube.files.directory import PodDirectory
from podwright.kube.requests import planning
from podwright.wire import cri_pb2 as cri
from tests.kube import golden

STARTS = ("RunPodSandbox", "PullImage", "CreateContainer", "StartContainer", "ExecSync")
CASES = (
    "minimal", "init-containers", "image-volume", "pull-if-not-present", "pull-always", "pull-latest",
    "hook-exec", "runtime-class", "static-volumes", "subpath", "user-namespace", "env-service-links",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_start_is_planned_as_a_kubelet_makes_it(case: str) -> None:
    manifest = golden.read(case)
    recorded = []
    for entry in golden.calls(case):
        if "step" in entry:
            break
        recorded.append(entry)
    assert all(one["call"] in STARTS for one in recorded)
    present = {
        one["request"]["config"]["image"]["user_specified_image"]: golden.image(
            one["request"]["config"]["image"]["image"]
        )
        for one in recorded
        if one["call"] == "CreateContainer"
    }
    pulled = {one["request"]["image"]["image"] for one in recorded if one["call"] == "PullImage"}
    images = {name: image for name, image in present.items() if name not in pulled}
    if case in ("image-volume", "static-volumes"):
        images["registry.test/data:1"] = cri.Image(id="${IMAGE_ID:data:1}")
    plan = planning.plan(manifest, golden.node(case), images=images, facts=golden.facts(case, manifest))
    assert [name for name, _ in plan] == [one["call"] for one in recorded]
    for (name, request), entry in zip(plan, recorded, strict=True):
        if isinstance(request, cri.RunPodSandboxRequest):
            expected = ParseDict(entry["request"]["config"], cri.PodSandboxConfig())
            assert golden.plain(request.config) == golden.plain(expected)
            assert request.runtime_handler == entry["request"].get("runtime_handler", "")
        elif isinstance(request, cri.CreateContainerRequest):
            wanted = golden.container_config(entry["request"]["config"])
            assert request.config.metadata == wanted.metadata
            assert [one.container_path for one in request.config.mounts] == [
                one.container_path for one in wanted.mounts
            ]
            assert request.sandbox_config == plan[0][1].config  # type: ignore[attr-defined]
        elif isinstance(request, cri.PullImageRequest):
            assert request.image == ParseDict(entry["request"]["image"], cri.ImageSpec())
        elif isinstance(request, cri.ExecSyncRequest):
            assert list(request.cmd) == entry["request"]["cmd"], name


def test_nothing_is_drawn_in_a_plan() -> None:
    manifest = golden.read("static-volumes")
    node = golden.node("static-volumes")
    assert planning.plan(manifest, node) == planning.plan(manifest, node)
    directory = PodDirectory.of(node, manifest.namespace, manifest.name, manifest.uid)
    request = next(one for name, one in planning.plan(manifest, node) if name == "CreateContainer")
    assert isinstance(request, cri.CreateContainerRequest)
    assert request.config.mounts[-1].host_path == str(directory.messages("side") / "RANDOM")


def test_what_could_not_be_asked_for_is_raised() -> None:
    case = "env-configmap-missing-key"
    with pytest.raises(Failure, match="CreateContainerConfigError"):
        planning.plan(golden.read(case), golden.node(case))
