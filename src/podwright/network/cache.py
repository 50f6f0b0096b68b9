"""What CNI calls were made, kept on disk: whatever was added can be deleted with the same words.

One file an attachment, written before ADD and again with its result, removed after DEL. It survives the
server, a changed configuration and a reboot. Files are replaced atomically but not synced: after a power
failure a file may be damaged, and then DEL falls back to the present configuration.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podwright.network import conflist

_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One attachment as it was made."""

    id: str
    netns: str
    network: conflist.Network
    args: str
    """CNI_ARGS."""
    capability_args: dict[str, Any]
    result: dict[str, Any] | None
    """None: ADD was begun and never known to have ended."""


class Cache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, entry: Entry) -> None:
        """Raises OSError."""
        data = msgspec.json.encode(
            {
                "id": entry.id,
                "netns": entry.netns,
                "network": entry.network.to_json(),
                "args": entry.args,
                "capabilityArgs": entry.capability_args,
                "result": entry.result,
            }
        )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.directory / f".{entry.id}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        draft.rename(self._file(entry.id))

    def read(self, id: str) -> Entry | None:
        """None when there is no entry, or a damaged one."""
        try:
            tree = msgspec.json.decode(self._file(id).read_bytes())
            return Entry(
                id=tree["id"],
                netns=tree["netns"],
                network=conflist.parse(tree["network"], str(self._file(id))),
                args=tree["args"],
                capability_args=tree["capabilityArgs"],
                result=tree["result"],
            )
        except (FileNotFoundError, msgspec.DecodeError, KeyError, TypeError, conflist.BadNetwork):
            return None

    def has(self, id: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return self._file(id).exists()

    def remove(self, id: str) -> None:
        self._file(id).unlink(missing_ok=True)

    def ids(self) -> set[str]:
        try:
            names = os.listdir(self.directory)  # noqa: PTH208
        except FileNotFoundError:
            return set()
        return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX) and name[0] != "."}

    def _file(self, id: str) -> Path:
        return self.directory / f"{id}{_SUFFIX}"
