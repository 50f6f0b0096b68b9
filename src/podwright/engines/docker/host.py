"""The Docker Engine and its host, as they are found: what the rules of this engine depend on."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from pathlib import Path

from podwright.config import Config
from podwright.engines.base import Handler, Json
from podwright.engines.docker.api import Docker
from podwright.engines.docker.features import Features, read
from podwright.engines.docker.pause import USER
from podwright.engines.docker.sandbox_config import runtime_of
from podwright.engines.node.node_files import policy
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import caps, proc

log = logging.getLogger(__name__)

OWN_NETWORK = "docker:"
"""Begins docker.network when Docker makes the pods' network."""


class Host:
    def __init__(self, config: Config, docker: Docker) -> None:
        """InvalidArgument, FailedPrecondition for a configuration that cannot be used."""
        self._config = config
        self._docker = docker
        self._features = Features(
            hostname=socket.gethostname(),
            policy=policy(config),
            policy_apparmor=config.spec.apparmor_profile,
            cgroup_parent=config.cgroup_parent,
            least_oom_score=_least_oom_score(config),
            network=network_mode(config),
            chosen_runtime=config.docker.default_runtime,
            sandbox_image=config.docker.sandbox_image,
            sandbox_user="" if config.docker.sandbox_image else USER,
        )
        self.info: Mapping[str, Json] = {}
        """What Docker says of itself, for people."""

    @property
    def features(self) -> Features:
        return self._features

    @property
    def version(self) -> str:
        return self._features.version

    @property
    def default_runtime(self) -> str:
        return self._config.docker.default_runtime or self._features.default_runtime

    async def look(self) -> None:
        """Ask Docker. FailedPrecondition when it runs no Linux containers or not on this host."""
        api = await self._docker.version()
        info = await self._docker.call("GET", "/info")
        if info.get("OSType", "linux") != "linux":
            raise FailedPrecondition(f"Docker at {self._docker.endpoint} runs no Linux containers")
        root = str(info.get("DockerRootDir") or "")
        if not Path(root).is_dir():
            raise FailedPrecondition(
                f"Docker at {self._docker.endpoint} keeps its files in {root}, which is not on this host:"
                " pods' networks and logs need a Docker Engine beside podwright"
            )
        facts = {each: getattr(self._features, each) for each in Features.__dataclass_fields__}
        self._features = Features(**(facts | read(info, api)))
        self.info = {
            key: info[key]
            for key in (
                "ServerVersion",
                "Driver",
                "CgroupDriver",
                "CgroupVersion",
                "DockerRootDir",
                "DefaultRuntime",
                "SecurityOptions",
                "LiveRestoreEnabled",
                "LoggingDriver",
            )
            if key in info
        } | {"ApiVersion": "{}.{}".format(*api)}

    def runtime(self, handler: str) -> str:
        """HostConfig.Runtime for a pod's handler, "" for Docker's own. InvalidArgument for an unknown one."""
        return runtime_of(handler, self._features)

    def handlers(self) -> tuple[Handler, ...]:
        recursive = self._features.recursive_read_only
        return tuple(
            Handler(name, available=True, recursive_read_only=recursive)
            for name in self._features.runtimes
            # Docker's other names of its default runtime; they work, and mean nothing to people.
            if not name.startswith("io.containerd.")
        )


def network_mode(config: Config) -> str:
    """NetworkMode of sandboxes with a network of their own. InvalidArgument for another setting."""
    setting = config.docker.network
    if setting == "cni":
        return "none"
    name = setting.removeprefix(OWN_NETWORK)
    # Those are no networks that a pod could have for itself.
    if name and name != setting and name not in ("host", "none") and not name.startswith("container:"):
        return name
    raise InvalidArgument("docker.network", f'{setting!r} is neither "cni" nor "docker:NAME"')


def _least_oom_score(config: Config) -> int:
    """What a container may have at least. dockerd gives its containers what it may give itself; where even
    podwright lacks CAP_SYS_RESOURCE, its starts with less would fail."""
    if "CAP_SYS_RESOURCE" in caps.bounding() and not config.restrict_oom_score_adj:
        return -1000
    return proc.own_oom_score_adj()
