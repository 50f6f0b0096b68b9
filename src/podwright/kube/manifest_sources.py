"""What programs give as a manifest: a path, text, a document, or one that was parsed already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from podwright.errors import InvalidArgument
from podwright.kube.manifests import kinds, objects
from podwright.kube.manifests.documents import documents, read_text
from podwright.kube.manifests.manifest import Manifest, from_trees
from podwright.kube.manifests.objects import Objects

Source = str | Path | Mapping[str, Any] | Manifest
ObjectSource = Objects | Path | str | Sequence[Mapping[str, Any]]


def one_manifest(
    source: Source,
    beside: ObjectSource | None = None,
    bindings: Mapping[str, str | Path] | None = None,
) -> Manifest:
    """The one Pod of `source`. InvalidArgument when there is none, or more than one. Blocks."""
    if isinstance(source, Manifest):
        return source
    place = "manifest" if isinstance(source, Mapping) or _is_text(source) else str(source)
    bound = {volume: Path(path).absolute() for volume, path in (bindings or {}).items()}
    found = from_trees(_trees(source, place), place, _objects(beside), bindings=bound)
    if len(found) != 1:
        raise InvalidArgument(place, f"holds {len(found)} Pods, one is wanted")
    return found[0]


def _objects(source: ObjectSource | None) -> Objects:
    if source is None or isinstance(source, Objects):
        return source or Objects()
    if isinstance(source, str | Path):
        trees = _trees(source, "objects" if _is_text(source) else str(source))
    else:
        trees = [(dict(one), "objects") for one in source]
    found = Objects()
    for tree, place in trees:
        if kinds.role(tree, place) != "object":
            raise InvalidArgument(place, f"{tree.get('kind')!r} is no object that a pod refers to")
        found = found.adding(objects.from_tree(tree, place))
    return found


def _trees(source: str | Path | Mapping[str, Any], place: str) -> list[tuple[Any, str]]:
    if isinstance(source, Mapping):
        return [(dict(source), place)]
    return documents(str(source) if _is_text(source) else read_text(source), place)


def _is_text(source: object) -> bool:
    return isinstance(source, str) and "\n" in source
