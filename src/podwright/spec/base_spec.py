"""base_runtime_spec: the OCI spec that a handler's containers start from, instead of the defaults."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.spec.draft import Json


class BaseSpec(NamedTuple):
    path: str
    spec: dict[str, Json]
    """Shared by all builds: they copy it."""


class _Capabilities(msgspec.Struct):
    bounding: list[str] = []


class _Process(msgspec.Struct):
    env: list[str] = []
    cwd: str = ""
    capabilities: _Capabilities | None = None
    rlimits: list[dict[str, Json]] = []


class _Mount(msgspec.Struct):
    destination: str
    type: str = ""
    options: list[str] = []


class _Resources(msgspec.Struct):
    devices: list[dict[str, Json]] = []
    cpu: dict[str, Json] = {}
    memory: dict[str, Json] = {}
    unified: dict[str, str] = {}


class _Node(msgspec.Struct):
    path: str


class _Namespace(msgspec.Struct):
    type: str


class _Linux(msgspec.Struct):
    resources: _Resources = msgspec.field(default_factory=_Resources)
    devices: list[_Node] = []
    namespaces: list[_Namespace] = []


class _Shape(msgspec.Struct, rename="camel"):
    """The members that rules read; everything else passes through as it is."""

    oci_version: str
    process: _Process = msgspec.field(default_factory=_Process)
    root: dict[str, Json] = {}
    mounts: list[_Mount] = []
    hooks: dict[str, list[dict[str, Json]]] = {}
    annotations: dict[str, str] = {}
    linux: _Linux = msgspec.field(default_factory=_Linux)


def parse(text: bytes, path: str) -> BaseSpec:
    """Raises InvalidArgument that names the file and what is wrong."""
    try:
        spec = msgspec.json.decode(text)
        structs.convert(spec, _Shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(path, f"is no OCI runtime spec: {error}") from error
    for mount in spec.get("mounts", ()):
        if not mount["destination"].startswith("/"):
            raise InvalidArgument(path, f"mount destination {mount['destination']!r} is not absolute")
    return BaseSpec(path, spec)
