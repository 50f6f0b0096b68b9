"""Containers of the oci engine: rootfs, spec and bundle, and the task that runs in it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from podwright.checkpoints.layout import Checkpoint
from podwright.config import Config
from podwright.engines.base import Container, ContainerFacts, ExecResult, Json, Observation, Presence
from podwright.engines.log_limits import LogLimits
from podwright.engines.node import (
    host,
    labels,
    limit_refusals,
    rootfs,
    unstartable,
    user_namespaces,
)
from podwright.engines.node.building import Building, Rules
from podwright.engines.node.checkpointing import Checkpoints
from podwright.engines.node.image_mounts import ImageMounts
from podwright.engines.node.parts import mounted, started, with_process
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests
from podwright.engines.oci import conmon, exec, sessions, strays
from podwright.engines.oci.attach import Attachments
from podwright.engines.oci.checkpoint import Dumping
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.executions import Place
from podwright.engines.oci.restore import Restores
from podwright.engines.oci.runtimes import Runtimes
from podwright.engines.oci.tasks import Tasks
from podwright.engines.streams import Streams
from podwright.errors import CommandFailed, FailedPrecondition, NotFound
from podwright.hooks.running import Hooks
from podwright.images.store import ImageStore
from podwright.linux import mounts, trees
from podwright.linux.criu import Criu
from podwright.logs.writing import LogWriter
from podwright.spec.encode import encode
from podwright.spec.inputs import HostFacts
from podwright.spec.linux import mounts as mount_rules
from podwright.spec.linux.build import build_container
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class Containers:
    def __init__(
        self,
        config: Config,
        places: Places,
        runtimes: Runtimes,
        tasks: Tasks,
        images: ImageStore,
        volumes: ImageMounts,
        host: HostFacts,
        requests: Requests,
        hooks: Hooks,
        conmon: str,
        logs: LogWriter,
        log_limits: LogLimits,
        criu: Criu,
    ) -> None:
        self._conmon = conmon
        self._config = config
        self._places = places
        self._runtimes = runtimes
        self._tasks = tasks
        self._images = images
        self._host = host
        self._requests = requests
        self._logs = logs
        self._log_limits = log_limits
        self._attachments = Attachments()
        self._mark = secrets.token_hex(4)
        self._endings: set[asyncio.Task[None]] = set()
        levels = labels.Levels(places, host, config.spec.selinux_category_range)
        self._building = Building(places, runtimes, volumes, requests, hooks, levels, self._alive)
        self._volumes = volumes
        self._restores = Restores(places, tasks, images, criu)
        self._checkpoints = Checkpoints(places, Dumping(places, runtimes, tasks, criu), criu)

    def close(self) -> None:
        """Let go; containers keep running."""
        self._attachments.close()
        for ending in self._endings:
            ending.cancel()

    async def create(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        runtime = self._runtimes.get(container.sandbox.handler)
        wanted = mount_rules.lookups(container.config, self._host.policy)
        made: list[Path] = []
        undo.push_async_callback(self._unmake, container, made)
        self._images.acquire(container.image.id, container.id)
        if container.checkpoint is not None:
            await self._restores.take_in(container, runtime, container.checkpoint)
        ids = user_namespaces.id_maps(self._places, container.sandbox)
        with step("rootfs"):
            root = rootfs.mount(self._places, container, self._images.lower_dirs(container.image.id), ids)
        if container.checkpoint is not None:
            await self._restores.remove_deleted(container, root)
        rules = Rules(
            lambda facts, parts: self._requests.container(container, runtime, wanted, facts, parts),
            build_container,
        )
        drawn = await self._building.draw(container, runtime, rules, mounted(root), ids, made)
        bundle, spec, user = self._places.container_run(container.id), drawn.spec, drawn.user
        if container.checkpoint is not None:
            spec = self._restores.with_options(container, spec)
        (bundle / "config.json").write_bytes(encode(spec))
        if container.log_path:
            Path(container.log_path).parent.mkdir(parents=True, exist_ok=True)
        made_facts = ContainerFacts(0, user.uid, user.gid, user.groups)
        if container.checkpoint is not None:
            return made_facts  # a process it gets by its start
        try:
            pid = await self._tasks.create(runtime, await self._supervised(container))
        except CommandFailed as error:
            cgroup = self._tasks.cgroup(container.id)
            if why := limit_refusals.at_creation(container.config.linux.resources, cgroup, self._host):
                raise FailedPrecondition(why) from error
            if unstartable.note(bundle, error.output):
                return made_facts
            raise
        if drawn.host_user is not None:
            host.own_streams(pid, drawn.host_user)
        return with_process(made_facts, container.id, pid)

    async def start(self, container: Container) -> ContainerFacts | None:
        runtime = self._runtimes.get(container.sandbox.handler)
        if not self._restores.pending(container.id):
            unstartable.check(self._places.container_run(container.id), runtime.kind)
            await self._tasks.start(runtime, container.id)
            return None
        pid = await self._restores.start(container, runtime, await self._supervised(container))
        return with_process(container.facts, container.id, pid)

    async def signal(self, container: Container, number: int) -> None:
        if number == signal.SIGKILL:
            self._checkpoints.abort(container.id)
        if self._restores.signal(container.id, number) or unstartable.end(self._places, container.id, number):
            return
        runtime = self._runtimes.of_existing(container.sandbox.handler)
        await self._tasks.signal(runtime, container.id, container.facts.pid, started(container), number)

    async def checkpoint(self, container: Container, status: cri.ContainerStatus, location: Path) -> None:
        await self._checkpoints.make(container, status, location)

    async def read_checkpoint(self, reference: str) -> Checkpoint:
        return await self._restores.look(reference)

    async def remove(self, container: Container) -> None:
        id = container.id
        await self._tasks.end(id, container.facts.pid, started(container))
        await self._logs.finish(id)
        with step("unmount"):
            rootfs.unmount(self._places, id)
            mapped = self._places.mapped_mounts(id)
            if mapped.is_dir():
                mounts.unmount_below(mapped)
            self._volumes.release(container.sandbox.id, id)
        with step("remove files"):
            await asyncio.to_thread(self._remove_files, id)
        # By the store's own account: after a reboot no mount tells any more which images were volumes.
        self._images.release_all(id)

    async def exec_sync(
        self, container: Container, argv: Sequence[str], timeout: float | None, limit: int
    ) -> ExecResult:
        try:
            with step("exec"):
                return await exec.run(self._place(container), argv, timeout, limit)
        except FileNotFoundError as error:
            raise NotFound(f"container {container.id} has no bundle any more: {error}") from error

    async def exec(self, container: Container, argv: Sequence[str], streams: Streams) -> int:
        try:
            with step("exec"):
                return await sessions.run(self._place(container), argv, streams)
        except FileNotFoundError as error:
            raise NotFound(f"container {container.id} has no bundle any more: {error}") from error

    async def attach(self, container: Container, streams: Streams) -> None:
        bundle = self._places.container_run(container.id)
        await self._attachments.attach(bundle, container.config, streams)

    async def reopen_log(self, container: Container) -> None:
        if container.log_path:
            with step("reopen log"):
                if self._logs.has(container.id):
                    await self._logs.reopen(container.id)
                else:
                    await conmon.reopen_log(self._places.container_run(container.id), container.log_path)

    async def observe(self, container: Container) -> Observation:
        if (waiting := await self._restores.observe(container.id)) is not None:
            return waiting
        if (waiting := unstartable.observe(self._places, container.id)) is not None:
            return waiting
        runtime = self._runtimes.of_existing(container.sandbox.handler)
        pid = container.facts.pid
        seen = await self._tasks.observe(runtime, container.id, pid, started(container))
        if seen.presence is Presence.RUNNING and runtime is not None:
            ending = asyncio.ensure_future(strays.hang_up(self._place(container)))
            self._endings.add(ending)
            ending.add_done_callback(self._ended)
        return seen

    def info(self, container: Container) -> Mapping[str, Json]:
        bundle = self._places.container_run(container.id)
        config = bundle / "config.json"
        return {
            "sandboxID": container.sandbox.id,
            "pid": container.facts.pid,
            "supervisorPid": conmon.supervisor(bundle),
            "bundle": str(bundle),
            "rootfs": str(user_namespaces.rootfs(self._places, container)),
            "snapshot": str(self._places.container_root(container.id)),
            "cgroup": self._tasks.cgroup(container.id),
            "runtimeHandler": container.sandbox.handler or self._config.default_handler,
            "runtimeSpec": msgspec.json.decode(config.read_bytes()) if config.exists() else None,
        }

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            log.warning("ending sessions of an earlier podwright: %s", error)

    async def _supervised(self, container: Container) -> Supervised:
        config = container.config
        return Supervised(
            id=container.id,
            name=container.name,
            bundle=self._places.container_run(container.id),
            exits=self._places.exits,
            log_path=container.log_path,
            log_fifo=await self._limited_log(container),
            stdin=config.stdin,
            stdin_once=config.stdin_once,
            terminal=config.tty,
        )

    def _alive(self, container: Container) -> bool:
        return self._tasks.alive(container.id, container.facts.pid, started(container))

    def _place(self, container: Container) -> Place:
        """Where programs are run inside `container`."""
        facts = container.facts
        ids = user_namespaces.id_maps(self._places, container.sandbox)
        return Place(
            self._conmon,
            self._runtimes.get(container.sandbox.handler),
            self._places.container_run(container.id),
            container.id,
            ids.to_host(facts.uid, facts.gid) if ids is not None else (facts.uid, facts.gid),
            self._mark,
        )

    async def _limited_log(self, container: Container) -> Path | None:
        """Where the records of a log with limits go; None when conmon writes it itself."""
        limits = self._log_limits.of_container(container) if container.log_path else None
        if limits is None:
            return None
        with step("log writer"):
            return await self._logs.add(container.id, container.log_path, limits)

    # Undoing

    async def _unmake(self, container: Container, made: Sequence[Path]) -> None:
        await self.remove(container)
        host.unmake_directories(made)

    def _remove_files(self, id: str) -> None:
        for each in self._places.of_container(id):
            trees.remove(each)
