"""Pods that their shim holds together, by containerd's sandbox service: virtual machines, mostly."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import MessageToJson

from podwright.engines.base import Exit, Json, Sandbox, SandboxFacts
from podwright.engines.containerd import platforms, sandbox_service
from podwright.engines.containerd.api import SPEC, Containerd, any_of
from podwright.engines.containerd.objects import METADATA, METADATA_TYPE
from podwright.engines.containerd.podsandbox import Material, Materials
from podwright.engines.containerd.sandbox_service import SandboxService
from podwright.engines.containerd.sandbox_waits import SandboxWaits
from podwright.engines.containerd.shims import SHIM, Shim
from podwright.engines.node.places import Places
from podwright.engines.node.processes import send_signal
from podwright.errors import DeadlineExceeded, FailedPrecondition, PodwrightError, Unavailable, Unimplemented
from podwright.linux import proc, spawn
from podwright.spec.encode import encode
from podwright.wire.containerd import types_pb2

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds that a shim may take to end a sandbox in order; its containers have ended before."""
SHIM_GRACE = 5.0
"""Seconds that a shim of no use may take to go."""
SNAPSHOTTER = "podwright.io/snapshotter"
"""Label of a record: where the sandbox's rootfs is."""


class ShimController:
    def __init__(
        self, containerd: Containerd, places: Places, materials: Materials, tell: Callable[[Exit], None]
    ) -> None:
        """`tell` takes the ends of sandboxes that are not asked for."""
        self._containerd = containerd
        self._places = places
        self._materials = materials
        self._service = SandboxService(containerd)
        self._waits = SandboxWaits(self._service, tell)
        self._platforms: dict[str, str] = {}
        """Of each handler what its last sandbox said."""

    async def close(self) -> None:
        await self._waits.close()

    async def prepare(self, sandbox: Sandbox, shim: Shim) -> Material:
        """All that does not run."""
        made = await self._materials.make(sandbox, shim, self._platforms.get(shim.handler, ""))
        record = self._record(sandbox, shim, made.spec)
        # As of a pause container: the end of a shim that dies comes as that of a task.
        bundle = self._places.pause_bundle(sandbox.id)
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_bytes(record.spec.value)
        await self._service.enter(record)
        return made

    async def start(self, sandbox: Sandbox, shim: Shim, material: Material, netns: str) -> SandboxFacts:
        """Have the shim make it; its end is told from now on. The facts are without addresses."""
        id = sandbox.id
        record = self._record(sandbox, shim, material.spec)
        try:
            await self._service.create(record, material.mounts, netns, any_of(sandbox.config))
        except Unimplemented as error:
            # containerd forgets such a shim, which knows no call that would end it.
            await end_shims(id, self._containerd.endpoint)
            raise FailedPrecondition(
                f"runtime handler {shim.handler!r}: its shim {shim.runtime_type} knows nothing of sandboxes;"
                f' set handlers.{shim.handler}.sandboxer to "podsandbox": {error}'
            ) from error
        started = await self._service.start(id)
        platform = await self._service.platform(id)
        before = self._platforms.get(shim.handler, "")
        self._platforms[shim.handler] = platform
        if platforms.builder(platform).os != platforms.builder(before).os:
            spec = await self._materials.spec(sandbox, shim, platform, material.image)
            await self._service.rewrite(self._record(sandbox, shim, spec), "spec")
        self._waits.follow(id)
        own: dict[str, Json] = {"sandboxer": SHIM, platforms.NOTE: platform, "labels": started.labels}
        if started.pid:
            own["started"] = proc.start_time(started.pid)
        if started.address:
            own |= {"address": started.address, "version": started.version}
        return SandboxFacts(pid=started.pid, own=own)

    async def end(self, id: str) -> None:
        """Stop it, if its shim has it."""
        followed = await self._waits.leave(id)
        if not self._service.available():
            return
        try:
            await self._service.stop(id, GRACE)
        except PodwrightError as error:
            if await self._there_after(id, error):
                if followed:
                    self._waits.follow(id)
                raise

    async def remove(self, id: str, snapshotter: str) -> None:
        """After `end`: the shim itself, the record and the rootfs."""
        if not self._service.available():
            return
        record = await self._service.record(id)
        try:
            await self._service.shut_down(id)
        except PodwrightError as error:
            if await self._there_after(id, error):
                raise
        if record is not None:
            # The record goes last: it tells where the snapshot is.
            await self._materials.remove(id, record.labels.get(SNAPSHOTTER, snapshotter))
            await self._service.leave(id)

    async def alive(self, id: str) -> bool:
        """Its shim has it; then its end is told from now on."""
        if not self._service.available() or await self._service.status(id) is None:
            return False
        self._waits.follow(id)
        return True

    async def info(self, id: str) -> Mapping[str, Json]:
        if not self._service.available() or (record := await self._service.record(id)) is None:
            return {}
        info: dict[str, Json] = {
            "runtimeType": record.runtime.name,
            "runtimeSpec": msgspec.json.decode(record.spec.value) if record.spec.value else {},
            "containerd": sandbox_service.words(record),
        }
        if (status := await self._service.status(id, verbose=True)) is not None:
            info["shim"] = {"state": status.state, "info": dict(status.info)}
        if (metrics := await self._service.metrics(id)) is not None:
            info["metrics"] = metrics.data.type_url
        return info

    async def _there_after(self, id: str, error: PodwrightError) -> bool:
        """Whether a shim still has the sandbox although ending it failed: one that goes at once cuts its own
        answer off, and containerd notices a little later."""
        try:
            return await self._service.status(id) is not None
        except (Unavailable, DeadlineExceeded):
            return True
        except PodwrightError as gone:
            log.debug("sandbox %s: %s; %s", id, error, gone)
            return False

    def _record(self, sandbox: Sandbox, shim: Shim, spec: Mapping[str, Json]) -> types_pb2.Sandbox:
        record = types_pb2.Sandbox(
            sandbox_id=sandbox.id,
            sandboxer=SHIM,
            spec=AnyMessage(type_url=SPEC, value=encode(dict(spec))),
            labels={**self._materials.labels(sandbox.id), SNAPSHOTTER: shim.snapshotter},
        )
        record.runtime.name = shim.runtime_type
        if shim.options is not None:
            record.runtime.options.CopyFrom(shim.options)
        config = MessageToJson(sandbox.config, preserving_proto_field_name=True, indent=None)
        record.extensions[METADATA].type_url = METADATA_TYPE
        record.extensions[METADATA].value = config.encode()
        return record


async def end_shims(id: str, endpoint: str) -> None:
    """End the shims that the containerd at `endpoint` started for `id`."""
    for pid, started in await asyncio.to_thread(lambda: list(_shims(id, endpoint))):
        # Asked to go it takes its socket away.
        for number in (signal.SIGTERM, signal.SIGKILL):
            send_signal(pid, started, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(spawn.exited(pid), SHIM_GRACE)
                break


def _shims(id: str, endpoint: str) -> Iterator[tuple[int, int]]:
    """Pids, and when each started."""
    socket = endpoint.removeprefix("unix://")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            started = proc.start_time(int(entry.name))
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        named = dict(pairwise(words))
        if named.get(b"-id") == id.encode() and named.get(b"-address") == os.fsencode(socket):
            yield int(entry.name), started
