"""Classes of block I/O and of cache (RDT), which pods ask for by annotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts

_BLOCKIO = ("io.kubernetes.cri.blockio-class", "blockio.resources.beta.kubernetes.io")
_RDT = ("io.kubernetes.cri.rdt-class", "rdt.resources.beta.kubernetes.io")


class _Asked(NamedTuple):
    name: str
    field: str
    of_pod: bool


def classes(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Raises FailedPrecondition when the node has no classes at all (unless its policy is to overlook
    that), InvalidArgument for a class that it does not have or that may not be asked for."""
    if request.config.annotations or request.sandbox.annotations:
        _blockio(draft, request, host)
        _rdt(draft, request, host)


def _blockio(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    asked = _asked(request, *_BLOCKIO)
    if asked is None:
        return
    if host.blockio is None:
        _missing(draft, asked, "block I/O", "blockio_config_file", host.policy.ignore_blockio_not_enabled)
    elif asked.name not in host.blockio:
        raise _unknown(asked, "block I/O", host.blockio)
    else:
        draft.resources["blockIO"] = dict(host.blockio[asked.name])
        draft.note("linux.resources.blockIO", f"request: {asked.field}; node: blockio_config_file")


def _rdt(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    asked = _asked(request, *_RDT)
    if asked is None:
        return
    if host.rdt is None:
        _missing(draft, asked, "RDT", "rdt_config_file", host.policy.ignore_rdt_not_enabled)
        return
    found = host.rdt.get(asked.name)
    if found is None:
        raise _unknown(asked, "RDT", host.rdt)
    if found.deny_pod_annotation if asked.of_pod else found.deny_container_annotation:
        raise InvalidArgument(asked.field, f"RDT class {asked.name!r} may not be asked for by annotation")
    draft.linux["intelRdt"] = {"closID": asked.name}
    draft.note("linux.intelRdt", f"request: {asked.field}; node: rdt_config_file")


def _asked(request: ContainerInput, own_key: str, pod_key: str) -> _Asked | None:
    """The container's own annotation, else the pod's for this container, else the pod's for all."""
    own, pod = request.config.annotations, request.sandbox.annotations
    if own.get(own_key):
        return _Asked(own[own_key], f"config.annotations[{own_key}]", False)
    for key in (f"{pod_key}/container.{request.config.metadata.name}", f"{pod_key}/pod"):
        if pod.get(key):
            return _Asked(pod[key], f"sandbox_config.annotations[{key}]", True)
    return None


def _missing(draft: Draft, asked: _Asked, kind: str, setting: str, overlooked: bool) -> None:
    if not overlooked:
        raise FailedPrecondition(
            f"{asked.field}: {kind} class {asked.name!r} is not available on this node: "
            f"{setting} is not set, or this host lacks support"
        )
    draft.warn(f"{kind} class {asked.name!r} is not set: this node has none")


def _unknown(asked: _Asked, kind: str, known: Mapping[str, object]) -> InvalidArgument:
    return InvalidArgument(
        asked.field, f"there is no {kind} class {asked.name!r}; this node has {', '.join(sorted(known))}"
    )
