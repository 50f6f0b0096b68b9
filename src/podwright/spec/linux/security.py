"""Confinement: privileged containers, seccomp, AppArmor, masked and read-only paths."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from types import MappingProxyType

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec import allowed
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

_SECCOMP_ANNOTATIONS = (
    ("container.seccomp.security.alpha.kubernetes.io", "seccomp.security.alpha.kubernetes.io/pod"),
    ("security.alpha.kubernetes.io/seccomp/container", "security.alpha.kubernetes.io/seccomp/pod"),
)
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io"
_NONE: Mapping[str, str] = MappingProxyType({})

RUNTIME_DEFAULT = ("runtime/default", "docker/default")
UNCONFINED = "unconfined"
LOCALHOST = "localhost/"


def privileged(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """A privileged container needs a privileged sandbox: its pod was announced as such."""
    if request.privileged and not request.sandbox_security.privileged:
        raise InvalidArgument(f"{_FIELD}.privileged", "no privileged container allowed in sandbox")


def masked_paths(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Exactly the request's lists; none in a privileged container."""
    for member in ("maskedPaths", "readonlyPaths"):
        draft.drop(draft.linux, member, f"linux.{member}")
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


def localhost_path(
    security: Security,
    policy: Policy,
    pod_annotations: Mapping[str, str] = _NONE,
    container: str = "",
) -> str:
    """The file with the seccomp profile that this security context asks for; "" when it needs no file.

    `pod_annotations` and the name of the `container` ("" for the sandbox) are asked when the context names
    no profile. A relative path is meant below the policy's seccomp_root. Raises InvalidArgument when the
    request contradicts itself, or leaves that directory. (Links the engine has to resolve and check again.)
    """
    if security.privileged:
        return ""
    chosen, origin = chosen_seccomp(security, policy, pod_annotations, container)
    if not chosen.startswith(LOCALHOST):
        return ""
    path = chosen.removeprefix(LOCALHOST)
    if not policy.seccomp_root:
        return path
    root = posixpath.normpath(policy.seccomp_root)
    full = posixpath.normpath(posixpath.join(root, path))
    if not full.startswith(f"{root.rstrip('/')}/"):
        raise InvalidArgument(field_of(origin), f"the profile {path} is not below {root}")
    return full


def seccomp(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Needs the capabilities in the draft: the default profile allows what they are good for."""
    if request.privileged:
        draft.drop(draft.linux, "seccomp", "linux.seccomp")
        return
    artifact = _artifact(request)
    annotations, name = request.sandbox.annotations, request.config.metadata.name
    chosen = chosen_seccomp(request.security, host.policy, annotations, name)
    if artifact and chosen[0] in ("", UNCONFINED):
        chosen = LOCALHOST + artifact.value, f"request: {artifact.field}, allowed by the handler"
    _seccomp(draft, chosen, request.seccomp_profile, host)


def artifact_reference(request: ContainerInput, policy: Policy) -> str:
    """The OCI artifact with the seccomp profile that an allowed annotation names ("" if none does): the
    engine has to hand its content in as `seccomp_profile`. A profile that the request names counts more."""
    if request.privileged:
        return ""
    annotations, name = request.sandbox.annotations, request.config.metadata.name
    if chosen_seccomp(request.security, policy, annotations, name)[0] not in ("", UNCONFINED):
        return ""
    found = _artifact(request)
    return found.value if found else ""


def _artifact(request: ContainerInput) -> allowed.Annotation | None:
    name = request.config.metadata.name
    own = allowed.of_container(request, allowed.SECCOMP_ARTIFACT, f"/{name}")
    return own or allowed.of_container(request, allowed.SECCOMP_ARTIFACT, "/POD")


def pause_seccomp(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    if not request.security.privileged:
        chosen = chosen_seccomp(request.security, host.policy, request.config.annotations, "")
        _seccomp(draft, chosen, request.seccomp_profile, host)


def _seccomp(draft: Draft, choice: tuple[str, str], content: bytes | None, host: HostFacts) -> None:
    chosen, origin = choice
    if chosen in ("", UNCONFINED):
        return
    if not host.seccomp:
        raise FailedPrecondition(f"seccomp: {chosen!r} is asked for, but this kernel has no seccomp")
    if chosen in RUNTIME_DEFAULT:
        profile = host.default_seccomp
        if profile is None:
            raise FailedPrecondition(
                "seccomp: RuntimeDefault is asked for, but no default profile is installed; install "
                "containers-common (golang-github-containers-common) or set seccomp_profile"
            )
    else:
        path = chosen.removeprefix(LOCALHOST)
        if content is None:
            raise InvalidArgument(field_of(origin), f"the profile {path!r} cannot be read")
        profile = SeccompProfile.parse(content, path)
    granted = draft.process["capabilities"]["bounding"]
    draft.linux["seccomp"] = profile.convert(host.architecture, granted, host.kernel)
    draft.note("linux.seccomp", origin)


def chosen_seccomp(
    security: Security, policy: Policy, pod_annotations: Mapping[str, str], container: str
) -> tuple[str, str]:
    """In the string form ("" is none), with its origin: the profile field wins over the deprecated string,
    that over the annotations, which kubelets have not sent since 1.27, and these over the node's default."""
    if security.HasField("seccomp"):
        return _from_profile(security.seccomp, "seccomp"), f"request: {_FIELD}.seccomp"
    text, origin = security.seccomp_profile_path, f"request: {_FIELD}.seccomp_profile_path"
    if not text and pod_annotations:
        text, origin = _annotated_seccomp(pod_annotations, container)
    if not text:
        text, origin = policy.unset_seccomp_profile, "node: unset_seccomp_profile"
    if text in ("", UNCONFINED, *RUNTIME_DEFAULT) or text.startswith(LOCALHOST):
        return text, origin
    raise InvalidArgument(
        field_of(origin),
        f"invalid profile {text!r}: it must be runtime/default, docker/default, unconfined or localhost/PATH",
    )


def _annotated_seccomp(annotations: Mapping[str, str], container: str) -> tuple[str, str]:
    """Each generation of keys by itself: the container's own, then the pod's."""
    for own, pod in _SECCOMP_ANNOTATIONS:
        for key in (f"{own}/{container}", pod) if container else (pod,):
            if annotations.get(key):
                return annotations[key], f"request: sandbox_config.annotations[{key}]"
    return "", ""


def field_of(origin: str) -> str:
    """The name of what was set, for messages: "request: FIELD" -> "FIELD"."""
    return origin.partition(": ")[2]


def _from_profile(profile: cri.SecurityProfile, kind: str) -> str:
    field = f"{_FIELD}.{kind}"
    if profile.localhost_ref and profile.profile_type != _PROFILE.Localhost:
        raise InvalidArgument(f"{field}.localhost_ref", "must only be set if profile_type is Localhost")
    if profile.profile_type == _PROFILE.RuntimeDefault:
        return RUNTIME_DEFAULT[0]
    if profile.profile_type == _PROFILE.Unconfined:
        return UNCONFINED
    if profile.profile_type == _PROFILE.Localhost:
        name = profile.localhost_ref.removeprefix(LOCALHOST)
        if not name:
            raise InvalidArgument(f"{field}.localhost_ref", "is empty: Localhost needs a profile")
        return LOCALHOST + name
    raise InvalidArgument(f"{field}.profile_type", f"{profile.profile_type} is no profile type")


# AppArmor


def apparmor(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The host's default profile unless the request says otherwise. A privileged container has none, save a
    Localhost profile that it asks for by name."""
    key = f"{APPARMOR_ANNOTATION}/{request.config.metadata.name}"
    annotated = request.sandbox.annotations.get(key, "") or request.config.annotations.get(key, "")
    chosen, origin = chosen_apparmor(request.security, key, annotated)
    if chosen == UNCONFINED or request.privileged:
        draft.drop(draft.process, "apparmorProfile", "process.apparmorProfile")
    if chosen == UNCONFINED:
        return
    if not host.apparmor:
        if chosen:
            raise FailedPrecondition(f"{field_of(origin)}: apparmor is not supported on this host")
        return
    if chosen in ("", RUNTIME_DEFAULT[0]):
        if request.privileged or (not chosen and not host.apparmor_default):
            return
        if not host.apparmor_default:
            raise FailedPrecondition(
                f"{field_of(origin)}: RuntimeDefault is asked for, but this node has no default profile; "
                "load one and ask for it with Localhost, or ask for Unconfined"
            )
        draft.process["apparmorProfile"] = host.apparmor_default
        origin = origin if chosen else "default: the node's AppArmor profile"
    elif chosen.startswith(LOCALHOST):
        name = chosen.removeprefix(LOCALHOST)
        if name not in host.apparmor_profiles:
            raise FailedPrecondition(
                f"{field_of(origin)}: apparmor profile not found: {name!r} is not loaded"
            )
        draft.process["apparmorProfile"] = name
    else:
        raise InvalidArgument(field_of(origin), f"invalid apparmor profile {chosen!r}")
    draft.note("process.apparmorProfile", origin)


def chosen_apparmor(security: Security, key: str = "", annotated: str = "") -> tuple[str, str]:
    """In the string form ("" is none), with its origin: the field, else the deprecated string, else the
    annotation `key` with its value `annotated`."""
    if security.HasField("apparmor"):
        return _from_profile(security.apparmor, "apparmor"), f"request: {_FIELD}.apparmor"
    # Sandboxes have the field alone.
    if isinstance(security, cri.LinuxContainerSecurityContext) and security.apparmor_profile:
        return security.apparmor_profile, f"request: {_FIELD}.apparmor_profile"
    return annotated, f"request: annotations[{key}]"
