"""What a Docker Engine says of its images, in the house's terms: full names, the id everywhere the same."""

from __future__ import annotations

from collections.abc import Sequence

from podwright.engines.base import Image, Json
from podwright.errors import InvalidArgument
from podwright.images import references
from podwright.images.pinned import Pinned

CONFIG_KEYS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
)
"""Of an image's `config`: Docker shows the fields of a container's beside them."""
REMOVED = "localhost/podwright/removed"
"""The name of an image that was removed while containers used it: Docker keeps it for them, clients do not
see it."""
_NONE = "<none>"


def record(inspected: Json, pinned: Pinned) -> Image:
    """The image of an answer to GET /images/NAME/json."""
    tags, digests = own_names(inspected)
    config = inspected.get("Config") or {}
    id = str(inspected["Id"])
    return Image(
        id=id,
        repo_tags=tags,
        repo_digests=digests,
        size=max(1, int(inspected.get("Size") or 0)),
        config={key: config[key] for key in CONFIG_KEYS if config.get(key)},
        pinned=pinned.matches(id, [*tags, *digests]),
        built=_built(inspected),
    )


def _built(inspected: Json) -> dict[str, Json]:
    told = {name.lower(): inspected.get(name) for name in ("Architecture", "Os", "Variant")}
    layers = (inspected.get("RootFS") or {}).get("Layers") or []
    return {
        **{key: value for key, value in told.items() if value},
        **({"rootfs": {"type": "layers", "diff_ids": layers}} if layers else {}),
    }


def own_names(listed: Json) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tags and digests in full, of an entry of a list or an account of one image."""
    return _full(listed.get("RepoTags") or ()), _full(listed.get("RepoDigests") or ())


def is_removed(listed: Json) -> bool:
    """Whether its only name is that of removed ones. Pulled again it has others."""
    names = listed.get("RepoTags") or ()
    return any(each.startswith(f"{REMOVED}:") for each in names) and not any(own_names(listed))


def layer_directories(inspected: Json) -> list[str]:
    """Where the image's layers are on the disk; empty for a storage driver that does not say."""
    data = (inspected.get("GraphDriver") or {}).get("Data") or {}
    upper, lower = data.get("UpperDir") or data.get("Dir"), data.get("LowerDir")
    return [each for each in (upper, *(lower or "").split(":")) if each]


def _full(names: Sequence[str]) -> tuple[str, ...]:
    """Docker writes busybox:1 for docker.io/library/busybox:1; "<none>" is no name."""
    found = []
    for name in names:
        if _NONE in name or name.startswith(f"{REMOVED}:"):
            continue
        try:
            found.append(str(references.parse(name)))
        except InvalidArgument:
            found.append(name)  # older than the rules: better shown than left out
    return tuple(found)
