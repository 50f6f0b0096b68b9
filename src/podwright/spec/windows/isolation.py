"""Where a Windows container lives: its layers, its network, the kind of isolation."""

from __future__ import annotations

from podwright.errors import FailedPrecondition
from podwright.spec.inputs import HostFacts
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.spec.windows.paths import is_absolute

_Request = WindowsContainerInput | WindowsSandboxInput


def layers(draft: WindowsDraft, request: _Request, host: HostFacts) -> None:
    """Raises FailedPrecondition for a list that the OCI does not allow (runtime-spec, config-windows.md:
    at least one, absolute)."""
    if request.layer_folders is None:
        draft.windows["layerFolders"] = None
        draft.note("windows.layerFolders", "rule: the shim reads them off the rootfs mounts")
        return
    folders = list(request.layer_folders)
    wrong = [folder for folder in folders if not is_absolute(folder)]
    if not folders or wrong:
        raise FailedPrecondition(
            f"windows.layerFolders: {wrong[0]!r} is not absolute"
            if wrong
            else "windows.layerFolders: the image has no layers on this host; pull it again"
        )
    draft.windows["layerFolders"] = folders
    draft.note("windows.layerFolders", "host: where the image's layers are")


def network(draft: WindowsDraft, request: _Request, host: HostFacts) -> None:
    if request.namespaces.net:
        draft.windows["network"] = {"networkNamespace": request.namespaces.net}
        draft.note("windows.network.networkNamespace", "host: the sandbox's HCN namespace")


def hyperv(draft: WindowsDraft, request: _Request, host: HostFacts) -> None:
    """The member's presence alone asks for Hyper-V (runtime-spec, config-windows.md)."""
    if request.windows.hyperv:
        utility_vm = request.windows.utility_vm
        draft.windows["hyperv"] = {"utilityVMPath": utility_vm} if utility_vm else {}
        draft.note("windows.hyperv", "node: the runtime handler isolates with Hyper-V")
