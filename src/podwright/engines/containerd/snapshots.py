"""Snapshots: the root file systems of containers, and what containerd says they are mounted from.

A snapshot has the name of what it is made for, so that it is found again by that alone. It is a root of
containerd's garbage collection until it is removed: it is made before the record that refers to it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from podwright.engines.containerd.api import SNAPSHOTTERS, Containerd
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound
from podwright.linux import mounts, syscalls
from podwright.linux.waiting import to_the_end
from podwright.steps import step
from podwright.wire.containerd import snapshots_pb2, types_pb2

log = logging.getLogger(__name__)

GC_ROOT = "containerd.io/gc.root"
"""Label: containerd's garbage collection keeps what has it."""

_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "rw": 0,
}


class Snapshots:
    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd

    async def prepare(
        self, key: str, parent: str, snapshotter: str, labels: Mapping[str, str] = {}
    ) -> list[types_pb2.Mount]:
        """Make the snapshot `key` with the files of `parent`, to be written; how to mount it. AlreadyExists,
        NotFound without the parent."""
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=snapshotter, key=key, parent=parent, labels=_kept(labels)
        )
        with step("snapshot", snapshotter):
            return await self._make(self._containerd.snapshots.Prepare, request, key)

    async def view(
        self,
        key: str,
        parent: str,
        snapshotter: str,
        labels: Mapping[str, str] = {},
        *,
        leased: bool = False,
    ) -> list[types_pb2.Mount]:
        """As `prepare`, only to be read. `leased`: nothing keeps it but the lease of the context."""
        request = snapshots_pb2.ViewSnapshotRequest(
            snapshotter=snapshotter, key=key, parent=parent, labels=labels if leased else _kept(labels)
        )
        with step("snapshot", snapshotter):
            return await self._make(self._containerd.snapshots.View, request, key)

    async def mounts(self, key: str, snapshotter: str) -> list[types_pb2.Mount]:
        """How to mount it. NotFound."""
        request = snapshots_pb2.MountsRequest(snapshotter=snapshotter, key=key)
        answer = await self._containerd.ask(self._containerd.snapshots.Mounts, request, f"snapshot {key}")
        return list(answer.mounts)

    async def parent(self, key: str, snapshotter: str) -> str:
        """What it stands on, "" for nothing. NotFound."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        answer = await self._containerd.ask(self._containerd.snapshots.Stat, request, f"snapshot {key}")
        return str(answer.info.parent)

    async def remove(self, key: str, snapshotter: str) -> None:
        """Twice is fine, and so is a snapshotter that containerd has not got any more: once it has it again,
        what is left there is an orphan. FailedPrecondition while another one stands on it."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=snapshotter, key=key)
        try:
            await self._containerd.ask(
                self._containerd.snapshots.Remove, request, f"snapshot {key} of {snapshotter}"
            )
        except NotFound:
            pass
        except InvalidArgument as error:
            if self._containerd.has(SNAPSHOTTERS, snapshotter):
                raise
            log.warning("snapshot %s stays with its snapshotter: %s", key, error)

    async def usage(self, key: str, snapshotter: str) -> tuple[int, int]:
        """Bytes and inodes that it has of its own. NotFound."""
        request = snapshots_pb2.UsageRequest(snapshotter=snapshotter, key=key)
        answer = await self._containerd.ask(
            self._containerd.snapshots.Usage, request, f"usage of snapshot {key}"
        )
        return int(answer.size), int(answer.inodes)

    # What mounts say

    @staticmethod
    def lower_dirs(found: Sequence[types_pb2.Mount]) -> list[Path]:
        """The layers below a snapshot as directories of this host, topmost first; empty when its snapshotter
        keeps them in another way."""
        if len(found) != 1:
            return []
        if found[0].type == "overlay":
            value = _option(found[0], "lowerdir")
            return [Path(each) for each in _split(value)] if value else []
        # One layer, shown as it is, or a tree that the snapshotter has copied.
        return [Path(found[0].source)] if found[0].type in ("bind", "rbind") else []

    @staticmethod
    def upper_dir(found: Sequence[types_pb2.Mount]) -> Path | None:
        """Where what is written to a snapshot goes, as a directory of this host; None when there is none."""
        value = _option(found[0], "upperdir") if len(found) == 1 and found[0].type == "overlay" else ""
        return Path(_split(value)[0]) if value else None

    @staticmethod
    def work_dir(found: Sequence[types_pb2.Mount]) -> Path | None:
        """The directory that an overlay of it works in."""
        value = _option(found[0], "workdir") if len(found) == 1 and found[0].type == "overlay" else ""
        return Path(_split(value)[0]) if value else None

    async def _make(
        self, call: Callable[..., Awaitable[Any]], request: Message, key: str
    ) -> list[types_pb2.Mount]:
        answer = await self._containerd.make(call, request, f"snapshot {key}")
        return list(answer.mounts)

    async def list(self, snapshotter: str, filter: str = "") -> list[snapshots_pb2.Info]:
        """What it has, in containerd's own language of filters."""
        request = snapshots_pb2.ListSnapshotsRequest(
            snapshotter=snapshotter, filters=[filter] if filter else []
        )
        answers = self._containerd.listen(
            self._containerd.snapshots.List, request, f"snapshots of {snapshotter}"
        )
        return [each async for answer in answers for each in answer.info]


def unsynced(found: Sequence[types_pb2.Mount]) -> list[types_pb2.Mount]:
    """The same, without the sync of the whole disk at each unmount of an overlay. What a container wrote is
    never used again after a crash of the host, but such an overlay can be mounted once only."""
    changed = []
    for each in found:
        copy = types_pb2.Mount()
        copy.CopyFrom(each)
        if each.type == "overlay" and _option(each, "upperdir") and "volatile" not in each.options:
            copy.options.append("volatile")
        changed.append(copy)
    return changed


@asynccontextmanager
async def shown(
    found: Sequence[types_pb2.Mount], target: Path, *, readonly: bool = True
) -> AsyncIterator[Path]:
    """Inside, what they mount is to be seen at `target`, a directory that is made and goes. Raises OSError;
    FailedPrecondition for mounts that only containerd itself can make."""
    if len(found) != 1 or "/" in found[0].type:
        kinds = ", ".join(each.type for each in found)
        raise FailedPrecondition(f"mounts of the kind {kinds} cannot be made outside containerd")
    target.mkdir(parents=True, exist_ok=True)
    try:
        await to_the_end(asyncio.to_thread(_mount, found[0], target, readonly))
        yield target
    finally:
        await to_the_end(asyncio.to_thread(mounts.unmount, target))
        target.rmdir()


def _mount(found: types_pb2.Mount, target: Path, readonly: bool) -> None:
    if found.type in ("bind", "rbind"):
        mounts.bind(Path(found.source), target, recursive="rbind" in found.options, readonly=readonly)
        return
    if found.type == "overlay":
        upper, work = Snapshots.upper_dir([found]), Snapshots.work_dir([found])
        mounts.overlay(target, Snapshots.lower_dirs([found]), upper, work, readonly=readonly)
        return
    flags, data = syscalls.MS_RDONLY if readonly else 0, []
    for each in found.options:
        if each in _FLAGS:
            flags |= _FLAGS[each]
        else:
            data.append(each)
    syscalls.mount(found.source, target, found.type, flags, ",".join(data))


def _kept(labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, GC_ROOT: datetime.now(UTC).isoformat(timespec="seconds")}


def _option(found: types_pb2.Mount, name: str) -> str:
    return next((each[len(name) + 1 :] for each in found.options if each.startswith(f"{name}=")), "")


def _split(value: str) -> list[str]:
    """The directories in an option of overlayfs, whose colons, commas and backslashes are escaped."""
    return [re.sub(r"\\(.)", r"\1", each) for each in re.findall(r"(?:[^:\\]|\\.)+", value)]
