"""What the API server would refuse in the volumes of a Pod, and in how containers mount them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from podwright.errors import InvalidArgument
from podwright.kube.manifests.checks import Faults, between, label, mode, one_of, relative
from podwright.kube.manifests.validation_containers import (
    PULL_POLICIES,
    check_resource_field,
    check_version,
    containers,
)
from podwright.kube.models import (
    AnyContainer,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    PodSpec,
    ProjectedVolumeSource,
    Volume,
    VolumeMount,
    VolumeProjection,
)
from podwright.kube.requests import env, resources

HOST_PATH_TYPES = (
    "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
)  # fmt: skip
MIN_TOKEN_SECONDS, MAX_TOKEN_SECONDS = 600, 1 << 32


def check(spec: PodSpec) -> Faults:
    names: set[str] = set()
    for index, volume in enumerate(spec.volumes or []):
        place = f"spec.volumes[{index}]"
        yield from label(f"{place}.name", volume.name)
        if volume.name in names:
            yield f"{place}.name", f"{volume.name!r} is taken by another volume"
        names.add(volume.name)
        sources = [
            one for one in volume.__struct_fields__ if one != "name" and getattr(volume, one) is not None
        ]
        if len(sources) > 1:
            yield place, f"has more than one source: {', '.join(sources)}"
        yield from _check_source(spec, volume, place)
    images = {one.name for one in spec.volumes or [] if one.image is not None}
    for place, container in containers(spec):
        paths: set[str] = set()
        for index, mount in enumerate(container.volumeMounts or []):
            where = f"{place}.volumeMounts[{index}]"
            yield from _check_mount(container, mount, where, names, paths)
            if mount.name in images and mount.mountPropagation not in (None, "None"):
                yield f"{where}.mountPropagation", "an image's volume has none"


def _check_source(spec: PodSpec, volume: Volume, place: str) -> Faults:
    if volume.emptyDir is not None:
        yield from _check_empty_dir(volume.emptyDir, f"{place}.emptyDir")
    if volume.hostPath is not None:
        yield from _check_host_path(volume.hostPath, f"{place}.hostPath")
    if volume.configMap is not None:
        if not volume.configMap.name:
            yield f"{place}.configMap.name", "is needed"
        yield from mode(f"{place}.configMap.defaultMode", volume.configMap.defaultMode)
        yield from _check_items(volume.configMap.items or [], f"{place}.configMap.items")
    if volume.secret is not None:
        if not volume.secret.secretName:
            yield f"{place}.secret.secretName", "is needed"
        yield from mode(f"{place}.secret.defaultMode", volume.secret.defaultMode)
        yield from _check_items(volume.secret.items or [], f"{place}.secret.items")
    if volume.downwardAPI is not None:
        yield from mode(f"{place}.downwardAPI.defaultMode", volume.downwardAPI.defaultMode)
        yield from _check_fields(spec, volume.downwardAPI.items or [], f"{place}.downwardAPI.items")
    if volume.projected is not None:
        yield from _check_projected(spec, volume.projected, f"{place}.projected")
    if volume.image is not None:
        if not volume.image.reference:
            yield f"{place}.image.reference", "is needed"
        yield from one_of(f"{place}.image.pullPolicy", volume.image.pullPolicy, PULL_POLICIES)


def _check_empty_dir(source: EmptyDirVolumeSource, place: str) -> Faults:
    medium = source.medium or ""
    huge = medium.removeprefix("HugePages")
    sized = huge.startswith("-") and resources.page_bytes(resources.HUGE_PAGES + huge[1:]) is not None
    if medium not in ("", "Memory", "HugePages") and not (huge != medium and sized):
        yield f"{place}.medium", f"{medium!r} is none of Memory, HugePages, HugePages-SIZE"
    yield from mode(f"{place}.mode", None if source.mode is None else source.mode & 0o777)
    if source.sizeLimit:
        try:
            if resources.parse_quantity(source.sizeLimit) < 0:
                yield f"{place}.sizeLimit", f"{source.sizeLimit} is negative"
        except InvalidArgument as error:
            yield f"{place}.sizeLimit", str(error)


def _check_host_path(source: HostPathVolumeSource, place: str) -> Faults:
    yield from one_of(f"{place}.type", source.type or "", HOST_PATH_TYPES)
    if ".." in PurePosixPath(source.path).parts or not source.path.startswith("/"):
        yield f"{place}.path", "must be absolute and without .."


def _check_items(items: Sequence[KeyToPath], place: str) -> Faults:
    for index, item in enumerate(items):
        where = f"{place}[{index}]"
        if not item.key:
            yield f"{where}.key", "is needed"
        yield from _check_file(item.path, item.mode, where)


def _check_fields(spec: PodSpec, items: Sequence[DownwardAPIVolumeFile], place: str) -> Faults:
    for index, item in enumerate(items):
        where = f"{place}[{index}]"
        yield from _check_file(item.path, item.mode, where)
        if (item.fieldRef is None) == (item.resourceFieldRef is None):
            yield where, "one of fieldRef and resourceFieldRef is needed"
        if item.fieldRef is not None:
            yield from check_version(item.fieldRef, f"{where}.fieldRef")
        if item.fieldRef is not None and not env.is_field(item.fieldRef.fieldPath, volume=True):
            yield f"{where}.fieldRef.fieldPath", f"{item.fieldRef.fieldPath!r} cannot be in a volume"
        if item.resourceFieldRef is not None:
            if not item.resourceFieldRef.containerName:
                yield f"{where}.resourceFieldRef.containerName", "is needed in a volume"
            yield from check_resource_field(spec, item.resourceFieldRef, f"{where}.resourceFieldRef")


def _check_projected(spec: PodSpec, source: ProjectedVolumeSource, place: str) -> Faults:
    yield from mode(f"{place}.defaultMode", source.defaultMode)
    paths: set[str] = set()
    for index, one in enumerate(source.sources or []):
        where = f"{place}.sources[{index}]"
        yield from _check_collisions(one, where, paths)
        said = [name for name in one.__struct_fields__ if getattr(one, name) is not None]
        if len(said) > 1:
            yield where, f"one source is needed, not {len(said)}"
        for name in ("configMap", "secret"):
            projection = getattr(one, name)
            if projection is not None:
                if not projection.name:
                    yield f"{where}.{name}.name", "is needed"
                yield from _check_items(projection.items or [], f"{where}.{name}.items")
        if one.downwardAPI is not None:
            yield from _check_fields(spec, one.downwardAPI.items or [], f"{where}.downwardAPI.items")
        if (token := one.serviceAccountToken) is not None:
            yield from _check_file(token.path, None, f"{where}.serviceAccountToken")
            yield from between(
                f"{where}.serviceAccountToken.expirationSeconds",
                token.expirationSeconds, MIN_TOKEN_SECONDS, MAX_TOKEN_SECONDS,
            )  # fmt: skip


def _check_collisions(one: VolumeProjection, place: str, taken: set[str]) -> Faults:
    """Two sources that say the same path; what a whole object brings along only shows when it is mounted, and
    a token takes the place of what is there, as it does in a cluster."""
    for name in ("configMap", "secret", "downwardAPI"):
        for index, item in enumerate(getattr(getattr(one, name), "items", None) or []):
            if item.path in taken:
                yield f"{place}.{name}.items[{index}].path", f"{item.path!r} comes twice"
            taken.add(item.path)


def _check_file(path: str, bits: int | None, place: str) -> Faults:
    yield from relative(f"{place}.path", path)
    if path.startswith(".."):
        yield f"{place}.path", f"{path!r} begins with two dots"
    yield from mode(f"{place}.mode", bits)


def _check_mount(
    container: AnyContainer, mount: VolumeMount, place: str, names: set[str], paths: set[str]
) -> Faults:
    if mount.name not in names:
        yield f"{place}.name", f"there is no volume {mount.name!r}"
    if not mount.mountPath:
        yield f"{place}.mountPath", "is needed"
    if mount.mountPath in paths:
        yield f"{place}.mountPath", f"{mount.mountPath} is mounted twice"
    paths.add(mount.mountPath)
    for name in ("subPath", "subPathExpr"):
        value = getattr(mount, name)
        if value:
            yield from relative(f"{place}.{name}", value)
    if mount.subPath and mount.subPathExpr:
        yield f"{place}.subPathExpr", "cannot be combined with subPath"
    yield from one_of(
        f"{place}.mountPropagation",
        mount.mountPropagation,
        (None, "None", "HostToContainer", "Bidirectional"),
    )
    context = container.securityContext
    if mount.mountPropagation == "Bidirectional" and not (context and context.privileged):
        yield f"{place}.mountPropagation", "Bidirectional needs a privileged container"
    yield from one_of(
        f"{place}.recursiveReadOnly", mount.recursiveReadOnly, (None, "Disabled", "IfPossible", "Enabled")
    )
    if mount.recursiveReadOnly in ("IfPossible", "Enabled") and (
        not mount.readOnly or mount.mountPropagation not in (None, "None")
    ):
        yield f"{place}.recursiveReadOnly", "needs readOnly: true and no mountPropagation"
