"""What the containerd engine would give to containerd is told without giving it."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, ContainerdConfig
from podwright.engines.base import Container, Image, Sandbox
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import Host, Shims
from podwright.engines.containerd.plan import Plan, planned
from podwright.engines.containerd.seen_images import SeenImages
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.node.foreseen import UNKNOWN_ID
from podwright.engines.node.places import Places
from podwright.errors import InvalidArgument, NotFound
from podwright.hooks.running import Hooks
from podwright.wire import cri_pb2 as cri
from podwright.wire.containerd import leases_pb2, namespaces_pb2
from tests.containerd.daemon import BUSYBOX, Daemon

SNAPSHOTTER = "overlayfs"


def configured(tmp_path: Path, containerd: ContainerdConfig, daemon: Daemon | None = None) -> Config:
    config = Config(
        engine="containerd",
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        containerd=containerd,
    )
    if daemon is None:
        return config
    return msgspec.structs.replace(config, handlers={**config.handlers, **daemon.handlers})


def container_of(image: Image, user: str = "") -> Container:
    pod = cri.PodSandboxConfig()
    pod.metadata.name, pod.metadata.namespace, pod.metadata.uid = "pod", "test", "1"
    config = cri.ContainerConfig(command=["id"])
    config.metadata.name = "main"
    config.linux.security_context.run_as_username = user
    sandbox = Sandbox("5" * 64, "pod", pod, "")
    return Container("c" * 64, "main", sandbox, config, image, "")


async def contents(api: Containerd) -> tuple[list[str], list[str]]:
    return (
        sorted(each.name for each in await Snapshots(api).list(SNAPSHOTTER)),
        sorted(each.id for each in await api_leases(api)),
    )


async def api_leases(api: Containerd) -> list[leases_pb2.Lease]:
    answer = await api.ask(api.leases.List, leases_pb2.ListRequest(), "leases")
    return list(answer.leases)


async def found(plan: Plan) -> Image:
    image = await plan.find_image(BUSYBOX)
    assert image is not None
    return image


@pytest.mark.root
async def test_nothing_is_made_and_the_images_facts_are_known(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    config = configured(tmp_path, daemon.config, daemon)
    before = await contents(api)
    with planned(config, Hooks()) as plan:
        container = container_of(await found(plan))
        explanation = await plan.explain_container(container)
        pause = await plan.explain_sandbox(container.sandbox)
        assert await plan.recursive_read_only("crun")
    assert "PATH=/bin:/usr/bin" in explanation.document["process"]["env"]
    assert explanation.origins["process.env[PATH]"].startswith("image:")
    assert explanation.document["process"]["args"] == ["id"]
    assert pause is not None and pause.document["process"]["args"] == ["/catatonit", "-P"]
    assert await contents(api) == before
    assert not Path(config.root).exists() and not Path(config.run).exists()


@pytest.mark.root
async def test_a_namespace_is_not_made_for_a_plan(daemon: Daemon, api: Containerd, tmp_path: Path) -> None:
    name = f"plan-{secrets.token_hex(4)}"
    config = configured(tmp_path, msgspec.structs.replace(daemon.config, namespace=name), daemon)
    with planned(config, Hooks()) as plan:
        assert await plan.find_image(BUSYBOX) is None
    answer = await api.ask(api.namespaces.List, namespaces_pb2.ListNamespacesRequest(), "namespaces")
    assert name not in [each.name for each in answer.namespaces]


@pytest.mark.root
async def test_names_of_users_are_known_where_a_container_stands_on_the_image(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    config = configured(tmp_path, daemon.config, daemon)
    shims = Shims(config, api, Places(config))
    await Host(config, api, shims).look()
    key, snapshots = secrets.token_hex(32), Snapshots(api)
    with planned(config, Hooks()) as plan:
        container = container_of(await found(plan), "app")
        chain = await SeenImages(api, plan._images, shims)._chain(container.image.id)
        await snapshots.prepare(key, chain, SNAPSHOTTER)
        try:
            explanation = await plan.explain_container(container)
        finally:
            await snapshots.remove(key, SNAPSHOTTER)
    user = explanation.document["process"]["user"]
    assert (user["uid"], user["gid"], user["additionalGids"]) == (1000, 1000, [1000, 2000, 2001])
    assert not any("cannot be read" in each for each in explanation.warnings)


@pytest.mark.root
async def test_an_image_that_is_not_there_has_no_layers(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    config = configured(tmp_path, daemon.config, daemon)
    shims = Shims(config, api, Places(config))
    await Host(config, api, shims).look()
    with planned(config, Hooks()) as plan:
        seen = SeenImages(api, plan._images, shims)
        with pytest.raises(NotFound):
            await seen.layers("sha256:" + "0" * 64, "crun")


async def test_without_a_containerd_the_rest_is_told(tmp_path: Path) -> None:
    config = configured(tmp_path, ContainerdConfig(endpoint=str(tmp_path / "none.sock")))
    with planned(config, Hooks()) as plan:
        assert await plan.find_image(BUSYBOX) is None
        image = Image("sha256:" + "0" * 64, (), (), 1, {"Env": ["FROM=image"]})
        explanation = await plan.explain_container(container_of(image, "app"))
        with pytest.raises(InvalidArgument, match="no handler 'far'"):
            plan.check_handler("far")
    assert "FROM=image" in explanation.document["process"]["env"]
    assert explanation.document["process"]["user"]["uid"] == UNKNOWN_ID
    assert "no such socket" in explanation.warnings[0] and "not known" in explanation.warnings[0]
