"""Which images a containerd's namespace has, whoever pulled them, and what they are called.

An image is found by its configuration; its records are names that point at a target (an index or a manifest).
podwright makes for each image what containerd's CRI plugin makes: a record for its tag, one for its digest in
the repository, and one that is called as its id, which keeps it when its tag moves on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from podwright.engines.base import Image
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.image_trees import Tree, Trees
from podwright.errors import AlreadyExists, InvalidArgument, NotFound, PodwrightError, Unavailable
from podwright.images import references
from podwright.images.documents import Descriptor
from podwright.images.pinned import Pinned
from podwright.wire.containerd import images_pb2, types_pb2

MANAGED = {"podwright.io/image": "managed"}
"""Labels of the records that podwright makes."""
PINNED_LABEL, PINNED = "io.cri-containerd.pinned", "pinned"
"""What containerd's CRI plugin gives records of images that are to be spared. It is read, never written."""


@dataclass(frozen=True, slots=True)
class Entry:
    image: Image
    names: tuple[str, ...]
    """Of its records, as they are."""
    trees: tuple[Tree, ...]
    """What they point at, each once, the oldest first."""


class ImageRecords:
    def __init__(self, containerd: Containerd, trees: Trees, pinned: Pinned) -> None:
        self._containerd = containerd
        self._trees = trees
        self._pinned = pinned

    # Looking

    async def all(self) -> list[Entry]:
        """The images that can be run here: records of other platforms, or without their content, are none."""
        answer = await self._containerd.ask(
            self._containerd.images.List, images_pb2.ListImagesRequest(), "its images"
        )
        records = sorted(answer.images, key=lambda each: (each.created_at.ToNanoseconds(), each.name))
        targets = {each.target.digest: _descriptor(each.target) for each in records}
        found = dict(zip(targets, await asyncio.gather(*map(self._tree, targets.values())), strict=True))
        by_id: dict[str, list[images_pb2.Image]] = {}
        for record in records:
            if (tree := found[record.target.digest]) is not None:
                by_id.setdefault(tree.id, []).append(record)
        return [self._entry(members, found) for members in by_id.values()]

    async def find(self, reference: str) -> Entry | None:
        """The image of this full id, else of this name, else with an id that begins so. InvalidArgument for a
        beginning that several have, and for what can be no reference."""
        digits = references.image_id_prefix(reference)
        if digits is None:
            return _named(str(references.parse(reference)), await self.all())
        entries = await self.all()
        if len(digits) == 64:
            return _with_id(f"sha256:{digits}", entries)
        # An exact name beats the beginning of an id: "cafe" may be both.
        if not reference.startswith("sha256:") and (
            named := _named(str(references.parse(reference)), entries)
        ):
            return named
        found = [each for each in entries if each.image.id.startswith(f"sha256:{digits}")]
        if len(found) > 1:
            raise InvalidArgument(
                "image.image", f"{len(found)} images have ids that begin with {reference!r}"
            )
        return found[0] if found else None

    async def with_id(self, image_id: str) -> Entry:
        """NotFound."""
        entry = _with_id(image_id, await self.all())
        if entry is None:
            raise NotFound(f"image {image_id} is not in containerd's namespace {self._containerd.namespace}")
        return entry

    async def target(self, name: str) -> Descriptor:
        """What the record `name` points at. NotFound."""
        request = images_pb2.GetImageRequest(name=name)
        answer = await self._containerd.ask(self._containerd.images.Get, request, f"image {name}")
        return _descriptor(answer.image.target)

    # Writing

    async def point(self, target: Descriptor, names: Iterable[str]) -> None:
        """Let records of these names point at `target`, whatever they pointed at."""
        for name in dict.fromkeys(names):
            await self._point(target, name)
        self._trees.forget(target.digest)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete records; those that are gone are fine. What nothing else needs is gone when this returns."""
        for index, name in enumerate(names):
            request = images_pb2.DeleteImageRequest(name=name, sync=index == len(names) - 1)
            try:
                await self._containerd.ask(self._containerd.images.Delete, request, f"image {name}")
            except NotFound:
                pass

    async def _point(self, target: Descriptor, name: str) -> None:
        image = images_pb2.Image(
            name=name,
            labels=MANAGED,
            target=types_pb2.Descriptor(media_type=target.media_type, digest=target.digest, size=target.size),
        )
        images = self._containerd.images
        for _ in range(3):
            try:
                create = images_pb2.CreateImageRequest(image=image)
                await self._containerd.ask(images.Create, create, f"image {name}")
                return
            except AlreadyExists:
                pass
            update = images_pb2.UpdateImageRequest(image=image)
            update.update_mask.paths.extend(["target", *(f"labels.{key}" for key in MANAGED)])
            try:
                await self._containerd.ask(images.Update, update, f"image {name}")
                return
            except NotFound:
                pass  # somebody has just deleted it
        raise Unavailable(f"containerd: image {name}: somebody makes and deletes it all the time")

    # Entries

    async def _tree(self, target: Descriptor) -> Tree | None:
        try:
            return await self._trees.of(target)
        except Unavailable:
            raise
        except PodwrightError:
            return None  # for another platform, not all here, or no image at all

    def _entry(self, records: Sequence[images_pb2.Image], found: dict[str, Tree | None]) -> Entry:
        targets = dict.fromkeys(each.target.digest for each in records)
        trees = tuple(tree for digest in targets if (tree := found[digest]) is not None)
        names = tuple(each.name for each in records)
        full = {name for each in names if (name := _full(each))}
        tags = tuple(sorted(name for name in full if "@" not in name))
        digests = tuple(sorted(name for name in full if "@" in name))
        image = trees[0].image()
        pinned = self._pinned.matches(image.id, (*tags, *digests)) or any(
            each.labels.get(PINNED_LABEL) == PINNED for each in records
        )
        return Entry(replace(image, repo_tags=tags, repo_digests=digests, pinned=pinned), names, trees)


def _full(name: str) -> str:
    """A record's name as images are called, "" when it is none: ids are no names."""
    try:
        return str(references.parse(name))
    except InvalidArgument:
        return ""


def _named(name: str, entries: Iterable[Entry]) -> Entry | None:
    return next((each for each in entries if name in (*each.image.repo_tags, *each.image.repo_digests)), None)


def _with_id(image_id: str, entries: Iterable[Entry]) -> Entry | None:
    return next((each for each in entries if each.image.id == image_id), None)


def _descriptor(target: types_pb2.Descriptor) -> Descriptor:
    return Descriptor(target.digest, target.media_type, target.size)
