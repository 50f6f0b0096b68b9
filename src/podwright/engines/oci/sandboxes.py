"""Sandboxes of the oci engine: pinned namespaces, the pod's files and shared memory, its network, and a
pause process for pods that share a PID namespace."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from podwright.config import Config
from podwright.engines import forward
from podwright.engines.base import Json, Sandbox, SandboxFacts
from podwright.engines.node import labels
from podwright.engines.node.places import Places
from podwright.engines.node.pods import Pods
from podwright.engines.node.requests import (
    PAUSE,
    Requests,
    cgroups_path,
    check_sandbox,
    has_pause,
    hook_target,
    options,
)
from podwright.engines.node.user_namespaces import id_maps
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.runtimes import Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.engines.streams import Connection
from podwright.errors import FailedPrecondition
from podwright.hooks.running import Hooks
from podwright.linux import proc
from podwright.spec.encode import encode
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.build import build_sandbox
from podwright.spec.linux.sysctls import sandbox_sysctls
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)

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
        pods: Pods,
        host: HostFacts,
        requests: Requests,
        hooks: Hooks,
    ) -> None:
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._pods = pods
        self._host = host
        self._requests = requests
        self._hooks = hooks
        self._levels = labels.Levels(places, host, config.spec.selinux_category_range)

    async def create(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        await check_sandbox(self._places, self._runtimes, sandbox)
        sandbox_sysctls(sandbox.config, self._host.policy)
        cgroups_path(self._config, sandbox, sandbox.id)  # refuses a bad parent before anything is made
        undo.push_async_callback(self.remove, sandbox)
        await self._pods.make(sandbox)
        attached = asyncio.ensure_future(self._pods.attach(sandbox))
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
        detached = asyncio.ensure_future(self._pods.detach(sandbox))
        try:
            if self._places.pause_bundle(id).exists():
                await self._tasks.end(id, sandbox.facts.pid, _started(sandbox))
        finally:
            await asyncio.wait([detached])
        # The namespace goes only after its network: plugins work inside it.
        detached.result()
        self._pods.unmount(sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        await self.stop(sandbox)
        self._pods.remove_files(sandbox)

    def alive(self, sandbox: Sandbox) -> bool:
        """Its namespaces, its shared memory and its pause process are there."""
        if not self._pods.stands(sandbox):
            return False
        return not has_pause(sandbox) or proc.alive(sandbox.facts.pid, _started(sandbox))

    async def info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        info = self._pods.info(sandbox, alive=self.alive(sandbox))
        config = self._places.pause_bundle(sandbox.id) / "config.json"
        if config.exists():
            info["runtimeSpec"] = msgspec.json.decode(config.read_bytes())
        return info

    async def forward(self, sandbox: Sandbox, port: int, connection: Connection) -> None:
        """As `Engine.port_forward`."""
        namespace = None if options(sandbox).network == _NODE else Path(self._pods.netns(sandbox))
        runtime = self._runtimes.of_existing(sandbox.handler)
        metadata = sandbox.config.metadata
        pod = f"{metadata.namespace}/{metadata.name}"
        apart = runtime is not None and runtime.sandboxed and not runtime.shares_network
        await forward.forward(pod, namespace, port, connection, hint=_NETWORK_OF_ITS_OWN if apart else "")

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


def _started(sandbox: Sandbox) -> int:
    return int(sandbox.facts.own.get("started", 0))
