"""The OCI runtime spec of a container on Linux, and of a pod's pause process.

Each rule edits the draft; the lists below are the order, and read as the table of contents. A rule may use
what stands above it (seccomp needs the capabilities).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from podwright.spec.draft import Draft, Json, Relabel
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.spec.linux.annotations import container_annotations, pause_annotations
from podwright.spec.linux.capabilities import capabilities, no_new_privileges, pause_rights
from podwright.spec.linux.cdi import cdi_devices
from podwright.spec.linux.classes import classes
from podwright.spec.linux.devices import devices, pause_devices
from podwright.spec.linux.hooks import hooks
from podwright.spec.linux.limits import ulimits, umask
from podwright.spec.linux.mounts import mounts, pause_mounts, root, rootfs_propagation
from podwright.spec.linux.namespaces import namespaces, pause_namespaces, user_namespace
from podwright.spec.linux.process import (
    args,
    base_origin,
    cwd,
    env,
    hostname,
    oom_score_adj,
    pause_program,
    terminal,
)
from podwright.spec.linux.resources import cgroups_path, pause_resources, resources
from podwright.spec.linux.security import (
    apparmor,
    masked_paths,
    pause_masked_paths,
    pause_seccomp,
    privileged,
    seccomp,
)
from podwright.spec.linux.selinux import labelling, pause_labelling
from podwright.spec.linux.user import User, pause_user, user

CONTAINER: tuple[Callable[[Draft, ContainerInput, HostFacts], None], ...] = (
    privileged,
    root,
    args,
    env,
    hostname,
    cwd,
    terminal,
    user,
    umask,
    ulimits,
    capabilities,
    no_new_privileges,
    oom_score_adj,
    apparmor,
    labelling,
    mounts,
    rootfs_propagation,
    devices,
    resources,
    classes,
    cgroups_path,
    namespaces,
    user_namespace,
    seccomp,
    masked_paths,
    container_annotations,
    cdi_devices,
    hooks,
)

PAUSE: tuple[Callable[[Draft, SandboxInput, HostFacts], None], ...] = (
    pause_program,
    pause_user,
    pause_rights,
    pause_labelling,
    pause_mounts,
    pause_devices,
    pause_resources,
    cgroups_path,
    pause_namespaces,
    pause_seccomp,
    pause_masked_paths,
    pause_annotations,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    spec: dict[str, Json]
    """Some parts are shared with other specs: encode it (`spec.encode`), do not edit it in place."""
    user: User
    warnings: tuple[str, ...] = ()
    """What the request asked for and does not get, for the log and for people."""
    relabels: tuple[Relabel, ...] = ()
    """What has to be relabelled on the host before the container is created."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Place in the spec -> why it is so (see `spec.draft`); only filled when asked to explain."""


def build_container(request: ContainerInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a container.

    Raises InvalidArgument for requests that are wrong in themselves, FailedPrecondition for what this host
    or handler cannot do, Unimplemented for what podwright cannot do.
    """
    base = request.handler.base_spec
    draft = Draft(explain, base.spec, base_origin(request.handler)) if base else Draft(explain)
    for rule in CONTAINER:
        rule(draft, request, host)
    return _built(draft)


def build_sandbox(request: SandboxInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of the pause process of a pod whose containers share a PID namespace. Errors as above."""
    draft = Draft(explain)
    for rule in PAUSE:
        rule(draft, request, host)
    return _built(draft)


def _built(draft: Draft) -> Built:
    return Built(
        spec=draft.spec(),
        user=User(draft.uid, draft.gid, tuple(draft.additional_gids)),
        warnings=tuple(draft.warnings),
        relabels=tuple(draft.relabels),
        origins=draft.origins or {},
    )
