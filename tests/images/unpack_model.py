"""What layers unpack to, as simply as it can be said: a tree in memory to which entries are applied.

Written from the rules (layer.md of the OCI image specification, and the first lines of
`podwright/images/unpacking/layer.py`), not from the code: no file descriptors, no overlayfs, no whiteouts.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "pipe",
    tarfile.CHRTYPE: "character",
    tarfile.LNKTYPE: "hard",
}


@dataclass(frozen=True)
class Made:
    """One entry of a layer."""

    name: bytes
    type: bytes = tarfile.REGTYPE
    content: bytes = b""
    """Of a file; what a link says."""
    mode: int = 0o644
    uid: int = 0
    mtime: int = 0
    device: int = 0
    """A minor number; with 0 it is what overlayfs takes for a whiteout."""
    note: bytes = b""
    """The attribute user.note of a file or directory, if any."""


@dataclass(eq=False)
class Node:
    kind: str
    mode: int
    uid: int
    mtime: int | None
    """None where nothing says what it is."""
    content: bytes | int = b""
    note: bytes = b""
    layer: int = 0
    """The layer that brought it, or had to copy it up."""
    inside: dict[bytes, Node] = field(default_factory=dict)


class Impossible(Exception):
    """No tree can come of this layer."""


class Model:
    def __init__(self) -> None:
        self.root = Node("directory", 0o755, 0, None)
        self._layer = 0

    def add(self, entries: Iterable[Made]) -> None:
        """Apply one layer. Raises Impossible."""
        self._layer += 1
        self.root.layer = self._layer
        for entry in entries:
            self._apply(entry)

    def names(self) -> dict[bytes, Node]:
        found, todo = {b".": self.root}, [(b"", self.root)]
        while todo:
            path, node = todo.pop()
            for name, child in node.inside.items():
                found[path + name] = child
                todo.append((path + name + b"/", child))
        return found

    def _apply(self, entry: Made) -> None:
        parts = clean(entry.name)
        if any(part.startswith(b".wh..wh.") for part in parts[:-1]):
            return
        if not parts:
            if entry.type != tarfile.DIRTYPE:
                raise Impossible
            self._set(self.root, entry)
            return
        base = parts[-1]
        if base.startswith(b".wh..wh.") and base != b".wh..wh..opq":
            return
        parent = self._find(parts[:-1])
        if base == b".wh..wh..opq":
            self._hide_inside(parent)
        elif base.startswith(b".wh."):
            if base in (b".wh.", b".wh..", b".wh..."):
                raise Impossible
            self._hide(parent, base[4:])
        elif entry.type == tarfile.LNKTYPE:
            self._link(parent, base, entry)
        elif entry.type == tarfile.CHRTYPE and not entry.device:
            parent.inside.pop(base, None)
        else:
            there = parent.inside.get(base)
            kind = KINDS[entry.type]
            if kind != "directory" or there is None or there.kind != "directory":
                there = parent.inside[base] = Node(kind, 0, 0, None)
            self._set(there, entry)

    def _set(self, node: Node, entry: Made) -> None:
        node.uid, node.mtime, node.layer = entry.uid, entry.mtime, self._layer
        node.mode = 0o777 if node.kind == "link" else entry.mode
        if node.kind in ("file", "directory") and entry.note:
            node.note = entry.note
        if entry.type != tarfile.LNKTYPE:
            node.content = 1 * 256 + entry.device if node.kind == "character" else entry.content
            if node.kind in ("directory", "pipe"):
                node.content = b""

    def _link(self, parent: Node, name: bytes, entry: Made) -> None:
        target = clean(entry.content)
        if not target:
            raise Impossible
        home = self._find(target[:-1])
        source = home.inside.get(target[-1])
        if source is None or source.kind == "directory":
            raise Impossible
        if source.layer != self._layer:
            # A file system of its own has to have it: the other names of it stay what they are below.
            copy = Node(source.kind, source.mode, source.uid, source.mtime, source.content, source.note)
            source = home.inside[target[-1]] = copy
        there = parent.inside.get(name)
        if there is not None and there is not source and self._is_in(home, there):
            raise Impossible
        parent.inside[name] = source
        self._set(source, entry)

    def _is_in(self, node: Node, top: Node) -> bool:
        return node is top or any(self._is_in(node, child) for child in top.inside.values())

    def _hide(self, parent: Node, name: bytes) -> None:
        there = parent.inside.get(name)
        if there is None:
            return
        if there.layer != self._layer:
            del parent.inside[name]
        elif there.kind == "directory":
            self._hide_inside(there)

    def _hide_inside(self, directory: Node) -> None:
        for name, child in list(directory.inside.items()):
            if child.layer != self._layer:
                del directory.inside[name]
            elif child.kind == "directory":
                self._hide_inside(child)

    def _find(self, parts: Sequence[bytes]) -> Node:
        """The directory `parts`, made where it is not there."""
        todo, at, links = list(reversed(parts)), [self.root], 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                at = at[:-1] or at
                continue
            child = at[-1].inside.get(name)
            if child is None:
                child = at[-1].inside[name] = Node("directory", 0o755, 0, None, layer=self._layer)
            if child.kind == "directory":
                child.layer = self._layer
                at.append(child)
            elif child.kind == "link":
                links += 1
                if links > 40:
                    raise Impossible
                assert isinstance(child.content, bytes)
                if child.content.startswith(b"/"):
                    at = at[:1]
                todo.extend(reversed(child.content.split(b"/")))
            else:
                raise Impossible
        return at[-1]


def clean(name: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
