"""What `podwright run` is given: manifests in files and directories, and beside them ConfigMaps, Secrets and
volumes as options.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podwright.errors import InvalidArgument

if TYPE_CHECKING:
    from podwright.kube.manifests.manifest import Manifest

SUFFIXES = (".yaml", ".yml", ".json")
"""Of the files that are manifests in a directory, as kubectl has it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The words of the command line, unread."""

    files: Sequence[Path]
    config_maps: Sequence[str] = field(default_factory=tuple)
    secrets: Sequence[str] = field(default_factory=tuple)
    volumes: Sequence[str] = field(default_factory=tuple)


def read(inputs: Inputs) -> list[Manifest]:
    """The Pods. Objects of options count more than those of files that have their names. InvalidArgument
    names the file, the document and the field, or the option. Blocks."""
    return of_trees(inputs, trees(inputs))


def trees(inputs: Inputs) -> list[tuple[Any, str]]:
    """The documents, each with its place. Blocks."""
    from podwright.kube.manifests import manifest

    files = [each for path in inputs.files for each in _files(path)]
    found = [each for path in files for each in manifest.documents(manifest.read_text(path), str(path))]
    namespaces = dict.fromkeys(_namespace(tree) for tree, _ in found)
    found += _objects("--configmap", "ConfigMap", inputs.config_maps, namespaces)
    found += _objects("--secret", "Secret", inputs.secrets, namespaces)
    return found


def of_trees(inputs: Inputs, documents: Sequence[tuple[Any, str]]) -> list[Manifest]:
    """What `read` returns, of documents that are read."""
    from podwright.kube.manifests import manifest

    bindings = dict(map(_binding, inputs.volumes))
    found = manifest.from_trees(documents, ", ".join(map(str, inputs.files)), bindings=bindings)
    _refuse_unused(found, bindings)
    return found


def _files(path: Path) -> list[Path]:
    if str(path) == "-" or not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES and one.is_file())
    if not found:
        raise InvalidArgument(str(path), f"holds no manifest ({', '.join(SUFFIXES)})")
    return found


def _namespace(tree: Any) -> str:
    metadata = tree.get("metadata") if isinstance(tree, dict) else None
    return str((metadata.get("namespace") if isinstance(metadata, dict) else None) or "default")


def _objects(
    option: str, kind: str, words: Iterable[str], namespaces: Iterable[str]
) -> list[tuple[dict[str, Any], str]]:
    """Documents of what an option says. Several of one name are one object; without a namespace it is in all
    that the manifests are in."""
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for word in words:
        name, equals, source = word.partition("=")
        namespace, _, name = name.rpartition("/")
        if not equals or not name or not source:
            raise InvalidArgument(f"{option} {word}", "is not NAME=FILE, NAME=DIR or NAME=KEY=VALUE")
        content = _content(f"{option} {word}", source)
        for each in [namespace] if namespace else namespaces:
            found.setdefault((each, name), {}).update(content)
    return [
        (_document(kind, namespace, name, content), f"{option} {name}")
        for (namespace, name), content in found.items()
    ]


def _content(place: str, source: str) -> dict[str, bytes]:
    from podwright.kube.manifests import objects

    if (path := Path(source)).exists():
        return objects.config_map_of("", path).files
    key, equals, value = source.partition("=")
    if not equals:
        raise InvalidArgument(place, f"{source} is neither a file nor a directory nor KEY=VALUE")
    return {key: value.encode()}


def _document(kind: str, namespace: str, name: str, content: Mapping[str, bytes]) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
    }
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, value in content.items():
        try:
            text[key] = value.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(value).decode()
    return tree | (
        {"data": text, "binaryData": binary} if kind == "ConfigMap" else {"stringData": text, "data": binary}
    )


def _binding(word: str) -> tuple[str, Path]:
    name, equals, text = word.partition("=")
    if not equals or not name or not text:
        raise InvalidArgument(f"--volume {word}", "is not CLAIM=PATH or VOLUME=PATH")
    path = Path(text).absolute()
    if not path.exists():
        raise InvalidArgument(f"--volume {word}", f"there is no {path}")
    return name, path


def _refuse_unused(manifests: Sequence[Manifest], bindings: Mapping[str, Path]) -> None:
    """A name that is mistyped would leave an empty volume, or none."""
    volumes = [volume for one in manifests for volume in one.spec.volumes or []]
    claims = [one.persistentVolumeClaim.claimName for one in volumes if one.persistentVolumeClaim is not None]
    known = dict.fromkeys([*claims, *(one.name for one in volumes)])
    for name in bindings:
        if name not in known:
            there = f"; there are {', '.join(known)}" if known else ""
            raise InvalidArgument(f"--volume {name}", f"no Pod has such a volume or claim{there}")
