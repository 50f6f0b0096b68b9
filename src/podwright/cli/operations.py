"""ps --operations: what a server, or a run that has the state, is doing at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from podwright.cli.output import Format, age, json, plain, short, table

if TYPE_CHECKING:
    from podwright.api import Node
    from podwright.cli.door import Door
    from podwright.wire import podwright_pb2 as own


async def operations(door: Door, every: bool, output: Format) -> None:
    """Unavailable when nobody has the state open: then nothing goes on. Unimplemented of other servers."""
    from podwright.cli.share import reached
    from podwright.errors import Unavailable, Unimplemented
    from podwright.wire import podwright_pb2 as own

    address = door.answering()
    if address is None:
        door.require_no_server()
        raise Unavailable(
            f"no server answers at {door.config().listen}, and no `podwright run` has the state: there is"
            f" nobody to ask what goes on"
        )
    async with reached(address) as runtime:
        request = own.ListOperationsRequest(reading=every)
        try:
            answer = await cast("Node", runtime).list_operations(request)
        except Unimplemented:
            raise Unimplemented(
                f"the server at {address} does not tell what goes on: it is another runtime's, or older"
            ) from None
    if output is Format.JSON:
        json(plain(answer))
        return
    table(
        ("OPERATION", "OBJECT", "STAGE", "AGE", "NOTE"),
        [
            (one.rpc, _object(one), _stage(one), age(one.started_at), _note(one))
            for one in answer.operations
            # Of this very command nobody wants to hear.
            if one.rpc != "ListOperations"
        ],
    )


def _object(operation: own.Operation) -> str:
    """POD/CONTAINER, as other commands take it, or an image, or an id that is nothing (any more)."""
    if operation.container_name:
        return f"{operation.pod_name}/{operation.container_name}"
    return operation.pod_name or operation.image or short(operation.subject) or "-"


def _stage(operation: own.Operation) -> str:
    """The step that goes on for longest, since when, and how many do besides."""
    if not operation.stages:
        return "-"
    first, *others = sorted(operation.stages, key=lambda each: each.started_at or operation.started_at)
    text = first.name
    if first.name in _TELLING and first.subject:
        text += f" {_subject(first.subject)}"
    if first.started_at:
        text += f" ({age(first.started_at)})"
    return text + (f" +{len(others)}" if others else "")


_TELLING = frozenset(
    {"cni plugin", "fetch blob", "unpack layer", "image volume", "fill volume", "signal", "wait for turn"}
    | {"wait for blob", "wait for layer"}
)
"""Stages whose subject says more than the row does already."""


def _subject(subject: str) -> str:
    return short(subject) if subject.startswith("sha256:") else subject


def _note(operation: own.Operation) -> str:
    notes = ["client gone"] if operation.client_gone else []
    if operation.seconds_left:
        notes.append(f"{operation.seconds_left:.0f}s left")
    return ", ".join(notes)
