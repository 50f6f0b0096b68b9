"""HostConfig.SecurityOpt and the masked paths of a create request."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from podwright.engines.docker.features import Features
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.linux import security as rules
from podwright.wire import cri_pb2 as cri

_FIELD = "config.linux.security_context"
NO_NEW_PRIVILEGES = "no-new-privileges"


def profile_path(
    security: rules.Security, features: Features, annotations: Mapping[str, str], container: str = ""
) -> str:
    """The file with the seccomp profile that has to be sent along; "" when none. InvalidArgument as
    `spec.linux.security.localhost_path`."""
    return rules.localhost_path(security, features.policy, annotations, container)


def of_sandbox(config: cri.PodSandboxConfig, features: Features, profile: bytes | None = None) -> list[str]:
    """`profile` is the content of `profile_path`'s file."""
    security = config.linux.security_context
    chosen, origin = rules.chosen_seccomp(security, features.policy, config.annotations, "")
    # Who says nothing of the pause process gets Docker's own profile: it needs nothing that this forbids.
    seccomp = [] if chosen == "" or security.privileged else _seccomp(chosen, origin, features, profile)
    return [
        *_labels(security.selinux_options),
        *_apparmor(*rules.chosen_apparmor(security), features, privileged=security.privileged),
        *seccomp,
        NO_NEW_PRIVILEGES,
    ]


def of_container(
    config: cri.ContainerConfig,
    sandbox: cri.PodSandboxConfig,
    features: Features,
    profile: bytes | None = None,
) -> list[str]:
    """`profile` is the content of `profile_path`'s file. InvalidArgument, FailedPrecondition for profiles
    that cannot be."""
    security, name = config.linux.security_context, config.metadata.name
    key = f"{rules.APPARMOR_ANNOTATION}/{name}"
    annotated = sandbox.annotations.get(key, "") or config.annotations.get(key, "")
    options = _labels(security.selinux_options)
    if security.no_new_privs:
        options.append(NO_NEW_PRIVILEGES)
    options += _apparmor(
        *rules.chosen_apparmor(security, key, annotated), features, privileged=security.privileged
    )
    if security.privileged:
        return [*options, "seccomp=unconfined"]
    chosen, origin = rules.chosen_seccomp(security, features.policy, sandbox.annotations, name)
    return [*options, *_seccomp(chosen, origin, features, profile)]


def masks(config: cri.ContainerConfig, features: Features) -> dict[str, list[str]]:
    """MaskedPaths and ReadonlyPaths: exactly the request's lists. A missing list would mean Docker's own."""
    security = config.linux.security_context
    if security.privileged:
        return {}  # Docker masks nothing then
    if features.policy.disable_proc_mount:
        masked, readonly = list(rules.DEFAULT_MASKED_PATHS), list(rules.DEFAULT_READONLY_PATHS)
    else:
        masked, readonly = list(security.masked_paths), list(security.readonly_paths)
    return {"MaskedPaths": masked, "ReadonlyPaths": readonly}


def _labels(options: cri.SELinuxOption) -> list[str]:
    members = {"user": options.user, "role": options.role, "type": options.type, "level": options.level}
    return [f"label={member}:{value}" for member, value in members.items() if value]


def _seccomp(chosen: str, origin: str, features: Features, profile: bytes | None) -> list[str]:
    if chosen in ("", rules.UNCONFINED):
        return ["seccomp=unconfined"]
    field = rules.field_of(origin)
    if not features.seccomp:
        raise FailedPrecondition(f"{field}: {chosen!r} is asked for, but Docker has no seccomp here")
    if chosen in rules.RUNTIME_DEFAULT:
        return []  # Docker's own profile
    path = chosen.removeprefix(rules.LOCALHOST)
    if profile is None:
        raise InvalidArgument(field, f"the profile {path!r} cannot be read")
    try:
        compact = msgspec.json.encode(msgspec.json.decode(profile))
    except msgspec.DecodeError as error:
        raise InvalidArgument(field, f"the profile {path} is not JSON: {error}") from error
    return [f"seccomp={compact.decode()}"]


def _apparmor(chosen: str, origin: str, features: Features, *, privileged: bool) -> list[str]:
    if chosen == rules.UNCONFINED:
        return ["apparmor=unconfined"]
    field = rules.field_of(origin)
    if chosen and not features.apparmor:
        # Docker would start it without a word, and without a profile.
        raise FailedPrecondition(f"{field}: apparmor is not supported on this host")
    if chosen.startswith(rules.LOCALHOST):
        return [f"apparmor={chosen.removeprefix(rules.LOCALHOST)}"]
    if chosen in ("", *rules.RUNTIME_DEFAULT[:1]):
        if not chosen and not privileged and features.policy_apparmor:
            return [f"apparmor={features.policy_apparmor}"]
        return []  # Docker's own, none for a privileged container
    raise InvalidArgument(field, f"invalid apparmor profile {chosen!r}")
