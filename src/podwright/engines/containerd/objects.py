"""This engine's records in containerd: what a container or sandbox is made of, for containerd's tasks and its
garbage collection, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToJson

from podwright.config import Config
from podwright.engines.base import Container, Json, Sandbox
from podwright.engines.containerd.api import SPEC, Containerd
from podwright.engines.node.places import Places
from podwright.errors import NotFound
from podwright.spec.encode import encode
from podwright.wire.containerd import containers_pb2

KIND, ROOT, SANDBOX = "podwright.io/kind", "podwright.io/root", "podwright.io/sandbox"
"""Labels. Two podwrights may share a containerd and a namespace: the root tells whose it is."""
OF_CONTAINER, OF_SANDBOX = "container", "sandbox"
"""Values of KIND."""
METADATA = "podwright.io/metadata"
METADATA_TYPE = "podwright.io/metadata+json"
GROUP = "io.containerd.runc.v2.group"
"""Annotation of a spec: containerd's shims for runc serve all tasks with the same value by one process. It is
put to the pause container of a pod, which is its first task and its last, and to those that come later; a
shim that just ends with its last task would refuse a new one."""

RESERVED = ("podwright.io/", "io.cri-containerd.", "containerd.io/", "io.containerd.")
"""Beginnings of labels that say how an object is treated: by its garbage collection, for one."""
MAX_LABEL = 4096
"""Bytes of a label's key and value that containerd takes."""


class Objects:
    def __init__(self, containerd: Containerd, config: Config) -> None:
        self._containerd = containerd
        self._places = Places(config)
        self.root = str(self._places.root)

    def record(
        self, owner: Container | Sandbox, spec: Mapping[str, Json], runtime: str, options: AnyMessage | None
    ) -> containers_pb2.Container:
        """A record of `owner` to be put, without image and snapshot. `options` are the runtime's."""
        of_sandbox = isinstance(owner, Sandbox)
        sandbox = owner.id if isinstance(owner, Sandbox) else owner.sandbox.id
        record = containers_pb2.Container(
            id=owner.id,
            labels={
                **_that_fit(owner.config.labels),
                KIND: OF_SANDBOX if of_sandbox else OF_CONTAINER,
                SANDBOX: sandbox,
            },
            spec=AnyMessage(type_url=SPEC, value=encode(dict(spec))),
        )
        record.runtime.name = runtime
        if options is not None:
            record.runtime.options.CopyFrom(options)
        config = MessageToJson(owner.config, preserving_proto_field_name=True, indent=None)
        record.extensions[METADATA].type_url = METADATA_TYPE
        record.extensions[METADATA].value = config.encode()
        return record

    async def put(self, record: containers_pb2.Container) -> None:
        """Make a record. Its spec is left in the object's directory as well, where whoever has only an id
        finds its cgroup. AlreadyExists, InvalidArgument."""
        bundle = self._places.bundle(record.id)
        bundle.mkdir(parents=True, exist_ok=True)
        self._write(record.id, record.spec.value)
        record.labels[ROOT] = self.root
        request = containers_pb2.CreateContainerRequest(container=record)
        await self._containerd.make(self._containerd.containers.Create, request, f"record {record.id[:12]}")

    async def get(self, id: str) -> containers_pb2.Container | None:
        request = containers_pb2.GetContainerRequest(id=id)
        try:
            answer = await self._containerd.ask(self._containerd.containers.Get, request, f"record {id[:12]}")
        except NotFound:
            return None
        record: containers_pb2.Container = answer.container
        return record

    async def set_spec(self, id: str, spec: bytes) -> None:
        """Another spec than it has. NotFound."""
        changed = containers_pb2.Container(id=id, spec=AnyMessage(type_url=SPEC, value=spec))
        request = containers_pb2.UpdateContainerRequest(
            container=changed, update_mask=FieldMask(paths=["spec"])
        )
        await self._containerd.ask(self._containerd.containers.Update, request, f"spec of {id[:12]}")
        if self._places.bundle(id).is_dir():  # a reboot empties it
            self._write(id, spec)

    async def delete(self, id: str) -> None:
        """Twice is fine. FailedPrecondition while there is a task."""
        request = containers_pb2.DeleteContainerRequest(id=id)
        try:
            await self._containerd.ask(self._containerd.containers.Delete, request, f"record {id[:12]}")
        except NotFound:
            pass

    async def list(self, kind: str = "") -> Sequence[containers_pb2.Container]:
        """Ours: of one kind, or all."""
        wanted = [f'labels."{ROOT}"=={quoted(self.root)}']
        if kind:
            wanted.append(f'labels."{KIND}"=={kind}')
        request = containers_pb2.ListContainersRequest(filters=[",".join(wanted)])
        answers = self._containerd.listen(self._containerd.containers.ListStream, request, "its containers")
        return [each.container async for each in answers]

    def _write(self, id: str, spec: bytes) -> None:
        file = self._places.bundle(id) / "config.json"
        draft = file.with_name("config.json.new")
        draft.write_bytes(spec)
        draft.chmod(0o600)
        draft.rename(file)


def _that_fit(labels: Mapping[str, str]) -> dict[str, str]:
    """Those that containerd takes, and that mean nothing to it, its CRI plugin or us: whoever makes a pod
    chooses them."""
    return {
        key: value
        for key, value in labels.items()
        if key and not key.startswith(RESERVED) and len(key.encode()) + len(value.encode()) <= MAX_LABEL
    }


def quoted(value: str) -> str:
    """As a string of containerd's filters."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
