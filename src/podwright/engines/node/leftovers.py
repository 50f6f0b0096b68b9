"""What is on the host below our roots and belongs to no record: found, and removed one by one.

Orphans come in the order in which they can go: cgroups with their processes first, mounts before directories.
What runs containers is the engine's own, and goes before all that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Orphan
from podwright.engines.node.places import ID, Places
from podwright.errors import NotFound
from podwright.linux import cgroups, mounts, namespaces, proc, spawn, trees
from podwright.network.cni import Attachment, Cni

_PINS = tuple(f"{kind}ns" for kind in namespaces.PINNABLE)
"""Kinds of orphans that are pinned namespaces."""


class Leftovers:
    def __init__(self, config: Config, places: Places, network: Cni) -> None:
        self._config = config
        self._places = places
        self._network = network

    def orphans(self, known: Collection[str]) -> list[Orphan]:
        """Everything that names an id which is not in `known`."""
        return [
            *self._cgroups(known),
            *self._attachments(known),
            *self._mounts(known),
            *self._files(known),
        ]

    async def remove(self, orphan: Orphan) -> None:
        """Fine when it is gone by now. NotFound for a kind that is the engine's own."""
        if orphan.kind == "cgroup":
            for pid in cgroups.kill_all(orphan.name):
                await spawn.exited(pid)
            cgroups.remove(orphan.name)
        elif orphan.kind == "cni":
            netns = self._places.pin(orphan.name, "net")
            await self._network.delete(Attachment(id=orphan.name, netns=str(netns)))
        elif orphan.kind == "mount" or orphan.kind in _PINS:
            mounts.unmount(Path(orphan.name))
        elif orphan.kind == "directory":
            mounts.unmount_below(Path(orphan.name))
            await asyncio.to_thread(trees.remove, Path(orphan.name))
        elif orphan.kind == "file":
            Path(orphan.name).unlink(missing_ok=True)
        else:
            raise NotFound(f"this engine knows no orphans of kind {orphan.kind!r}")

    def _cgroups(self, known: Collection[str]) -> Iterator[Orphan]:
        """Below our own parent. Of other parents only containers with a bundle are known: see `_files`."""
        if self._config.cgroup_driver == "systemd":
            parent = cgroups.slice_location(cgroups.DEFAULT_SLICE)
        else:
            parent = cgroups.location(self._config.cgroup_parent)
        found = set()
        for root in cgroups.layout().hierarchies:
            found |= {entry.name for entry in entries(root / parent.lstrip("/")) if entry.is_dir()}
        for name in sorted(found):
            id = name.removeprefix(f"{cgroups.SCOPE_PREFIX}-").removesuffix(".scope")
            if ID.fullmatch(id) and id not in known and not self._is_anothers(f"{parent}/{name}"):
                yield Orphan("cgroup", f"{parent}/{name}")

    def _is_anothers(self, cgroup: str) -> bool:
        """Whether what runs there is supervised for somebody else: several may share a parent."""
        for pid in cgroups.pids(cgroup):
            try:
                supervisor = Path(f"/proc/{proc.parent(pid)}")
                bundle = supervised(supervisor)
                if bundle and not bundle.startswith(os.fsencode(self._places.run) + b"/"):
                    return True
                if not bundle and _is_shim(supervisor):
                    return True  # what containerd still runs for us is not left over
            except (OSError, ProcessLookupError):
                continue  # one of them has just ended
        return False

    def _attachments(self, known: Collection[str]) -> Iterator[Orphan]:
        for id in sorted(self._network.cached_ids() - set(known)):
            yield Orphan("cni", id, "network attachment")

    def _mounts(self, known: Collection[str]) -> Iterator[Orphan]:
        table = mounts.read_table()
        rows = [*mounts.mounts_below(self._places.run, table), *mounts.mounts_below(self._places.root, table)]
        for row in reversed(rows):
            id = id_in(row.target)
            if id and id not in known:
                pin = f"{Path(row.target).name}ns"
                kind = pin if row.fstype == "nsfs" and pin in _PINS else "mount"
                yield Orphan(kind, row.target, row.fstype)

    def _files(self, known: Collection[str]) -> Iterator[Orphan]:
        for parent in (
            self._places.run / "sandboxes",
            self._places.run / "containers",
            self._places.all_mapped,
            self._places.root / "sandboxes",
            self._places.root / "containers",
        ):
            for entry in entries(parent):
                if entry.name not in known:
                    yield Orphan("directory", str(entry))
        for entry in entries(self._places.logs):
            if ID.fullmatch(entry.name) and entry.name not in known:
                yield Orphan("log", entry.name, "log that is written")
        for entry in entries(self._places.exits):
            if entry.name not in known:
                yield Orphan("file", str(entry), "exit code")


def supervised(process: Path) -> bytes:
    """The bundle of the conmon whose directory in /proc is `process`; b"" when it is none. OSError when it
    has ended."""
    command = (process / "cmdline").read_bytes().split(b"\0")
    if b"--bundle" not in command or Path(os.fsdecode(command[0])).name != "conmon":
        return b""
    return command[command.index(b"--bundle") + 1]


def entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def id_in(path: str) -> str:
    """The id that a path of ours contains, "" when there is none."""
    return next((part for part in path.split("/") if ID.fullmatch(part)), "")


def _is_shim(process: Path) -> bool:
    """Whether it is one of containerd's, who knows whose it is."""
    program = (process / "cmdline").read_bytes().split(b"\0")[0]
    return Path(os.fsdecode(program)).name.startswith("containerd-shim")
