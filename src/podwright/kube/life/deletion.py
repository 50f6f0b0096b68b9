"""Ending containers and pods: pre-stop hooks, grace periods, turns, and the sandbox at last."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress

from podwright.errors import NotFound, PodwrightError
from podwright.kube.failures import Failure
from podwright.kube.life import lifecycle
from podwright.kube.life.context import PodContext
from podwright.kube.models import AnyContainer
from podwright.kube.rules import grace, stop_order
from podwright.kube.rules.actions import KillReason
from podwright.kube.state.pod_state import Seen, SeenContainer
from podwright.steps import step
from podwright.wire import cri_pb2 as cri


class Turns:
    """Who is stopped after whom (`stop_order`). A turn that does not come within the grace period is taken
    nevertheless."""

    def __init__(self, pod: PodContext, running: Collection[str]) -> None:
        self._pod = pod
        self._ended = {name: asyncio.Event() for name in running}

    async def wait(self, name: str, limit: float) -> float:
        """Wait for the turn of `name`, at most `limit` seconds; returns how long that took."""
        begun = self._pod.clock.monotonic()
        with suppress(TimeoutError):
            async with self._pod.clock.timeout(limit):
                for one in stop_order.prerequisites(self._pod.manifest, name, self._ended.keys()):
                    await self._ended[one].wait()
        return self._pod.clock.monotonic() - begun

    def ended(self, name: str) -> None:
        self._ended[name].set()


async def kill_container(
    pod: PodContext,
    name: str,
    container_id: str,
    *,
    message: str = "",
    reason: KillReason = "",
    override: int | None = None,
    turns: Turns | None = None,
) -> None:
    """Stop a container: its pre-stop hook, its turn, the stop signal, SIGKILL after what is left of the grace
    period. `override` takes the place of the period, in seconds. Raises what the runtime says."""
    container = pod.manifest.container(name)
    place = pod.manifest.place(name)
    pod.recorder.normal("Killing", place, message or f"Stopping container {name}")
    left = float(pod.manifest.grace if override is None else override)
    if container is not None:
        left = grace.period(pod.manifest, container, reason=reason, deletion=override)
    with step("kill container", f"{pod.manifest.name}/{name}"):
        try:
            hook = container.lifecycle.preStop if container is not None and container.lifecycle else None
            if container is not None and hook is not None and left > 0 and not pod.impatient.is_set():
                left = grace.remaining(left, await _pre_stop(pod, container, container_id, left, place))
            if turns is not None and left > 0 and not pod.impatient.is_set():
                left = grace.remaining(left, await turns.wait(name, left))
            await _stop(pod, container_id, 0 if pod.impatient.is_set() else grace.timeout(left))
        finally:
            if turns is not None:
                turns.ended(name)


async def kill_pod(pod: PodContext, seen: Seen, *, override: int | None = None) -> None:
    """Stop all running containers, each in its turn, then all sandboxes. What cannot be stopped keeps nothing
    else from being stopped; the first error is raised at the end."""
    running = stop_order.to_stop(seen)
    turns = Turns(pod, {one.name for one in running})
    results: list[BaseException | None] = await asyncio.gather(
        *(
            kill_container(pod, one.name, one.id, override=override, turns=turns)
            for one in _in_order(pod, running)
        ),
        return_exceptions=True,
    )
    for sandbox in seen.sandboxes:
        results.append(await _complaint(_stop_sandbox(pod, sandbox.id)))
    failed = [one for one in results if isinstance(one, BaseException)]
    if failed:
        raise failed[0]


def _in_order(pod: PodContext, running: Sequence[SeenContainer]) -> list[SeenContainer]:
    """As the manifest has them: events then are the same each time."""
    names = [one.name for one in pod.manifest.all_containers()]
    return sorted(running, key=lambda one: names.index(one.name) if one.name in names else len(names))


async def _stop_sandbox(pod: PodContext, sandbox_id: str) -> None:
    with suppress(NotFound):
        await pod.runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))


async def _complaint(act: Coroutine[object, object, None]) -> PodwrightError | None:
    try:
        await act
    except PodwrightError as error:
        return error
    return None


async def _pre_stop(
    pod: PodContext, container: AnyContainer, container_id: str, limit: float, place: str
) -> float:
    """Run the hook, at most `limit` seconds; returns how long it took."""
    assert container.lifecycle is not None and container.lifecycle.preStop is not None
    begun = pod.clock.monotonic()
    try:
        with step("pre-stop hook", container.name):
            async with pod.clock.timeout(limit):
                await _unless_impatient(
                    pod,
                    lifecycle.run_handler(
                        container.lifecycle.preStop, pod.manifest, container, container_id,
                        facts=pod.facts, runtime=pod.runtime, clock=pod.clock,
                    ),
                )  # fmt: skip
    except Failure:
        pod.recorder.warning("FailedPreStopHook", place, "PreStopHook failed")
    except TimeoutError:
        pass  # the container is stopped all the same
    return pod.clock.monotonic() - begun


async def _stop(pod: PodContext, container_id: str, timeout: int) -> None:
    """StopContainer, brought forward when nobody waits any more."""

    async def stop(seconds: int) -> None:
        with suppress(NotFound):
            await pod.runtime.stop_container(
                cri.StopContainerRequest(container_id=container_id, timeout=seconds)
            )

    await _unless_impatient(pod, stop(timeout))
    if pod.impatient.is_set() and timeout:
        await stop(0)


async def _unless_impatient(pod: PodContext, act: Coroutine[object, object, None]) -> None:
    """`act`, given up when `pod.impatient` is set."""
    task = asyncio.ensure_future(act)
    hurry = asyncio.ensure_future(pod.impatient.wait())
    try:
        await asyncio.wait({task, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        hurry.cancel()
        task.cancel()
