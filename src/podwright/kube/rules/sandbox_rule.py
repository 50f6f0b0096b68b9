"""Whether a pod needs another sandbox. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.state.pod_state import Seen
from podwright.wire import cri_pb2 as cri


@dataclass(frozen=True, slots=True)
class SandboxNeed:
    new: bool
    """A sandbox is to be made."""
    attempt: int
    """Of the sandbox to be made, or of the one there is."""
    sandbox_id: str
    """The newest there is; "" without one, and where its network mode is no longer the pod's."""


def needed(manifest: Manifest, seen: Seen) -> SandboxNeed:
    """A new one takes the place of sandboxes of which several are ready, or the newest is not, has another
    network mode than the pod, or no address."""
    if not seen.sandboxes:
        return SandboxNeed(True, 0, "")
    newest = seen.sandboxes[0]
    attempt = newest.metadata.attempt
    ready = sum(one.state == cri.SANDBOX_READY for one in seen.sandboxes)
    if ready > 1 or newest.state != cri.SANDBOX_READY:
        return SandboxNeed(True, attempt + 1, newest.id)
    on_host = bool(manifest.spec.hostNetwork)
    if (newest.linux.namespaces.options.network == cri.NODE) is not on_host:
        return SandboxNeed(True, attempt + 1, "")
    if not on_host and not newest.network.ip:
        return SandboxNeed(True, attempt + 1, newest.id)
    return SandboxNeed(False, attempt, newest.id)
