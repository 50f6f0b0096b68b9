"""What a checkpoint archive holds, under which names: the layout of containerd (CheckpointContainer of its
CRI), which `checkpointctl` reads and which CRI-O's and Podman's archives share in the main.

| name | what it is |
|---|---|
| checkpoint/ | CRIU's images |
| config.dump | who it was, its image, when: `ConfigDump` |
| spec.dump | its OCI runtime spec |
| status.dump | its CRI ContainerStatus |
| status | containerd's own state of a container |
| container.log | its log until then |
| rootfs-diff.tar | what it had changed in its root file system, as a layer of an image |
| dump.log, stats-dump | what CRIU said, and counted |
| deleted.files | CRI-O's and Podman's alone: a JSON list of paths that it had removed |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from google.protobuf.json_format import MessageToDict

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

IMAGES = "checkpoint"
CONFIG, SPEC, STATUS, TASK = "config.dump", "spec.dump", "status.dump", "status"
LOG, DIFF, DUMP_LOG, STATISTICS = "container.log", "rootfs-diff.tar", "dump.log", "stats-dump"
DELETED = "deleted.files"
INVENTORY = "inventory.img"
"""Of CRIU's images the one that is always there."""

ANNOTATIONS = ("org.criu.checkpoint.container.name", "io.kubernetes.cri-o.annotations.checkpoint.name")
"""An image whose manifest or configuration has one of them holds a checkpoint in its layer."""

CRIU_CONFIG = "org.criu.config"
"""The annotation of an OCI spec by which runtimes hand CRIU a file with options."""


class ConfigDump(msgspec.Struct, rename="camel", kw_only=True):
    """config.dump. Fields that others write and nobody here needs are passed over."""

    id: str = ""
    name: str = ""
    rootfs_image: str = ""
    """As the request named it."""
    rootfs_image_ref: str = ""
    """Its id or digest."""
    rootfs_image_name: str = ""
    runtime: str = ""
    """The handler."""
    created_time: str = ""
    checkpointed_at: str = msgspec.field(default="", name="checkpointedTime")
    restored_time: str = "0001-01-01T00:00:00Z"
    restored: bool = False


class DumpedMount(msgspec.Struct):
    destination: str = ""
    type: str = ""
    source: str = ""


class SpecDump(msgspec.Struct):
    """What is read of spec.dump."""

    mounts: list[DumpedMount] = []


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is known of a checkpoint before it is restored."""

    source: str
    """As the request named it: an archive's absolute path, or an image."""
    config: ConfigDump
    spec: SpecDump
    image: str = ""
    """The id of the image that holds it; "" for an archive."""

    @property
    def base_images(self) -> tuple[str, ...]:
        """References of the image below it, the most exact one first."""
        known = (self.config.rootfs_image_ref, self.config.rootfs_image_name, self.config.rootfs_image)
        return tuple(dict.fromkeys(each for each in known if each))


T = TypeVar("T")


def read(source: str, name: str, content: bytes, kind: type[T]) -> T:
    """The JSON file `name` of the checkpoint `source`. InvalidArgument when it is none."""
    try:
        return structs.decode(content, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument("config.image.image", f"{source}: {name} cannot be read: {error}") from error


def config_dump(status: cri.ContainerStatus, handler: str, now: int) -> bytes:
    """`now` is in nanoseconds since the epoch."""
    dump = ConfigDump(
        id=status.id,
        name=status.metadata.name,
        rootfs_image=status.image.image,
        rootfs_image_ref=status.image_ref,
        rootfs_image_name=status.image.image,
        runtime=handler,
        created_time=_time(status.created_at),
        checkpointed_at=_time(now),
    )
    return msgspec.json.encode(dump)


def status_dump(status: cri.ContainerStatus) -> bytes:
    """As Go's encoding/json writes the message: its own field names, and numbers as numbers."""
    tree = MessageToDict(status, preserving_proto_field_name=True, use_integers_for_enums=True)
    return msgspec.json.encode(_numbers(tree, status))


def task_dump(status: cri.ContainerStatus, pid: int) -> bytes:
    """The file `status`, of which checkpointctl reads the times."""
    return msgspec.json.encode(
        {
            "Version": "v1",
            "Pid": pid,
            "CreatedAt": status.created_at,
            "StartedAt": status.started_at,
            "FinishedAt": status.finished_at,
            "ExitCode": status.exit_code,
            "Reason": status.reason,
            "Message": status.message,
        }
    )


def marks(*annotations: Mapping[str, str] | None) -> bool:
    """Whether annotations (or labels) of an image say that it is a checkpoint. Who made the image may have
    written anything there: what is no mapping says nothing."""
    return any(key in each for each in annotations if isinstance(each, Mapping) for key in ANNOTATIONS)


def _time(nanoseconds: int) -> str:
    whole, part = divmod(nanoseconds, 10**9)
    fraction = f".{part:09}".rstrip("0").rstrip(".")
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _numbers(tree: Any, message: Any) -> Any:
    """Protobuf's JSON has 64-bit numbers as texts."""
    if isinstance(tree, dict) and hasattr(message, "DESCRIPTOR"):
        for field in message.DESCRIPTOR.fields:
            value = tree.get(field.name)
            if value is None or (field.message_type and field.message_type.GetOptions().map_entry):
                continue
            if field.message_type:
                inner = getattr(message, field.name)
                if isinstance(value, list):
                    tree[field.name] = [_numbers(*each) for each in zip(value, inner, strict=True)]
                else:
                    tree[field.name] = _numbers(value, inner)
            elif isinstance(value, str) and field.cpp_type in (
                field.CPPTYPE_INT64,
                field.CPPTYPE_UINT64,
            ):
                tree[field.name] = int(value)
    return tree
