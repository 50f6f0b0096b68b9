"""HostProcess, group managed service accounts, devices: what a Windows container may reach."""

from __future__ import annotations

import json

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.draft import Json
from podwright.spec.inputs import HostFacts
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsHandler, WindowsSandboxInput
from podwright.wire import cri_pb2 as cri

HOST_PROCESS = "microsoft.com/hostprocess-container"
"""Annotation by which hcsshim runs a container as processes of the host; "true" or "false"."""

_SECURITY = "config.windows.security_context"
_CDI = "cdi.k8s.io/"


def host_process(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    """A pod is HostProcess as a whole. Raises InvalidArgument when the container and its pod differ,
    FailedPrecondition on a handler whose containers do not run on the host's kernel."""
    asked = request.config.windows.security_context.host_process
    pod = request.sandbox.windows.security_context.host_process
    if asked != pod:
        raise InvalidArgument(
            f"{_SECURITY}.host_process",
            "pod spec and all containers inside must have the HostProcess field set to be valid: "
            f"the container's is {_word(asked)}, its sandbox's is {_word(pod)}",
        )
    _set_host_process(draft, asked, request.windows)


def pause_host_process(draft: WindowsDraft, request: WindowsSandboxInput, host: HostFacts) -> None:
    _set_host_process(draft, request.config.windows.security_context.host_process, request.windows)


def _set_host_process(draft: WindowsDraft, asked: bool, handler: WindowsHandler) -> None:
    if asked and handler.hyperv:
        raise FailedPrecondition(
            f"{_SECURITY}.host_process: the runtime handler isolates with Hyper-V, where no process of the "
            "host can run; use a handler with process isolation"
        )
    draft.annotations[HOST_PROCESS] = _word(asked)
    origin = f"request: {_SECURITY}.host_process" if asked else "default: not a process of the host"
    draft.note(f"annotations[{HOST_PROCESS}]", origin)


def _word(value: bool) -> str:
    return "true" if value else "false"


def credential_spec(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    _set_credential_spec(draft, request.config.windows.security_context.credential_spec)


def pause_credential_spec(draft: WindowsDraft, request: WindowsSandboxInput, host: HostFacts) -> None:
    _set_credential_spec(draft, request.config.windows.security_context.credential_spec)


def _set_credential_spec(draft: WindowsDraft, text: str) -> None:
    """As text: hcsshim takes nothing else, although the OCI has an object here."""
    if not text:
        return
    draft.windows["credentialSpec"] = text
    draft.note("windows.credentialSpec", f"request: {_SECURITY}.credential_spec")
    if not _is_object(text):
        draft.warn(f"{_SECURITY}.credential_spec is no JSON object: HCS will refuse it")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def devices(draft: WindowsDraft, request: WindowsContainerInput, host: HostFacts) -> None:
    """Devices are assigned whole and by identity: `class/GUID` or `IDTYPE://ID` as host_path. Raises
    InvalidArgument for other forms, and for a place or permissions in the container."""
    found = [_device(item, f"config.devices[{place}]") for place, item in enumerate(request.config.devices)]
    if found:
        draft.windows["devices"] = found
        draft.note("windows.devices", "request: config.devices")
    if request.config.CDI_devices or any(name.startswith(_CDI) for name in request.config.annotations):
        draft.warn("CDI devices are left out: CDI has no edits for Windows")


def _device(device: cri.Device, field: str) -> dict[str, Json]:
    for name in ("container_path", "permissions"):
        if getattr(device, name):
            raise InvalidArgument(
                f"{field}.{name}", f"must be empty on Windows, is {getattr(device, name)!r}"
            )
    path = device.host_path
    if path.startswith("class/"):
        path = f"class://{path.removeprefix('class/')}"
    kind, separator, identity = path.partition("://")
    if not separator or not kind:
        raise InvalidArgument(
            f"{field}.host_path", f"{device.host_path!r} is neither class/GUID nor IDTYPE://ID"
        )
    return {"id": identity, "idType": kind}
