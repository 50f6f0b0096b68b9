"""Tasks: the processes that containerd's shims make and watch, of containers and of what holds a pod alike.
Made, started, signalled, observed, ended; nothing here knows the CRI.

A task is known by its id, the name of its record. How it ended is told only once that is noted in a file and
nothing of it can be lost any more: its shim has handed on all output (which its `Delete` waits for), and the
log is written. Whatever dies meanwhile, the next look finds the file, or a task that has stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from podwright.engines.base import Exit, Json, Observation, Presence
from podwright.engines.containerd.api import LINUX_RESOURCES, Containerd
from podwright.engines.containerd.guards import Guards
from podwright.engines.containerd.task_events import Ended, TaskEvents
from podwright.engines.ends import Ends
from podwright.engines.node import exits, rootfs
from podwright.engines.node.places import Places
from podwright.engines.node.processes import END_TIMEOUT, Cgroups, clear_cgroup, kill_left
from podwright.errors import FailedPrecondition, NotFound, PodwrightError, Unavailable
from podwright.linux import cgroups, proc
from podwright.linux.migration import Migrations
from podwright.logs.writing import LogWriter
from podwright.steps import step
from podwright.wire.containerd import task_types_pb2, tasks_pb2, types_pb2

log = logging.getLogger(__name__)

SIGKILL = 9
LIVING = (
    task_types_pb2.RUNNING,
    task_types_pb2.PAUSED,
    task_types_pb2.PAUSING,
)


class Tasks:
    def __init__(self, containerd: Containerd, places: Places, logs: LogWriter) -> None:
        self._containerd = containerd
        self._places = places
        self._logs = logs
        self._cgroups = Cgroups(places)
        self.migrations = Migrations()
        self.guards = Guards(containerd, str(places.root))
        self._events = TaskEvents(containerd)
        self._ends = Ends()
        self._starting: dict[str, asyncio.Future[None]] = {}
        self._settling: dict[str, asyncio.Task[Exit | None]] = {}
        self._ending: set[str] = set()

    async def close(self) -> None:
        """Let go; tasks keep running."""
        if self._settling:
            await asyncio.wait(self._settling.values(), timeout=END_TIMEOUT)
        self.migrations.close()

    # Making and starting

    async def create(
        self,
        id: str,
        *,
        rootfs: Sequence[types_pb2.Mount] = (),
        terminal: bool = False,
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        options: AnyMessage | None = None,
        address: str = "",
        version: int = 0,
    ) -> int:
        """The pid of a new task that waits for its start, 0 when it gets one only then; made of the record
        `id`. The streams are paths of FIFOs, "" is nothing. `options` replace those of the record's runtime;
        `address` is where a shim is that holds the sandbox, `version` that of its task API.
        PodwrightError with the runtime's own words."""
        request = tasks_pb2.CreateTaskRequest(
            container_id=id,
            rootfs=rootfs,
            terminal=terminal,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            options=options,
            task_api_address=address,
            task_api_version=version,
        )
        with step("runtime create"):
            # The shim and its runtime take longer than the wait for the kernel's lock, which begins now.
            self.migrations.soon()
            answer = await self._containerd.make(
                self._containerd.tasks.Create, request, f"create task {id[:12]}"
            )
        await self.guards.put(id)
        return int(answer.pid)

    async def start(self, id: str) -> int:
        """Its pid. PodwrightError with the runtime's own words."""
        await self._events.followed()
        returned = self._starting[id] = asyncio.get_running_loop().create_future()
        try:
            with step("runtime start"):
                request = tasks_pb2.StartRequest(container_id=id)
                answer = await self._ask("Start", request, f"start task {id[:12]}")
        finally:
            returned.set_result(None)
            del self._starting[id]
        return int(answer.pid)

    async def kill(self, id: str, signal: int, *, everything: bool = False) -> None:
        """Send `signal` to its first process, or to all; fine when it has ended, or there is none."""
        request = tasks_pb2.KillRequest(container_id=id, signal=signal, all=everything)
        try:
            with step("runtime kill"):
                await self._ask("Kill", request, f"signal {signal} to task {id[:12]}")
        except NotFound:
            return
        except Unavailable:
            raise
        except PodwrightError:
            process = await self.state(id)
            if process is not None and process.status != task_types_pb2.STOPPED:
                raise

    async def update(self, id: str, resources: Mapping[str, Json]) -> None:
        """Have its runtime write these limits of the OCI. PodwrightError with the runtime's own words."""
        limits = AnyMessage(type_url=LINUX_RESOURCES, value=msgspec.json.encode(resources))
        request = tasks_pb2.UpdateTaskRequest(container_id=id, resources=limits)
        await self._ask("Update", request, f"limits of task {id[:12]}")

    async def pause(self, id: str) -> None:
        """Freeze all of its processes."""
        request = tasks_pb2.PauseTaskRequest(container_id=id)
        await self._ask("Pause", request, f"freeze task {id[:12]}")

    async def checkpoint(self, id: str, options: AnyMessage) -> None:
        """Have its runtime dump it, as the runtime's own `options` say; as long as that takes."""
        request = tasks_pb2.CheckpointTaskRequest(container_id=id, options=options)
        await self._containerd.ask(
            self._containerd.tasks.Checkpoint, request, f"checkpoint of task {id[:12]}", timeout=None
        )

    async def resume(self, id: str) -> None:
        """Let a frozen task go on."""
        request = tasks_pb2.ResumeTaskRequest(container_id=id)
        await self._ask("Resume", request, f"resume task {id[:12]}")

    # Looking

    async def state(self, id: str) -> task_types_pb2.Process | None:
        """What containerd says of its first process; None when there is no task."""
        with step("runtime state"):
            try:
                answer = await self._ask("Get", tasks_pb2.GetRequest(container_id=id), f"task {id[:12]}")
            except NotFound:
                return None
        process: task_types_pb2.Process = answer.process
        return process

    def alive(self, id: str, pid: int, started: int) -> bool:
        """Whether the process is there that its facts name; of shims with a kernel of their own it stands for
        that."""
        return bool(pid and started) and proc.alive(pid, started)

    def cgroup(self, id: str) -> str:
        """Where its cgroup is in each hierarchy; "" when it never got as far as a record."""
        return self._cgroups.of(id)

    async def observe(self, id: str) -> Observation:
        """What is really there. From now on its end is told. Unavailable when containerd cannot tell now."""
        await self._events.followed()
        if exits.read(self._places.exit_file(id)) is None:
            process = await self.state(id)
            if process is None:
                if exits.read(self._places.exit_file(id)) is None:
                    return Observation(Presence.MISSING)
            elif process.status == task_types_pb2.CREATED:
                await self.guards.put(id)
                return Observation(Presence.CREATED)
            elif process.status in LIVING:
                if process.status == task_types_pb2.PAUSED:
                    # Only a podwright that was killed while it made a checkpoint leaves one so.
                    await self.resume(id)
                # It has none yet if the containerd before was an older one.
                await self.guards.put(id)
                return Observation(Presence.RUNNING)
            elif process.status != task_types_pb2.STOPPED:
                raise Unavailable(f"containerd: the shim of task {id[:12]} does not tell what it does")
        exit = await self._settled(id)
        return Observation(Presence.EXITED, exit) if exit is not None else Observation(Presence.MISSING)

    # Ends

    def tell(self, exit: Exit) -> None:
        """An end that no task of containerd's has: `exits` yields it."""
        self._ends.tell(exit)

    async def tell_noted(self, id: str) -> None:
        """The same of one that only its exit file has."""
        if (exit := await self._settled(id)) is not None:
            self.tell(exit)

    async def exits(self) -> AsyncIterator[Exit]:
        """Every end from now on, and what `tell` is given. Raises Unavailable when containerd goes away."""
        async with aclosing(self._ends.following(self._follow(), "containerd")) as ends:
            async for each in ends:
                yield each

    async def _follow(self) -> None:
        # Each end is told by itself: one whose log takes long does not hold up the others.
        async with asyncio.TaskGroup() as tellers:
            async for ended in self._events.ends(tellers):
                if ended.id not in self._ending and self._places.bundle(ended.id).is_dir():
                    tellers.create_task(self._tell(ended))

    async def _tell(self, ended: Ended) -> None:
        exit = await self._settled(ended.id, ended)
        if exit is not None:
            self._ends.tell(exit)

    async def _settled(self, id: str, ended: Ended | None = None) -> Exit | None:
        """How `id` ended, noted, with nothing of it left but files; None when nothing tells that. `ended` is
        what an event says; without one the file or the task does."""
        if (settling := self._settling.get(id)) is not None:
            exit = await asyncio.shield(settling)
            if exit is not None or ended is None:
                return exit
        settling = self._settling[id] = asyncio.ensure_future(self._settle(id, ended))
        settling.add_done_callback(lambda _: self._settling.pop(id, None))
        return await asyncio.shield(settling)

    async def _settle(self, id: str, ended: Ended | None) -> Exit | None:
        file = self._places.exit_file(id)
        if exits.read(file) is None:
            if ended is None and (ended := await self._stopped(id)) is None:
                return None
            oom = ended.code != 0 and self._oom_killed(id)
            exits.write(self._places.exits, id, ended.code, finished_at=ended.finished_at, oom_killed=oom)
        if starting := self._starting.get(id):
            # A program may end before the `start` that let it go: that fails if its task is gone by then.
            await asyncio.wait([starting])
        try:
            kill_left(self.cgroup(id))
        except OSError as error:
            log.warning("killing what task %s left behind: %s", id, error)
        await self._unblock(id)
        try:
            await self._delete(id)
            await self.guards.take(id)
        except Unavailable:
            raise
        except PodwrightError as error:
            log.warning("task %s: its end is told although it could not be deleted: %s", id, error)
        await self._logs.settle(id)
        rootfs.unmount(self._places, id)
        if not self._places.bundle(id).is_dir():
            file.unlink(missing_ok=True)  # it was removed meanwhile, perhaps before this was noted
        noted = exits.read(file)
        if noted is None:
            return None
        sandbox = self._places.sandbox_run(id).is_dir()
        self._events.forget(id)
        return Exit(id, noted.code, noted.finished_at, noted.oom_killed, sandbox)

    async def _stopped(self, id: str) -> Ended | None:
        process = await self.state(id)
        if process is None or process.status != task_types_pb2.STOPPED:
            return None
        return Ended.of(id, process.exit_status, process.exited_at)

    def _oom_killed(self, id: str) -> bool:
        cgroup = self.cgroup(id)
        return self._events.short_of_memory(id) or (bool(cgroup) and cgroups.memory_oom_kills(cgroup) > 0)

    async def _delete(self, id: str) -> None:
        with step("runtime delete"):
            try:
                request = tasks_pb2.DeleteTaskRequest(container_id=id)
                await self._ask("Delete", request, f"delete task {id[:12]}")
            except NotFound:
                pass

    async def _unblock(self, id: str) -> None:
        """`Delete` gives up output that the shim cannot get rid of: no client may hold it up now."""
        try:
            await self._logs.hasten(id)
        except (PodwrightError, OSError, TimeoutError) as error:
            log.warning("a client that does not read holds up the log of %s: %s", id, error)

    async def end(self, id: str) -> None:
        """End the task, started or not, and clear away all of it but its record and files; idempotent, for
        half-made ones as well. Its end is not told."""
        self._ending.add(id)
        try:
            if settling := self._settling.get(id):
                await asyncio.wait([settling])
            with step("end task"):
                await self._end(id)
        finally:
            self._ending.discard(id)

    async def _end(self, id: str) -> None:
        process = await self.state(id)
        if process is not None:
            if process.status != task_types_pb2.STOPPED:
                await self._kill(id, process)
            await self._unblock(id)
            await self._delete(id)
        await self.guards.take(id)
        if cgroup := self.cgroup(id):
            await clear_cgroup(cgroup)
        self._places.exit_file(id).unlink(missing_ok=True)
        self._cgroups.forget(id)
        self._events.forget(id)

    async def _kill(self, id: str, process: task_types_pb2.Process) -> None:
        waiting = asyncio.ensure_future(self._wait(id))
        try:
            if process.status == task_types_pb2.PAUSED:
                await self.resume(id)  # cgroup v1 keeps a frozen process from dying
            try:
                await self.kill(id, SIGKILL, everything=True)
            except Unavailable:
                raise
            except PodwrightError as error:
                log.warning("task %s: %s", id, error)
                kill_left(self.cgroup(id))  # its runtime may not be there any more
            done, _ = await asyncio.wait([waiting], timeout=END_TIMEOUT)
            if not done:
                raise FailedPrecondition(f"task {id[:12]} has been killed and does not end")
            waiting.result()
        finally:
            waiting.cancel()

    async def _wait(self, id: str) -> None:
        try:
            request = tasks_pb2.WaitRequest(container_id=id)
            await self._containerd.ask(
                self._containerd.tasks.Wait, request, f"end of task {id[:12]}", timeout=None
            )
        except NotFound:
            pass

    async def _ask(self, call: str, request: Message, tried: str) -> Any:
        return await self._containerd.ask(getattr(self._containerd.tasks, call), request, tried)
