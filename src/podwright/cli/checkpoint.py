"""checkpoint and restore: containers and pods as archives of this host.

What an archive holds decides what becomes of it: a pod's archive a pod, a container's a container in a pod
that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.cli.find import find
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door


async def checkpoint(door: Door, word: str, file: Path, timeout: int) -> None:
    """Write one container, or all that run in a pod, to `file`; what was written is told on one line."""
    from podwright import pod_checkpoints
    from podwright.cli.output import size

    location = file.absolute()
    async with door.cri() as runtime:
        item = await find(runtime, word)
        if item.kind == "pod":
            names = await pod_checkpoints.save(runtime, item.id, location, timeout)
        else:
            names = [item.name]
            request = cri.CheckpointContainerRequest(
                container_id=item.id, location=str(location), timeout=timeout
            )
            await runtime.checkpoint_container(request)
    print(f"{location}: {item.pod}/{','.join(names)}, {size(location.stat().st_size)}")


async def restore(door: Door, file: Path, pod: str | None, name: str | None, mounts: Sequence[str]) -> None:
    """Run the pod of `file` again, or the container of `file` in `pod`; prints the new id."""
    from podwright import pod_checkpoints
    from podwright.checkpoints import pods
    from podwright.library import Runtime

    archive = file.absolute()
    wanted = [_mount(each) for each in mounts]
    whole = await pods.is_one(archive)
    if whole and (pod is not None or mounts):
        raise InvalidArgument("", f"{file} holds a pod: --pod and --mount are for a container's archive")
    if not whole and pod is None:
        raise InvalidArgument("", f"{file} holds a container: say with --pod in which pod it is restored")
    async with door.cri() as runtime:
        if whole:
            made = await pod_checkpoints.restore(Runtime(runtime, door.config()), archive, name or "")
            print(made.id)
        else:
            assert pod is not None
            print(await _restore_container(runtime, archive, pod, name, wanted))


async def _restore_container(
    runtime: Cri, archive: Path, pod: str, name: str | None, mounts: Sequence[cri.Mount]
) -> str:
    from podwright import pod_checkpoints
    from podwright.checkpoints import reading
    from podwright.library import Sandbox

    item = await find(runtime, pod, ("pod",))
    config = await pod_checkpoints.pod_config(runtime, item.id)
    wanted = name or (await reading.look(str(archive), archive)).config.name
    if not wanted:
        raise InvalidArgument("", f"{archive} does not say what its container is called: use --name")
    sandbox = Sandbox(runtime, item.id, config, None)
    made = await sandbox.create(wanted, str(archive), mounts=mounts)
    try:
        await made.start()
    except FailedPrecondition:
        await made.remove()
        raise
    return made.id


def _mount(text: str) -> cri.Mount:
    host, colon, inside = text.partition(":")
    inside, _, mode = inside.partition(":")
    if not colon or not host.startswith("/") or not inside.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidArgument("--mount", f"{text!r} is not /HOST/PATH:/CONTAINER/PATH, or that with :ro")
    return cri.Mount(host_path=host, container_path=inside, readonly=mode == "ro")
