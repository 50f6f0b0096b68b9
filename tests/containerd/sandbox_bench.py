"""Sandboxes of the containerd engine by themselves, driven as core drives them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from podwright.config import CniConfig, Config, ContainerdConfig, HandlerConfig
from podwright.engines.base import Exit, Image, Sandbox
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import Shims
from podwright.engines.containerd.images import Images
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.sandboxes import Sandboxes
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.node import host
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.places import Places
from podwright.engines.node.pods import Pods
from podwright.engines.node.requests import Requests
from podwright.errors import Unavailable
from podwright.hooks.running import Hooks
from podwright.linux import cgroups, mounts
from podwright.logs.writing import LogWriter
from podwright.network.cni import Cni
from podwright.wire import cri_pb2 as cri
from tests.containerd.daemon import BUSYBOX, Daemon

POD, CONTAINER, NODE = cri.NamespaceMode.POD, cri.NamespaceMode.CONTAINER, cri.NamespaceMode.NODE


class OneImage:
    """The images of a node that has nothing but the image that it makes pods of; unpacked already."""

    def __init__(self, chain: str) -> None:
        self._chain = chain

    async def pause_image(self) -> Image:
        return Image(
            "sha256:" + "1" * 64,
            ("podwright.test/pause:1",),
            (),
            1,
            {"Entrypoint": ["sleep"], "Cmd": ["100000"]},
        )

    async def chain(self, image_id: str, snapshotter: str, /) -> str:
        return self._chain

    async def find(self, reference: str, /) -> Image | None:
        raise AssertionError("no volume of an image is asked for here")

    lower_dirs = acquire = find


class SandboxBench:
    def __init__(self, config: Config, containerd: Containerd, images: OneImage) -> None:
        self.config = config
        self.containerd = containerd
        self.places = Places(config)
        self.objects = Objects(containerd, config)
        self.snapshots = Snapshots(containerd)
        self.logs = LogWriter(self.places.logs)
        self.tasks = Tasks(containerd, self.places, self.logs)
        self.shims = Shims(config, containerd, self.places)
        self.network = Cni(
            Path(config.cni.conf_dir), [Path(each) for each in config.cni.bin_dirs], config.cni_cache
        )
        facts = host.facts(config)
        volumes = ImageMounts(self.places, images)  # type: ignore[arg-type]
        self.pods = Pods(config, self.places, self.network, facts, volumes)
        self.requests = Requests(config, self.places, self.shims, facts)
        self.facts = facts
        self.images = images
        self.sandboxes = Sandboxes(
            config,
            containerd,
            self.places,
            self.shims,
            self.objects,
            self.snapshots,
            self.tasks,
            images,
            self.pods,
            facts,
            self.requests,
            Hooks(),
        )
        self.made: dict[str, Sandbox] = {}
        self._exits: dict[str, asyncio.Future[Exit]] = {}

    async def follow_exits(self) -> None:
        while True:
            try:
                async for each in self.tasks.exits():
                    future = self._exit(each.id)
                    if not future.done():
                        future.set_result(each)
            except Unavailable:
                await asyncio.sleep(0.05)

    async def exit_of(self, sandbox: Sandbox, timeout: float = 30) -> Exit:
        return await asyncio.wait_for(asyncio.shield(self._exit(sandbox.id)), timeout)

    def told(self, sandbox: Sandbox) -> bool:
        """Whether its end has been."""
        return self._exit(sandbox.id).done()

    def wanted(
        self, *, network: int = NODE, handler: str = "", config: cri.PodSandboxConfig | None = None
    ) -> Sandbox:
        id = secrets.token_hex(32)
        wanted = cri.PodSandboxConfig()
        wanted.metadata.name, wanted.metadata.namespace, wanted.metadata.uid = f"pod-{id[:6]}", "test", id[:8]
        wanted.linux.security_context.namespace_options.network = network  # type: ignore[assignment]
        if config is not None:
            wanted.MergeFrom(config)
        return Sandbox(id, wanted.metadata.name, wanted, handler)

    async def create(self, sandbox: Sandbox) -> Sandbox:
        """As core does: what a failure left is undone."""
        async with AsyncExitStack() as undo:
            facts = await self.sandboxes.create(sandbox, undo)
            undo.pop_all()
        made = self.made[sandbox.id] = replace(sandbox, facts=facts)
        return made

    async def remove(self, sandbox: Sandbox) -> None:
        await self.sandboxes.stop(sandbox)
        await self.sandboxes.remove(sandbox)
        self.made.pop(sandbox.id, None)

    async def clear(self) -> None:
        for each in list(self.made.values()):
            await self.remove(each)

    async def remains(self, sandbox: Sandbox) -> list[str]:
        """What containerd, and this host, still have of it."""
        found = [f"snapshot {each.name}" for each in await self.snapshots.list("overlayfs")]
        record = await self.objects.get(sandbox.id)
        return [
            *(each for each in found if sandbox.id in each),
            *([] if record is None else ["record"]),
            *([] if await self.tasks.state(sandbox.id) is None else ["task"]),
            *self.left(sandbox),
        ]

    def left(self, sandbox: Sandbox) -> list[str]:
        """What this host still has of it."""
        id, places = sandbox.id, self.places
        paths = (places.sandbox_run(id), places.sandbox_root(id), places.mapped(id), places.exit_file(id))
        below = [each.target for each in mounts.mounts_below(places.run) if id in each.target]
        cached = [id] if id in self.network.cached_ids() else []
        return [*(str(each) for each in paths if each.exists()), *below, *cached]

    def _exit(self, id: str) -> asyncio.Future[Exit]:
        return self._exits.setdefault(id, asyncio.get_running_loop().create_future())


def configured(
    tmp_path: Path,
    run: Path,
    containerd: ContainerdConfig,
    handlers: dict[str, HandlerConfig],
    default: str,
) -> Config:
    """A node of its own, whose pods have a link to the host each and no bridge."""
    conf = tmp_path / "net.d"
    conf.mkdir()
    subnet = f"10.{200 + os.getpid() % 50}.{secrets.randbelow(250)}.0/24"
    addresses = {"type": "host-local", "dataDir": str(tmp_path / "ipam"), "ranges": [[{"subnet": subnet}]]}
    plugins = [{"type": "ptp", "ipam": addresses}]
    (conf / "10-test.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "alone", "plugins": plugins})
    )
    return Config(
        engine="containerd",
        root=str(tmp_path / "root"),
        run=str(run),
        cgroup_parent=f"/pwc-{secrets.token_hex(4)}",
        default_handler=default,
        handlers=handlers,
        containerd=containerd,
        cni=CniConfig(conf_dir=str(conf)),
    )


@contextmanager
def unmounted(directory: Path) -> Iterator[None]:
    """At the end, proof that no mount is left below a directory."""
    try:
        yield
    finally:
        below = mounts.mounts_below(directory)
        mounts.unmount_below(directory)
    assert not below, f"mounts are left: {[each.target for each in below]}"


async def one_image(daemon: Daemon) -> OneImage:
    """BUSYBOX as the pause image."""
    containerd = Containerd(daemon.config)
    containerd.open()
    try:
        await containerd.look()
        images = Images(containerd, Config(containerd=daemon.config))
        image = await images.find(BUSYBOX)
        assert image is not None
        return OneImage(await images.chain(image.id, "overlayfs"))
    finally:
        await containerd.close()


@asynccontextmanager
async def opened(
    config: Config, images: OneImage, shims: str = os.environ["PATH"]
) -> AsyncIterator[SandboxBench]:
    """Let go at the end, as a podwright that stops; what was made stays. `shims` is where containerd looks
    for them."""
    containerd = Containerd(config.containerd)
    containerd.open()
    following: asyncio.Task[None] | None = None
    try:
        await containerd.look()
        bench = SandboxBench(config, containerd, images)
        for each in bench.places.directories():
            each.mkdir(mode=0o711, parents=True, exist_ok=True)
        bench.places.run.chmod(0o711)
        bench.shims.find(shims)
        await bench.network.open()
        await bench.logs.open()
        following = asyncio.create_task(bench.follow_exits())
        try:
            yield bench
        finally:
            following.cancel()
            await asyncio.wait([following])
            await bench.sandboxes.close()
            await bench.tasks.close()
            await bench.logs.close()
            await bench.network.close()
            cgroups.prune(config.cgroup_parent)
    finally:
        await containerd.close()
