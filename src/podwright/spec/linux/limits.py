"""What a process may use by itself: resource limits, umask; and the size of its pod's shared memory."""

from __future__ import annotations

from podwright.errors import InvalidArgument
from podwright.spec import allowed, quantities, rlimits
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HandlerOptions, HostFacts, Policy
from podwright.wire import cri_pb2 as cri


def ulimits(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The handler's base spec, then the node's defaults, then the annotation's; each limit by itself."""
    limits = {limit["type"]: limit for limit in draft.process.get("rlimits", ())}
    for limit in host.policy.default_ulimits:
        limits[limit.type] = {"type": limit.type, "soft": limit.soft, "hard": limit.hard}
        draft.note("process.rlimits", "node: default_ulimits")
    asked = allowed.of_container(request, allowed.ULIMITS, f"/container.{request.config.metadata.name}")
    if asked:
        for limit in rlimits.parse_annotation(asked.value, asked.field):
            limits[limit.type] = {"type": limit.type, "soft": limit.soft, "hard": limit.hard}
        draft.note("process.rlimits", f"request: {asked.field}, allowed by the handler")
    if limits:
        draft.process["rlimits"] = list(limits.values())


def umask(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Raises InvalidArgument for an annotation that is no octal number up to 0777."""
    value, origin = host.policy.umask, "node: umask"
    asked = allowed.of_container(request, allowed.UMASK)
    if asked:
        try:
            value = int(asked.value, 8)
        except ValueError:
            value = -1
        if not 0 <= value <= 0o777:
            raise InvalidArgument(asked.field, f"{asked.value!r} is no umask, such as 022")
        origin = f"request: {asked.field}, allowed by the handler"
    if value is not None:
        draft.process["user"]["umask"] = value
        draft.note("process.user.umask", origin)


def shm_size(config: cri.PodSandboxConfig, handler: HandlerOptions, policy: Policy) -> int:
    """Bytes of the pod's /dev/shm. Raises InvalidArgument for an annotation that is no size above 0."""
    asked = allowed.of_pod(config.annotations, handler, allowed.SHM_SIZE)
    if asked is None:
        return policy.shm_size
    size = quantities.parse(asked.value, asked.field)
    if size <= 0:
        raise InvalidArgument(asked.field, f"{asked.value!r} is no size above 0")
    return size
