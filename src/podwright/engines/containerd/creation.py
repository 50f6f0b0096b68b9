"""The creation of a container: its snapshot, its spec, its record, its streams, its task. All of it has the
container's id for a name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.engines.base import Container, ContainerFacts, Json
from podwright.engines.containerd import platforms
from podwright.engines.containerd.api import any_of
from podwright.engines.containerd.objects import GROUP, KIND, OF_CONTAINER, ROOT, SANDBOX, Objects
from podwright.engines.containerd.platforms import Builder
from podwright.engines.containerd.sandboxes import of_shim
from podwright.engines.containerd.shims import Shim
from podwright.engines.containerd.snapshots import Snapshots, shown, unsynced
from podwright.engines.containerd.tasks import Tasks
from podwright.engines.containerd.volumes import Unpacked
from podwright.engines.log_limits import LogLimits
from podwright.engines.node import host, layered, limit_refusals, rootfs, unstartable, user_namespaces
from podwright.engines.node.building import Building, Drawn, Rules
from podwright.engines.node.parts import ImageFiles, mounted, with_process
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests
from podwright.engines.node.user_namespaces import IdMaps
from podwright.engines.refusals import plain_words
from podwright.errors import CommandFailed, FailedPrecondition, NotFound, PodwrightError
from podwright.linux import proc
from podwright.linux.waiting import to_the_end
from podwright.logs.limits import Limits
from podwright.logs.writing import LogWriter
from podwright.spec.inputs import HostFacts, RootfsFiles
from podwright.spec.linux.mounts import Lookup
from podwright.steps import step
from podwright.wire.containerd import runc_pb2, types_pb2

IMAGE = "image"
"""Directory among a container's own where its image is shown while it is read."""
CHANCES = 4
"""How often its image may be gone when its snapshot is made: the first time nobody has looked, and between
two looks it may be removed and pulled again."""
STDIN = "stdin"
"""The FIFO beside it that the shim reads."""


@dataclass(frozen=True, slots=True)
class Root:
    """A container's root file system, before anything of it runs."""

    files: ImageFiles
    mounts: list[types_pb2.Mount]
    """What the shim mounts; empty when it is mounted already."""
    path: str
    """As the spec has it."""


class Creation:
    def __init__(
        self,
        places: Places,
        objects: Objects,
        snapshots: Snapshots,
        tasks: Tasks,
        images: Unpacked,
        host: HostFacts,
        requests: Requests,
        building: Building,
        logs: LogWriter,
        log_limits: LogLimits,
    ) -> None:
        self._places = places
        self._objects = objects
        self._snapshots = snapshots
        self._tasks = tasks
        self._images = images
        self._host = host
        self._requests = requests
        self._building = building
        self._logs = logs
        self._log_limits = log_limits

    async def snapshot(self, container: Container, shim: Shim) -> list[types_pb2.Mount]:
        """Make its snapshot; how to mount it."""
        with step("rootfs"):
            labels = {ROOT: self._objects.root, KIND: OF_CONTAINER, SANDBOX: container.sandbox.id}
            self._places.container_run(container.id).mkdir(parents=True, exist_ok=True)
            for chance in range(CHANCES):
                # The first time it is looked for by standing on it.
                chain = await self._images.chain(container.image.id, shim.snapshotter, look=chance > 0)
                try:
                    return await self._snapshots.prepare(container.id, chain, shim.snapshotter, labels)
                except NotFound:
                    # Its image was removed: a look tells that, unless somebody has pulled it again.
                    if chance == CHANCES - 1:
                        raise
            raise AssertionError("one of them returns or raises")

    async def root(
        self, container: Container, shim: Shim, found: list[types_pb2.Mount], ids: IdMaps | None
    ) -> Root:
        """What its snapshot, which is mounted by `found`, is to it."""
        lower = self._snapshots.lower_dirs(found)
        if ids is not None:
            upper, work = self._snapshots.upper_dir(found), self._snapshots.work_dir(found)
            if not lower or upper is None or work is None:
                raise FailedPrecondition(
                    "config.linux.security_context.namespace_options.userns_options: the layers of"
                    f" snapshotter {shim.snapshotter!r} cannot be shown with a pod's own ids; use overlayfs"
                )
            # The kernel lets nobody but us mount an overlay whose layers are mapped.
            with step("rootfs"):
                top = await to_the_end(
                    asyncio.to_thread(rootfs.mount, self._places, container, lower, ids, (upper, work))
                )
            return Root(mounted(top), [], str(top))

        @asynccontextmanager
        async def shown_at_last() -> AsyncIterator[Path]:
            async with shown(found, self._places.container_run(container.id) / IMAGE) as top:
                yield top

        if platforms.of(container.sandbox).os != "linux":
            users = RootfsFiles(None, None)
        elif lower:
            users = layered.user_files(lower)
        else:
            async with shown_at_last() as top:
                users = rootfs.user_files(top)
        given = list(found) if shim.sandboxed else unsynced(found)
        return Root(ImageFiles(users, shown_at_last), given, platforms.ROOTFS)

    async def draw(
        self,
        container: Container,
        shim: Shim,
        builder: Builder,
        wanted: list[Lookup],
        root: Root,
        ids: IdMaps | None,
        made: list[Path],
    ) -> Drawn:
        """Its spec; errors as `Building.draw`."""
        rules = Rules(
            lambda facts, parts: builder.request(self._requests, container, shim, wanted, facts, parts),
            builder.build,
        )
        drawn = await self._building.draw(container, shim, rules, root.files, ids, made)
        spec = {**drawn.spec, "root": {**drawn.spec.get("root", {}), "path": root.path}}
        if not of_shim(container.sandbox):
            spec["annotations"] = {**spec.get("annotations", {}), GROUP: container.sandbox.id}
        return Drawn(spec, drawn.user, drawn.host_user)

    async def record(
        self, container: Container, shim: Shim, spec: dict[str, Json], ids: IdMaps | None
    ) -> None:
        """Tell containerd of it."""
        made = self._objects.record(container, spec, shim.runtime_type, _options(shim, ids))
        made.image = platforms.name_of(container.image)
        made.snapshotter, made.snapshot_key = shim.snapshotter, container.id
        if of_shim(container.sandbox):
            made.sandbox = container.sandbox.id
        await self._objects.put(made)

    async def streams(self, container: Container) -> Path:
        """Have a writer of ours read what it says: the directory with a FIFO for each of its outputs."""
        if container.log_path:
            Path(container.log_path).parent.mkdir(parents=True, exist_ok=True)
        limits = self._log_limits.of_container(container) if container.log_path else None
        with step("log writer"):
            return await self._logs.add(
                container.id, container.log_path, limits or Limits(), raw=_outputs(container)
            )

    async def task(
        self,
        container: Container,
        shim: Shim,
        given: list[types_pb2.Mount],
        streams: Path,
        *,
        restore: Path | None = None,
    ) -> int:
        """Its task, with what `streams` has given; the pid. `restore` is where a dump is that it is made of.
        CommandFailed with the runtime's own words."""
        config = container.config
        ids = user_namespaces.id_maps(self._places, container.sandbox)
        outputs = _outputs(container)
        stdin = self._places.container_run(container.id) / STDIN
        if config.stdin:
            stdin.unlink(missing_ok=True)
            os.mkfifo(stdin, 0o600)
        held = container.sandbox.facts.own if of_shim(container.sandbox) else {}
        try:
            return await self._tasks.create(
                container.id,
                rootfs=given,
                terminal=config.tty,
                stdin=str(stdin) if config.stdin else "",
                stdout=str(streams / "stdout"),
                stderr=str(streams / "stderr") if "stderr" in outputs else "",
                options=_options(shim, ids, restore) if restore is not None else None,
                address=str(held.get("address", "")),
                version=int(held.get("version", 0)),
            )
        except PodwrightError as error:
            raise by_runtime(error, shim) from error

    async def first_process(
        self, container: Container, shim: Shim, drawn: Drawn, given: list[types_pb2.Mount], streams: Path
    ) -> ContainerFacts:
        """Its task, and the facts of what has come into being; without a process when its program cannot be
        executed: its start will tell that."""
        facts = ContainerFacts(0, drawn.user.uid, drawn.user.gid, drawn.user.groups)
        try:
            pid = await self.task(container, shim, given, streams)
        except CommandFailed as error:
            cgroup = self._tasks.cgroup(container.id)
            if why := limit_refusals.at_creation(container.config.linux.resources, cgroup, self._host):
                raise FailedPrecondition(why) from error
            if unstartable.note(self._places.container_run(container.id), error.output):
                return facts
            raise
        if drawn.host_user is not None and not shim.calls_runc:
            host.own_streams(pid, drawn.host_user)
        if shim.calls_runc and pid and drawn.spec["process"].get("oomScoreAdj") == 0:
            # crun takes 0 for nothing; its process would have the shim's, which is a daemon's.
            proc.set_oom_score_adj(pid, 0)
        return with_process(facts, container.id, pid)


def _outputs(container: Container) -> tuple[str, ...]:
    return ("stdout",) if container.config.tty else ("stdout", "stderr")


def by_runtime(error: PodwrightError, shim: Shim) -> PodwrightError:
    """The same, with the runtime's own words where they are that; containerd has no code for those."""
    return CommandFailed(shim.kind, 1, plain_words(str(error))) if type(error) is PodwrightError else error


def _options(shim: Shim, ids: IdMaps | None, restore: Path | None = None) -> AnyMessage | None:
    """The shim's, with what this one container adds to them."""
    if not shim.calls_runc or shim.options is None or (ids is None and restore is None):
        return shim.options
    options = runc_pb2.Options.FromString(shim.options.value)
    if ids is not None:
        # The pod's root, who is not the host's, opens the pipes that the shim makes.
        options.io_uid, options.io_gid = ids.root
    if restore is not None:
        options.criu_image_path, options.criu_work_path = str(restore), str(restore.parent)
    return any_of(options)
