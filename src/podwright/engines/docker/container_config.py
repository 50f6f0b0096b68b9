"""The create request of a container, from its configuration and what was looked up for it. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from podwright.engines.base import Container, Json
from podwright.engines.docker import labels, limits, mounts, refused, security
from podwright.engines.docker.features import Features
from podwright.engines.docker.sandbox_config import cgroup_parent, runtime_of
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.inputs import MountSource, RootfsFiles
from podwright.spec.linux.capabilities import KNOWN, normalise
from podwright.spec.linux.process import text
from podwright.spec.linux.user import User, asked_user, is_strict, resolve_user
from podwright.spec.signals import effective_stop_signal
from podwright.wire import cri_pb2 as cri

_SECURITY = "config.linux.security_context"
_NODE = cri.NamespaceMode.NODE
_TEMPORARY = ("/run", "/tmp", "/var/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one container needs besides its configuration."""

    sandbox: str
    """Docker's id of the sandbox."""
    target: str = ""
    """Docker's id of the container whose PID namespace is joined."""
    users: RootfsFiles = field(default_factory=RootfsFiles)
    """The image's own user databases."""
    sources: Sequence[MountSource | None] = ()
    profile: bytes | None = None
    """The content of `security.profile_path`'s file."""
    log: Json = field(default_factory=lambda: {"Type": "json-file"})
    """HostConfig.LogConfig."""


def create_request(container: Container, features: Features, owner: str, found: Found) -> dict[str, Json]:
    """The body of POST /containers/create. Raises InvalidArgument, FailedPrecondition, Unimplemented,
    RROUnsupported for what cannot be."""
    config, sandbox = container.config, container.sandbox
    asked = config.linux.security_context
    refused.of_container(config, features)
    if asked.privileged and not sandbox.config.linux.security_context.privileged:
        raise InvalidArgument(f"{_SECURITY}.privileged", "no privileged container allowed in sandbox")
    user = user_of(container, found.users)
    body: dict[str, Json] = {
        "Image": container.image.id,
        "Labels": labels.of_container(
            config, id=container.id, owner=owner, sandbox=sandbox.id, log_path=container.log_path
        ),
        "Env": [f"{each.key}={text(each)}" for each in config.envs],
        # The kubelet probes; the image's own HEALTHCHECK would run beside it.
        "Healthcheck": {"Test": ["NONE"]},
        "User": f"{user.uid}:{user.gid}",
    }
    if config.stop_signal:
        body["StopSignal"] = str(effective_stop_signal(config.stop_signal, "").number)
    for key, value in (
        ("Entrypoint", list(config.command)),
        ("Cmd", list(config.args)),
        # As on other engines: Docker takes absolute ones only.
        ("WorkingDir", config.working_dir and posixpath.join("/", config.working_dir)),
        ("OpenStdin", config.stdin),
        ("StdinOnce", config.stdin_once),
        ("Tty", config.tty),
    ):
        if value:
            body[key] = value
    host: dict[str, Json] = {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": found.log,
        **_namespaces(container, found),
        **_rights(asked),
        **security.masks(config, features),
        **limits.at_creation(config.linux.resources, features),
        **_devices(config),
        **_read_only(config, features),
    }
    if options := security.of_container(config, sandbox.config, features, found.profile):
        host["SecurityOpt"] = options
    # The primary group is the user's already.
    if extra := [str(group) for group in user.groups if group != user.gid]:
        host["GroupAdd"] = extra
    made = mounts.made(config, found.sources, features)
    if made.mounts:
        host["Mounts"] = made.mounts
    if made.binds:
        host["Binds"] = made.binds
    if features.policy.pids_limit:
        host["PidsLimit"] = features.policy.pids_limit
    if features.policy.default_ulimits:
        host["Ulimits"] = [
            {"Name": each.type.removeprefix("RLIMIT_").lower(), "Soft": each.soft, "Hard": each.hard}
            for each in features.policy.default_ulimits
        ]
    if parent := cgroup_parent(sandbox.config, features):
        host["CgroupParent"] = parent
    if runtime := runtime_of(sandbox.handler, features):
        host["Runtime"] = runtime
    body["HostConfig"] = host
    return {key: value for key, value in body.items() if value != []}


def user_of(container: Container, files: RootfsFiles) -> User:
    """Who runs, in numbers: Docker adds no group of the image's to a user with a group, and always to others,
    whatever supplemental_groups_policy says."""
    security = container.config.linux.security_context
    asked, origin = asked_user(security, container.image.user)
    return resolve_user(
        asked,
        files,
        supplemental=security.supplemental_groups,
        strict=is_strict(security.supplemental_groups_policy),
        field=origin.partition(": ")[2] or "config",
    )


def _namespaces(container: Container, found: Found) -> dict[str, Json]:
    sandbox = f"container:{found.sandbox}"
    own = container.config.linux.security_context.namespace_options
    pods = container.sandbox.config.linux.security_context.namespace_options
    made = {"NetworkMode": sandbox, "IpcMode": "host" if pods.ipc == _NODE else sandbox}
    match own.pid:
        case cri.NamespaceMode.POD:
            made["PidMode"] = "host" if pods.pid == _NODE else sandbox
        case cri.NamespaceMode.NODE:
            made["PidMode"] = "host"
        case cri.NamespaceMode.TARGET:
            if not found.target:
                raise FailedPrecondition(f"{_SECURITY}.namespace_options.target_id: it does not run any more")
            made["PidMode"] = f"container:{found.target}"
    if pods.network == _NODE:
        made["UTSMode"] = "host"
    return cast("dict[str, Json]", made)


def _rights(asked: cri.LinuxContainerSecurityContext) -> dict[str, Json]:
    made: dict[str, Json] = {}
    if asked.privileged:
        made["Privileged"] = True
    for member, key in (("add_capabilities", "CapAdd"), ("drop_capabilities", "CapDrop")):
        names = [normalise(name) for name in getattr(asked.capabilities, member)]
        for name in names:
            if name != "ALL" and name not in KNOWN:
                raise InvalidArgument(f"{_SECURITY}.capabilities.{member}", f"{name} is no Linux capability")
        if names:
            made[key] = names
    return made


def _devices(config: cri.ContainerConfig) -> dict[str, Json]:
    made: dict[str, Json] = {}
    for place, each in enumerate(config.devices):
        if set(each.permissions) - set("rwm"):
            field = f"config.devices[{place}].permissions"
            raise InvalidArgument(field, f"{each.permissions!r} has more than r, w and m")
        made.setdefault("Devices", []).append(
            {
                "PathOnHost": each.host_path,
                "PathInContainer": each.container_path or each.host_path,
                "CgroupPermissions": each.permissions,
            }
        )
    if config.CDI_devices:
        names = [each.name for each in config.CDI_devices]
        made["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": names}]
    return made


def _read_only(config: cri.ContainerConfig, features: Features) -> dict[str, Json]:
    asked = config.linux.security_context
    if asked.readonly_rootfs:
        return {"ReadonlyRootfs": True}
    if features.policy.read_only_rootfs and not asked.privileged:
        return {"ReadonlyRootfs": True, "Tmpfs": dict.fromkeys(_TEMPORARY, "")}
    return {}
