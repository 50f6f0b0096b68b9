"""A spec in the making: what the rules edit, and the record of why each value is there.

A rule is a function (draft, request, host) that edits the draft and notes the origin of what it wrote. An
origin starts with one of the words below, so that programs can group by it:

    request: FIELD    the CRI request, by the field's path
    image: MEMBER     the image's configuration
    default: …        nobody asked; what an ordinary container gets
    host: …           a fact of this host, or of the pod that was made on it
    node: …           the node's configuration (Policy, HandlerOptions)
    rule: …           follows from something else
"""

from __future__ import annotations

from typing import Any

OCI_VERSION = "1.0.2"
"""The newest that crun 1.8 accepts; nothing written here needs more."""

Json = Any
"""A JSON value: None, bool, int, float, str, and lists and dicts of them."""


class Draft:
    """Sections of the OCI spec as dicts, put together by `spec()`. Not shared, used once."""

    __slots__ = (
        "additional_gids",
        "annotations",
        "gid",
        "hostname",
        "linux",
        "mounts",
        "origins",
        "process",
        "resources",
        "root",
        "uid",
        "warnings",
    )

    def __init__(self, explain: bool) -> None:
        self.process: dict[str, Json] = {}
        self.root: dict[str, Json] = {}
        self.mounts: list[dict[str, Json]] = []
        self.annotations: dict[str, str] = {}
        self.resources: dict[str, Json] = {}
        self.linux: dict[str, Json] = {"resources": self.resources}
        self.hostname = ""
        self.uid = 0
        self.gid = 0
        self.additional_gids: list[int] = []
        self.warnings: list[str] = []
        self.origins: dict[str, str] | None = {} if explain else None

    def note(self, path: str, origin: str) -> None:
        """`path` is the value's place in the spec: "process.args", "mounts[/etc/hosts]"."""
        if self.origins is not None:
            self.origins[path] = origin

    def warn(self, text: str) -> None:
        """Something asked for that is not given, without making the request fail."""
        self.warnings.append(text)

    def spec(self) -> dict[str, Json]:
        spec: dict[str, Json] = {
            "ociVersion": OCI_VERSION,
            "process": self.process,
            "root": self.root,
            "mounts": self.mounts,
            "annotations": self.annotations,
            "linux": self.linux,
        }
        if self.hostname:
            spec["hostname"] = self.hostname
        self.note("ociVersion", "rule: the newest version that every supported runtime accepts")
        return spec
