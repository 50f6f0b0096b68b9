"""Containers of the docker engine: made, started, signalled, changed, looked at and removed."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Container, ContainerFacts, Exit, Json, Observation, Presence
from podwright.engines.docker import creating, labels, limits, refused, sandbox_config, security, states
from podwright.engines.docker.api import Docker, refusal
from podwright.engines.docker.bundle import runtime_spec
from podwright.engines.docker.container_config import Found, create_request, user_of
from podwright.engines.docker.host import Host
from podwright.engines.docker.logs import Logs
from podwright.engines.docker.objects import DOCKER_ID, Objects
from podwright.engines.docker.unified import write_unified
from podwright.engines.docker.users import Users
from podwright.engines.node import host as files
from podwright.engines.node import limit_refusals
from podwright.engines.refusals import plain_words
from podwright.errors import FailedPrecondition, NotFound, PodwrightError, Unimplemented
from podwright.linux.waiting import to_the_end
from podwright.spec.inputs import MountSource
from podwright.spec.linux import mounts as mount_rules
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)


class Containers:
    def __init__(
        self,
        config: Config,
        docker: Docker,
        objects: Objects,
        host: Host,
        logs: Logs,
        tell: Callable[[Exit], None],
    ) -> None:
        """`tell` is told of ends that Docker knows nothing of."""
        self._config = config
        self._docker = docker
        self._objects = objects
        self._host = host
        self._logs = logs
        self._users = Users(docker, objects)
        self._tell = tell
        self._starting: set[str] = set()
        self._never: dict[str, Exit] = {}
        """Those that ended before their start: Docker has no process then, and tells of no end."""
        self._waiting: dict[str, set[str]] = {}
        """By a container's id: those that are to join its PID namespace when they start."""

    async def create(self, container: Container, undo: AsyncExitStack) -> ContainerFacts:
        if container.checkpoint is not None:
            raise Unimplemented("config.image.image: the docker engine cannot restore checkpoints")
        features = self._host.features
        wanted = mount_rules.lookups(container.config, features.policy)
        refused.of_container(container.config, features)
        self._check_cpus(container)
        self._logs.check(container)
        made: list[Path] = []
        undo.push_async_callback(self._unmake, container, made)
        found = await self._found(container, wanted, made)
        body = create_request(container, features, self._objects.owner, found)
        name = labels.container_name(container.sandbox.config, container.config)
        self._objects.expected.add(container.id)
        with step("docker create", name):
            # Cut short, it may be made all the same, after everybody has looked for it.
            try:
                docker_id, warnings = await to_the_end(
                    creating.create(self._docker, name, body, self._objects.owner)
                )
            except PodwrightError as error:
                raise refused.of_answer(container.config, error) from error
        for warning in warnings:
            log.info("container %s: %s", container.id, warning)
        self._await_start(container)
        user = user_of(container, found.users)
        return ContainerFacts(0, user.uid, user.gid, user.groups, {DOCKER_ID: docker_id})

    async def start(self, container: Container) -> ContainerFacts:
        docker_id = await self._objects.id(container)
        if container.id in self._never:
            raise FailedPrecondition(f"container {container.id} has ended before its start")
        self._starting.add(container.id)
        try:
            await self._logs.begin(container, docker_id)
            with step("docker start"):
                status, body = await self._docker.request("POST", f"/containers/{docker_id}/start")
        finally:
            self._starting.discard(container.id)
        self._wait_no_more(container)
        if status >= 400:
            await self._logs.finish(container.id)
            raise _start_refused(status, body, container)
        inspected = await self._objects.inspect_docker(docker_id)
        pid = states.running_pid(inspected)
        if pid and (unified := container.config.linux.resources.unified):
            write_unified(pid, dict(unified))
        return replace(container.facts, pid=pid, own={**container.facts.own, DOCKER_ID: docker_id})

    async def signal(self, container: Container, number: int) -> None:
        try:
            docker_id = await self._objects.id(container)
        except NotFound:
            return
        with step("docker kill", signal.Signals(number).name if number in _NAMED else str(number)):
            status, body = await self._docker.request(
                "POST", f"/containers/{docker_id}/kill", {"signal": str(number)}
            )
        # 404 and 409: it is gone, or does not run.
        if status >= 400 and status not in (404, 409) and "is not running" not in str(body):
            raise refusal(status, body, f"signal container {container.id[:12]}")
        if status >= 400 and number == signal.SIGKILL and container.id not in self._starting:
            seen = states.observation(container.id, await self._objects.inspect_docker(docker_id))
            if seen.presence is Presence.CREATED:
                self._tell(self._ended_unstarted(container.id))

    def ended(self, id: str) -> None:
        """The container `id` has: whoever waits to join its PID namespace never can."""
        for each in self._waiting.pop(id, ()):
            if each not in self._starting:
                self._tell(self._ended_unstarted(each))

    async def remove(self, container: Container) -> None:
        with step("docker remove"):
            await self._objects.remove(container)
        await self._logs.remove(container.id)
        self._wait_no_more(container)
        self._never.pop(container.id, None)

    async def observe(self, container: Container) -> Observation:
        inspected = await self._objects.inspect(container)
        seen = states.observation(container.id, inspected)
        if seen.presence is Presence.CREATED:
            target = container.target
            if target is not None and not states.running_pid(await self._objects.inspect(target)):
                self._ended_unstarted(container.id)
            if (ended := self._never.get(container.id)) is not None:
                return Observation(Presence.EXITED, ended)
            self._await_start(container)
        if seen.presence in (Presence.RUNNING, Presence.EXITED):
            await self._logs.follow(container, inspected["Id"])
        if seen.presence is Presence.EXITED:
            await self._logs.finish(container.id)
        return seen

    async def info(self, container: Container) -> Mapping[str, Json]:
        inspected = await self._objects.inspect(container)
        pid = states.running_pid(inspected)
        info: dict[str, Json] = {
            "sandboxID": container.sandbox.id,
            "dockerID": inspected["Id"] if inspected else "",
            "pid": pid,
            "runtimeHandler": container.sandbox.handler or self._host.default_runtime,
            "docker": inspected,
        }
        if spec := await asyncio.to_thread(runtime_spec, pid, info["dockerID"]) if pid else None:
            info["runtimeSpec"] = spec
        return info

    # Ends without a start

    def _ended_unstarted(self, id: str) -> Exit:
        return self._never.setdefault(id, Exit(id, 128 + signal.SIGKILL, time.time_ns()))

    def _await_start(self, container: Container) -> None:
        if container.target is not None:
            self._waiting.setdefault(container.target.id, set()).add(container.id)

    def _wait_no_more(self, container: Container) -> None:
        if container.target is not None and (waiting := self._waiting.get(container.target.id)):
            waiting.discard(container.id)
            if not waiting:
                del self._waiting[container.target.id]

    # Limits

    async def check_update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        refused.of_resources(resources, self._host.features, "linux")
        inspected = await self._objects.inspect(container)
        if inspected is None:
            return
        limits.changed(resources, limits.held(inspected["HostConfig"]), self._host.features)
        cgroup = sandbox_config.cgroup(container.sandbox.config, self._host.features, inspected["Id"])
        why = limit_refusals.not_the_parents(resources, limit_refusals.parents_cpus(cgroup))
        if not why and states.running_pid(inspected):
            why = limit_refusals.too_low(cgroup, resources)
        if why:
            raise FailedPrecondition(why)

    async def update(self, container: Container, resources: cri.LinuxContainerResources) -> None:
        inspected = await self._objects.inspect(container)
        if inspected is None:
            return  # it has just been removed
        # What Docker has counts, not what it was asked for: an update that it refused has changed nothing.
        body = limits.changed(resources, limits.held(inspected["HostConfig"]), self._host.features)
        if body:
            path = f"/containers/{inspected['Id']}/update"
            status, answer = await self._docker.request("POST", path, json=body)
            if status == 404:
                return
            if status >= 400:
                raise refusal(status, answer, f"update container {container.id[:12]}")
        if resources.unified and (pid := states.running_pid(inspected)):
            write_unified(pid, dict(resources.unified))

    def _check_cpus(self, container: Container) -> None:
        # Which cgroup is above it depends on nothing of the container's own.
        cgroup = sandbox_config.cgroup(container.sandbox.config, self._host.features, container.id)
        resources = container.config.linux.resources
        if resources.cpuset_cpus or resources.cpuset_mems:
            above = limit_refusals.parents_cpus(cgroup)
            if why := limit_refusals.not_the_parents(resources, above, "config.linux.resources"):
                raise FailedPrecondition(why)

    # Looking up

    async def _found(
        self, container: Container, wanted: Sequence[mount_rules.Lookup], made: list[Path]
    ) -> Found:
        config, features = container.config, self._host.features
        for place, lookup in enumerate(wanted):
            files.check_source(lookup, place)
        for place, device in enumerate(config.devices):
            refused.device(device, f"config.devices[{place}]")
        path = security.profile_path(
            config.linux.security_context,
            features,
            container.sandbox.config.annotations,
            config.metadata.name,
        )
        target = await self._objects.id(container.target) if container.target is not None else ""
        return Found(
            sandbox=await self._objects.id(container.sandbox),
            target=target,
            users=await self._users.of_image(container.image.id),
            sources=[_source(lookup, place, made) for place, lookup in enumerate(wanted)],
            profile=files.seccomp_profile(path, self._config.seccomp_root) if path else None,
            log=self._logs.log_config(container),
        )

    async def _unmake(self, container: Container, made: Sequence[Path]) -> None:
        await self.remove(container)
        files.unmake_directories(made)


_NAMED = frozenset(int(each) for each in signal.Signals)


def _source(lookup: mount_rules.Lookup, place: int, made: list[Path]) -> MountSource:
    try:
        return files.mount_source(lookup, made)
    except OSError as error:
        raise FailedPrecondition(
            f"config.mounts[{place}].host_path: {lookup.host_path} cannot be made: {error.strerror}"
        ) from error


def _start_refused(status: int, body: Json, container: Container) -> PodwrightError:
    if status not in (400, 500):
        return refusal(status, body, f"start container {container.id[:12]}")
    words = body.get("message", "") if isinstance(body, dict) else str(body)
    return PodwrightError(f"Docker cannot start container {container.name}: {plain_words(words)}")
