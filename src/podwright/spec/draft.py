"""A spec in the making: what the rules edit, and the record of why each value is there.

A rule is a function (draft, request, host) that edits the draft and notes the origin of what it wrote. An
origin starts with one of the words below, so that programs can group by it:

    request: FIELD    the CRI request, by the field's path
    image: MEMBER     the image's configuration
    default: …        nobody asked; what an ordinary container gets
    host: …           a fact of this host, or of the pod that was made on it
    node: …           the node's configuration (Policy, HandlerOptions)
    handler: NAME …   a file of the runtime handler (base_runtime_spec)
    cdi: DEVICE …     what a CDI device needs, by its qualified name
    hook: FILE        a file of a hooks directory
    rule: …           follows from something else
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

OCI_VERSION = "1.0.2"
"""The newest that crun 1.8 accepts; nothing written here needs more."""

Json = Any
"""A JSON value: None, bool, int, float, str, and lists and dicts of them."""


class Relabel(NamedTuple):
    """A directory of the host that SELinux must let the container use, before it is created."""

    path: str
    label: str
    field: str
    """The request's field that asks for it."""
    skip_if_labelled: bool
    """Leave the tree alone when `path` itself has the label already."""


class Draft:
    """Sections of the OCI spec as dicts, put together by `spec()`. Not shared, used once."""

    __slots__ = (
        "additional_gids",
        "annotations",
        "base",
        "gid",
        "hooks",
        "hostname",
        "linux",
        "mounts",
        "origins",
        "process",
        "relabels",
        "resources",
        "root",
        "uid",
        "warnings",
    )

    def __init__(self, explain: bool, base: Mapping[str, Json] | None = None, origin: str = "") -> None:
        """`base` is a spec to start from, which is copied; `origin` says where it comes from."""
        self.origins: dict[str, str] | None = {} if explain else None
        self.base: dict[str, Json] = copy.deepcopy(dict(base)) if base else {}
        self.process: dict[str, Json] = self.base.get("process", {})
        self.root: dict[str, Json] = self.base.get("root", {})
        self.mounts: list[dict[str, Json]] = self.base.get("mounts", [])
        self.annotations: dict[str, str] = self.base.get("annotations", {})
        self.hooks: dict[str, list[dict[str, Json]]] = self.base.get("hooks", {})
        self.linux: dict[str, Json] = self.base.get("linux", {})
        self.resources: dict[str, Json] = self.linux.setdefault("resources", {})
        self.hostname: str = self.base.get("hostname", "")
        self.uid = 0
        self.gid = 0
        self.additional_gids: list[int] = []
        self.relabels: list[Relabel] = []
        self.warnings: list[str] = []
        if explain and base:
            self._note_base(origin)

    def note(self, path: str, origin: str) -> None:
        """`path` is the value's place in the spec: "process.args", "mounts[/etc/hosts]"."""
        if self.origins is not None:
            self.origins[path] = origin

    def warn(self, text: str) -> None:
        """Something asked for that is not given, without making the request fail."""
        self.warnings.append(text)

    def drop(self, section: dict[str, Json], member: str, path: str) -> None:
        """Take a value of the base spec out again."""
        section.pop(member, None)
        if self.origins is not None:
            self.origins.pop(path, None)

    def spec(self) -> dict[str, Json]:
        spec: dict[str, Json] = {
            **self.base,
            "ociVersion": self.base.get("ociVersion", OCI_VERSION),
            "process": self.process,
            "root": self.root,
            "mounts": self.mounts,
            "annotations": self.annotations,
            "linux": self.linux,
        }
        if self.hostname:
            spec["hostname"] = self.hostname
        if self.hooks:
            spec["hooks"] = self.hooks
        if not self.base:
            self.note("ociVersion", "rule: the newest version that every supported runtime accepts")
        return spec

    def _note_base(self, origin: str) -> None:
        for name, value in self.base.items():
            if name == "mounts":
                for mount in value:
                    self.note(f"mounts[{mount['destination']}]", origin)
            elif name == "annotations":
                for key in value:
                    self.note(f"annotations[{key}]", origin)
            elif name in ("process", "root", "linux", "hooks"):
                for member in value:
                    if member != "resources":
                        self.note(f"{name}.{member}", origin)
            else:
                self.note(name, origin)
        for member in self.resources:
            self.note(f"linux.resources.{member}", origin)
