"""A Windows spec in the making: no rootfs, no Linux section, and one of its own."""

from __future__ import annotations

from collections.abc import Mapping

from podwright.spec.draft import Draft, Json

AFFINITY_VERSION = "1.3.0"
"""The first version of the OCI spec with windows.resources.cpu.affinity."""


class WindowsDraft(Draft):
    __slots__ = ("windows",)

    def __init__(self, explain: bool, base: Mapping[str, Json] | None = None, origin: str = "") -> None:
        super().__init__(explain, base, origin)
        self.windows: dict[str, Json] = self.base.get("windows", {})

    def spec(self) -> dict[str, Json]:
        """Without `root`, although the OCI has one for process isolation: shims of Windows find the rootfs
        by the layers, and refuse a path beside them."""
        spec = super().spec()
        spec.pop("root", None)
        spec.pop("linux", None)
        spec["windows"] = self.windows
        if "affinity" in self.windows.get("resources", {}).get("cpu", {}):
            spec["ociVersion"] = AFFINITY_VERSION
            self.note("ociVersion", "rule: the first version with windows.resources.cpu.affinity")
        return spec
