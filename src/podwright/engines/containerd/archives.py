"""Images out of containerd into files: blobs are copied out of the content store, then written as always."""

from __future__ import annotations

from podwright.engines.base import Image
from podwright.engines.containerd.content import Content
from podwright.engines.containerd.image_records import Entry
from podwright.engines.containerd.image_trees import Tree
from podwright.engines.containerd.leases import CONTENT, PullLeases
from podwright.engines.containerd.pulls import copied
from podwright.engines.containerd.scratch import Scratch
from podwright.errors import FailedPrecondition
from podwright.images import references
from podwright.images.written import Leaving, place_of, write
from podwright.steps import step


async def export(
    content: Content, leases: PullLeases, scratch: Scratch, entry: Entry, reference: str, target: str
) -> tuple[Image, int]:
    """See ImageService.export_image; `reference` has led to `entry`."""
    place = place_of(target)
    tree = _meant(entry, reference)
    layers = (each.digest for each in tree.document.layers)
    wanted = dict.fromkeys((tree.manifest, tree.document.config.digest, *layers))
    async with leases.lease(f"export of {reference}") as lease, scratch.workplace() as work:
        lease.recorded = True  # nothing of it is worth keeping after a failure
        await lease.hold(CONTENT, wanted)
        missing = [each for each in wanted if await content.info(each) is None]
        if missing:
            raise FailedPrecondition(
                f"{reference}: {len(missing)} of its {len(wanted)} blobs are not in containerd's content"
                f" store: remove the image and pull it again ({', '.join(missing)})"
            )
        files = {each: work / each.partition(":")[2] for each in wanted}
        with step("write image", place.path):
            for digest, path in files.items():
                await copied(content, digest, path)
            config = files[tree.document.config.digest].read_bytes()
            leaving = Leaving(entry.image, tree.manifest, tree.document, config, tree.diff_ids, files)
            return entry.image, await write(leaving, reference, place, scratch.workplace)


def _meant(entry: Entry, reference: str) -> Tree:
    """The way the image came by that a digest in `reference` says, or the latest."""
    if references.image_id_prefix(reference) is None:
        digest = references.parse(reference).digest
        for tree in entry.trees:
            if digest in (tree.target.digest, tree.manifest):
                return tree
    return entry.trees[-1]
