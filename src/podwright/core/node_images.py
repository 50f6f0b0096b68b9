"""The rules of the image calls that are podwright's own (`api.Node`): what each takes, in which form."""

from __future__ import annotations

from typing import Any

import msgspec

from podwright.core.ground import Ground
from podwright.errors import InvalidArgument
from podwright.images.references import TRANSPORTS
from podwright.wire import podwright_pb2 as own

TARGETS = ("oci", "oci-archive", "docker-archive")


class NodeImages:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._service = ground.engine.images

    async def explain_blob(self, request: own.ExplainBlobRequest) -> own.ExplainBlobResponse:
        if not request.digest:
            raise InvalidArgument("digest", "is required")
        return await self._service.explain_blob(request.digest)

    async def prune(self, request: own.PruneImagesRequest) -> own.PruneImagesResponse:
        return await self._ground.detached(
            self._service.prune(dry_run=request.dry_run, untagged_only=request.untagged_only)
        )

    async def import_image(self, request: own.ImportImageRequest) -> own.ImportImageResponse:
        """A client that goes away ends the import; what is half made is undone."""
        _require_absolute("source", request.source, TRANSPORTS)
        images = await self._service.import_image(request.source, request.reference, _config(request.config))
        return own.ImportImageResponse(image_ref=images[0].id, image_refs=[image.id for image in images])

    async def export_image(self, request: own.ExportImageRequest) -> own.ExportImageResponse:
        if not request.image:
            raise InvalidArgument("image", "is required")
        if request.target.partition(":")[0] not in TARGETS:
            raise InvalidArgument("target", f"{request.target!r} begins with none of {', '.join(TARGETS)}")
        _require_absolute("target", request.target, TARGETS)
        image, size = await self._service.export_image(request.image, request.target)
        return own.ExportImageResponse(image_ref=image.id, bytes=size)


def _require_absolute(field: str, text: str, schemes: tuple[str, ...]) -> None:
    scheme, colon, rest = text.partition(":")
    path = rest if colon and scheme in schemes else text
    if not path.startswith("/"):
        raise InvalidArgument(field, f"{text!r}: the path must be absolute, it is one of the server's host")


def _config(text: bytes) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("config", f"is no JSON object: {error}") from error
