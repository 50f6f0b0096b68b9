"""Records as the CRI shows them: list entries and statuses.

The `_wire` forms are the same, encoded as they stand in the response that holds them. A list of encoded
entries is their concatenation, so a list of thousands costs a join and no serialisation; a status that other
messages hold, too, differs there in its first byte, the field's tag. Only the state of a list entry ever
changes, so that is its last byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from google.protobuf.message import Message

from podwright.core.record import ContainerRecord, SandboxRecord
from podwright.core.states import ContainerState, SandboxState
from podwright.wire import cri_pb2 as cri

HIDDEN_SANDBOX = frozenset({SandboxState.CREATING})
HIDDEN_CONTAINER = frozenset({ContainerState.CREATING})
"""Not shown: nobody has been given the id yet."""

_CONTAINER_STATE = {
    ContainerState.CREATING: cri.CONTAINER_UNKNOWN,
    ContainerState.CREATED: cri.CONTAINER_CREATED,
    ContainerState.STARTING: cri.CONTAINER_CREATED,
    ContainerState.RUNNING: cri.CONTAINER_RUNNING,
    ContainerState.EXITED: cri.CONTAINER_EXITED,
    ContainerState.REMOVING: cri.CONTAINER_EXITED,
}


_SANDBOX_STATE = {
    state: cri.SANDBOX_READY if state is SandboxState.READY else cri.SANDBOX_NOTREADY
    for state in SandboxState
}


def sandbox_state(record: SandboxRecord) -> cri.PodSandboxState:
    return _SANDBOX_STATE[record.state]


def container_state(record: ContainerRecord) -> cri.ContainerState:
    return _CONTAINER_STATE[record.state]


def sandbox_states(filter: cri.PodSandboxFilter) -> tuple[SandboxState, ...]:
    """Of the sandboxes that a list with this filter shows."""
    shown = [state for state in SandboxState if state not in HIDDEN_SANDBOX]
    wanted = filter.state.state if filter.HasField("state") else None
    return tuple(state for state in shown if wanted in (None, _SANDBOX_STATE[state]))


def container_states(filter: cri.ContainerFilter) -> tuple[ContainerState, ...]:
    """Of the containers that a list with this filter shows."""
    shown = [state for state in ContainerState if state not in HIDDEN_CONTAINER]
    wanted = filter.state.state if filter.HasField("state") else None
    return tuple(state for state in shown if wanted in (None, _CONTAINER_STATE[state]))


def sandbox_item_wire(record: SandboxRecord) -> bytes:
    """A ListPodSandboxResponse of this one."""
    config = record.config
    item = cri.PodSandbox(
        id=record.id,
        metadata=config.metadata,
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )
    return _entry(item, sandbox_state(record))


def container_item_wire(record: ContainerRecord) -> bytes:
    """A ListContainersResponse of this one."""
    config = record.config
    item = cri.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox.id,
        metadata=config.metadata,
        image=image_shown(record),
        image_ref=record.image.id,
        image_id=record.image.id,
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )
    return _entry(item, container_state(record))


def sandbox_item(record: SandboxRecord) -> cri.PodSandbox:
    return cri.ListPodSandboxResponse.FromString(bytes(record.item_wire)).items[0]


def container_item(record: ContainerRecord) -> cri.Container:
    return cri.ListContainersResponse.FromString(bytes(record.item_wire)).containers[0]


def _entry(item: cri.PodSandbox | cri.Container, state: int) -> bytes:
    encoded = item.SerializeToString()
    tag = item.DESCRIPTOR.fields_by_name["state"].number << 3
    return b"".join((_ITEM, _varint(len(encoded) + 2), encoded, bytes((tag, state))))


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def sandbox_status(record: SandboxRecord) -> cri.PodSandboxStatus:
    config = record.config
    # The addresses go with the network: a stopped sandbox has none.
    ips = record.facts.ips if record.state in (SandboxState.READY, SandboxState.LOST) else ()
    return cri.PodSandboxStatus(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(record),
        created_at=record.created_at,
        network=cri.PodSandboxNetworkStatus(
            ip=ips[0] if ips else "", additional_ips=[cri.PodIP(ip=ip) for ip in ips[1:]]
        ),
        linux=cri.LinuxPodSandboxStatus(
            namespaces=cri.Namespace(options=config.linux.security_context.namespace_options)
        ),
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )


def sandbox_status_wire(record: SandboxRecord, now: int) -> bytes:
    """A whole PodSandboxStatusResponse: its fields may stand in any number of pieces, one after the other."""
    status, members = _sandbox_field(record), map(container_status_wire, shown_containers(record))
    time = cri.PodSandboxStatusResponse(timestamp=now).SerializeToString()
    return b"".join((status, *(_MEMBER + wire[1:] for wire in members), time))


def event_statuses_wire(record: SandboxRecord) -> bytes:
    """The two status fields of a ContainerEventResponse."""
    status, members = _sandbox_field(record), map(container_status_wire, shown_containers(record))
    return b"".join((_EVENT_SANDBOX + status[1:], *(_EVENT_MEMBER + wire[1:] for wire in members)))


def _sandbox_field(record: SandboxRecord) -> bytes:
    if not record.status_wire:
        response = cri.PodSandboxStatusResponse(status=sandbox_status(record))
        record.status_wire = response.SerializeToString()
    return record.status_wire


def _tag(message: type[Message], field: str) -> bytes:
    """What stands in front of a message's length on the wire: number and wire type 2, one byte below 16."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


_ITEM = _tag(cri.ListContainersResponse, "containers")
assert _tag(cri.ListPodSandboxResponse, "items") == _ITEM
_MEMBER = _tag(cri.PodSandboxStatusResponse, "containers_statuses")
_EVENT_SANDBOX = _tag(cri.ContainerEventResponse, "pod_sandbox_status")
_EVENT_MEMBER = _tag(cri.ContainerEventResponse, "containers_statuses")


def shown_containers(record: SandboxRecord) -> list[ContainerRecord]:
    """The newest first: of several with one name a kubelet with EventedPLEG takes the first for the container
    that counts, and would make an attempt again that runs already."""
    shown = [each for each in reversed(record.containers.values()) if each.state not in HIDDEN_CONTAINER]
    shown.sort(key=attrgetter("created_at"), reverse=True)
    return shown


def container_status_wire(record: ContainerRecord) -> bytes:
    if not record.status_wire:
        response = cri.ContainerStatusResponse(status=_container_status(record))
        record.status_wire = response.SerializeToString()
    return record.status_wire


def container_status(record: ContainerRecord) -> cri.ContainerStatus:
    return cri.ContainerStatusResponse.FromString(container_status_wire(record)).status


def _container_status(record: ContainerRecord) -> cri.ContainerStatus:
    config = record.config
    exited = record.state in (ContainerState.EXITED, ContainerState.REMOVING)
    return cri.ContainerStatus(
        id=record.id,
        metadata=config.metadata,
        state=container_state(record),
        created_at=record.created_at,
        started_at=record.started_at if exited or record.state is ContainerState.RUNNING else 0,
        finished_at=record.finished_at if exited else 0,
        exit_code=record.exit_code if exited else 0,
        image=image_shown(record),
        image_ref=record.image.repo_digests[0] if record.image.repo_digests else record.image.id,
        image_id=record.image.id,
        reason=record.reason if exited else "",
        message=record.message if exited else "",
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=record.log_path,
        resources=cri.ContainerResources(linux=record.resources),
        user=cri.ContainerUser(
            linux=cri.LinuxContainerUser(
                uid=record.facts.uid,
                gid=record.facts.gid,
                supplemental_groups=record.facts.supplemental_groups,
            )
        ),
        stop_signal=stop_signal_shown(record.stop_signal),
    )


def image_shown(record: ContainerRecord) -> cri.ImageSpec:
    """The image as statuses show it: its first tag when it has one, otherwise what the client sent.

    An archive that the container was restored from is no image: it may be gone, its base image is here.
    """
    spec, image = cri.ImageSpec(), record.image
    spec.CopyFrom(record.config.image)
    if image.repo_tags:
        spec.image = image.repo_tags[0]
    elif spec.image.startswith("/"):
        spec.image = image.repo_digests[0] if image.repo_digests else image.id
    if spec.user_specified_image.startswith("/"):
        spec.user_specified_image = spec.image
    return spec


def stop_signal_shown(name: str) -> str:
    """The CRI's name of a signal: "SIGRTMIN+3" -> "SIGRTMINPLUS3"."""
    return name.replace("+", "PLUS").replace("-", "MINUS")


def labels_match(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    # Not all(): asked for each of tens of thousands, a generator costs more than what it does.
    for key, value in selector.items():  # noqa: SIM110
        if labels.get(key) != value:
            return False
    return True
