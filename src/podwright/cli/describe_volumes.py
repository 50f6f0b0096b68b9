"""A volume in the words of kubectl describe. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podwright.kube.models import Volume, VolumeProjection

TYPES = {
    "emptyDir": "EmptyDir (a directory that lives as long as the pod)",
    "hostPath": "HostPath (a directory or file of the node)",
    "configMap": "ConfigMap (files of a ConfigMap)",
    "secret": "Secret (files of a Secret)",
    "downwardAPI": "DownwardAPI (files of what is known of the pod)",
    "projected": "Projected (files of several sources)",
    "image": "Image (the files of an image)",
    "persistentVolumeClaim": "PersistentVolumeClaim (bound to a directory or file of the node)",
}


def entries(volume: Volume) -> Iterator[tuple[str, str | list[str]]]:
    """Labels and values."""
    kind = next(
        (one for one in volume.__struct_fields__ if one != "name" and getattr(volume, one)), "emptyDir"
    )
    source = getattr(volume, kind)
    yield "Type", TYPES.get(kind, f"{kind} (bound to a directory or file of the node)")
    match kind:
        case "emptyDir":
            yield "Medium", (source.medium if source is not None else "") or "disk"
            yield "Size Limit", str((source.sizeLimit if source is not None else None) or "<unset>")
        case "hostPath":
            yield "Path", source.path
            yield "Host Path Type", source.type or "<unset>"
        case "configMap":
            yield "Name", source.name or ""
            yield "Optional", str(bool(source.optional))
        case "secret":
            yield "Secret Name", source.secretName or ""
            yield "Optional", str(bool(source.optional))
        case "downwardAPI":
            yield "Items", [_item(one) for one in source.items or []]
        case "projected":
            yield "Sources", [_projection(one) for one in source.sources or []]
        case "image":
            yield "Reference", source.reference or ""
            yield "Pull Policy", source.pullPolicy or ""
        case "persistentVolumeClaim":
            yield "Claim Name", source.claimName


def _projection(source: VolumeProjection) -> str:
    if source.configMap is not None:
        return f"ConfigMap {source.configMap.name}"
    if source.secret is not None:
        return f"Secret {source.secret.name}"
    if source.downwardAPI is not None:
        return "DownwardAPI " + ", ".join(map(_item, source.downwardAPI.items or []))
    if source.serviceAccountToken is not None:
        return f"ServiceAccountToken at {source.serviceAccountToken.path}"
    return "unknown"


def _item(item: object) -> str:
    reference = getattr(item, "fieldRef", None)
    resource = getattr(item, "resourceFieldRef", None)
    what = reference.fieldPath if reference is not None else resource.resource if resource is not None else ""
    return f"{what} -> {getattr(item, 'path', '')}"
