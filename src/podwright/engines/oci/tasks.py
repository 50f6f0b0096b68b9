"""Tasks: processes that a runtime makes and conmon supervises, of containers and of pods that share a PID
namespace alike. Made, started, signalled, observed, ended; nothing here knows the CRI.

A task is known by its id. What the files in its bundle say is believed only as far as /proc confirms it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec

from podwright import structs
from podwright.engines.base import Exit, Observation, Presence
from podwright.engines.node import exits, rootfs
from podwright.engines.node.places import Places
from podwright.engines.node.processes import END_TIMEOUT, Cgroups, clear_cgroup, kill_left, send_signal
from podwright.engines.oci import conmon, runtimes
from podwright.engines.oci.conmon import Supervised
from podwright.engines.oci.exits import ExitWatch
from podwright.engines.oci.runtimes import Runtime, Runtimes
from podwright.errors import CommandFailed, FailedPrecondition
from podwright.linux import cgroups, proc, spawn, trees
from podwright.logs.writing import LogWriter
from podwright.steps import step

log = logging.getLogger(__name__)


class _State(msgspec.Struct):
    """`RUNTIME state ID` (runtime.md of the runtime-spec)."""

    status: str
    pid: int = 0


class Tasks:
    def __init__(self, program: str, places: Places, handlers: Runtimes, logs: LogWriter) -> None:
        self._program = program
        self._places = places
        self._runtimes = handlers
        self._logs = logs
        self._watch: ExitWatch | None = None
        self._cgroups = Cgroups(places)
        self._starting: dict[str, asyncio.Future[None]] = {}
        self._finishing: dict[str, asyncio.Task[None]] = {}
        self._guards: dict[str, tuple[int, int]] = {}
        """Of each task the pidfd of its conmon, and its own pid."""
        self._lost: set[asyncio.Task[None]] = set()
        self._ending: set[str] = set()

    def open(self) -> None:
        self._watch = ExitWatch(self._places.exits)

    async def close(self) -> None:
        """Let go; tasks keep running."""
        if self._watch is not None:
            self._watch.close()
        for id in list(self._guards):
            self._unguard(id)
        for task in self._lost:
            task.cancel()
        if self._finishing:
            await asyncio.wait(self._finishing.values(), timeout=END_TIMEOUT)

    async def create(self, runtime: Runtime, task: Supervised) -> int:
        """The pid of a new task that waits for its start. CommandFailed with the runtime's own words."""
        with step("runtime create", runtime.kind):
            async with runtimes.create_view(runtime) as command:
                pid = await conmon.create(self._program, task, runtime.kind, command)
        self._guard(task.id, task.bundle, pid)
        return pid

    async def resume(self, runtime: Runtime, id: str) -> str:
        """Let a frozen task go on; the runtime's complaint when it is still frozen, "" otherwise."""
        done = await spawn.run(runtime.argv("resume", id))
        if done.status == 0 or await _status(runtime, id) != "paused":
            return ""
        return conmon.plain_words(done.stderr.decode(errors="replace"))

    async def start(self, runtime: Runtime, id: str) -> None:
        """Raises CommandFailed with the runtime's own words."""
        returned = self._starting[id] = asyncio.get_running_loop().create_future()
        try:
            with step("runtime start", runtime.kind):
                done = await runtimes.run_with_hooks(runtime, "start", id)
        finally:
            returned.set_result(None)
            del self._starting[id]
        if done.status != 0:
            words = conmon.plain_words(done.stderr.decode(errors="replace"))
            raise CommandFailed(runtime.kind, done.status, words)

    async def signal(self, runtime: Runtime | None, id: str, pid: int, started: int, number: int) -> None:
        """Send `number` to the first process; SIGKILL to all. Fine when they are gone."""
        if runtime is not None and runtime.sandboxed:
            with step("runtime kill", runtime.kind):
                words = await runtimes.kill(runtime, id, number, everything=number == signal.SIGKILL)
            if not words or exits.read(self._places.exit_file(id)) or not self.alive(id, pid, started):
                return
            if number != signal.SIGKILL:
                raise FailedPrecondition(f"{runtime.kind} cannot signal container {id[:12]}: {words}")
            # gVisor signals no container that was never started, and none that hangs. Its kernel, though, is
            # a process of this host, with which everything inside ends.
        send_signal(pid or self.pid(id), started, number)
        if number == signal.SIGKILL:
            # Nothing else ends them if the container has no PID namespace of its own.
            cgroups.kill_all(self.cgroup(id))

    def pid(self, id: str) -> int:
        """The first process of `id` as its bundle knows it; 0 when it cannot be told from a stranger."""
        bundle = self._places.bundle(id)
        pid = conmon.supervised(bundle)
        if not pid or not proc.alive(pid):
            return 0
        try:
            if proc.parent(pid) == conmon.supervisor(bundle) or pid in cgroups.pids(self.cgroup(id)):
                return pid
        except ProcessLookupError:
            pass
        return 0

    def alive(self, id: str, pid: int, started: int) -> bool:
        return proc.alive(pid, started) if pid and started else bool(self.pid(id))

    def cgroup(self, id: str) -> str:
        """Where the cgroup of `id` is in each hierarchy; "" when it never got as far as a bundle."""
        return self._cgroups.of(id)

    async def observe(self, runtime: Runtime | None, id: str, pid: int, started: int) -> Observation:
        """What is really there, after a restart. From now on its end is watched.

        Without its runtime nobody can tell whether a process waits for its start: it is taken to run.
        """
        if (told := self._told(id)) is not None:
            await self._logs.settle(id)
            return told
        if not self.alive(id, pid, started):
            # A supervisor that is still there is just about to write how it ended.
            if (supervisor := conmon.supervisor(self._places.bundle(id))) and await _ends(supervisor):
                return self._told(id) or Observation(Presence.MISSING)
            return Observation(Presence.MISSING)
        status = await _status(runtime, id) if runtime is not None else "running"
        if (told := self._told(id)) is not None:
            return told
        self._guard(id, self._places.bundle(id), pid or self.pid(id))
        if status == "paused" and runtime is not None and (words := await self.resume(runtime, id)):
            # Only a podwright that was killed while it made a checkpoint leaves one so.
            raise FailedPrecondition(f"{runtime.kind} cannot resume container {id[:12]}: {words}")
        if status in ("created", "creating"):
            return Observation(Presence.CREATED)
        if status in ("running", "paused"):
            return Observation(Presence.RUNNING)
        return Observation(Presence.MISSING)

    def _told(self, id: str) -> Observation | None:
        ended = self.ended(id)
        if ended is None:
            return None
        self._finish(id)
        return Observation(Presence.EXITED, ended)

    def ended(self, id: str) -> Exit | None:
        """How `id` ended; None while there is no report of it."""
        found = exits.read(self._places.exit_file(id))
        if found is None:
            return None
        oom = found.code != 0 and self._oom_killed(id)
        sandbox = self._places.sandbox_run(id).is_dir()
        return Exit(id, found.code, found.finished_at, oom, sandbox)

    async def exits(self) -> AsyncIterator[Exit]:
        """Every end from now on. What a task left behind is killed before its end is reported, and cleared
        away while the report is on its way."""
        assert self._watch is not None
        async for id in self._watch.ids():
            ended = self.ended(id)
            if ended is None:
                continue
            self._unguard(id)
            try:
                kill_left(self.cgroup(id))
            except OSError as error:
                # Whatever is wrong with one cgroup, the ends of all other tasks must still be told.
                log.warning("killing what task %s left behind: %s", id, error)
            if id not in self._ending:
                self._finish(id)
            await self._logs.settle(id)
            yield ended

    async def end(self, id: str, pid: int = 0, started: int = 0) -> None:
        """End the task and clear away all of it but its bundle; idempotent, for half-made ones as well."""
        self._ending.add(id)
        try:
            await self._end(id, pid, started)
        finally:
            self._ending.discard(id)

    # Ending

    async def _end(self, id: str, pid: int, started: int) -> None:
        self._unguard(id)
        finishing = self._finishing.pop(id, None)
        if finishing is not None:
            await asyncio.wait([finishing])
        bundle = self._places.bundle(id)
        cgroup = self.cgroup(id)
        if bundle.exists():
            with step("end task"):
                await self._kill(id, bundle, pid, started)
        await self._clear(id, cgroup)
        self._places.exit_file(id).unlink(missing_ok=True)
        self._cgroups.forget(id)

    async def _kill(self, id: str, bundle: Path, pid: int, started: int) -> None:
        if self.ended(id) is not None:
            return
        if not self.alive(id, pid, started):
            await conmon.kill(bundle)  # it may just be running `create`
            pid, started = self.pid(id), 0
            if not pid:
                return
        pid = pid or self.pid(id)
        supervisor = conmon.supervisor(bundle)
        send_signal(pid, started, signal.SIGKILL)
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await spawn.exited(pid)
                if supervisor:
                    await spawn.exited(supervisor)
        except TimeoutError:
            await conmon.kill(bundle)

    def _finish(self, id: str) -> None:
        """Clear away what an ended task still holds, in the background: `end` waits for it."""
        if id not in self._finishing:
            task = asyncio.ensure_future(self._forget(id))
            self._finishing[id] = task
            task.add_done_callback(lambda _: self._forgotten(id, task))

    def _forgotten(self, id: str, task: asyncio.Task[None]) -> None:
        if self._finishing.get(id) is task:
            del self._finishing[id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("clearing away task %s: %s", id, error)

    async def _forget(self, id: str) -> None:
        if starting := self._starting.get(id):
            # A program may end before the `start` that let it go: that fails if its state is gone by then.
            await asyncio.wait([starting])
        await self._clear(id, self.cgroup(id))
        rootfs.unmount(self._places, id)

    async def _clear(self, id: str, cgroup: str) -> None:
        """What the runtimes know of `id`, and its cgroup."""
        for runtime in self._runtimes.having(id):
            with step("runtime delete", runtime.kind):
                words = await runtimes.delete(runtime, id)
            if words:
                log.warning("%s delete %s: %s", runtime.kind, id, words)
        for path in self._runtimes.left_behind(id):
            trees.remove(path)
        if cgroup:
            await clear_cgroup(cgroup)

    def _oom_killed(self, id: str) -> bool:
        note = self._places.bundle(id) / "oom"
        if note.exists():
            return True
        cgroup = self.cgroup(id)
        if not cgroup or not cgroups.memory_oom_kills(cgroup):
            return False
        # conmon may not have heard of it before the end, and the counter goes with the cgroup: who asks
        # again, after a crash perhaps, is to hear the same.
        with suppress(OSError):
            note.touch()
        return True

    # Supervisors that die

    def _guard(self, id: str, bundle: Path, pid: int) -> None:
        """Notice when conmon dies before the task: nobody else would ever report its end."""
        if id in self._guards:
            return
        supervisor = conmon.supervisor(bundle)
        try:
            fd = os.pidfd_open(supervisor) if supervisor else -1
        except ProcessLookupError:
            fd = -1
        if fd < 0:
            self._supervisor_gone(id, pid)
            return
        self._guards[id] = (fd, pid)
        asyncio.get_running_loop().add_reader(fd, self._supervisor_ended, id)

    def _unguard(self, id: str) -> None:
        fd, _ = self._guards.pop(id, (-1, 0))
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _supervisor_ended(self, id: str) -> None:
        _, pid = self._guards[id]
        self._unguard(id)
        self._supervisor_gone(id, pid)

    def _supervisor_gone(self, id: str, pid: int) -> None:
        if self._places.exit_file(id).exists() or not self._places.bundle(id).exists():
            return
        log.warning("the supervisor of %s is gone: its output is lost, and so will its exit code be", id)
        task = asyncio.ensure_future(self._wait_unsupervised(id, pid))
        self._lost.add(task)
        task.add_done_callback(self._lost.discard)

    async def _wait_unsupervised(self, id: str, pid: int) -> None:
        await spawn.exited(pid)
        if not self._places.exit_file(id).exists() and self._places.bundle(id).exists():
            exits.write(self._places.exits, id)


async def _status(runtime: Runtime, id: str) -> str:
    """What `runtime` calls the state of `id`; "" when it does not know it."""
    with step("runtime state", runtime.kind):
        done = await spawn.run(runtime.argv("state", id))
    try:
        return structs.decode(done.stdout, _State).status if done.status == 0 else ""
    except msgspec.DecodeError:
        return ""


async def _ends(pid: int) -> bool:
    """Whether process `pid` ends within END_TIMEOUT seconds."""
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await spawn.exited(pid)
    except TimeoutError:
        return False
    return True
