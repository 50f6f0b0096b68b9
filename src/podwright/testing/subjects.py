"""Whom a request is about, in the words of a scenario: ids become the names that core's records have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from podwright.engines.fake.subject import Subject, image_as_written
from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.core.ids import Index
    from podwright.core.records import ContainerRecord, Records, SandboxRecord

_NOBODY = Subject()


def subject_of(request: Message, records: Records | None) -> Subject:
    """The subject of a call with this request; what no record knows is known by its id alone."""
    match request:
        case cri.RunPodSandboxRequest():
            metadata, labels = request.config.metadata, request.config.labels
            return Subject("", metadata.name, metadata.namespace, "", "", dict(labels))
        case cri.CreateContainerRequest():
            return _of_creation(request, records)
        case cri.PullImageRequest():
            metadata = request.sandbox_config.metadata
            return Subject("", metadata.name, metadata.namespace, "", request.image.image)
        case cri.ImageStatusRequest() | cri.RemoveImageRequest():
            return Subject(image=request.image.image)
    asked: Any = request
    if id := getattr(asked, "container_id", ""):
        container = _find(records.containers, id) if records else None
        return _of_container(container) if container else Subject(id)
    if id := getattr(asked, "pod_sandbox_id", ""):
        sandbox = _find(records.sandboxes, id) if records else None
        return _of_sandbox(sandbox) if sandbox else Subject(id)
    return _NOBODY


def subject_of_id(id: str, records: Records) -> Subject:
    """The subject of an event: a container or a sandbox."""
    if id in records.containers:
        return _of_container(records.containers.get(id))
    if id in records.sandboxes:
        return _of_sandbox(records.sandboxes.get(id))
    return Subject(id)


def _of_creation(request: cri.CreateContainerRequest, records: Records | None) -> Subject:
    config = request.config
    sandbox = _find(records.sandboxes, request.pod_sandbox_id) if records else None
    # The client's own copy is only believed where there is no other.
    metadata = sandbox.config.metadata if sandbox else request.sandbox_config.metadata
    return Subject(
        "",
        metadata.name,
        metadata.namespace,
        config.metadata.name,
        image_as_written(config.image),
        dict(config.labels),
    )


# With the record's own labels: a log of many calls shall not keep as many parsed configurations.


def _of_sandbox(record: SandboxRecord) -> Subject:
    metadata = record.config.metadata
    return Subject(record.id, metadata.name, metadata.namespace, "", "", record.labels)


def _of_container(record: ContainerRecord) -> Subject:
    pod, config = record.sandbox.config.metadata, record.config
    return Subject(
        record.id,
        pod.name,
        pod.namespace,
        config.metadata.name,
        image_as_written(config.image),
        record.labels,
    )


def _find(index: Index[Any], id: str) -> Any:
    try:
        return index.find(id)
    except InvalidArgument:
        return None  # ambiguous: core will say so
