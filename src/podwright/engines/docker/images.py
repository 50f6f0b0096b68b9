"""Images of a Docker Engine, as core wants them (engines.base.ImageService).

Docker shares its images with whoever else uses it. From an image that containers use all names can be
taken but the last, so it gets one that says that it is removed (`image_records.REMOVED`): podwright's clients
do not see it any more, and it really goes with its last container.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import quote

from podwright.config import Config
from podwright.engines.base import Credentials, FilesystemUse, Image, Json
from podwright.engines.docker import archives
from podwright.engines.docker.api import Docker, filters
from podwright.engines.docker.image_records import REMOVED, is_removed, layer_directories, record
from podwright.engines.docker.pause import REPOSITORY
from podwright.engines.docker.pulls import DockerPulls
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError, Unimplemented
from podwright.images import references
from podwright.images.pinned import Pinned
from podwright.stats.disk import Disk
from podwright.steps import step
from podwright.wire import podwright_pb2 as own

log = logging.getLogger(__name__)

GONE = "unrecognized image ID"
"""What Docker says of an image that somebody else is just removing."""
_ALL = "all"


class Images:
    def __init__(self, docker: Docker, config: Config) -> None:
        """InvalidArgument for a pattern in images.pinned that means nothing."""
        self._docker = docker
        sandbox = config.docker.sandbox_image or f"{REPOSITORY}:*"
        self._pinned = Pinned([*config.images.pinned, sandbox])
        self._pulls = DockerPulls(docker, config.images)
        self._accounts: dict[str, Json] = {}
        """What Docker says of each image, by id: nothing of it changes but the names."""
        self._disk = Disk()
        self._root = ""

    async def close(self) -> None:
        """End pulls that are under way."""
        await self._pulls.close()
        await self._disk.close()

    # Looking

    async def list(self) -> Sequence[Image]:
        listed = await self._listed()
        found = await asyncio.gather(*(self._account(each["Id"]) for each in listed))
        return [
            self._image(account, each)
            for each, account in zip(listed, found, strict=True)
            if account is not None and not is_removed(each)
        ]

    async def find(self, reference: str) -> Image | None:
        """The image of this full id, else of this name, else with an id that begins so. InvalidArgument for a
        beginning that several have, and for what can be no reference."""
        digits = references.image_id_prefix(reference)
        if digits is None:
            return await self._found(str(references.parse(reference)))
        if len(digits) == 64:
            return await self._found(f"sha256:{digits}")
        # An exact name beats the beginning of an id: "cafe" may be both.
        if not reference.startswith("sha256:"):
            named = await self._found(str(references.parse(reference)))
            if named is not None:
                return named
        found = [each["Id"] for each in await self._listed() if each["Id"].startswith(f"sha256:{digits}")]
        if len(found) > 1:
            raise InvalidArgument(
                "image.image", f"{len(found)} images have ids that begin with {reference!r}"
            )
        return await self._found(found[0]) if found else None

    async def filesystem_use(self) -> FilesystemUse:
        """Of the images' layers on the disk, each counted once. Where the storage driver does not say where
        they are: what Docker says that they have, and no inodes."""
        if not self._root:
            self._root = str((await self._docker.call("GET", "/info"))["DockerRootDir"])
        listed = await self._listed()
        accounts = [each for id in listed if (each := await self._account(id["Id"])) is not None]
        trees = sorted({tree for each in accounts for tree in layer_directories(each)})
        use = (await self._disk.of({_ALL: trees})).get(_ALL) if trees else None
        if use is None:
            return FilesystemUse(self._root, sum(int(each.get("Size") or 0) for each in listed), 0)
        return FilesystemUse(self._root, use.bytes, use.inodes)

    async def explain_blob(self, digest: str) -> own.ExplainBlobResponse:
        raise Unimplemented("ExplainBlob: a Docker Engine tells nobody of its blobs; engine 'oci' does")

    # Pulls

    async def pull(self, reference: str, credentials: Credentials | None) -> Image:
        if references.parse_local(reference) is not None:
            return (await self.import_image(reference, "", {}))[0]
        name = references.parse(reference)

        async def found() -> Image:
            image = await self._found(str(name))
            if image is None:
                raise NotFound(f"{name} was removed as soon as it was pulled")
            return image

        return await self._pulls.pull(name, credentials, found)

    def watch_pulls(self, image: str = "") -> AsyncIterator[own.PullProgress]:
        return self._pulls.watch(image)

    # Removal

    async def remove(self, reference: str) -> None:
        """Every name of the image, and the image unless a container uses it. That one goes with its last
        container (`collect`)."""
        image = await self.find(reference)
        if image is None:
            return
        with step("remove image"):
            await self._remove(image.id)

    async def collect(self) -> None:
        """A container was removed: images that were removed while it used them go, too."""
        only = {"filters": filters(reference=[REMOVED])}
        for each in await self._docker.call("GET", "/images/json", only):
            for name in each.get("RepoTags") or ():
                if name.startswith(f"{REMOVED}:"):
                    await self._delete(name)

    async def prune(self, *, dry_run: bool, untagged_only: bool) -> own.PruneImagesResponse:
        """Images that no container of this Docker Engine uses, whoever's it is."""
        listed = await self._docker.call("GET", "/containers/json", {"all": True})
        used = {each["ImageID"] for each in listed}
        images = [
            each
            for each in await self.list()
            if each.id not in used and not each.pinned and not (untagged_only and each.repo_tags)
        ]
        answer = own.PruneImagesResponse()
        sizes = await self._own_sizes()
        for image in images:
            size = sizes.get(image.id, image.size)
            answer.images.add(id=image.id, names=[*image.repo_tags, *image.repo_digests], bytes=size)
            answer.bytes += size
            if not dry_run:
                await self._remove(image.id)
        return answer

    # Archives

    async def import_image(self, source: str, reference: str, config: Mapping[str, Json]) -> Sequence[Image]:
        """See ImageService. Roots are refused: Docker would give them a configuration of its own."""
        names = await archives.load(self._docker, source, reference, config)
        found = [await self._found(each) for each in names]
        images = {each.id: each for each in found if each is not None}
        if not images:
            raise NotFound(f"{source} was removed as soon as it was loaded")
        return list(images.values())

    async def export_image(self, reference: str, target: str) -> tuple[Image, int]:
        image = await self.find(reference)
        if image is None:
            raise NotFound(f"there is no image {reference}")
        return image, await archives.save(self._docker, image, reference, target)

    # One image

    async def _listed(self) -> Sequence[Json]:
        found: Sequence[Json] = await self._docker.call("GET", "/images/json")
        return found

    async def _account(self, name: str, *, fresh: bool = False) -> Json:
        """What Docker says of it, None without it. By id it may be older than the image's names."""
        if not fresh and name in self._accounts:
            return self._accounts[name]
        try:
            account = await self._docker.call("GET", f"/images/{path(name)}/json")
        except NotFound:
            self._accounts.pop(name, None)
            return None
        self._accounts[account["Id"]] = account
        return account

    async def _found(self, name: str) -> Image | None:
        account = await self._account(name, fresh=True)
        return None if account is None or is_removed(account) else self._image(account, account)

    def _image(self, account: Json, names: Json) -> Image:
        told = {"RepoTags": names.get("RepoTags"), "RepoDigests": names.get("RepoDigests")}
        return record(account | told, self._pinned)

    async def _remove(self, id: str) -> None:
        account = await self._account(id, fresh=True)
        if account is None or is_removed(account):
            return
        for name in (*(account.get("RepoTags") or ()), *(account.get("RepoDigests") or ()), id):
            # Never by force: that would take it away from containers that do not run at the moment.
            if not await self._delete(name):
                _, _, digits = id.partition(":")
                try:
                    await self._docker.call(
                        "POST", f"/images/{id}/tag", {"repo": REMOVED, "tag": digits[:32]}
                    )
                except NotFound:
                    break  # its last container has gone meanwhile, and somebody has removed it
                if name != id:
                    await self._delete(name)
        self._accounts.pop(id, None)

    async def _delete(self, name: str) -> bool:
        """Whether it is gone, whoever has removed it; False when it is the last of an image in use."""
        try:
            await self._docker.call("DELETE", f"/images/{path(name)}")
        except NotFound:
            pass
        except FailedPrecondition:
            return False
        except PodwrightError as error:
            if GONE not in str(error):
                raise
        return True

    async def _own_sizes(self) -> dict[str, int]:
        """What each image has for itself, by id, where Docker tells."""
        usage = await self._docker.call("GET", "/system/df")
        return {
            each["Id"]: max(0, each["Size"] - each["SharedSize"])
            for each in usage.get("Images") or ()
            if each.get("SharedSize", -1) >= 0
        }


def path(name: str) -> str:
    """A name of an image in a path: it keeps its slashes."""
    return quote(name, safe="/:@")
