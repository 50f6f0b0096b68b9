"""Image calls against what was recorded: the same requests, and answers that say the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from podwright.config import Config, DockerConfig, ImageConfig
from podwright.core.images import credentials_for, image_message
from podwright.engines.docker.api import Docker
from podwright.engines.docker.image_records import REMOVED
from podwright.engines.docker.images import Images
from podwright.errors import NotFound, RegistryUnavailable
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.docker.double import Double, asked, double

PAUSE = "registry.k8s.io/pause:3.10"


@asynccontextmanager
async def served(tmp_path: Path, exchanges: Sequence[dict[str, Any]]) -> AsyncIterator[tuple[Images, Double]]:
    async with double(tmp_path, exchanges) as engine:
        docker = Docker(DockerConfig(endpoint=engine.endpoint))
        docker.open()
        config = Config(
            root=str(tmp_path / "state"),
            docker=DockerConfig(endpoint=engine.endpoint, sandbox_image=PAUSE),
            images=ImageConfig(policy=str(tmp_path / "none")),
        )
        images = Images(docker, config)
        try:
            yield images, engine
        finally:
            await images.close()
            await docker.close()


def told(image: cri.Image) -> dict[str, Any]:
    """Without what every image of podwright's has beyond the recorded ones."""
    tree: dict[str, Any] = json_format.MessageToDict(image, preserving_proto_field_name=True)
    tree.pop("spec", None)
    tree["size"] = int(tree["size"])
    if "uid" in tree:
        tree["uid"] = {"value": int(tree["uid"].get("value", 0))}
    return tree


def expected(recorded: dict[str, Any]) -> dict[str, Any]:
    tree = {key: value for key, value in recorded.items() if key != "spec"}
    if "uid" not in tree and "username" not in tree:
        tree["uid"] = {"value": 0}  # the kubelet's check for root wants it said
    if tree.get("uid") == {}:
        tree["uid"] = {"value": 0}
    return tree


@pytest.mark.parametrize("name", golden.names("image-status-*"))
async def test_status(name: str, tmp_path: Path) -> None:
    recorded = golden.case(name)
    async with served(tmp_path, recorded["docker"]) as (images, engine):
        found = await images.find(recorded["cri"]["request"]["image"]["image"])
        wanted = recorded["cri"]["response"].get("image")
        if wanted is None:
            assert found is None
            return
        assert found is not None
        assert told(image_message(found)) == expected(wanted)
        assert not engine.changes
        assert not set(found.config) & {"Hostname", "AttachStdin", "Image"}


@golden.replays("images-list")
async def test_list(tmp_path: Path) -> None:
    recorded = golden.case("images-list")
    async with served(tmp_path, [*recorded["docker"], *golden.images()]) as (images, _):
        found = {each.id: told(image_message(each)) for each in await images.list()}
    wanted = {each["id"]: expected(each) for each in recorded["cri"]["response"]["images"]}
    # A list of Docker's does not say who runs in an image; podwright asks for each image once.
    for id, each in wanted.items():
        assert {k: v for k, v in found[id].items() if k not in ("uid", "username")} == {
            k: v for k, v in each.items() if k not in ("uid", "username")
        }
    assert found.keys() == wanted.keys()


@pytest.mark.parametrize("name", golden.names("pull-*"))
async def test_pull(name: str, tmp_path: Path) -> None:
    recorded = golden.case(name)
    request = cri.PullImageRequest()
    json_format.ParseDict(recorded["cri"]["request"], request)
    auth = credentials_for(request.image.image, request.auth) if request.HasField("auth") else None
    wanted = asked(recorded["docker"][0]["method"], recorded["docker"][0]["path"], None)
    exchanges = [
        {**each, "path": f"{each['path'].removesuffix('/json')}:latest/json"}
        if name == "pull-image-latest" and each["method"] == "GET"
        else each
        for each in recorded["docker"]
    ]
    async with served(tmp_path, exchanges) as (images, engine):
        if "error" not in recorded["cri"]:
            image = await images.pull(request.image.image, auth)
            # The image's id, which is the same everywhere; cri-dockerd says one of its digests here.
            assert image.id == recorded["docker"][-1]["response"]["Id"]
            assert recorded["cri"]["response"]["image_ref"] in (image.id, *image.repo_digests)
        else:
            wanted_error = RegistryUnavailable if name.endswith("503") else NotFound
            with pytest.raises(wanted_error, match=r"^RegistryUnavailable: |not found"):
                await images.pull(request.image.image, auth)
        assert [each.line for each in engine.changes] == [wanted.line]
        assert engine.authorizations == [recorded["docker"][0]["x_registry_auth"] or {}]


@golden.replays("image-remove-by-id-three-tags")
async def test_removal_takes_every_name(tmp_path: Path) -> None:
    recorded = golden.case("image-remove-by-id-three-tags")
    async with served(tmp_path, recorded["docker"]) as (images, engine):
        await images.remove(recorded["cri"]["request"]["image"]["image"])
        removed = [each.path for each in engine.changes]
    assert removed == [
        asked(each["method"], each["path"], None).path
        for each in recorded["docker"]
        if each["method"] == "DELETE"
    ]


@golden.replays("image-remove-by-tag")
async def test_removal_by_a_tag_takes_the_image(tmp_path: Path) -> None:
    """The recorded server asks for the image and removes nothing."""
    recorded = golden.case("image-remove-by-tag")
    [look] = recorded["docker"]
    id, tag = look["response"]["Id"], recorded["cri"]["request"]["image"]["image"]
    by_id = {**look, "path": f"/v1.41/images/{id}/json"}
    async with served(tmp_path, [look, by_id]) as (images, engine):
        await images.remove(tag)
        assert f"DELETE /images/{tag}" in [each.line for each in engine.changes]


@golden.replays("image-remove-missing")
async def test_removal_of_what_is_not_there_or_just_goes_is_fine(tmp_path: Path) -> None:
    recorded = golden.case("image-remove-missing")
    async with served(tmp_path, recorded["docker"]) as (images, engine):
        await images.remove(recorded["cri"]["request"]["image"]["image"])
        assert not engine.changes
    (tmp_path / "docker.sock").unlink(missing_ok=True)
    recorded = golden.case("image-remove-by-id-three-tags")
    going = [dict(each) for each in recorded["docker"]]
    going[-1] |= {"status": 500, "response": {"message": "unrecognized image ID sha256:23c8f5f736d6"}}
    async with served(tmp_path, going) as (images, _):
        await images.remove(recorded["cri"]["request"]["image"]["image"])
        assert await images.find("sha256:" + "a" * 64) is None


@golden.replays("remove-image-in-use")
async def test_an_image_in_use_keeps_one_name_that_clients_do_not_see(tmp_path: Path) -> None:
    recorded = golden.case("remove-image-in-use")
    look, refused = recorded["docker"]
    id, [tag] = look["response"]["Id"], look["response"]["RepoTags"]
    gone = {**refused, "status": 200, "response": [{"Untagged": tag}]}
    tagged = {"method": "POST", "path": f"/v1.41/images/{id}/tag", "status": 201, "response": None}
    kept = {**look, "response": {**look["response"], "RepoTags": [f"{REMOVED}:x"], "RepoDigests": []}}
    async with served(tmp_path, [look, refused, tagged, gone]) as (images, engine):
        await images.remove(id)
        lines = [each.line.partition(" repo=")[0] for each in engine.changes]
        assert lines[:3] == [f"DELETE /images/{tag}", f"POST /images/{id}/tag", f"DELETE /images/{tag}"]
        engine.exchanges[:] = [kept]
        assert await images.find(id) is None
        before = len(engine.changes)
        await images.remove(id)
        assert len(engine.changes) == before
