"""Sandboxes of the oci engine: pinned namespaces, the pod's files and shared memory, its network, and a
pause process for pods that share a PID namespace."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from podwright.config import Config
from podwright.engines import forward
from podwright.engines.base import Json, Sandbox, SandboxFacts
from podwright.engines.oci import labels, node_files
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.image_mounts import ImageMounts
from podwright.engines.oci.places import Places
from podwright.engines.oci.requests import (
    PAUSE,
    Requests,
    cgroup_parent,
    cgroups_path,
    check_sandbox,
    has_pause,
    hook_target,
    options,
    own_kinds,
)
from podwright.engines.oci.runtimes import Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.engines.oci.user_namespaces import id_maps
from podwright.engines.streams import Connection
from podwright.errors import FailedPrecondition, Unavailable
from podwright.hooks.running import Hooks
from podwright.linux import mounts, namespaces, proc, trees, user_namespaces
from podwright.linux.waiting import to_the_end
from podwright.network import files
from podwright.network.cni import Attachment, Cni, Result
from podwright.spec.encode import encode
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.build import build_sandbox
from podwright.spec.linux.limits import shm_size
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)

_HOSTS, _RESOLV_CONF = "/etc/hosts", "/etc/resolv.conf"

_NODE = cri.NamespaceMode.NODE
_NETWORK_OF_ITS_OWN = (
    "its handler gives gVisor a network stack of its own, whose localhost cannot be dialled from"
    " outside: use --network=host there"
)


class Sandboxes:
    def __init__(
        self,
        config: Config,
        places: Places,
        runtimes: Runtimes,
        tasks: Tasks,
        network: Cni,
        host: HostFacts,
        requests: Requests,
        hooks: Hooks,
        volumes: ImageMounts,
    ) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._network = network
        self._host = host
        self._requests = requests
        self._hooks = hooks
        self._volumes = volumes
        self._levels = labels.Levels(places, host, config.spec.selinux_category_range)

    async def create(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        await check_sandbox(self._places, self._runtimes, sandbox)
        asked = options(sandbox)
        ids = id_maps(self._places, sandbox)
        sysctls = sandbox_sysctls(sandbox.config, self._host.policy)
        cgroups_path(self._config, sandbox, sandbox.id)  # refuses a bad parent before anything is made
        undo.push_async_callback(self._unmake, sandbox)
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
            if asked.ipc != _NODE:
                handler = node_files.handler_options(self._config, sandbox.handler)
                size = shm_size(sandbox.config, handler, self._host.policy)
                with step("shm"):
                    self._make_shm(sandbox.id, size, ids.root if ids else (0, 0))
        finally:
            # What it makes must be there, or gone, before anything is undone.
            await to_the_end(pinned)
        attached = asyncio.ensure_future(self._attach(sandbox))
        try:
            pid, started = await self._pause(sandbox)
            result = await attached
        finally:
            if not attached.done():
                attached.cancel()
                await asyncio.wait([attached])
        ips = result.ips if result else ()
        return SandboxFacts(ips=ips, pid=pid, own={"started": started} if pid else {})

    async def stop(self, sandbox: Sandbox) -> None:
        id = sandbox.id
        detached = asyncio.ensure_future(self._detach(sandbox))
        try:
            if self._places.pause_bundle(id).exists():
                await self._tasks.end(id, sandbox.facts.pid, _started(sandbox))
        finally:
            await asyncio.wait([detached])
        # The namespace goes only after its network: plugins work inside it.
        detached.result()
        with step("unmount"):
            for kind in namespaces.PINNABLE:
                namespaces.unpin(self._places.pin(id, kind))
            mounts.unmount(self._places.shm(id))
            self._volumes.release_pod(id)

    async def remove(self, sandbox: Sandbox) -> None:
        await self.stop(sandbox)
        with step("remove files"):
            trees.remove(self._places.sandbox_run(sandbox.id))
            trees.remove(self._places.sandbox_root(sandbox.id))

    def alive(self, sandbox: Sandbox) -> bool:
        """Its namespaces, its shared memory and its pause process are there."""
        asked = options(sandbox)
        if not self._places.sandbox_run(sandbox.id).is_dir():
            return False
        wanted = [self._places.pin(sandbox.id, kind) for kind in own_kinds(sandbox)]
        if asked.ipc != _NODE:
            wanted.append(self._places.shm(sandbox.id))
        if not all(mounts.is_mounted(each) for each in wanted):
            return False
        return not has_pause(sandbox) or proc.alive(sandbox.facts.pid, _started(sandbox))

    async def info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        asked = options(sandbox)
        cached = self._network.cached(sandbox.id)
        info: dict[str, Json] = {
            "sandboxID": sandbox.id,
            "pid": sandbox.facts.pid,
            "netns": self.netns(sandbox) if asked.network != _NODE else "",
            "netNamespaceClosed": not self.alive(sandbox),
            "namespaces": msgspec.to_builtins(
                {kind: str(self._places.pin(sandbox.id, kind)) for kind in own_kinds(sandbox)}
            ),
            "runtimeHandler": sandbox.handler or self._config.default_handler,
            "cgroupParent": cgroup_parent(self._config, sandbox),
        }
        if cached is not None:
            info["cniResult"] = dict(cached.raw)
        config = self._places.pause_bundle(sandbox.id) / "config.json"
        if config.exists():
            info["runtimeSpec"] = msgspec.json.decode(config.read_bytes())
        return info

    async def forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        """As `Engine.port_forward`."""
        namespace = None if options(sandbox).network == _NODE else Path(self.netns(sandbox))
        runtime = self._runtimes.of_existing(sandbox.handler)
        metadata = sandbox.config.metadata
        pod = f"{metadata.namespace}/{metadata.name}"
        apart = runtime is not None and runtime.sandboxed and not runtime.shares_network
        await forward.forward(pod, namespace, port, connection, hint=_NETWORK_OF_ITS_OWN if apart else "")

    # For its containers

    def netns(self, sandbox: Sandbox) -> str:
        return str(self._places.pin(sandbox.id, "net"))

    # Making

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

    async def _attach(self, sandbox: Sandbox) -> Result | None:
        if options(sandbox).network == _NODE:
            return None
        with step("cni add"):
            return await self._network.add(self._attachment(sandbox))

    async def _detach(self, sandbox: Sandbox) -> None:
        if options(sandbox).network == _NODE:
            return
        try:
            with step("cni del"):
                await self._network.delete(self._attachment(sandbox))
        except Unavailable:
            # No plugin could be asked; of a pod that never was attached none needs to be.
            if sandbox.id in self._network.cached_ids():
                raise

    def _attachment(self, sandbox: Sandbox) -> Attachment:
        return Attachment.of(sandbox.id, sandbox.config, self.netns(sandbox))

    async def _pause(self, sandbox: Sandbox) -> tuple[int, int]:
        """Pid and start time of the process that holds the pod's PID namespace; zeros if there is none."""
        if not has_pause(sandbox):
            return 0, 0
        with step("pause"):
            return await self._start_pause(sandbox)

    async def _start_pause(self, sandbox: Sandbox) -> tuple[int, int]:
        runtime = self._runtimes.get(sandbox.handler)
        bundle = self._places.pause_bundle(sandbox.id)
        bundle.mkdir(exist_ok=True)
        self._make_pause_rootfs()
        level = self._levels.of_pod(sandbox.id, sandbox.config)
        built = build_sandbox(self._requests.sandbox(sandbox, runtime, level), self._host)
        if ids := id_maps(self._places, sandbox):
            # With less than 65536 ids the pause process needs a user that is named.
            ids.to_host(built.user.uid, built.user.gid)
        spec = built.spec
        if self._hooks.adjusts:
            with step("hooks"):
                spec = await self._hooks.adjust(spec, hook_target(sandbox, runtime))
        (bundle / "config.json").write_bytes(encode(spec))
        pid = await self._tasks.create(
            runtime, Supervised(sandbox.id, sandbox.name, bundle, self._places.exits)
        )
        started = proc.start_time(pid)
        await self._tasks.start(runtime, sandbox.id)
        return pid, started

    def _make_pause_rootfs(self) -> None:
        """A root with nothing but the pause program; one for all pods."""
        root = self._places.pause_rootfs
        program = root / PAUSE
        if not program.exists():
            found = shutil.which(PAUSE)
            if found is None:
                raise FailedPrecondition(
                    f"{PAUSE} is not installed: pods cannot share a PID namespace without it"
                )
            for each in (root, root / "proc", root / "dev"):
                each.mkdir(mode=0o755, exist_ok=True)
                each.chmod(0o755)
            draft = root / f".{PAUSE}"
            shutil.copyfile(found, draft)
            draft.chmod(0o755)
            draft.rename(program)

    async def _unmake(self, sandbox: Sandbox) -> None:
        await self.remove(sandbox)


async def _namespaces(making: Awaitable[None]) -> None:
    with step("namespaces"):
        await making


def _started(sandbox: Sandbox) -> int:
    return int(sandbox.facts.own.get("started", 0))


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
