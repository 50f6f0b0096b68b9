"""What a pod has on its node before any process of it runs: pinned namespaces, its files, its shared memory
and its network. Every engine on this kernel makes it so; what holds the pod together is the engine's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from podwright.config import Config
from podwright.engines.base import Json, Sandbox
from podwright.engines.node import node_files
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.places import Places
from podwright.engines.node.requests import cgroup_parent, own_kinds
from podwright.engines.node.requests import options as asked_options
from podwright.engines.node.user_namespaces import id_maps
from podwright.errors import Unavailable
from podwright.linux import mounts, namespaces, trees, user_namespaces
from podwright.linux.waiting import to_the_end
from podwright.network import files
from podwright.network.cni import Attachment, Cni, Result
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.limits import shm_size
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

_HOSTS, _RESOLV_CONF = "/etc/hosts", "/etc/resolv.conf"
_NODE = cri.NamespaceMode.NODE


class Pods:
    def __init__(
        self, config: Config, places: Places, network: Cni, host: HostFacts, volumes: ImageMounts
    ) -> None:
        self._config = config
        self._places = places
        self._network = network
        self._host = host
        self._volumes = volumes

    async def make(self, sandbox: Sandbox) -> None:
        """Its namespaces, files and shared memory. InvalidArgument for sysctls and sizes that cannot be;
        `remove` undoes what a failure leaves."""
        sysctls = sandbox_sysctls(sandbox.config, self._host.policy)
        ids = id_maps(self._places, sandbox)
        pins = {kind: self._places.pin(sandbox.id, kind) for kind in own_kinds(sandbox)}
        self._places.pins(sandbox.id).mkdir(parents=True, exist_ok=True)
        hostname = sandbox.config.hostname or self._host.hostname
        if ids is None:
            making = namespaces.create_pinned(pins, hostname=hostname, sysctls=sysctls)
        else:
            making = user_namespaces.create_pinned(
                pins, [ids.uids], [ids.gids], hostname=hostname, sysctls=sysctls
            )
        pinned = asyncio.ensure_future(_namespaces(making))
        try:
            with step("pod files"):
                self._write_files(sandbox)
            if asked_options(sandbox).ipc != _NODE:
                handler = node_files.handler_options(self._config, sandbox.handler)
                size = shm_size(sandbox.config, handler, self._host.policy)
                with step("shm"):
                    self._make_shm(sandbox.id, size, ids.root if ids else (0, 0))
        finally:
            # What it makes must be there, or gone, before anything is undone.
            await to_the_end(pinned)

    async def attach(self, sandbox: Sandbox) -> Result | None:
        """Its network; None for a pod with the host's."""
        if asked_options(sandbox).network == _NODE:
            return None
        with step("cni add"):
            return await self._network.add(self._attachment(sandbox))

    async def detach(self, sandbox: Sandbox) -> None:
        """Let go of its network, before `unmount`: plugins work in its namespace."""
        if asked_options(sandbox).network == _NODE:
            return
        try:
            with step("cni del"):
                await self._network.delete(self._attachment(sandbox))
        except Unavailable:
            # No plugin could be asked; of a pod that never was attached none needs to be.
            if sandbox.id in self._network.cached_ids():
                raise

    def unmount(self, sandbox: Sandbox) -> None:
        """Its namespaces, shared memory and image volumes; twice is fine."""
        with step("unmount"):
            for kind in namespaces.PINNABLE:
                namespaces.unpin(self._places.pin(sandbox.id, kind))
            mounts.unmount(self._places.shm(sandbox.id))
            self._volumes.release_pod(sandbox.id)

    def remove_files(self, sandbox: Sandbox) -> None:
        with step("remove files"):
            trees.remove(self._places.sandbox_run(sandbox.id))
            trees.remove(self._places.sandbox_root(sandbox.id))

    def stands(self, sandbox: Sandbox) -> bool:
        """Its namespaces and its shared memory are there."""
        if not self._places.sandbox_run(sandbox.id).is_dir():
            return False
        wanted = [self._places.pin(sandbox.id, kind) for kind in own_kinds(sandbox)]
        if asked_options(sandbox).ipc != _NODE:
            wanted.append(self._places.shm(sandbox.id))
        return all(mounts.is_mounted(each) for each in wanted)

    def info(self, sandbox: Sandbox, *, alive: bool) -> dict[str, Json]:
        """For a verbose status; `alive` is what the engine answers for the whole sandbox."""
        cached = self._network.cached(sandbox.id)
        info: dict[str, Json] = {
            "sandboxID": sandbox.id,
            "pid": sandbox.facts.pid,
            "netns": self.netns(sandbox) if asked_options(sandbox).network != _NODE else "",
            "netNamespaceClosed": not alive,
            "namespaces": msgspec.to_builtins(
                {kind: str(self._places.pin(sandbox.id, kind)) for kind in own_kinds(sandbox)}
            ),
            "runtimeHandler": sandbox.handler or self._config.default_handler,
            "cgroupParent": cgroup_parent(self._config, sandbox),
        }
        if cached is not None:
            info["cniResult"] = dict(cached.raw)
        return info

    def netns(self, sandbox: Sandbox) -> str:
        return str(self._places.pin(sandbox.id, "net"))

    def _write_files(self, sandbox: Sandbox) -> None:
        keep = self._places.sandbox_root(sandbox.id)
        keep.mkdir(parents=True, exist_ok=True)
        config = sandbox.config
        dns = config.dns_config if config.HasField("dns_config") else None
        for name, text in (
            ("hostname", files.hostname(config.hostname, self._host.hostname)),
            ("hosts", files.hosts(_host_file(_HOSTS))),
            ("resolv.conf", files.resolv_conf(dns, _host_file(_RESOLV_CONF))),
        ):
            # Byte for byte: a comment in the host's file may be in any encoding.
            (keep / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def _make_shm(self, id: str, size: int, owner: tuple[int, int]) -> None:
        shm = self._places.shm(id)
        shm.mkdir(exist_ok=True)
        mounts.tmpfs(shm, size=size, mode=0o1777, owner=owner)

    def _attachment(self, sandbox: Sandbox) -> Attachment:
        return Attachment.of(sandbox.id, sandbox.config, self.netns(sandbox))


async def _namespaces(making: Awaitable[None]) -> None:
    with step("namespaces"):
        await making


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
