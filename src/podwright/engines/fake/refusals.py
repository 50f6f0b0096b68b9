"""What a fake node refuses as a real one does: requests that are wrong in themselves.

The rules are those that OCI specifications are made by, on a host that has everything: every capability,
profile, device and file that a request names is there.
"""

from __future__ import annotations

from dataclasses import replace

from podwright.engines.base import Container, Sandbox
from podwright.linux.cgroups import container_path
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HandlerOptions, HostFacts, ImageConfig, Policy
from podwright.spec.linux.capabilities import KNOWN, capabilities
from podwright.spec.linux.mounts import mounts
from podwright.spec.linux.namespaces import mappings
from podwright.spec.linux.seccomp import SeccompProfile
from podwright.spec.linux.security import apparmor, privileged, seccomp

_RULES = (privileged, capabilities, apparmor, mounts, seccomp)
_PROFILE = b'{"defaultAction": "SCMP_ACT_ALLOW"}'
_HOST = HostFacts(
    hostname="",
    capabilities=tuple(sorted(KNOWN)),
    default_seccomp=SeccompProfile.parse(_PROFILE, "of a fake node"),
    apparmor=True,
    apparmor_default="of a fake node",
    # Their directories would have to be made first.
    policy=Policy(image_volumes=False),
)


def check_sandbox(sandbox: Sandbox) -> None:
    """InvalidArgument when no node could make it."""
    container_path("cgroupfs", sandbox.config.linux.cgroup_parent, sandbox.id)
    options = sandbox.config.linux.security_context.namespace_options
    mappings(options, "config.linux.security_context.namespace_options")


def check_container(container: Container, *, recursive_read_only: bool) -> None:
    """InvalidArgument when no node could make it; FailedPrecondition for recursively read-only mounts when
    its handler cannot make them."""
    request = ContainerInput(
        id=container.id,
        config=container.config,
        sandbox_id=container.sandbox.id,
        sandbox=container.sandbox.config,
        image=ImageConfig(),
        cgroups_path="",
        handler=HandlerOptions(recursive_read_only=recursive_read_only),
        seccomp_profile=_PROFILE,
    )
    security = container.config.linux.security_context
    host = _HOST
    if asked := security.apparmor.localhost_ref or security.apparmor_profile:
        host = replace(host, apparmor_profiles=frozenset({asked.removeprefix("localhost/")}))
    draft = Draft(explain=False)
    for rule in _RULES:
        rule(draft, request, host)
