"""Running a pod on any CRI, in the kubelet's order: volumes, sandbox, init containers one by one, then the
containers in order; restarts with back-off; a graceful stop; and nothing left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from podwright.api import Cri
from podwright.errors import FailedPrecondition, NotFound, PodwrightError
from podwright.kube import exits
from podwright.kube import host as hostfacts
from podwright.kube import old_hosts as hosts
from podwright.kube import old_translate as translate
from podwright.kube import old_volumes as volumes
from podwright.kube.backoff import RestartDelays, restarts
from podwright.kube.manifest import Manifest
from podwright.kube.models import Container
from podwright.kube.old_directory import PodDirectory
from podwright.kube.old_translate import Host
from podwright.kube.outcome import ContainerOutcome, PodOutcome
from podwright.logs import reader
from podwright.logs.reader import Line
from podwright.wire import cri_pb2 as cri

MESSAGE_LINES, MESSAGE_BYTES = 80, 2048
"""How much of a log stands in for a termination message."""


class Reporter(Protocol):
    """Who is told what happens. `container` is "" for what concerns the pod."""

    def event(self, pod: str, container: str, text: str) -> None: ...

    def output(self, pod: str, container: str, line: Line) -> None: ...


class Silent:
    """Nobody is told."""

    def event(self, pod: str, container: str, text: str) -> None: ...

    def output(self, pod: str, container: str, line: Line) -> None: ...


@dataclass
class _Life:
    """One container of the pod through all its attempts."""

    container: Container
    init: bool
    attempt: int = -1
    id: str = ""
    delay: float | None = None
    """The last back-off; None before the first restart."""
    status: cri.ContainerStatus | None = None
    """How the latest attempt ended."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    log: asyncio.Task[None] | None = None
    last_words: str = ""
    """Its termination message."""

    @property
    def name(self) -> str:
        return self.container.name


class PodRun:
    """One pod's run. `run()` is called once; `stop()` and `kill()` may be called at any time meanwhile."""

    def __init__(
        self,
        runtime: Cri,
        manifest: Manifest,
        root: Path,
        *,
        reporter: Reporter | None = None,
        backoff: RestartDelays | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.manifest = manifest
        self.directory = PodDirectory.of(root, manifest.namespace, manifest.name, manifest.uid)
        self._runtime = runtime
        self._root = root
        self._reporter = reporter or Silent()
        self._backoff = backoff or RestartDelays()
        self._sleep = sleep
        self._stop, self._kill = asyncio.Event(), asyncio.Event()
        self._host = Host()
        self._sandbox = ""
        self._config = cri.PodSandboxConfig()
        self._ips: tuple[str, ...] = ()
        self._creations: set[asyncio.Task[None]] = set()
        self._lives = [_Life(one, True) for one in manifest.init_containers]
        self._lives += [_Life(one, False) for one in manifest.containers]

    def stop(self) -> None:
        """Let `run` end gracefully: the stop signal, the grace period, then SIGKILL."""
        self._stop.set()

    def kill(self) -> None:
        """Let `run` end now: no grace."""
        self._stop.set()
        self._kill.set()

    async def run(self, *, keep: bool = False, detach: bool = False) -> PodOutcome:
        """Run the pod to its end and say how it went. What goes wrong with the pod is in the outcome.

        With `keep` the stopped sandbox, its containers and files stay; with `detach` the call returns when
        all containers are started, and they go on. Cancellation stops and removes everything at once.
        """
        ended = False
        try:
            error = await self._until_stopped(self._live(detach))
            if detach and not error and not self._stop.is_set():
                await self._drain()
                ended = True
                return self._outcome()
            unended = await _complaint(self._end())
            outcome = self._outcome(error or unended)
            if not keep and (left := await _complaint(self.remove())):
                outcome = replace(outcome, error=outcome.error or left)
            ended = True
            return outcome
        finally:
            if not ended:
                await asyncio.shield(self._abandon(keep))

    async def remove(self) -> None:
        """Remove the sandbox, its containers, volumes and logs; idempotent."""
        if self._sandbox:
            await self._runtime.remove_pod_sandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self._sandbox))
        await asyncio.to_thread(volumes.remove, self.directory)

    # The story

    async def _live(self, detach: bool) -> None:
        await self._prepare()
        for life in self._lives:
            if life.init:
                await self._initialise(life)
        for life in self._lives:
            if not life.init:
                await self._launch(life)
        if not detach:
            await _together(self._supervise(life) for life in self._lives if not life.init)

    async def _until_stopped(self, living: Awaitable[None]) -> str:
        """Follow `living` to its end, to `stop()` or to the pod's deadline; return what went wrong."""
        life = asyncio.ensure_future(living)
        stop = asyncio.ensure_future(self._stop.wait())
        deadline = self.manifest.spec.activeDeadlineSeconds
        try:
            await asyncio.wait({life, stop}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, life):
                task.cancel()
            results = await asyncio.gather(life, return_exceptions=True)
        failure = results[0]
        if isinstance(failure, asyncio.CancelledError):
            return "" if self._stop.is_set() else f"DeadlineExceeded: it was active for {deadline} s"
        if isinstance(failure, PodwrightError | OSError):
            return str(failure)
        if isinstance(failure, BaseException):
            raise failure
        return ""

    async def _prepare(self) -> None:
        self._host = await hostfacts.observe(self._runtime, self.manifest, self._root)
        await asyncio.to_thread(volumes.make, self.manifest, self.directory, self._host)
        self._config = translate.sandbox_config(self.manifest, self._host, str(self.directory.path))
        await self._unbroken(self._make_sandbox())
        status = await self._runtime.pod_sandbox_status(
            cri.PodSandboxStatusRequest(pod_sandbox_id=self._sandbox)
        )
        network = status.status.network
        self._ips = tuple(ip for ip in (network.ip, *(one.ip for one in network.additional_ips)) if ip)
        if hosts.needed(self.manifest):
            text = hosts.content(self.manifest, self._ips, hostfacts.text(Path("/etc/hosts")))
            self.directory.hosts.write_text(text)
        self._tell("", f"sandbox {self._sandbox[:12]} is ready" + "".join(f", {ip}" for ip in self._ips))

    async def _make_sandbox(self) -> None:
        answer = await self._runtime.run_pod_sandbox(
            cri.RunPodSandboxRequest(
                config=self._config, runtime_handler=self.manifest.spec.runtimeClassName or ""
            )
        )
        self._sandbox = answer.pod_sandbox_id

    async def _initialise(self, life: _Life) -> None:
        """Run an init container until it succeeds; FailedPrecondition when it may not be tried again."""
        await self._launch(life)
        while (code := await self._ended(life)) != 0:
            if not restarts(self.manifest.spec.restartPolicy or "", code, init=True):
                raise FailedPrecondition(f"init container {life.name!r} failed with exit code {code}")
            await self._relaunch(life)

    async def _supervise(self, life: _Life) -> None:
        """Keep a container as the restart policy says; returns when it has ended for good."""
        while restarts(self.manifest.spec.restartPolicy or "", await self._ended(life)):
            await self._relaunch(life)

    async def _unbroken(self, creation: Coroutine[None, None, None]) -> None:
        """Let a creation come to its end even when the run is stopped meanwhile: a runtime may go on with it,
        and what it makes must be known to be removed."""
        task = asyncio.ensure_future(creation)
        self._creations.add(task)
        await asyncio.shield(task)

    async def _end(self) -> None:
        """Stop what runs, each container with the pod's grace period, then the sandbox."""
        await asyncio.gather(*self._creations, return_exceptions=True)
        unstopped = await _complaint(self._stop_containers())
        await self._drain()
        for life in self._lives:
            life.last_words = await self._last_words(life)
        if self._sandbox:
            # This ends whatever could not be stopped.
            await self._runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self._sandbox))
        if unstopped:
            raise PodwrightError(unstopped)

    async def _stop_containers(self) -> None:
        """All at once, with the grace period; without any more of it when `kill()` comes."""
        grace = asyncio.ensure_future(_together(self._stop_container(life) for life in self._lives))
        kill = asyncio.ensure_future(self._kill.wait())
        try:
            await asyncio.wait({grace, kill}, return_when=asyncio.FIRST_COMPLETED)
            if not grace.done():
                await _together(self._stop_container(life, 0) for life in self._lives)
            await grace
        finally:
            kill.cancel()
            grace.cancel()

    async def _abandon(self, keep: bool) -> None:
        """The run was cancelled or broke: end it without grace, and report nothing more."""
        for life in self._lives:
            if life.log is not None:
                life.log.cancel()
        await asyncio.gather(*self._creations, return_exceptions=True)
        if self._sandbox:
            with suppress(PodwrightError):
                await self._runtime.stop_pod_sandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self._sandbox))
        if not keep:
            with suppress(PodwrightError, OSError):
                await self.remove()

    # One container

    async def _launch(self, life: _Life) -> None:
        """Create and start the next attempt. One that cannot be started has ended, with code 128; one that
        cannot be created raises."""
        life.attempt += 1
        life.status, life.ended = None, asyncio.Event()
        try:
            config = await self._configure(life)
            await self._unbroken(self._create(life, config))
        except (PodwrightError, OSError) as error:
            raise PodwrightError(f"container {life.name!r}: {error}") from error
        try:
            await self._runtime.start_container(cri.StartContainerRequest(container_id=life.id))
        except PodwrightError as error:
            life.status = await self._start_failed(life.id, str(error))
            self._tell(life.name, f"did not start: {error}")
            return
        self._tell(life.name, f"started, {life.id[:12]}")
        life.log = asyncio.ensure_future(self._follow(life.name, life.attempt, life.ended))

    async def _create(self, life: _Life, config: cri.ContainerConfig) -> None:
        answer = await self._runtime.create_container(
            cri.CreateContainerRequest(
                pod_sandbox_id=self._sandbox, config=config, sandbox_config=self._config
            )
        )
        life.id = answer.container_id

    async def _relaunch(self, life: _Life) -> None:
        """The next attempt, after the back-off; the container of the last one goes when its heir is there."""
        assert life.status is not None
        life.delay = self._backoff.delay(life.delay, _ran(life.status))
        if life.delay:
            self._tell(life.name, f"ended with {life.status.exit_code}, restarts in {life.delay:g} s")
            await self._sleep(life.delay)
        last = life.id
        await self._launch(life)
        await self._runtime.remove_container(cri.RemoveContainerRequest(container_id=last))

    async def _configure(self, life: _Life) -> cri.ContainerConfig:
        image = await self._image(life.container)
        variables = translate.environment(self.manifest, life.container, self._host, self._ips)
        mounts = await asyncio.to_thread(
            volumes.container_mounts,
            self.manifest, life.container, self.directory, self._host, variables, life.attempt,
        )  # fmt: skip
        return translate.container_config(
            self.manifest, life.container, image,
            host=self._host, pod_ips=self._ips, mounts=mounts, attempt=life.attempt,
        )  # fmt: skip

    async def _image(self, container: Container) -> cri.Image:
        reference, policy = container.image or "", container.imagePullPolicy
        spec = cri.ImageSpec(image=reference, user_specified_image=reference)
        found = await self._runtime.image_status(cri.ImageStatusRequest(image=spec))
        present = found.HasField("image")
        if policy == "Never" and not present:
            raise NotFound(
                f"ErrImageNeverPull: image {reference!r} is not present and imagePullPolicy is Never"
                "; pull or import it first"
            )
        if policy == "Always" or not present:
            self._tell(container.name, f"pulling image {reference}")
            await self._runtime.pull_image(cri.PullImageRequest(image=spec, sandbox_config=self._config))
            found = await self._runtime.image_status(cri.ImageStatusRequest(image=spec))
            if not found.HasField("image"):
                raise NotFound(f"image {reference!r} was pulled and is gone again")
        return found.image

    async def _ended(self, life: _Life) -> int:
        """Wait for the end of the latest attempt, its output included; returns its exit code."""
        if life.status is None:
            life.status = await exits.wait(self._runtime, life.id)
        await self._read_out(life)
        return life.status.exit_code

    async def _stop_container(self, life: _Life, grace: int | None = None) -> None:
        if not life.id or life.status is not None:
            return
        await self._runtime.stop_container(
            cri.StopContainerRequest(
                container_id=life.id, timeout=self.manifest.grace if grace is None else grace
            )
        )
        with suppress(NotFound):
            answer = await self._runtime.container_status(cri.ContainerStatusRequest(container_id=life.id))
            life.status = answer.status

    async def _start_failed(self, id: str, message: str) -> cri.ContainerStatus:
        answer = await self._runtime.container_status(cri.ContainerStatusRequest(container_id=id))
        if answer.status.state != cri.CONTAINER_EXITED:
            # Not every runtime marks it; nothing will ever run in it.
            answer.status.exit_code, answer.status.reason, answer.status.message = 128, "StartError", message
        return answer.status

    # Output

    async def _follow(self, name: str, attempt: int, ended: asyncio.Event) -> None:
        try:
            async for line in reader.follow(self.directory.log(name, attempt), follow=True, stop=ended):
                self._reporter.output(self._label, name, line)
        except (PodwrightError, OSError) as error:
            self._tell(name, f"its log cannot be read: {error}")

    async def _read_out(self, life: _Life) -> None:
        """Let the log's reader come to the end; the runtime has flushed the log before it tells an exit."""
        life.ended.set()
        if life.log is not None:
            await asyncio.wait({life.log})  # not the task itself: it outlives a cancellation of this wait
            life.log = None

    async def _drain(self) -> None:
        """Read all logs to what is their end now."""
        for life in self._lives:
            await self._read_out(life)

    async def _last_words(self, life: _Life) -> str:
        """What the container left in its termination message file, or, where it may fall back to it and has
        failed, the end of its log."""
        if not life.id or life.status is None:
            return ""
        words = volumes.termination_message(self.directory, life.name, life.attempt)
        fallback = life.container.terminationMessagePolicy == "FallbackToLogsOnError"
        if words or not fallback or life.status.exit_code == 0:
            return words
        with suppress(PodwrightError, OSError):
            lines = [one.text async for one in reader.follow(self._log(life), tail=MESSAGE_LINES)]
            words = b"\n".join(lines)[-MESSAGE_BYTES:].decode(errors="replace")
        return words

    def _log(self, life: _Life) -> Path:
        return self.directory.log(life.name, life.attempt)

    def _tell(self, container: str, text: str) -> None:
        self._reporter.event(self._label, container, text)

    @property
    def _label(self) -> str:
        return self.manifest.name

    def _outcome(self, error: str = "") -> PodOutcome:
        return PodOutcome(
            name=self.manifest.name,
            namespace=self.manifest.namespace,
            uid=self.manifest.uid,
            sandbox_id=self._sandbox,
            ips=self._ips,
            containers=tuple(self._container_outcome(life) for life in self._lives),
            error=error,
        )

    def _container_outcome(self, life: _Life) -> ContainerOutcome:
        status = life.status
        return ContainerOutcome(
            name=life.name,
            init=life.init,
            id=life.id,
            exit_code=None if status is None else status.exit_code,
            reason="" if status is None else status.reason,
            message=life.last_words or ("" if status is None else status.message),
            restarts=max(0, life.attempt),
            seconds=0.0 if status is None else _ran(status),
        )


async def run_pods(runs: Sequence[PodRun], *, keep: bool = False, detach: bool = False) -> list[PodOutcome]:
    """Run several pods side by side to the end of all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(keep=keep, detach=detach)) for one in runs]
    return [task.result() for task in tasks]


async def _together(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """All of `jobs` at once; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _complaint(step: Coroutine[None, None, None]) -> str:
    """What `step` says when it fails; "" when it does not."""
    try:
        await step
    except (PodwrightError, OSError) as error:
        return str(error)
    return ""


def _ran(status: cri.ContainerStatus) -> float:
    """Seconds between start and end."""
    return max(0, status.finished_at - status.started_at) / 1e9 if status.started_at else 0.0
