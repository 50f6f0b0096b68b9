"""Archives of whole pods: one checkpoint for each container that ran, and what the pod was made of.

| name | what it is |
|---|---|
| pod.options | version, and the containers, as `checkpointctl` and Podman have it |
| pod.dump | the requests that made pod and containers, as JSON: `PodDump` |
| NAME.tar | the checkpoint of container NAME (layout.py) |
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from podwright import structs
from podwright.checkpoints import reading, writing
from podwright.errors import InvalidArgument
from podwright.linux.waiting import to_the_end

OPTIONS, DUMP = "pod.options", "pod.dump"
VERSION = 1
SUFFIX = ".tar"


class PodOptions(msgspec.Struct, kw_only=True):
    version: int = VERSION
    containers: dict[str, str] = {}
    """Each container's name, and its id."""


class PodDump(msgspec.Struct, kw_only=True):
    handler: str = ""
    sandbox: dict[str, Any] = {}
    """A PodSandboxConfig in protobuf's JSON."""
    containers: dict[str, dict[str, Any]] = {}
    """A ContainerConfig for each that ran, by name, in the order in which they were created."""


async def write(location: Path, options: PodOptions, dump: PodDump, archives: Mapping[str, Path]) -> int:
    """Make the archive of a pod; `archives` are those of its containers, by name. Errors as
    `writing.write`."""
    work = next(iter(archives.values())).parent
    documents = {OPTIONS: work / OPTIONS, DUMP: work / DUMP}
    for name, content in ((OPTIONS, options), (DUMP, dump)):
        documents[name].write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    return await writing.write(location, documents | {name + SUFFIX: path for name, path in archives.items()})


async def is_one(path: Path) -> bool:
    """Whether `path` is the archive of a pod, not of a container. NotFound, InvalidArgument."""
    return await to_the_end(asyncio.to_thread(_is_one, path))


async def extract(path: Path, target: Path) -> PodDump:
    """Put the checkpoints of a pod's containers into the empty directory `target`, as NAME.tar.

    InvalidArgument when `path` is no pod's archive, ResourceExhausted when it does not fit.
    """
    return await to_the_end(asyncio.to_thread(_extract, path, target))


def _is_one(path: Path) -> bool:
    with reading.errors(str(path), ""), reading.members(path, reading.plain) as members:
        return next((name for name, _, _ in members), "") == OPTIONS


def _extract(path: Path, target: Path) -> PodDump:
    found: dict[str, bytes] = {}
    with reading.errors(str(path), ""), reading.members(path, _known) as members:
        for name, size, copy in members:
            if name in (OPTIONS, DUMP):
                found[name] = reading.in_memory(copy, size)
                continue
            fd = os.open(target / name, reading.NEW_FILE, 0o600)
            try:
                copy(fd)
            finally:
                os.close(fd)
    try:
        options = structs.decode(found[OPTIONS], PodOptions)
        dump = structs.decode(found[DUMP], PodDump)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("", f"{path} is no checkpoint of a pod by podwright: {error}") from error
    if options.version != VERSION:
        raise InvalidArgument("", f"{path} has version {options.version}, {VERSION} is known")
    for name in dump.containers:
        if not (target / f"{name}{SUFFIX}").is_file() or "/" in name:
            raise InvalidArgument("", f"{path} has no checkpoint of its container {name!r}")
    return dump


def _known(raw: bytes) -> str | None:
    name = reading.plain(raw)
    if name in (OPTIONS, DUMP):
        return name
    return name if name.endswith(SUFFIX) and "/" not in name and name != SUFFIX else None
