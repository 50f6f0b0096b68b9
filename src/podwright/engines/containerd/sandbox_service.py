"""containerd's sandbox service as this engine calls it: records in its Store, and the Controller that leaves
a sandbox to its shim. What is gone already is no error where something is to go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.engines.base import Json
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import CONTROLLER, SANDBOXES, SERVICE
from podwright.engines.containerd.objects import quoted
from podwright.engines.containerd.shims import SHIM
from podwright.errors import NotFound, PodwrightError, ResourceExhausted, Unimplemented
from podwright.spec.platforms import Platform
from podwright.steps import step
from podwright.wire.containerd import sandbox_pb2, types_pb2

NEEDED = ((CONTROLLER, SHIM), *((SERVICE, each) for each in SANDBOXES))
NOT_READY = "SANDBOX_NOTREADY"
"""What a shim says of a sandbox that has ended; not every one says anything."""
_DIGITS = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Started:
    pid: int
    """Host pid of what holds the sandbox; 0 when its shim names none."""
    address: str = ""
    """Where its shim serves tasks, when that is not for containerd to find out; and by which version."""
    version: int = 0
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    finished_at: int
    """Nanoseconds since the epoch."""


class SandboxService:
    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd

    def available(self) -> bool:
        """Whether this containerd leaves sandboxes to their shims; what it lacks for that, the handlers tell.

        That it has the service does not say so: 1.7's controller has another name, and answers each call with
        an error of the event that it cannot send.
        """
        return all(self._containerd.has(kind, id) for kind, id in NEEDED)

    # The store

    async def enter(self, record: types_pb2.Sandbox) -> None:
        """Make a record; containers may belong to it then. AlreadyExists."""
        request = sandbox_pb2.StoreCreateRequest(sandbox=record)
        await self._containerd.make(self._containerd.sandboxes.Create, request, _of("record", record))

    async def rewrite(self, record: types_pb2.Sandbox, *fields: str) -> None:
        """Put `fields` of a record, in the store and for the shim. NotFound."""
        request = sandbox_pb2.StoreUpdateRequest(sandbox=record, fields=fields)
        await self._containerd.ask(self._containerd.sandboxes.Update, request, _of("record", record))
        update = sandbox_pb2.ControllerUpdateRequest(
            sandbox_id=record.sandbox_id, sandboxer=SHIM, sandbox=record, fields=fields
        )
        try:
            await self._containerd.ask(self._containerd.controllers.Update, update, _of("update", record))
        except Unimplemented:
            pass  # the record has it, and containers are made by their own specs

    async def record(self, id: str) -> types_pb2.Sandbox | None:
        request = sandbox_pb2.StoreGetRequest(sandbox_id=id)
        try:
            answer = await self._containerd.ask(
                self._containerd.sandboxes.Get, request, f"record of sandbox {id[:12]}"
            )
        except NotFound:
            return None
        found: types_pb2.Sandbox = answer.sandbox
        return found

    async def leave(self, id: str) -> None:
        """Remove the record."""
        request = sandbox_pb2.StoreDeleteRequest(sandbox_id=id)
        try:
            await self._containerd.ask(
                self._containerd.sandboxes.Delete, request, f"record of sandbox {id[:12]}"
            )
        except NotFound:
            pass

    async def list(self, wanted: str) -> Sequence[types_pb2.Sandbox]:
        """The records that fit `wanted`, one of containerd's filters, whose ids are ours."""
        return await records(self._containerd, wanted)

    # The controller

    async def create(
        self,
        record: types_pb2.Sandbox,
        rootfs: Sequence[types_pb2.Mount],
        netns: str,
        options: AnyMessage,
    ) -> None:
        """Start the shim, and have it get ready. Unimplemented when it knows nothing of sandboxes."""
        request = sandbox_pb2.ControllerCreateRequest(
            sandbox_id=record.sandbox_id,
            rootfs=rootfs,
            options=options,
            netns_path=netns,
            sandbox=record,
            sandboxer=SHIM,
        )
        with step("sandbox create"):
            await self._containerd.make(self._containerd.controllers.Create, request, _of("create", record))

    async def start(self, id: str) -> Started:
        request = sandbox_pb2.ControllerStartRequest(sandbox_id=id, sandboxer=SHIM)
        with step("sandbox start"):
            answer = await self._containerd.make(
                self._containerd.controllers.Start, request, f"start sandbox {id[:12]}"
            )
        return Started(answer.pid, answer.address, answer.version, dict(answer.labels))

    async def platform(self, id: str) -> str:
        """As `Platform` writes it; "" when neither containerd nor the shim can tell: it is this host's then.
        FailedPrecondition for one that there is no spec builder for."""
        request = sandbox_pb2.ControllerPlatformRequest(sandbox_id=id, sandboxer=SHIM)
        try:
            answer = await self._containerd.ask(
                self._containerd.controllers.Platform, request, f"platform of sandbox {id[:12]}"
            )
        except Unimplemented:
            return ""
        told = answer.platform
        if not told.os:
            return ""
        version = f"({told.os_version})" if told.os_version else ""
        parts = (told.os + version, told.architecture, told.variant)
        return str(Platform.parse("/".join(each for each in parts if each)))

    async def status(self, id: str, *, verbose: bool = False) -> sandbox_pb2.ControllerStatusResponse | None:
        """None when no shim has it any more."""
        request = sandbox_pb2.ControllerStatusRequest(sandbox_id=id, verbose=verbose, sandboxer=SHIM)
        try:
            answer = await self._containerd.ask(
                self._containerd.controllers.Status, request, f"status of sandbox {id[:12]}"
            )
        except NotFound:
            return None
        # Of one whose shim has gone containerd says that it ended just now.
        ended = answer.state == NOT_READY or answer.exited_at.seconds > 0
        found: sandbox_pb2.ControllerStatusResponse = answer
        return None if ended else found

    async def wait(self, id: str) -> Ended:
        """However long it takes. NotFound when it has ended and nobody knows how."""
        request = sandbox_pb2.ControllerWaitRequest(sandbox_id=id, sandboxer=SHIM)
        answer = await self._containerd.ask(
            self._containerd.controllers.Wait, request, f"wait for sandbox {id[:12]}", timeout=None
        )
        return Ended(min(answer.exit_status, 255), answer.exited_at.ToNanoseconds())

    async def stop(self, id: str, grace: int) -> None:
        """End what is in it; `grace` in seconds."""
        request = sandbox_pb2.ControllerStopRequest(sandbox_id=id, timeout_secs=grace, sandboxer=SHIM)
        with step("sandbox stop"):
            try:
                await self._containerd.ask(
                    self._containerd.controllers.Stop, request, f"stop sandbox {id[:12]}", timeout=None
                )
            except NotFound:
                pass

    async def shut_down(self, id: str) -> None:
        """End its shim, and let containerd forget it."""
        request = sandbox_pb2.ControllerShutdownRequest(sandbox_id=id, sandboxer=SHIM)
        with step("sandbox shutdown"):
            try:
                await self._containerd.ask(
                    self._containerd.controllers.Shutdown, request, f"shut down sandbox {id[:12]}"
                )
            except NotFound:
                pass

    async def metrics(self, id: str) -> types_pb2.Metric | None:
        """What the shim measures of the whole sandbox; None when it, or containerd, measures nothing."""
        request = sandbox_pb2.ControllerMetricsRequest(sandbox_id=id, sandboxer=SHIM)
        try:
            answer = await self._containerd.ask(
                self._containerd.controllers.Metrics, request, f"metrics of sandbox {id[:12]}"
            )
        except PodwrightError:
            return None
        found: types_pb2.Metric = answer.metrics
        return found if found.data.type_url else None


async def records(containerd: Containerd, wanted: str, begins: str = "") -> list[types_pb2.Sandbox]:
    """The records in the store that fit `wanted` and whose ids, of 64 hexadecimal digits, begin so.

    The store answers with one message, which containerd limits (16 MiB if nobody has set `[grpc]
    max_send_message_size`), specs and all: what is too much for one is asked for in sixteen.
    """
    parts = wanted if not begins else f"{wanted},id~={quoted('^' + begins)}"
    request = sandbox_pb2.StoreListRequest(filters=[parts])
    try:
        answer = await containerd.ask(containerd.sandboxes.List, request, "its sandboxes")
        return list(answer.list)
    except ResourceExhausted:
        if len(begins) == 64:
            raise
    return [each for digit in _DIGITS for each in await records(containerd, wanted, begins + digit)]


def words(record: types_pb2.Sandbox) -> dict[str, Json]:
    """A record for people, without its spec."""
    return {
        "id": record.sandbox_id,
        "sandboxer": record.sandboxer,
        "runtime": record.runtime.name,
        "labels": dict(record.labels),
        "extensions": sorted(record.extensions),
        "createdAt": record.created_at.ToJsonString(),
        "updatedAt": record.updated_at.ToJsonString(),
    }


def _of(tried: str, record: types_pb2.Sandbox) -> str:
    return f"{tried} of sandbox {record.sandbox_id[:12]}"
