"""inspect: everything there is to know about a container, a pod or an image, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwright.cli.find import find
from podwright.cli.output import json, plain
from podwright.errors import NotFound
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from podwright.api import Cri
    from podwright.cli.door import Door


async def inspect(door: Door, words: list[str], kind: str | None) -> None:
    """Print the verbose status of each object: one as an object, several as a list."""
    async with door.cri() as runtime:
        shown = [await _one(runtime, word, kind) for word in words]
    json(shown[0] if len(shown) == 1 else shown)


async def _one(runtime: Cri, word: str, kind: str | None) -> dict[str, Any]:
    if kind != "image":
        try:
            found = await find(runtime, word, ("container", "pod") if kind is None else (_kind(kind),))
        except NotFound:
            if kind is not None:
                raise
        else:
            if found.kind == "pod":
                request = cri.PodSandboxStatusRequest(pod_sandbox_id=found.id, verbose=True)
                return _opened(await runtime.pod_sandbox_status(request))
            asked = cri.ContainerStatusRequest(container_id=found.id, verbose=True)
            return _opened(await runtime.container_status(asked))
    status = await runtime.image_status(cri.ImageStatusRequest(image=cri.ImageSpec(image=word), verbose=True))
    if not status.HasField("image"):
        raise NotFound(f"no {kind or 'container, pod or image'} has the id or name {word!r}")
    return _opened(status)


def _kind(kind: str) -> Any:
    return kind


def _opened(response: Message) -> dict[str, Any]:
    """The response with the JSON texts of `info` parsed: nobody wants to read JSON in JSON."""
    import msgspec

    shown = plain(response)
    for key, text in shown.get("info", {}).items():
        try:
            shown["info"][key] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass  # a word
    return shown
