"""Confinement: privileged containers, seccomp, AppArmor, masked and read-only paths."""

from __future__ import annotations

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts, Policy, SandboxInput
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.wire import cri_pb2 as cri

DEFAULT_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
)
DEFAULT_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_FIELD = "config.linux.security_context"
_PROFILE = cri.SecurityProfile.ProfileType

Security = cri.LinuxContainerSecurityContext | cri.LinuxSandboxSecurityContext

_RUNTIME_DEFAULT = ("runtime/default", "docker/default")
_UNCONFINED = "unconfined"
_LOCALHOST = "localhost/"


def privileged(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """A privileged container needs a privileged sandbox: its pod was announced as such."""
    if request.privileged and not request.sandbox_security.privileged:
        raise InvalidArgument(f"{_FIELD}.privileged", "no privileged container allowed in sandbox")


def masked_paths(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Exactly the request's lists; none in a privileged container."""
    if host.policy.disable_proc_mount and not request.privileged:
        _mask(draft, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, "node: disable_proc_mount")
    elif not request.privileged:
        security = request.security
        _mask(draft, tuple(security.masked_paths), tuple(security.readonly_paths), f"request: {_FIELD}")


def pause_masked_paths(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    _mask(draft, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS, "default: the OCI lists")


def _mask(draft: Draft, masked: tuple[str, ...], readonly: tuple[str, ...], origin: str) -> None:
    if masked:
        draft.linux["maskedPaths"] = list(masked)
        draft.note("linux.maskedPaths", origin)
    if readonly:
        draft.linux["readonlyPaths"] = list(readonly)
        draft.note("linux.readonlyPaths", origin)


# Seccomp


def localhost_path(security: Security, policy: Policy) -> str:
    """The file with the seccomp profile that this security context asks for; "" when it needs no file.

    Raises InvalidArgument when the request contradicts itself.
    """
    if security.privileged:
        return ""
    chosen = _chosen_seccomp(security, policy)[0]
    return chosen.removeprefix(_LOCALHOST) if chosen.startswith(_LOCALHOST) else ""


def seccomp(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Needs the capabilities in the draft: the default profile allows what they are good for."""
    if not request.privileged:
        _seccomp(draft, request.security, request.seccomp_profile, host)


def pause_seccomp(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    if not request.security.privileged:
        _seccomp(draft, request.security, request.seccomp_profile, host)


def _seccomp(draft: Draft, security: Security, content: bytes | None, host: HostFacts) -> None:
    chosen, origin = _chosen_seccomp(security, host.policy)
    if chosen in ("", _UNCONFINED):
        return
    if not host.seccomp:
        raise FailedPrecondition(f"seccomp: {chosen!r} is asked for, but this kernel has no seccomp")
    if chosen in _RUNTIME_DEFAULT:
        profile = host.default_seccomp
        if profile is None:
            raise FailedPrecondition(
                "seccomp: RuntimeDefault is asked for, but no default profile is installed; install "
                "containers-common (golang-github-containers-common) or set seccomp_profile"
            )
    else:
        path = chosen.removeprefix(_LOCALHOST)
        if content is None:
            raise InvalidArgument(f"{_FIELD}.seccomp.localhost_ref", f"the profile {path!r} cannot be read")
        profile = SeccompProfile.parse(content, path)
    granted = draft.process["capabilities"]["bounding"]
    draft.linux["seccomp"] = profile.convert(host.architecture, granted, host.kernel)
    draft.note("linux.seccomp", origin)


def _chosen_seccomp(security: Security, policy: Policy) -> tuple[str, str]:
    """In the string form ("" is none), with its origin: the profile field wins over the deprecated string,
    the string over the node's default."""
    if security.HasField("seccomp"):
        return _from_profile(security.seccomp, "seccomp"), f"request: {_FIELD}.seccomp"
    text, origin = security.seccomp_profile_path, f"request: {_FIELD}.seccomp_profile_path"
    if not text:
        text, origin = policy.unset_seccomp_profile, "node: unset_seccomp_profile"
    if text in ("", _UNCONFINED, *_RUNTIME_DEFAULT) or text.startswith(_LOCALHOST):
        return text, origin
    raise InvalidArgument(
        f"{_FIELD}.seccomp_profile_path",
        f"invalid profile {text!r}: it must be runtime/default, docker/default, unconfined or localhost/PATH",
    )


def _from_profile(profile: cri.SecurityProfile, kind: str) -> str:
    field = f"{_FIELD}.{kind}"
    if profile.localhost_ref and profile.profile_type != _PROFILE.Localhost:
        raise InvalidArgument(f"{field}.localhost_ref", "must only be set if profile_type is Localhost")
    if profile.profile_type == _PROFILE.RuntimeDefault:
        return _RUNTIME_DEFAULT[0]
    if profile.profile_type == _PROFILE.Unconfined:
        return _UNCONFINED
    if profile.profile_type == _PROFILE.Localhost:
        name = profile.localhost_ref.removeprefix(_LOCALHOST)
        if not name:
            raise InvalidArgument(f"{field}.localhost_ref", "is empty: Localhost needs a profile")
        return _LOCALHOST + name
    raise InvalidArgument(f"{field}.profile_type", f"{profile.profile_type} is no profile type")


# AppArmor


def apparmor(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The host's default profile unless the request says otherwise. A privileged container has none, save a
    Localhost profile that it asks for by name."""
    security = request.security
    if security.HasField("apparmor"):
        chosen = _from_profile(security.apparmor, "apparmor")
        origin = f"request: {_FIELD}.apparmor"
    else:
        chosen, origin = security.apparmor_profile, f"request: {_FIELD}.apparmor_profile"
    if chosen == _UNCONFINED:
        return
    if not host.apparmor:
        if chosen:
            raise FailedPrecondition(f"{_FIELD}.apparmor: apparmor is not supported on this host")
        return
    if chosen in ("", _RUNTIME_DEFAULT[0]):
        if request.privileged or (not chosen and not host.apparmor_default):
            return
        if not host.apparmor_default:
            raise FailedPrecondition(
                f"{_FIELD}.apparmor: RuntimeDefault is asked for, but this node has no default profile; "
                "load one and ask for it with Localhost, or ask for Unconfined"
            )
        draft.process["apparmorProfile"] = host.apparmor_default
        origin = origin if chosen else "default: the node's AppArmor profile"
    elif chosen.startswith(_LOCALHOST):
        name = chosen.removeprefix(_LOCALHOST)
        if name not in host.apparmor_profiles:
            raise FailedPrecondition(f"{_FIELD}.apparmor: apparmor profile not found: {name!r} is not loaded")
        draft.process["apparmorProfile"] = name
    else:
        raise InvalidArgument(f"{_FIELD}.apparmor_profile", f"invalid apparmor profile {chosen!r}")
    draft.note("process.apparmorProfile", origin)
