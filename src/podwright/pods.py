"""A whole pod for programs: kept as a kubelet keeps it, watched, changed, talked with, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from podwright.clock import SYSTEM, Clock
from podwright.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, PodwrightError
from podwright.kube import pod_changes
from podwright.kube.files import log_links
from podwright.kube.life import outcome
from podwright.kube.life.worker import PodWorker
from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import EnvVar, EphemeralContainer, PodStatus, ResourceRequirements
from podwright.kube.state.pod_state import Seen
from podwright.library import Container, Sandbox
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.kube.life.events import Event
    from podwright.kube.life.outcome import PodOutcome
    from podwright.kube.models import ContainerStatus
    from podwright.kube.node import Node
    from podwright.processes import PodConnection
    from podwright.streaming.client import Options

__all__ = ["Pod"]

HOPELESS = (
    "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
    "RunContainerError", "ErrImagePull", "ImagePullBackOff",
)  # fmt: skip
"""Reasons for which who waits for one container need not wait longer."""


class Pod:
    """One pod of a Kubernetes manifest, made by `Runtime.pod`.

    As a context manager it runs while the block does: containers are started, probed and restarted as the
    manifest says. Leaving the block ends the pod, with its grace period, and removes all of it; after an
    error at once. `detach` leaves it running instead.
    """

    def __init__(self, runtime: Cri, manifest: Manifest, node: Node, *, clock: Clock = SYSTEM) -> None:
        self._cri = runtime
        self._clock = clock
        self._worker = PodWorker(runtime, manifest, node, clock=clock)
        self._seen = Seen()
        """What `status` was made of."""
        self._worker.subscribe(self._saw)
        self._life: asyncio.Task[PodOutcome] | None = None
        self._stopped = self._detached = self._gone = False
        self._removing = asyncio.Lock()

    # Its life

    async def start(self) -> None:
        """Begin to keep it, or go on with a pod of its uid that an earlier process has left; returns at
        once."""
        if self._life is None:
            self._life = asyncio.get_running_loop().create_task(self._live())

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until its condition Ready is true.

        Raises FailedPrecondition when it has ended before, DeadlineExceeded after `timeout` seconds (None: as
        long as it takes), both with what was in the way.
        """
        try:
            async with self._clock.timeout(timeout), aclosing(self.changes()) as changes:
                async for status in changes:
                    if any(one.type == "Ready" and one.status == "True" for one in status.conditions or []):
                        return
        except TimeoutError:
            raise DeadlineExceeded(
                f"pod {self.name} was not ready after {timeout:g} s: {self._obstacle()}"
            ) from None
        raise FailedPrecondition(f"pod {self.name} ended before it was ready: {self._obstacle()}")

    async def wait(self) -> PodOutcome:
        """Wait until it has ended, by its own rules or by `delete`, and say how it went."""
        return await asyncio.shield(self._begun())

    async def delete(self, grace: int | None = None) -> PodOutcome:
        """End it and remove all of it: pre-stop hooks, every container in its turn, SIGKILL after `grace`
        seconds (None: the manifest's). Idempotent; a second call may shorten the grace period."""
        self._stopped = True
        life = self._begun()
        if not life.done():
            self._worker.delete(grace)
        return await self._removed(life)

    async def kill(self) -> PodOutcome:
        """`delete` at once: no hooks, no grace."""
        self._stopped = True
        life = self._begun()
        if not life.done():
            self._worker.kill()
        return await self._removed(life)

    async def detach(self) -> None:
        """Leave it as it is: its containers run on, but nobody starts them again. A pod of the same manifest
        and uid that is started later takes them over."""
        self._detached = True
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait({self._life})

    async def __aenter__(self) -> Pod:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._detached:
            return
        ended = asyncio.ensure_future(self.delete() if error is None else self._discard())
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            # Nobody waits any more: what is left of the grace period goes.
            self._worker.kill()
            await asyncio.wait({ended})
            raise

    # What it is

    @property
    def manifest(self) -> Manifest:
        """The pod as it shall be, with all defaults."""
        return self._worker.manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def namespace(self) -> str:
        return self.manifest.namespace

    @property
    def uid(self) -> str:
        return self.manifest.uid

    @property
    def status(self) -> PodStatus:
        """What a kubelet would report of it now."""
        return self._worker.status

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded or Failed."""
        return self.status.phase or "Pending"

    @property
    def events(self) -> tuple[Event, ...]:
        """What has happened to it, equal events counted, by their first appearance."""
        return self._worker.events

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses, the preferred one first; the node's on the host's network. () until it has them."""
        return self._worker.pod.facts.ips

    @property
    def containers(self) -> Mapping[str, Container]:
        """Its containers by name, each in its newest attempt; those that were never created are not there."""
        directory = self._worker.directory
        found: dict[str, Container] = {}
        for one in self._seen.containers:
            if one.name not in found:
                found[one.name] = Container(self._cri, one.id, one.name, directory.log(one.name, one.attempt))
        return found

    @property
    def sandbox_id(self) -> str:
        """Of its newest sandbox; "" before there is one."""
        sandboxes = self._seen.sandboxes
        return sandboxes[0].id if sandboxes else ""

    async def changes(self) -> AsyncGenerator[PodStatus, None]:
        """Its status now and after each change, until it has ended. Who is slow misses those between, never
        the last."""
        life, changed = self._begun(), asyncio.Event()
        leave = self._worker.subscribe(lambda seen, status: changed.set())
        life.add_done_callback(lambda _: changed.set())
        try:
            told: PodStatus | None = None
            while True:
                over = life.done()
                changed.clear()
                if (status := self.status) != told:
                    told = status
                    yield status
                if over:
                    return
                await changed.wait()
        finally:
            leave()

    def port_forward(self, port: int, *, options: Options | None = None) -> PodConnection:
        """One connection to `port` of its own localhost, as `Sandbox.port_forward`. FailedPrecondition before
        it has a sandbox."""
        if not self.sandbox_id:
            raise FailedPrecondition(f"pod {self.name} has no sandbox yet: await pod.ready()")
        sandbox = Sandbox(self._cri, self.sandbox_id, cri.PodSandboxConfig(), None)
        return sandbox.port_forward(port, options=options)

    # Changes

    def update(
        self,
        manifest: Manifest | Mapping[str, Any] | None = None,
        *,
        images: Mapping[str, str] | None = None,
        resources: Mapping[str, Mapping[str, Any] | ResourceRequirements] | None = None,
    ) -> None:
        """Let it be so from now on: a whole manifest of the same name, or the images and resources of some of
        its containers.

        What the API server lets change of a running pod may change: images, resources (in place, where the
        resize policy says so), new ephemeral containers, labels and annotations, the deadline, tolerations.
        InvalidArgument names what may not.
        """
        changed = self.manifest
        if manifest is not None:
            changed = pod_changes.update(changed, _parsed(manifest, changed))
        if images or resources:
            changed = pod_changes.with_values(changed, images or {}, resources or {})
        self._worker.update(changed)

    async def debug(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str = "",
        args: Sequence[str] = (),
        target: str = "",
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        tty: bool = False,
        pull_policy: str = "",
        timeout: float | None = None,
    ) -> Container:
        """Add an ephemeral container, and wait until it has been started; `target` names the container whose
        processes it sees. It cannot be taken away again, and is never restarted. `pull_policy` (Always,
        IfNotPresent, Never) is by default that of manifests: Always for the tag latest, or for none.

        Raises InvalidArgument, FailedPrecondition when it cannot be started (its image is tried again
        nevertheless), DeadlineExceeded after `timeout` seconds.
        """
        taken = {one.name for one in self.manifest.all_containers()}
        name = name or next(one for n in range(len(taken) + 1) if (one := f"debugger-{n}") not in taken)
        made = EphemeralContainer(
            name=name, image=image, command=list(command) or None, args=list(args) or None,
            env=[EnvVar(name=key, value=value) for key, value in (env or {}).items()] or None,
            stdin=stdin or None, tty=tty or None, targetContainerName=target or None,
            imagePullPolicy=pull_policy or None,
        )  # fmt: skip
        self._worker.update(pod_changes.with_ephemeral(self.manifest, made))
        try:
            async with self._clock.timeout(timeout), aclosing(self.changes()) as changes:
                async for status in changes:
                    if (container := self._started(status, name)) is not None:
                        return container
        except TimeoutError:
            raise DeadlineExceeded(
                f"container {name!r} was not started after {timeout:g} s: {self._obstacle()}"
            ) from None
        raise FailedPrecondition(f"pod {self.name} has ended, and container {name!r} was not started")

    # Inside

    def _begun(self) -> asyncio.Task[PodOutcome]:
        if self._life is None:
            raise FailedPrecondition(
                f"pod {self.name} has not been started: use `async with`, or await pod.start()"
            )
        return self._life

    def _saw(self, seen: Seen, status: PodStatus) -> None:
        self._seen = seen

    async def _live(self) -> PodOutcome:
        await asyncio.to_thread(log_links.sweep, self._worker.pod.node)
        await self._worker.run()
        return outcome.of(self._worker, stopped=self._stopped, fault="")

    async def _removed(self, life: asyncio.Task[PodOutcome]) -> PodOutcome:
        """Nothing of the pod is left; several may wait for that."""
        found = await asyncio.shield(life)
        async with self._removing:
            if not self._gone:
                await self._worker.remove()
                self._gone = True
        return found

    async def _discard(self) -> None:
        """After an error, which shall be told: what goes wrong here comes after it."""
        with suppress(PodwrightError, OSError, asyncio.CancelledError):
            await self.kill()

    def _started(self, status: PodStatus, name: str) -> Container | None:
        for one in status.ephemeralContainerStatuses or []:
            if one.name != name or one.state is None:
                continue
            if one.state.running is not None or one.state.terminated is not None:
                return self.containers.get(name)
            waiting = one.state.waiting
            if waiting is not None and waiting.reason in HOPELESS:
                raise FailedPrecondition(f"container {name!r}: {waiting.reason}: {waiting.message}")
        return None

    def _obstacle(self) -> str:
        """What keeps it from being ready, as far as that is known."""
        status = self.status
        found = [f"{status.reason}: {status.message}"] if status.reason else []
        every: list[ContainerStatus] = [
            *(status.initContainerStatuses or []),
            *(status.containerStatuses or []),
            *(status.ephemeralContainerStatuses or []),
        ]
        for one in every:
            state = one.state
            if state is not None and state.waiting is not None and state.waiting.message:
                found.append(f"container {one.name!r}: {state.waiting.reason}: {state.waiting.message}")
            elif state is not None and state.terminated is not None:
                code = state.terminated.exitCode
                found.append(f"container {one.name!r} ended with exit code {code}")
            elif state is not None and state.running is not None and not one.ready:
                found.append(f"container {one.name!r} runs and is not ready")
        warnings = [one for one in self.events if one.type == "Warning"]
        if not found and warnings:
            found.append(f"{warnings[-1].reason}: {warnings[-1].message}")
        return "; ".join(found) or f"it is {self.phase}"


def _parsed(source: Manifest | Mapping[str, Any], old: Manifest) -> Manifest:
    from podwright.kube.manifests.manifest import from_dict

    if isinstance(source, Manifest):
        return source
    metadata = source.get("metadata")
    if not isinstance(metadata, Mapping):
        raise InvalidArgument("metadata", "is needed")
    # Before the defaults, some of which depend on it.
    tree = {**source, "metadata": {**metadata, "uid": old.uid}}
    return from_dict(tree, old.source, old.objects, bindings=old.bindings)
