"""Hooks at work: bounded in time, failures in words, what they changed in a spec noted with their names."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from google.protobuf.message import Message

from podwright.errors import FailedPrecondition, PodwrightError
from podwright.hooks import Hook, Rejected, Target
from podwright.hooks.finding import find
from podwright.spec.draft import Json
from podwright.spec.places import changes
from podwright.wire import cri_pb2 as cri

log = logging.getLogger("podwright.hooks")

_PLAIN = (str, int, float, bool, type(None))


class Hooks:
    def __init__(self, hooks: Sequence[Hook] = ()) -> None:
        self._hooks = hooks
        kinds = {hook.kind for hook in hooks}
        # Looked at on the way of every call: where there is no hook nothing else is done.
        self.validates = "validate" in kinds
        self.adjusts = "adjust" in kinds
        self.watches = "watch" in kinds

    @classmethod
    def load(cls, files: Sequence[str]) -> Hooks:
        """As `finding.find`."""
        return cls(find(files))

    def __iter__(self) -> Any:
        return iter(self._hooks)

    def _of(self, kind: str, name: str = "") -> list[Hook]:
        return [
            hook
            for hook in self._hooks
            if hook.kind == kind and (not hook.names or not name or name in hook.names)
        ]

    async def validate(self, rpc: str, request: Message) -> None:
        """Show `request` to the hooks for `rpc`. Rejected, or FailedPrecondition that names the hook that
        failed or took too long."""
        for hook in self._of("validate", rpc):
            await _call(hook, copy.deepcopy(request))

    async def adjust(
        self, spec: Mapping[str, Json], target: Target, origins: dict[str, str] | None = None
    ) -> dict[str, Json]:
        """`spec` as the hooks want it; what each changed is noted in `origins`. Errors as `validate`, and
        FailedPrecondition when what a hook left is no spec any more."""
        current: dict[str, Json] = copy.deepcopy(dict(spec))
        for hook in self._of("adjust"):
            before = copy.deepcopy(current) if origins is not None else current
            await _call(hook, current, target)
            _require_json(current, hook)
            if origins is not None:
                for change in changes(before, current):
                    origins[change.path] = f"hook: {hook.name}"
        return current

    async def watch(self, events: AsyncIterator[bytes]) -> None:
        """Tell the watchers of every event, until cancelled."""
        async for raw in events:
            event = cri.ContainerEventResponse.FromString(raw)
            name = cri.ContainerEventType.Name(event.container_event_type)
            for hook in self._of("watch", name):
                try:
                    await _call(hook, copy.deepcopy(event))
                except PodwrightError as error:
                    log.error("%s of %s: %s", name, event.container_id, error)


async def _call(hook: Hook, *arguments: Any) -> None:
    try:
        async with asyncio.timeout(hook.timeout):
            if inspect.iscoroutinefunction(hook.function):
                await hook.function(*arguments)
            else:
                await _in_thread(functools.partial(hook.function, *arguments), hook.name)
    except Rejected as error:
        raise Rejected(error.field, f"{_without_field(error)} (hook {hook.name})") from error
    except TimeoutError as error:
        raise FailedPrecondition(f"hook {hook.name} did not end within {hook.timeout:g} s") from error
    except Exception as error:
        raise FailedPrecondition(f"hook {hook.name} failed: {type(error).__name__}: {error}") from error


def _without_field(error: Rejected) -> str:
    return str(error).removeprefix(f"{error.field}: ") if error.field else str(error)


async def _in_thread(function: Any, name: str) -> None:
    """Run `function` in a thread of its own: one that hangs must not take a place in a pool, nor keep the
    process from ending."""
    done: Future[None] = Future()

    def run() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as raised:
            error = raised
        # Cancelled when it has taken too long: nobody waits any more.
        if done.set_running_or_notify_cancel():
            done.set_result(None) if error is None else done.set_exception(error)

    Thread(target=run, name=f"hook {name}", daemon=True).start()
    await asyncio.wrap_future(done)


def _require_json(value: Json, hook: Hook, path: str = "") -> None:
    """What a hook leaves is written as JSON for a runtime in another language: nothing else may be in it."""
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise FailedPrecondition(
                    f"hook {hook.name}: {path or 'the spec'} has the key {key!r}, no text"
                )
            _require_json(member, hook, f"{path}.{key}" if path else key)
    elif isinstance(value, (list, tuple)):
        for at, member in enumerate(value):
            _require_json(member, hook, f"{path}[{at}]")
    elif not isinstance(value, _PLAIN) or value != value:
        raise FailedPrecondition(f"hook {hook.name}: {path} is {value!r}, which is no JSON value")
