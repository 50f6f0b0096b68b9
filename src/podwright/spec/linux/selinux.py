"""SELinux labels of processes and mounts, and which volumes have to be relabelled."""

from __future__ import annotations

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec import allowed
from podwright.spec.draft import Draft, Relabel
from podwright.spec.inputs import ContainerInput, HandlerOptions, HostFacts, Policy, SandboxInput
from podwright.spec.selinux import Labels, SELinux, check, is_set, is_system, labels
from podwright.wire import cri_pb2 as cri

_FIELD = "config.linux.security_context.selinux_options"
_POD_FIELD = "sandbox_config.linux.security_context.selinux_options"
_SUPER_PRIVILEGED = "spc_t"


def needs_level(config: cri.ContainerConfig | cri.PodSandboxConfig, host: HostFacts) -> bool:
    """Whether the engine has to draw a level (`selinux.allocate`) for this pod or container.

    A container without options of its own has its pod's label; one with options but no level gets a level
    of its own, as the Kubernetes API promises.
    """
    if host.selinux is None:
        return False
    options = config.linux.security_context.selinux_options
    if isinstance(config, cri.PodSandboxConfig):
        return not options.level
    return is_set(options) and not options.level


def labelling(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """Raises InvalidArgument for options that no context can hold, and for relabelling what is the host's."""
    draft.drop(draft.process, "selinuxLabel", "process.selinuxLabel")
    draft.drop(draft.linux, "mountLabel", "linux.mountLabel")
    if host.selinux is None:
        return
    own = request.security.selinux_options
    if is_set(own):
        check(own, _FIELD)
        options, level, field = own, request.selinux_level, _FIELD
    else:
        options, level, field = (
            request.sandbox_security.selinux_options,
            request.pod_selinux_level,
            _POD_FIELD,
        )
    found = _labels(host.selinux, options, level, request.handler, field)
    origin = f"request: {field}; host: the policy's contexts" if is_set(options) else "host: the pod's label"
    if not request.privileged and not _unlabelled(request.sandbox, host.policy):
        draft.process["selinuxLabel"] = str(found.process)
        draft.note("process.selinuxLabel", origin)
    draft.linux["mountLabel"] = str(found.mount)
    draft.note("linux.mountLabel", origin)
    if found.process.type != _SUPER_PRIVILEGED:
        _relabel(draft, request, found, host.policy)


def pause_labelling(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    if host.selinux is None:
        return
    options = request.security.selinux_options
    found = _labels(host.selinux, options, request.selinux_level, request.handler, _FIELD)
    origin = (
        f"request: {_FIELD}; host: the policy's contexts" if is_set(options) else "host: drawn for the pod"
    )
    if not request.security.privileged and not _unlabelled(request.config, host.policy):
        draft.process["selinuxLabel"] = str(found.process)
        draft.note("process.selinuxLabel", origin)
    draft.linux["mountLabel"] = str(found.mount)
    draft.note("linux.mountLabel", origin)


def pod_labels(
    config: cri.PodSandboxConfig, handler: HandlerOptions, level: str, host: HostFacts
) -> Labels | None:
    """Of the pod's processes and of its own files and shared memory; None without SELinux."""
    if host.selinux is None:
        return None
    return _labels(host.selinux, config.linux.security_context.selinux_options, level, handler, _FIELD)


def _labels(
    base: SELinux, options: cri.SELinuxOption, level: str, handler: HandlerOptions, field: str
) -> Labels:
    check(options, field)
    if not options.level and not level:
        raise FailedPrecondition(f"{field}.level: none is given, and none was drawn")
    if handler.virtual_machine and base.kvm_process:
        base = base._replace(process=base.kvm_process)
    return labels(base, options, level)


def _unlabelled(config: cri.PodSandboxConfig, policy: Policy) -> bool:
    options = config.linux.security_context.namespace_options
    return policy.unlabel_host_namespaces and cri.NamespaceMode.NODE in (options.pid, options.ipc)


def _relabel(draft: Draft, request: ContainerInput, found: Labels, policy: Policy) -> None:
    label = found.mount._replace(level="s0") if policy.shared_relabel else found.mount
    skip = allowed.of_container(request, allowed.SKIP_RELABEL)
    for place, mount in enumerate(request.config.mounts):
        if not mount.selinux_relabel or not mount.host_path:
            continue
        field = f"config.mounts[{place}].selinux_relabel"
        path = request.mount_sources[place].path if request.mount_sources else mount.host_path
        if is_system(path):
            raise InvalidArgument(field, f"{path} belongs to the host: relabelling it is not allowed")
        draft.relabels.append(Relabel(path, str(label), field, bool(skip and skip.value == "true")))
