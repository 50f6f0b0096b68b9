"""Sandboxes of the docker engine: a container that holds the namespaces, and the pod's network in it."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import ImageService, Json, Sandbox, SandboxFacts
from podwright.engines.docker import creating, labels, sandbox_config, security
from podwright.engines.docker.api import Docker, part, refusal
from podwright.engines.docker.host import Host
from podwright.engines.docker.objects import DOCKER_ID, Objects
from podwright.engines.docker.pause import SandboxImage
from podwright.engines.docker.states import running_pid
from podwright.engines.node.host import seccomp_profile
from podwright.engines.refusals import plain_words
from podwright.errors import FailedPrecondition, InvalidArgument, NotFound, PodwrightError, Unavailable
from podwright.linux.waiting import to_the_end
from podwright.network import files
from podwright.network.cni import Attachment, Cni
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

log = logging.getLogger(__name__)

GRACE = 10
"""Seconds that the program of a configured sandbox image has to end by itself."""
OWN_GRACE = 0
"""The same for the pause program: it has nothing to save, and a first process that has not yet said what it
does at SIGTERM would sit it out."""

_RESOLV_CONF = Path("/etc/resolv.conf")


class Sandboxes:
    def __init__(
        self,
        config: Config,
        docker: Docker,
        objects: Objects,
        host: Host,
        images: ImageService,
        network: Cni | None,
    ) -> None:
        self._config = config
        self._docker = docker
        self._objects = objects
        self._host = host
        self._network = network
        self._image = SandboxImage(docker, images, config.docker.sandbox_image)

    async def create(self, sandbox: Sandbox, undo: AsyncExitStack) -> SandboxFacts:
        body = await self.request(sandbox)
        undo.push_async_callback(self.remove, sandbox)
        body["Image"] = await self._image.ensure()
        name = labels.sandbox_name(sandbox.config)
        self._objects.expected.add(sandbox.id)
        with step("docker create", name):
            # Cut short, it may be made all the same, after everybody has looked for it.
            docker_id, warnings = await to_the_end(
                creating.create(self._docker, name, body, self._objects.owner)
            )
        for warning in warnings:
            log.info("sandbox %s: %s", sandbox.id, warning)
        await self._start(sandbox, docker_id)
        inspected = await self._objects.inspect_docker(docker_id)
        pid = running_pid(inspected)
        if not pid:
            raise FailedPrecondition(
                f"the sandbox container {docker_id[:12]} ended at once: {_why(inspected)}"
            )
        self._write_resolv_conf(sandbox, inspected)
        ips = await self._attach(sandbox, pid, inspected)
        return SandboxFacts(ips=ips, pid=pid, own={DOCKER_ID: docker_id})

    async def stop(self, sandbox: Sandbox) -> None:
        inspected = await self._objects.inspect(sandbox)
        await self._detach(sandbox, running_pid(inspected))
        if inspected is None:
            return
        grace = GRACE if self._config.docker.sandbox_image else OWN_GRACE
        with step("docker stop"):
            status, body = await self._docker.request(
                "POST", f"/containers/{inspected['Id']}/stop", {"t": grace}
            )
        if status >= 400 and status != 404:
            raise refusal(status, body, f"stop the sandbox container {inspected['Id'][:12]}")

    async def remove(self, sandbox: Sandbox) -> None:
        await self.stop(sandbox)
        with step("docker remove"):
            await self._objects.remove(sandbox)

    async def alive(self, sandbox: Sandbox) -> bool:
        return bool(running_pid(await self._objects.inspect(sandbox)))

    async def info(self, sandbox: Sandbox) -> Mapping[str, Json]:
        inspected = await self._objects.inspect(sandbox)
        pid = running_pid(inspected)
        info: dict[str, Json] = {
            "sandboxID": sandbox.id,
            "dockerID": inspected["Id"] if inspected else "",
            "pid": pid,
            "netns": f"/proc/{pid}/ns/net" if pid and _own_network(sandbox) else "",
            "netNamespaceClosed": not pid,
            "runtimeHandler": sandbox.handler or self._host.default_runtime,
            "cgroupParent": sandbox_config.cgroup_parent(sandbox.config, self._host.features),
            "docker": inspected,
        }
        cached = self._network.cached(sandbox.id) if self._network is not None else None
        if cached is not None:
            info["cniResult"] = dict(cached.raw)
        return info

    async def request(self, sandbox: Sandbox) -> dict[str, Json]:
        """The create request, but for the image's name. Errors as `sandbox_config.create_request`."""
        features = self._host.features
        config = sandbox.config
        path = security.profile_path(config.linux.security_context, features, config.annotations)
        profile = seccomp_profile(path, self._config.seccomp_root) if path else None
        return sandbox_config.create_request(sandbox, features, self._objects.owner, profile=profile)

    def image(self) -> str:
        """The name of the sandbox image. FailedPrecondition when there is none."""
        return self._image.name()

    async def network_error(self) -> str:
        """Why pods get no network; "" when they do."""
        if self._network is not None:
            return await self._network.status()
        name = self._host.features.network
        if name == "default":
            return ""
        try:
            await self._docker.call("GET", f"/networks/{part(name)}")
        except NotFound:
            return f"docker.network: Docker has no network {name!r}"
        return ""

    # Making

    async def _start(self, sandbox: Sandbox, docker_id: str) -> None:
        with step("docker start"):
            status, body = await to_the_end(self._docker.request("POST", f"/containers/{docker_id}/start"))
        if status in (400, 500):
            words = plain_words(body.get("message", "") if isinstance(body, dict) else str(body))
            for name in sandbox.config.linux.sysctls:
                # Only the OCI runtime knows them; it names a file or the sysctl.
                if name in words or f"/proc/sys/{name.replace('.', '/')}" in words:
                    raise InvalidArgument("config.linux.sysctls", f"{name}: {words}")
            raise PodwrightError(f"Docker cannot start the sandbox container: {words}")
        if status >= 400:
            raise refusal(status, body, f"start the sandbox container {docker_id[:12]}")

    def _write_resolv_conf(self, sandbox: Sandbox, inspected: Json) -> None:
        """In place: the containers to come mount this very file."""
        config = sandbox.config
        dns = config.dns_config if config.HasField("dns_config") else None
        try:
            host = _RESOLV_CONF.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            host = ""
        text = files.resolv_conf(dns, host)
        try:
            with open(inspected["ResolvConfPath"], "r+", encoding="utf-8", errors="surrogateescape") as file:
                file.truncate()
                file.write(text)
        except OSError as error:
            raise FailedPrecondition(f"the pod's resolv.conf cannot be written: {error}") from error

    async def _attach(self, sandbox: Sandbox, pid: int, inspected: Json) -> tuple[str, ...]:
        if not _own_network(sandbox):
            return ()
        if self._network is None:
            return self._addresses(inspected)
        with step("cni add"):
            result = await self._network.add(_attachment(sandbox, pid))
        return result.ips

    def _addresses(self, inspected: Json) -> tuple[str, ...]:
        """Those that Docker gave, the preferred family first."""
        found: list[str] = []
        for each in (inspected["NetworkSettings"].get("Networks") or {}).values():
            found += [each[key] for key in ("IPAddress", "GlobalIPv6Address") if each.get(key)]
        first = 6 if self._config.cni.ip_preference == "ipv6" else 4
        return tuple(sorted(found, key=lambda each: ipaddress.ip_address(each).version != first))

    async def _detach(self, sandbox: Sandbox, pid: int) -> None:
        if self._network is None or not _own_network(sandbox):
            return
        try:
            with step("cni del"):
                await self._network.delete(_attachment(sandbox, pid))
        except Unavailable:
            # No plugin could be asked; of a pod that never was attached none needs to be.
            if sandbox.id in self._network.cached_ids():
                raise


def _attachment(sandbox: Sandbox, pid: int) -> Attachment:
    # A dead process's number may be another's by now.
    return Attachment.of(sandbox.id, sandbox.config, f"/proc/{pid}/ns/net" if pid else "")


def _own_network(sandbox: Sandbox) -> bool:
    return bool(sandbox.config.linux.security_context.namespace_options.network != cri.NamespaceMode.NODE)


def _why(inspected: Json) -> str:
    if inspected is None:
        return "somebody has removed it"
    state = inspected["State"]
    return str(state.get("Error") or f"exit code {state.get('ExitCode')}")
