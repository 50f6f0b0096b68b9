"""The rules of the image calls: what is echoed, which credentials count; which images a container mounts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping

from podwright.core.ground import Ground
from podwright.core.words import json_texts
from podwright.engines.base import Credentials, FilesystemUse, Image, ImageService, Json
from podwright.errors import InvalidArgument
from podwright.images.layers import chain_ids
from podwright.images.references import full_name, parse, parse_local
from podwright.wire import cri_pb2 as cri
from podwright.wire import podwright_pb2 as own


class Images:
    def __init__(self, ground: Ground) -> None:
        self._service = ground.engine.images
        self._clock = ground.clock

    async def list(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        wanted = request.filter.image.image
        if wanted:
            image = await self._service.find(wanted)
            return cri.ListImagesResponse(images=[image_message(image)] if image else [])
        return cri.ListImagesResponse(images=[image_message(image) for image in await self._service.list()])

    async def status(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        _require_image(request.image)
        image = await self._service.find(request.image.image)
        if image is None:
            return cri.ImageStatusResponse()
        response = cri.ImageStatusResponse(image=image_message(image))
        if request.verbose:
            response.info.update(json_texts({"info": _info(image)}))
        return response

    async def pull(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        _require_image(request.image)
        credentials = credentials_for(request.image.image, request.auth) if request.HasField("auth") else None
        image = await self._service.pull(request.image.image, credentials)
        return cri.PullImageResponse(image_ref=image.id)

    def watch_pulls(self, request: own.WatchPullsRequest) -> AsyncIterator[own.PullProgress]:
        """Pulls are known by full names: whatever way of writing the image the watcher has, it sees them."""
        return self._service.watch_pulls(full_name(request.image, "image") if request.image else "")

    async def remove(self, request: cri.RemoveImageRequest) -> None:
        _require_image(request.image)
        await self._service.remove(request.image.image)

    async def filesystem(self) -> cri.ImageFsInfoResponse:
        use = await self._service.filesystem_use()
        usages = [self._usage(each) for each in (use, *use.others)]
        # A kubelet looks at the first.
        return cri.ImageFsInfoResponse(image_filesystems=usages, container_filesystems=usages)

    def _usage(self, use: FilesystemUse) -> cri.FilesystemUsage:
        return cri.FilesystemUsage(
            timestamp=self._clock.now(),
            fs_id=cri.FilesystemIdentifier(mountpoint=use.mountpoint),
            used_bytes=cri.UInt64Value(value=use.used_bytes),
            inodes_used=cri.UInt64Value(value=use.inodes_used),
        )


def _info(image: Image) -> Json:
    """As containerd's CRI plugin shows it: `crictl inspecti IMAGE | jq .info.imageSpec.architecture`."""
    info: dict[str, Json] = {"imageSpec": {**image.built, "config": dict(image.config)}}
    rootfs = image.built.get("rootfs")
    if isinstance(rootfs, Mapping) and (chain := chain_ids(rootfs["diff_ids"])):
        info = {"chainID": chain[-1], **info}
    return info


def image_message(image: Image) -> cri.Image:
    """What every call tells of `image`: the same, whatever name it was asked for by."""
    message = cri.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size=image.size,
        pinned=image.pinned,
        spec=cri.ImageSpec(image=image.id),
    )
    # The kubelet's runAsNonRoot check reads these: a number goes to uid, a name to username, never both. What
    # a container would run as decides: digits are a number also with zeros in front, other scripts' are not.
    user = image.user.partition(":")[0]
    if not user:
        message.uid.value = 0
    elif user.isdecimal() and user.isascii() and int(user) < 2**63:
        message.uid.value = int(user)
    else:
        message.username = user
    return message


async def with_volume_images(images: ImageService, config: cri.ContainerConfig) -> cri.ContainerConfig:
    """`config` with the ids of the images that it mounts as their `image_ref`: statuses tell them (KEP-5365),
    and a tag that moves meanwhile changes nothing. An image that is not here is the engine's to refuse."""
    if not any(mount.image.image for mount in config.mounts):
        return config
    resolved = cri.ContainerConfig()
    resolved.CopyFrom(config)
    for mount in resolved.mounts:
        if mount.image.image:
            image = await images.find(mount.image.image)
            mount.image.image_ref = image.id if image else ""
    return resolved


def credentials_for(reference: str, auth: cri.AuthConfig) -> Credentials | None:
    """The credentials of an AuthConfig; only the host of those for another registry than `reference`'s.

    A `server_address` must name the registry the image comes from, otherwise the pull is anonymous: a
    secret must not reach a host it was not meant for. Raises InvalidArgument for an `auth` that is no
    base64 of "user:password".
    """
    if parse_local(reference) is not None:
        return None
    if auth.server_address and (host := _host(auth.server_address)) != parse(reference).domain:
        # A name and password may stand before it.
        return Credentials(withheld=host.rpartition("@")[2])
    if auth.identity_token:
        return Credentials(identity_token=auth.identity_token)
    if auth.username or auth.password:
        return Credentials(auth.username, auth.password)
    if auth.auth:
        try:
            text = base64.b64decode(auth.auth.rstrip("\0"), validate=True).decode().rstrip("\0")
        except (binascii.Error, ValueError):
            raise InvalidArgument("auth.auth", "is not base64") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidArgument("auth.auth", 'does not hold "user:password"')
        return Credentials(username, password)
    if auth.registry_token:
        return Credentials(registry_token=auth.registry_token)
    return None


def _host(address: str) -> str:
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _require_image(spec: cri.ImageSpec) -> None:
    if not spec.image:
        raise InvalidArgument("image.image", "is required")
