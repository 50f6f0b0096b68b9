"""What a Windows spec is built from, beyond what every platform has. Plain values, looked up by an engine.

The pod's HCN namespace comes as `namespaces.net`; it is "" for HostProcess pods (`platforms.host_network`).
Mount sources and volumes come as on Linux, for the lookups of `windows.mounts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podwright.spec.inputs import ContainerInput, ImageConfig, SandboxInput


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsHandler:
    """How a runtime handler isolates its containers."""

    hyperv: bool = False
    """Each pod in a utility VM, instead of processes of the host's kernel in a job and a silo."""
    utility_vm: str = ""
    """Directory of the VM's image; "": the shim looks for it in the image's layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsContainerInput(ContainerInput):
    cgroups_path: str = ""
    layer_folders: Sequence[str] | None = None
    """Absolute directories of the image's layers, topmost first, the writable one last. None: the shim
    reads them off the rootfs mounts that it is given with the task."""
    windows: WindowsHandler = WindowsHandler()


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowsSandboxInput(SandboxInput):
    """For the pause container, which on Windows is that of an image."""

    image: ImageConfig
    image_name: str = ""
    """The pause image as the node's configuration names it."""
    cgroups_path: str = ""
    rootfs_path: str = ""
    layer_folders: Sequence[str] | None = None
    windows: WindowsHandler = WindowsHandler()
