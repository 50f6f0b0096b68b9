"""Checkpoints of whole pods, made and restored by calls of the CRI alone: of any runtime that checkpoints
containers, and tells in its verbose statuses what they were asked for.

Containers are checkpointed one after the other: each is of one moment, the pod is not. Files on volumes are
not part of it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError

from podwright.api import Cri
from podwright.checkpoints import pods, writing
from podwright.checkpoints.pods import PodDump, PodOptions
from podwright.core.words import for_protobuf
from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.linux.waiting import to_the_end
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.library import Runtime, Sandbox

ROOM = Path("/var/tmp")
"""Where a pod's archive is taken apart: checkpoints are too large for a /tmp in memory."""


async def save(runtime: Cri, sandbox_id: str, location: Path, timeout: int = 0) -> list[str]:
    """Write all running containers of a pod to the archive `location`; their names. They run on. `timeout`
    is in seconds, for each container.

    FailedPrecondition when none runs, Unimplemented at a server that does not tell configurations, and what
    CheckpointContainer raises. Nothing is left then.
    """
    writing.check_place(location)
    dump, ids = await _described(runtime, sandbox_id)
    async with _room(location.parent) as work:
        archives = {name: work / f"{name}{pods.SUFFIX}" for name in ids}
        for name, id in ids.items():
            request = cri.CheckpointContainerRequest(
                container_id=id, location=str(archives[name]), timeout=timeout
            )
            await runtime.checkpoint_container(request)
        await pods.write(location, PodOptions(containers=ids), dump, archives)
    return list(ids)


async def restore(runtime: Runtime, archive: Path, name: str = "") -> Sandbox:
    """Run the pod of an archive again, as a new one (with a uid of its own; with another name if one is
    given), each container where it was. What was made is removed again when something fails.

    NotFound, InvalidArgument when it is no pod's archive, and what creations and starts raise.
    """
    room = ROOM if ROOM.is_dir() else Path(tempfile.gettempdir())
    async with _room(room) as work:
        dump = await pods.extract(archive, work)
        config = _parsed(archive, dump.sandbox, cri.PodSandboxConfig())
        containers = {
            each: _parsed(archive, tree, cri.ContainerConfig()) for each, tree in dump.containers.items()
        }
        config.metadata.name = name or config.metadata.name
        config.metadata.uid = config.log_directory = ""
        sandbox = await runtime.run_sandbox(config.metadata.name, config=config, handler=dump.handler)
        try:
            for each, wanted in containers.items():
                wanted.log_path = ""
                made = await sandbox.create(each, str(work / f"{each}{pods.SUFFIX}"), config=wanted)
                await made.start()
        except BaseException:
            await to_the_end(sandbox.remove())
            raise
    return sandbox


async def pod_config(runtime: Cri, sandbox_id: str) -> cri.PodSandboxConfig:
    """What a pod was asked for. Unimplemented at a server that does not tell."""
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
    told = _told((await runtime.pod_sandbox_status(request)).info, "pod")
    return ParseDict(told, cri.PodSandboxConfig(), ignore_unknown_fields=True)


async def _described(runtime: Cri, sandbox_id: str) -> tuple[PodDump, dict[str, str]]:
    """What a pod and its running containers were asked for, and these containers' ids by name."""
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
    pod = await runtime.pod_sandbox_status(request)
    filter = cri.ContainerFilter(
        pod_sandbox_id=pod.status.id, state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    )
    listed = (await runtime.list_containers(cri.ListContainersRequest(filter=filter))).containers
    running = sorted(listed, key=lambda each: each.created_at)
    if not running:
        raise FailedPrecondition(
            f"pod {pod.status.metadata.name}: no container runs, there is nothing to checkpoint"
        )
    dump = PodDump(handler=pod.status.runtime_handler, sandbox=_told(pod.info, "pod"))
    for each in running:
        status = await runtime.container_status(
            cri.ContainerStatusRequest(container_id=each.id, verbose=True)
        )
        dump.containers[each.metadata.name] = _told(status.info, f"container {each.metadata.name}")
    return dump, {each.metadata.name: each.id for each in running}


def _told(info: Any, what: str) -> dict[str, Any]:
    """The configuration that a verbose status has."""
    try:
        config = msgspec.json.decode(info["info"])["config"]
        assert isinstance(config, dict)
    except (KeyError, TypeError, AssertionError, msgspec.DecodeError):
        raise Unimplemented(f"the server does not tell what the {what} was asked for") from None
    return config


def _parsed(archive: Path, tree: dict[str, Any], message: Any) -> Any:
    try:
        return ParseDict(for_protobuf(tree, message), message, ignore_unknown_fields=True)
    except ParseError as error:
        raise InvalidArgument("", f"{archive}: {pods.DUMP} cannot be read: {error}") from error


@asynccontextmanager
async def _room(parent: Path) -> AsyncIterator[Path]:
    """A directory of our own, gone at the end."""
    made = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix=".podwright-", dir=parent)
    try:
        yield Path(made.name)
    finally:
        await to_the_end(asyncio.to_thread(made.cleanup))
