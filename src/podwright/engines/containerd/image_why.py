"""Why something is in containerd's store: what a digest is there, and everything that keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from podwright.engines.containerd.api import LEASE_EXPIRY, Containerd
from podwright.engines.containerd.content import GC_CONTENT, Content
from podwright.engines.containerd.image_records import Entry, ImageRecords
from podwright.engines.containerd.image_trees import Tree
from podwright.engines.containerd.image_usage import SnapshotUse
from podwright.engines.containerd.leases import CONTENT, PULL_LABEL, PullLeases
from podwright.errors import InvalidArgument, NotFound
from podwright.images import references
from podwright.images.pinned import Pinned
from podwright.wire import podwright_pb2 as own
from podwright.wire.containerd import snapshots_pb2

CONTENT_PLUGIN = ("io.containerd.content.v1", "content")


class Why:
    def __init__(
        self,
        containerd: Containerd,
        content: Content,
        records: ImageRecords,
        leases: PullLeases,
        use: SnapshotUse,
        pinned: Pinned,
        snapshotters: Sequence[str],
    ) -> None:
        self._containerd = containerd
        self._content = content
        self._records = records
        self._leases = leases
        self._use = use
        self._pinned = pinned
        self._snapshotters = snapshotters

    async def explain(self, text: str) -> own.ExplainBlobResponse:
        """See ImageService.explain_blob. What a digest is several times is told in one answer."""
        entries, infos = await self._records.all(), {each.digest: each for each in await self._content.all()}
        snapshots = {
            (snapshotter, each.name): each
            for snapshotter in self._snapshotters
            for each in await self._use.snapshots(snapshotter)
        }
        digest = await self._digest_of(text, entries, infos, [name for _, name in snapshots])
        answer, kinds = own.ExplainBlobResponse(digest=digest), list[str]()
        seen: set[tuple[str, str, str]] = set()

        def keep(kind: str, name: str, how: str) -> None:
            if (kind, name, how) not in seen:
                seen.add((kind, name, how))
                answer.keepers.add(kind=kind, name=name, how=how)

        for entry in entries:
            if entry.image.id == digest:
                kinds.append("image")
            for tree in entry.trees:
                for kind, how in _parts(tree, digest):
                    if kind not in kinds:
                        kinds.append(kind)
                    for keeper in self._of_image(entry, how):
                        keep(*keeper)
        if (info := infos.get(digest)) is not None:
            answer.bytes += info.size
            answer.path = self._path(digest)
            kinds = kinds or ["blob"]
            for other in infos.values():
                for key, value in other.labels.items():
                    if key.startswith(GC_CONTENT) and value == digest:
                        keep("blob", other.digest, f"its label {key}")
        for (snapshotter, name), each in snapshots.items():
            if name == digest:
                kinds.append("layer")
                answer.bytes += (await self._use.of_layer(snapshotter, name))[0]
            if each.parent == digest and each.kind != snapshots_pb2.COMMITTED:
                keep("snapshot", name, f"stands on it ({snapshotter})")
        await self._of_leases(digest, keep)
        answer.kind = ", ".join(dict.fromkeys(kinds))
        return answer

    def _of_image(self, entry: Entry, how: str) -> Iterator[tuple[str, str, str]]:
        image = entry.image
        of = f"{how} of image {image.id.partition(':')[2][:12]}" if how else ""
        for name in sorted(entry.names, key=lambda each: ("@" in each, each)):
            if name != image.id:
                yield "name", name, of or "names it"
        if not image.repo_tags and not image.repo_digests:
            yield "image", image.id, of or "is listed without a name until it is removed"
        for pattern in self._pinned.matching(image.id, (*image.repo_tags, *image.repo_digests)):
            yield "pinned", pattern, of or "keeps it from `podwright image prune`"

    async def _of_leases(self, digest: str, keep: Callable[[str, str, str], None]) -> None:
        for lease in await self._leases.all():
            for resource in await self._leases.resources(lease.id):
                layer = resource.type.startswith("snapshots/")
                if resource.id == digest and (layer or resource.type == CONTENT):
                    what = lease.labels.get(PULL_LABEL) or "another client of containerd"
                    until = lease.labels.get(LEASE_EXPIRY)
                    keep("lease", lease.id, f"{what}, until {until}" if until else what)

    async def _digest_of(
        self, text: str, entries: Sequence[Entry], infos: Iterable[str], snapshots: Iterable[str]
    ) -> str:
        """The one digest that `text` is, begins, or names. NotFound, InvalidArgument."""
        digits = references.image_id_prefix(text)
        if digits is not None:
            found = {
                each for each in (*infos, *snapshots, *_ids(entries)) if each.startswith(f"sha256:{digits}")
            }
            if len(found) > 1:
                raise InvalidArgument("digest", f"{len(found)} digests here begin with {text!r}")
            if found:
                return found.pop()
        if not text.startswith("sha256:") and (digits is None or len(digits) < 64):
            entry = await self._records.find(text)
            if entry is not None:
                return entry.image.id
        raise NotFound(f"{text} is neither a blob, a layer nor an image of this containerd's namespace")

    def _path(self, digest: str) -> str:
        """Where containerd's own store has it, if it is here."""
        plugin = self._containerd.plugins(CONTENT_PLUGIN[0]).get(CONTENT_PLUGIN[1])
        root = plugin.exports.get("root", "") if plugin is not None else ""
        path = Path(root) / "blobs" / digest.replace(":", "/")
        return str(path) if root and path.is_file() else ""


def _ids(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        yield entry.image.id
        for tree in entry.trees:
            yield from tree.diff_ids


def _parts(tree: Tree, digest: str) -> Iterator[tuple[str, str]]:
    """What `digest` is in the image, and in words; "" for the image itself."""
    if digest in tree.indexes:
        yield "index", "index"
    if digest == tree.manifest:
        yield "manifest", "" if tree.artifact else "manifest"
    if digest == tree.document.config.digest:
        yield "configuration", "" if digest == tree.id else "configuration"
    layers = [each.digest for each in tree.document.layers]
    if digest in layers:
        yield "layer blob", f"blob of layer {layers.index(digest) + 1} of {len(layers)}"
    for ids in (tree.chain, tree.diff_ids):
        if digest in ids:
            yield "layer", f"layer {list(ids).index(digest) + 1} of {len(ids)}"
