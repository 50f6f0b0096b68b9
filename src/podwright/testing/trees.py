"""A fake node's state, calls, faults and pulls as JSON: dicts, lists, texts and numbers, without secrets."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from podwright.clock import VirtualClock
from podwright.engines.base import Presence
from podwright.engines.fake import documents
from podwright.engines.fake.faults import ActiveFault
from podwright.engines.fake.images import Pull
from podwright.testing.calls import Call
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from podwright.clock import Clock
    from podwright.core.records import ContainerRecord, SandboxRecord
    from podwright.engines.fake.world import World
    from podwright.testing.node import FakeNode

HIDDEN = "(hidden)"
_SECRETS = ("password", "auth", "identityToken", "registryToken")


def time(nanoseconds: int) -> str:
    """RFC 3339 with nine digits, as logs have it; "" for 0."""
    if not nanoseconds:
        return ""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def clock(clock: Clock) -> dict[str, Any]:
    virtual = isinstance(clock, VirtualClock)
    return {"kind": "virtual" if virtual else "system", "now": time(clock.now())}


def state(node: FakeNode) -> dict[str, Any]:
    """Server, clock, and what there is: as core's records have it (`state`) and as it really is
    (`presence`); `orphans` are in no record."""
    world, records = node.world, node.records
    return {
        "server": node.state,
        "crashes": node.crashes,
        "clock": clock(world.clock),
        "pods": [_pod(world, each) for each in records.sandboxes],
        "orphans": {
            "pods": [id for id in world.sandboxes if id not in records.sandboxes],
            "containers": [id for id in world.containers if id not in records.containers],
        },
    }


def _pod(world: World, record: SandboxRecord) -> dict[str, Any]:
    made, metadata = world.sandboxes.get(record.id), record.config.metadata
    return {
        "id": record.id,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "attempt": metadata.attempt,
        "state": record.state.value,
        "presence": "missing" if made is None else "ready" if made.ready else "stopped",
        "ips": list(record.facts.ips),
        "created": time(record.created_at),
        "containers": [_container(world, each) for each in record.containers.values()],
    }


def _container(world: World, record: ContainerRecord) -> dict[str, Any]:
    made, config = world.containers.get(record.id), record.config
    return {
        "id": record.id,
        "name": config.metadata.name,
        "attempt": config.metadata.attempt,
        "image": config.image.user_specified_image or config.image.image,
        "state": record.state.value,
        "presence": (made.presence if made is not None else Presence.MISSING).name.lower(),
        "exit_code": record.exit_code,
        "reason": record.reason,
        "created": time(record.created_at),
        "started": time(record.started_at),
        "finished": time(record.finished_at),
    }


def call(call: Call, *, messages: bool = True) -> dict[str, Any]:
    """One call; `messages`: with request and response, in protobuf's JSON."""
    about = call.subject
    tree: dict[str, Any] = {
        "number": call.number,
        "rpc": call.rpc,
        "title": call.title,
        "subject": {
            "id": about.id,
            "pod": about.pod,
            "namespace": about.namespace,
            "container": about.container,
            "image": about.image,
        },
        "started": time(call.started),
        "ended": time(call.ended),
        "milliseconds": round(call.seconds * 1000, 3),
        "outcome": call.outcome,
    }
    if messages:
        tree["request"] = _plain(call.request)
        tree["response"] = _plain(call.response) if call.response is not None else None
    return tree


def _plain(message: Message) -> dict[str, Any]:
    tree: dict[str, Any] = MessageToDict(message)
    if isinstance(message, cri.PullImageRequest) and message.HasField("auth"):
        tree["auth"] = {
            key: HIDDEN if key in _SECRETS else value for key, value in tree.get("auth", {}).items()
        }
    return tree


def fault(active: ActiveFault) -> dict[str, Any]:
    return {
        "id": active.id,
        "scripted": active.scripted,
        "met": active.met,
        "struck": active.struck,
        "fault": documents.to_tree(active.fault),
    }


def pulls(pulls: Iterable[Pull]) -> list[dict[str, Any]]:
    """By whom images were pulled: `username` "" with `credentials` true is the bearer of a token."""
    return [
        {
            "image": pull.reference,
            "credentials": pull.credentials is not None,
            "username": pull.credentials.username if pull.credentials is not None else "",
            "time": time(pull.time),
            "outcome": pull.outcome or "under way",
        }
        for pull in pulls
    ]
