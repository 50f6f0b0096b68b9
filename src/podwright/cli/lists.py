"""ps, pods, images: what there is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from podwright.cli import pod_notes
from podwright.cli.output import Format, age, json, plain, short, size, table

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.wire import cri_pb2 as cri


async def ps(door: Door, every: bool, quiet: bool, output: Format) -> None:
    from podwright.cli.find import everything
    from podwright.wire import cri_pb2 as cri

    async with door.cri() as runtime:
        containers, pods = await everything(runtime)
        if not every:
            containers = [one for one in containers if one.state == cri.CONTAINER_RUNNING]
        containers.sort(key=lambda one: one.created_at, reverse=True)
        if quiet:
            _ids([one.id for one in containers])
            return
        if output is Format.JSON:
            json(plain(cri.ListContainersResponse(containers=containers)))
            return
        codes = await _exit_codes(runtime, containers)
    table(
        ("ID", "NAME", "POD", "IMAGE", "STATE", "AGE", "ATTEMPT"),
        [
            (
                short(one.id),
                one.metadata.name,
                pods[one.pod_sandbox_id].metadata.name if one.pod_sandbox_id in pods else "-",
                one.image.user_specified_image or _image_name(one.image.image),
                _container_state(one, codes),
                age(one.created_at),
                str(one.metadata.attempt),
            )
            for one in containers
        ],
    )


async def pods(door: Door, quiet: bool, output: Format) -> None:
    from podwright.cli.find import everything
    from podwright.wire import cri_pb2 as cri

    async with door.cri() as runtime:
        containers, by_id = await everything(runtime)
    items = sorted(by_id.values(), key=lambda pod: pod.created_at, reverse=True)
    if quiet:
        _ids([pod.id for pod in items])
        return
    if output is Format.JSON:
        json(plain(cri.ListPodSandboxResponse(items=items)))
        return
    running = [one.pod_sandbox_id for one in containers if one.state == cri.CONTAINER_RUNNING]
    everyone = [one.pod_sandbox_id for one in containers]
    columns = ["ID", "NAME", "NAMESPACE", "STATE", "RUNNING", "AGE", "ATTEMPT"]
    rows = [
        [
            short(pod.id),
            pod.metadata.name,
            pod.metadata.namespace,
            "ready" if pod.state == cri.SANDBOX_READY else "not ready",
            f"{running.count(pod.id)}/{everyone.count(pod.id)}",
            age(pod.created_at),
            str(pod.metadata.attempt),
        ]
        for pod in items
    ]
    if notes := await asyncio.to_thread(pod_notes.read, door.config().root_path):
        live = {one.id for one in containers if one.state == cri.CONTAINER_RUNNING}
        columns += pod_notes.COLUMNS
        for pod, row in zip(items, rows, strict=True):
            row += pod_notes.cells(notes.pop(pod.metadata.uid, None), live)
        # Those that have no sandbox yet, or none any more.
        rows += [
            ["-", one.name, one.namespace, "-", "0/0", age(one.since), "-", *pod_notes.cells(one, live)]
            for one in notes.values()
        ]
    table(columns, rows)


async def images(door: Door, quiet: bool, output: Format) -> None:
    from podwright.wire import cri_pb2 as cri

    async with door.cri() as runtime:
        response = await runtime.list_images(cri.ListImagesRequest())
    if quiet:
        _ids([image.id for image in response.images])
    elif output is Format.JSON:
        json(plain(response))
    else:
        rows = [
            (short(image.id), name, size(image.size), "yes" if image.pinned else "")
            for image in response.images
            for name in image.repo_tags or image.repo_digests or ["-"]
        ]
        table(("ID", "IMAGE", "SIZE", "PINNED"), sorted(rows, key=lambda row: row[1]))


def _ids(ids: list[str]) -> None:
    for id in ids:
        print(id)


async def _exit_codes(runtime: Cri, containers: list[cri.Container]) -> dict[str, int]:
    """The exit codes of those that have ended: lists do not carry them."""
    from podwright.errors import NotFound
    from podwright.wire import cri_pb2 as cri

    async def code(id: str) -> int | None:
        try:
            response = await runtime.container_status(cri.ContainerStatusRequest(container_id=id))
        except NotFound:
            return None  # removed in the meantime
        return response.status.exit_code

    ended = [one.id for one in containers if one.state == cri.CONTAINER_EXITED]
    codes = await asyncio.gather(*map(code, ended))
    return {id: number for id, number in zip(ended, codes, strict=True) if number is not None}


def _container_state(container: cri.Container, codes: dict[str, int]) -> str:
    from podwright.wire import cri_pb2 as cri

    state = {
        cri.CONTAINER_CREATED: "created",
        cri.CONTAINER_RUNNING: "running",
        cri.CONTAINER_EXITED: "exited",
    }.get(container.state, "unknown")
    return f"exited ({codes[container.id]})" if container.id in codes else state


def _image_name(image: str) -> str:
    return short(image) if image.startswith("sha256:") else image
