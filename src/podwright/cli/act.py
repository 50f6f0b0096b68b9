"""stop, rm, rmi: what changes something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from podwright.cli.find import Found, everything, find_all
from podwright.errors import FailedPrecondition, NotFound
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.config import Config


async def stop(door: Door, words: Sequence[str], grace: int) -> None:
    """Containers get their stop signal and `grace` seconds; a pod's containers first, then the pod."""
    async with door.cri() as runtime:
        found = await find_all(runtime, words)
        await _each(_stop(runtime, item, grace) for item in found)


async def rm(door: Door, words: Sequence[str], force: bool) -> None:
    # The library's door takes the built-in bridge away after the last pod.
    from podwright.cli.share import patient
    from podwright.library import Runtime, open

    config = door.config()
    async with AsyncExitStack() as stack:

        async def enter() -> Runtime:
            if (address := door.answering()) is None:
                door.require_no_server()
            return await stack.enter_async_context(open(config=config, endpoint=address))

        runtime = (await patient(enter)).cri
        only_files = await _without_sandboxes(runtime, config)
        found = await find_all(runtime, [one for one in words if one not in only_files])
        if not force:
            for item in found:
                if item.is_up:
                    raise FailedPrecondition(
                        f"{item.kind} {item.title} is {'running' if item.kind == 'container' else 'ready'}: "
                        "stop it first, or use --force"
                    )
        await _each(_remove(runtime, item, config) for item in found)
        for one in dict.fromkeys(only_files[word] for word in words if word in only_files):
            await _remove_files(config, cri.PodSandboxMetadata(namespace=one[0], name=one[1], uid=one[2]))
            print(one[2])


async def rmi(door: Door, references: Sequence[str]) -> None:
    async with door.cri() as runtime:
        for reference in references:
            image = cri.ImageSpec(image=reference)
            # The CRI removes what is not there without a word; a person has mistyped.
            status = await runtime.image_status(cri.ImageStatusRequest(image=image))
            if not status.HasField("image"):
                raise NotFound(f"there is no image {reference!r}")
            await runtime.remove_image(cri.RemoveImageRequest(image=image))
            print(status.image.id)


async def _stop(runtime: Cri, item: Found, grace: int) -> None:
    if item.kind == "container":
        await runtime.stop_container(cri.StopContainerRequest(container_id=item.id, timeout=grace))
    else:
        containers, _ = await everything(runtime)
        await _each(
            runtime.stop_container(cri.StopContainerRequest(container_id=one.id, timeout=grace))
            for one in containers
            if one.pod_sandbox_id == item.id and one.state == cri.CONTAINER_RUNNING
        )
        await runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=item.id))
    print(item.id)


async def _remove(runtime: Cri, item: Found, config: Config) -> None:
    if item.kind == "container":
        await runtime.remove_container(cri.RemoveContainerRequest(container_id=item.id))
    else:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=item.id)
        metadata = (await runtime.pod_sandbox_status(request)).status.metadata
        await runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=item.id))
        await runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=item.id))
        await _remove_files(config, metadata)
    print(item.id)


async def _remove_files(config: Config, metadata: cri.PodSandboxMetadata) -> None:
    """What `podwright run` made for a pod, if it was one of its pods."""
    from podwright.kube import volumes
    from podwright.kube.files import pod_cgroups
    from podwright.kube.node import look

    node = await asyncio.to_thread(look, config)
    await asyncio.to_thread(volumes.discard, node.root, metadata, node.logs)
    await asyncio.to_thread(pod_cgroups.discard, node, metadata.uid)


async def _without_sandboxes(runtime: Cri, config: Config) -> dict[str, tuple[str, str, str]]:
    """Namespace, name and uid of the pods that never got a sandbox, or have lost it, by all their names."""
    from podwright.cli import pod_notes

    noted = await asyncio.to_thread(pod_notes.read, config.root_path)
    if not noted:
        return {}
    made = (await runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    uids, names = {one.metadata.uid for one in made}, {one.metadata.name for one in made}
    found: dict[str, tuple[str, str, str]] = {}
    for uid, one in noted.items():
        if uid not in uids:
            title = (one.namespace, one.name, uid)
            found |= {uid: title} | (
                {one.name: title, f"{one.namespace}/{one.name}": title} if one.name not in names else {}
            )
    return found


async def _each(calls: Iterable[Awaitable[object]]) -> None:
    """All of them at once; when some fail, the first error after all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
