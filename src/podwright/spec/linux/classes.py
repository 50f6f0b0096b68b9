"""Classes of block I/O and of cache (RDT), which pods ask for by annotation.

Podwright has no configuration for them, so there is no class to give: a request that names one is refused,
like on any node without them, unless the node's policy is to overlook that.
"""

from __future__ import annotations

from collections.abc import Mapping

from podwright.errors import FailedPrecondition
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts

_BLOCKIO = ("io.kubernetes.cri.blockio-class", "blockio.resources.beta.kubernetes.io")
_RDT = ("io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io")


def classes(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Raises FailedPrecondition for a class that this node does not have."""
    config, sandbox = request.config, request.sandbox
    if not config.annotations and not sandbox.annotations:
        return
    for kind, keys, overlooked in (
        ("blockio", _BLOCKIO, host.policy.ignore_blockio_not_enabled),
        ("RDT", _RDT, host.policy.ignore_rdt_not_enabled),
    ):
        wanted = _class(config.annotations, sandbox.annotations, config.metadata.name, *keys)
        if not wanted:
            continue
        if not overlooked:
            raise FailedPrecondition(f"annotations: {kind} class {wanted!r} is not available on this node")
        draft.warn(f"{kind} class {wanted!r} is not set: this node has none")


def _class(
    container: Mapping[str, str], pod: Mapping[str, str], name: str, own_key: str, pod_key: str
) -> str:
    """The container's own annotation, else the pod's for this container, else the pod's for all."""
    return container.get(own_key) or pod.get(f"{pod_key}/container.{name}") or pod.get(f"{pod_key}/pod") or ""
