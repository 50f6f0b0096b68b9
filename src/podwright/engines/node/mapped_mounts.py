"""Mounts with mapped owners, made by the engine where the runtime cannot make them.

runc has none before 1.2. crun looks for the container's user namespace by the number that the container's
process has in its own PID namespace: in one that others share it finds another process, or none.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from podwright.engines.base import Json
from podwright.engines.node.runtimes import Runtime
from podwright.engines.node.user_namespaces import IdMaps
from podwright.errors import FailedPrecondition
from podwright.linux import mounts
from podwright.linux.user_namespaces import IdMap


def misread(spec: Mapping[str, Json], runtime: Runtime) -> bool:
    """Whether `runtime` would map the mounts of this container wrongly."""
    return runtime.kind == "crun" and any(
        each["type"] == "pid" and "path" in each for each in spec["linux"]["namespaces"]
    )


def show(directory: Path, spec: Mapping[str, Json], ids: IdMaps) -> dict[str, Json]:
    """The spec with its mapped mounts bound from below `directory`, where they are mounted with these owners.

    Raises OSError; FailedPrecondition for a file system that cannot be mapped, and for a mapping that is not
    the pod's.
    """
    return {
        **spec,
        "mounts": [_shown(directory / str(place), entry, ids) for place, entry in enumerate(spec["mounts"])],
    }


def _shown(target: Path, entry: dict[str, Json], ids: IdMaps) -> dict[str, Json]:
    if "uidMappings" not in entry:
        return entry
    if (entry["uidMappings"], entry["gidMappings"]) != ([_document(ids.uids)], [_document(ids.gids)]):
        raise FailedPrecondition(
            f"mount at {entry['destination']}: with this runtime handler, or in a shared PID namespace, only"
            f" the pod's own id mapping is possible"
        )
    source = Path(entry["source"])
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    try:
        mounts.bind_mapped(source, target, ids.namespace, recursive="rbind" in entry["options"])
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise FailedPrecondition(
            f"mount at {entry['destination']}: the file system of {source} cannot map ids"
        ) from error
    kept = {name: value for name, value in entry.items() if name not in ("uidMappings", "gidMappings")}
    return {**kept, "source": str(target)}


def _document(ids: IdMap) -> dict[str, int]:
    return {"containerID": ids.inside, "hostID": ids.outside, "size": ids.length}
