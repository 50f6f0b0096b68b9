"""The control API of a fake node: HTTP and JSON beside the CRI's socket, to look at it and to steer it.

It is there while the CRI server is down. Bodies are JSON or YAML; an error is {"error": …, "field": …}.
docs/fake.md says what each route takes and gives.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from podwright.engines.fake import documents, scenario
from podwright.engines.fake.values import seconds
from podwright.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PodwrightError,
    Unavailable,
)
from podwright.server.endpoint import socket_path
from podwright.testing import http, trees
from podwright.testing.http import Request, Response
from podwright.testing.node import FakeNode

LIMIT = 1000
"""Calls in one answer unless `limit` says otherwise."""

_STATUS: tuple[tuple[type[PodwrightError], int], ...] = (
    (InvalidArgument, 400),
    (NotFound, 404),
    (AlreadyExists, 409),
    (FailedPrecondition, 409),
    (Unavailable, 503),
    (PodwrightError, 500),
)

T = TypeVar("T")


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class ExitOrder(_Body):
    code: int = 0
    oom: bool = False


class AdvanceOrder(_Body):
    seconds: str | float


class CrashOrder(_Body):
    downtime: str | float | None = 0
    """None: until a restart is asked for."""
    containers: Literal["keep", "lose"] = "keep"


class Query(_Body):
    """Of GET /v1/calls."""

    rpc: str = "*"
    pod: str = ""
    namespace: str = ""
    container: str = ""
    image: str = ""
    id: str = ""
    failed: bool | None = None
    since: int = 0
    limit: int = LIMIT
    messages: bool = True


@asynccontextmanager
async def controlling(node: FakeNode, path: Path) -> AsyncIterator[None]:
    """Let `node` be controlled at the socket `path` until the block is left. InvalidArgument when the path is
    too long for a socket."""
    async with http.listening(socket_path(str(path)), Control(node).answer):
        yield


class Control:
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []
        self.lines: list[str] = []
        """Every route: "POST /v1/pods/{name}/lose"."""
        for line, act in (
            ("GET /v1/state", self.state),
            ("GET /v1/calls", self.calls),
            ("DELETE /v1/calls", self.forget_calls),
            ("GET /v1/pulls", self.pulls),
            ("GET /v1/scenario", self.scenario),
            ("PUT /v1/scenario", self.replace_scenario),
            ("PATCH /v1/scenario", self.change_scenario),
            ("GET /v1/faults", self.faults),
            ("POST /v1/faults", self.add_fault),
            ("DELETE /v1/faults", self.clear_faults),
            ("DELETE /v1/faults/{id}", self.remove_fault),
            ("POST /v1/containers/{name}/exit", self.exit),
            ("POST /v1/pods/{name}/lose", self.lose),
            ("GET /v1/clock", self.clock),
            ("POST /v1/clock/advance", self.advance),
            ("POST /v1/crash", self.crash),
            ("POST /v1/restart", self.restart),
            ("POST /v1/reset", self.reset),
        ):
            method, _, path = line.partition(" ")
            # Names have slashes in them: "pod/container".
            pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", path))
            self._routes.append((method, pattern, act))
            self.lines.append(line)

    async def answer(self, request: Request) -> Response:
        """What a request gets."""
        try:
            act, names = self._find(request)
            found = act(request, **names)
            return _json(200, await found if isinstance(found, Awaitable) else found)
        except PodwrightError as error:
            tree = {"error": str(error)}
            if isinstance(error, InvalidArgument):
                tree["field"] = error.field
            return _json(next(status for kind, status in _STATUS if isinstance(error, kind)), tree)

    def _find(self, request: Request) -> tuple[Callable[..., Any], dict[str, str]]:
        path = request.path.rstrip("/")
        allowed = []
        for method, pattern, act in self._routes:
            if match := pattern.fullmatch(path):
                if method == request.method:
                    return act, match.groupdict()
                allowed.append(method)
        if allowed:
            raise NotFound(f"{request.method} {path}: only {', '.join(allowed)} can be done here")
        raise NotFound(f"{request.method} {path}: there is no such route; there are {', '.join(self.lines)}")

    # To look at

    def state(self, _: Request) -> Any:
        return trees.state(self._node)

    def calls(self, request: Request) -> Any:
        query = _converted(request.query, Query, strict=False)
        if query.limit < 1:
            raise InvalidArgument("limit", f"{query.limit} is not above 0")
        found = self._node.calls.of(
            query.rpc,
            pod=query.pod,
            namespace=query.namespace,
            container=query.container,
            image=query.image,
            id=query.id,
            failed=query.failed,
        )
        # From a number on, to be read on from the last one; or else the newest.
        later = [call for call in found if call.number > query.since]
        page = later[: query.limit] if "since" in request.query else later[-query.limit :]
        return {
            "total": self._node.calls.total,
            "dropped": self._node.calls.dropped,
            "calls": [trees.call(call, messages=query.messages) for call in page],
        }

    def forget_calls(self, _: Request) -> Any:
        self._node.calls.clear()
        return {}

    def pulls(self, _: Request) -> Any:
        return {"pulls": trees.pulls(self._node.world.pulls)}

    def clock(self, _: Request) -> Any:
        return trees.clock(self._node.world.clock)

    # To set

    def scenario(self, _: Request) -> Any:
        return scenario.to_tree(self._node.world.scenario)

    def replace_scenario(self, request: Request) -> Any:
        self._node.world.scenario = scenario.parse(_tree(request))
        return self.scenario(request)

    def change_scenario(self, request: Request) -> Any:
        world = self._node.world
        world.scenario = scenario.apply(world.scenario, _mapping(request), "scenario")
        return self.scenario(request)

    def faults(self, _: Request) -> Any:
        return {"faults": [trees.fault(each) for each in self._node.faults.active()]}

    def add_fault(self, request: Request) -> Any:
        return {"id": self._node.faults.add(_mapping(request))}

    def clear_faults(self, _: Request) -> Any:
        self._node.faults.clear()
        return {}

    def remove_fault(self, _: Request, id: str) -> Any:
        if not id.isdecimal():
            raise InvalidArgument("id", f"{id!r} is no number")
        self._node.faults.remove(int(id))
        return {}

    # To do

    def exit(self, request: Request, name: str) -> Any:
        order = _order(request, ExitOrder)
        self._node.exit(name, order.code, oom=order.oom)
        return {}

    def lose(self, request: Request, name: str) -> Any:
        _order(request, _Body)
        self._node.lose(name)
        return {}

    async def advance(self, request: Request) -> Any:
        await self._node.advance(_order(request, AdvanceOrder).seconds)
        return self.clock(request)

    async def crash(self, request: Request) -> Any:
        """Answered when the server is up again, or with a downtime when it is down."""
        order = _order(request, CrashOrder)
        await self._node.kill(order.downtime, containers=order.containers)
        if order.downtime is not None and not seconds(order.downtime):
            await self._node.started()
        return {"server": self._node.state}

    async def restart(self, request: Request) -> Any:
        _order(request, _Body)
        await self._node.restart()
        return {"server": self._node.state}

    async def reset(self, request: Request) -> Any:
        _order(request, _Body)
        await self._node.reset()
        return {}


def _json(status: int, tree: Any) -> Response:
    return Response(status, msgspec.json.encode(tree) + b"\n")


def _tree(request: Request) -> Any:
    """The body: JSON, or YAML, which most JSON is, too. Nothing is an empty mapping."""
    if not request.body.strip():
        return {}
    try:
        return msgspec.json.decode(request.body)
    except msgspec.DecodeError:
        return documents.read_yaml(request.body, "body")


def _mapping(request: Request) -> dict[str, Any]:
    tree = _tree(request)
    if not isinstance(tree, dict):
        raise InvalidArgument("body", f"is {type(tree).__name__}; a mapping is wanted")
    return tree


def _order(request: Request, kind: type[T]) -> T:
    return _converted(_mapping(request), kind)


def _converted(tree: Any, kind: type[T], *, strict: bool = True) -> T:
    """InvalidArgument that names the key when `tree` is not of that kind."""
    try:
        return msgspec.convert(tree, kind, strict=strict)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$.")
        unknown = re.search(r"unknown field `(\w+)`", words) or re.search(r"required field `(\w+)`", words)
        field = path.rstrip("`") or (unknown[1] if unknown else "body")
        raise InvalidArgument(field, words) from error
