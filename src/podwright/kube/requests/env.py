"""A container's environment: values, references to fields, amounts, objects and files, and $(NAME). Pure.

Files come through the caller's hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from podwright.errors import InvalidArgument
from podwright.kube.failures import ConfigError
from podwright.kube.files import env_file
from podwright.kube.files.directory import PodDirectory
from podwright.kube.manifests.checks import qualified
from podwright.kube.requests import resources, service_env

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest
    from podwright.kube.models import AnyContainer, EnvVarSource, FileKeySelector, ResourceFieldSelector
    from podwright.kube.node import Node, PodFacts

ReadFile = Callable[[str, str], str]
"""The text of a file of a volume, by the volume's name and the path in it. OSError where there is none,
ValueError where it is no text, NotWrittenError where nobody can know it yet."""


class NotWrittenError(Exception):
    """A file that a container of the pod is still to write."""


_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_AMOUNT = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage|hugepages-\w+)")
FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
"""What a variable may name, beside labels and annotations by their keys."""
_OLD_FIELDS = {"spec.host": "spec.nodeName"}


def expand(text: str, env: Mapping[str, str]) -> str:
    """`text` with $(NAME) replaced by the variable; $$ stands for $; an unknown name stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else env.get(name, match[0])

    return _REFERENCE.sub(value, text)


def environment(
    manifest: Manifest, container: AnyContainer, node: Node, facts: PodFacts, read_file: ReadFile
) -> dict[str, str]:
    """The variables of `container`: of Services, of envFrom, then of env in the manifest's order.

    A value may refer to variables above it. A name that comes again takes its last value. Raises ConfigError
    with the kubelet's words where a reference leads nowhere.
    """
    links = manifest.spec.enableServiceLinks is not False
    services = service_env.variables(manifest.objects, manifest.namespace, links=links)
    found = dict(_from_objects(manifest, container))
    for variable in container.env or []:
        if variable.value or variable.valueFrom is None:
            found[variable.name] = expand(variable.value or "", services | found)
        else:
            value = _referred(manifest, container, variable.valueFrom, node, facts, read_file)
            if value is not None:
                found[variable.name] = value
    return {**{key: value for key, value in services.items() if key not in found}, **found}


def pod_field(manifest: Manifest, path: str, node: Node, facts: PodFacts) -> str:
    """The value of a field that a variable or a downwardAPI volume may name. InvalidArgument for others.

    All labels or annotations are one field, a line each, as volumes show them.
    """
    metadata, spec = manifest.pod.metadata, manifest.spec
    assert metadata is not None
    if match := _SUBSCRIPT.fullmatch(path):
        tree: Mapping[str, str] = getattr(metadata, match[1]) or {}
        return tree.get(match[2], "")
    if path in ("metadata.labels", "metadata.annotations"):
        tree = getattr(metadata, path.partition(".")[2]) or {}
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(tree.items()))
    ips = node.ips if spec.hostNetwork else facts.ips
    path = _OLD_FIELDS.get(path, path)
    values = {
        "metadata.name": manifest.name,
        "metadata.namespace": manifest.namespace,
        "metadata.uid": manifest.uid,
        "spec.nodeName": spec.nodeName or node.name,
        "spec.serviceAccountName": spec.serviceAccountName or "",
        "status.hostIP": node.ips[0] if node.ips else "",
        "status.hostIPs": ",".join(node.ips),
        "status.podIP": ips[0] if ips else "",
        "status.podIPs": ",".join(ips),
    }
    if path not in values:
        known = ", ".join([*values, "metadata.labels['KEY']", "metadata.annotations['KEY']"])
        raise InvalidArgument("fieldPath", f"{path!r} cannot be referred to; these can: {known}")
    return values[path]


def is_field(path: str, *, volume: bool = False) -> bool:
    """Whether a variable, or a file of a `volume`, may name the field."""
    if volume and path in ("metadata.labels", "metadata.annotations"):
        return True
    if match := _SUBSCRIPT.fullmatch(path):
        key = match[2] if match[1] == "labels" else match[2].lower()
        return not list(qualified(path, key))
    return path in FIELDS[:3] if volume else _OLD_FIELDS.get(path, path) in FIELDS


def is_amount(resource: str) -> bool:
    return _AMOUNT.fullmatch(resource) is not None


def resource_field(
    manifest: Manifest, container: AnyContainer | None, selector: ResourceFieldSelector, node: Node
) -> str:
    """An amount of a container, by the divisor, rounded up; of `container`, for one of its variables, where
    the selector names none. None: it is for a volume, where the pod's own limits do not count.

    Without a limit it is the pod's, or what the node has for pods; but not of an init container that a
    variable names. InvalidArgument where there is no such container.
    """
    name, spec = selector.containerName, manifest.spec
    owner = next((one for one in [*spec.containers, *manifest.init_containers] if one.name == name), None)
    whose = owner if name or container is None else container
    if whose is None:
        raise InvalidArgument("containerName", f"there is no container {name!r}")
    side, _, resource = selector.resource.partition(".")
    value = resources.amount(whose, side, resource) or Fraction(0)
    of_init = container is not None and owner in manifest.init_containers
    if not value and side == "limits" and not of_init:
        capacity = {"cpu": node.cpus, "memory": node.allocatable, "ephemeral-storage": node.storage}
        of_pod = resources.amount(spec, "limits", resource) if container is not None else None
        value = of_pod or Fraction(capacity.get(resource, 0))
    divisor = resources.parse_quantity(selector.divisor or "1", "divisor") or Fraction(1)
    return str(math.ceil(value / divisor))


def _from_objects(manifest: Manifest, container: AnyContainer) -> Iterator[tuple[str, str]]:
    for source in container.envFrom or []:
        reference = source.configMapRef or source.secretRef
        if reference is None:
            continue
        name, prefix = reference.name or "", source.prefix or ""
        kind = "configmap" if source.configMapRef is not None else "secret"
        data = _object(manifest, kind, name, optional=bool(reference.optional))
        for key, value in (data or {}).items():
            yield prefix + key, value


def _referred(
    manifest: Manifest,
    container: AnyContainer,
    source: EnvVarSource,
    node: Node,
    facts: PodFacts,
    read_file: ReadFile,
) -> str | None:
    """The value; None leaves the variable out."""
    try:
        if source.fieldRef is not None:
            return pod_field(manifest, source.fieldRef.fieldPath, node, facts)
        if source.resourceFieldRef is not None:
            return resource_field(manifest, container, source.resourceFieldRef, node)
    except InvalidArgument as error:
        raise ConfigError(str(error)) from error
    if source.fileKeyRef is not None:
        return _of_file(manifest, source.fileKeyRef, node, read_file)
    for kind, title, reference in (
        ("configmap", "ConfigMap", source.configMapKeyRef),
        ("secret", "Secret", source.secretKeyRef),
    ):
        if reference is not None:
            name, optional = reference.name or "", bool(reference.optional)
            data = _object(manifest, kind, name, optional=optional)
            if data is None or (reference.key not in data and optional):
                return None
            if reference.key not in data:
                where = f"{manifest.namespace}/{name}"
                raise ConfigError(f"couldn't find key {reference.key} in {title} {where}")
            return data[reference.key]
    return ""


def _object(manifest: Manifest, kind: str, name: str, *, optional: bool) -> Mapping[str, str] | None:
    """The data of a ConfigMap or Secret as text; None where it may be missing and is."""
    data: Mapping[str, str] | None = None
    if kind == "configmap":
        config_map = manifest.objects.config_map(manifest.namespace, name)
        data = config_map.data if config_map is not None else None
    elif (secret := manifest.objects.secret(manifest.namespace, name)) is not None:
        # Bytes that are no text reach the container as they are.
        data = {key: value.decode(errors="surrogateescape") for key, value in secret.data.items()}
    if data is None and not optional:
        raise ConfigError(f'{kind} "{name}" not found')
    return data


def _of_file(manifest: Manifest, reference: FileKeySelector, node: Node, read_file: ReadFile) -> str | None:
    """None where the variable may be missing and is; an empty value counts as none. A file has to be there,
    and to be one, whatever `optional` says, and some container has to mount its volume."""
    mounts = [mount.name for one in manifest.all_containers() for mount in one.volumeMounts or []]
    if reference.volumeName not in mounts:
        raise ConfigError(f'cannot find the volume "{reference.volumeName}" referenced by FileKeyRef')
    try:
        text = read_file(reference.volumeName, reference.path)
        value = env_file.value(text, reference.key)
    except NotWrittenError:
        return f"FILE:{reference.volumeName}/{reference.path}:{reference.key}"
    except (OSError, ValueError) as error:
        raise ConfigError("couldn't parse env file") from error
    if not value and not reference.optional:
        directory = PodDirectory.of(node, manifest.namespace, manifest.name, manifest.uid)
        path = directory.volume("empty-dir", reference.volumeName) / reference.path.lstrip("/")
        raise ConfigError(f'environment variable key "{reference.key}" not found in file "{path}"')
    return value or None


def _quoted(text: str) -> str:
    """In double quotes, on one line, as the kubelet writes labels into a volume."""
    escapes = {
        "\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t",
        "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v",
    }  # fmt: skip
    return '"' + "".join(escapes.get(one, one if one.isprintable() else _escape(one)) for one in text) + '"'


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
