"""RDT classes (cache and memory bandwidth): goresctrl's configuration file, as far as containers need it.

    partitions:
      NAME:
        classes:
          gold: {kubernetes: {denyPodAnnotation: false, denyContainerAnnotation: false}, …}

What a class is worth stands in resctrl's own groups; a spec names the class and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.spec.draft import Json


class Class(NamedTuple):
    deny_pod_annotation: bool = False
    deny_container_annotation: bool = False


Classes = Mapping[str, Class]


class _Kubernetes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    deny_pod_annotation: bool = False
    deny_container_annotation: bool = False


class _Class(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    l2_allocation: Json = msgspec.field(default=None, name="l2Allocation")
    l3_allocation: Json = msgspec.field(default=None, name="l3Allocation")
    mb_allocation: Json = None
    kubernetes: _Kubernetes = _Kubernetes()


class _Partition(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    l2_allocation: Json = msgspec.field(default=None, name="l2Allocation")
    l3_allocation: Json = msgspec.field(default=None, name="l3Allocation")
    mb_allocation: Json = None
    classes: dict[str, _Class | None] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    options: Json = None
    partitions: dict[str, _Partition | None] = {}


def parse(text: bytes, path: str) -> Classes:
    """The classes by name. Raises InvalidArgument that names the file and what is wrong."""
    import yaml  # few nodes have such files, and each server would keep it in memory

    try:
        file = structs.convert(yaml.safe_load(text), _File)
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(path, f"is no RDT configuration: {error}") from error
    classes: dict[str, Class] = {}
    for partition in file.partitions.values():
        for name, given in (partition.classes if partition else {}).items():
            if name in classes:
                raise InvalidArgument(path, f"class {name!r} stands in two partitions")
            if not name or name in (".", "..") or "/" in name or "\n" in name:
                raise InvalidArgument(path, f"{name!r} is no name of a class")
            rules = given.kubernetes if given else _Kubernetes()
            classes[name] = Class(rules.deny_pod_annotation, rules.deny_container_annotation)
    return classes
