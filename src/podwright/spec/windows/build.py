"""The OCI runtime spec of a container on Windows, and of a pod's pause container.

Each rule edits the draft; the lists below are the order, and read as the table of contents.
"""

from __future__ import annotations

from collections.abc import Callable

from podwright.spec.beyond_linux import env, pause_image
from podwright.spec.inputs import HostFacts
from podwright.spec.linux.annotations import container_annotations, pause_annotations
from podwright.spec.linux.build import Built
from podwright.spec.linux.process import base_origin, terminal
from podwright.spec.linux.user import User
from podwright.spec.windows.draft import WindowsDraft
from podwright.spec.windows.inputs import WindowsContainerInput, WindowsSandboxInput
from podwright.spec.windows.isolation import hyperv, layers, network
from podwright.spec.windows.mounts import mounts
from podwright.spec.windows.process import args, cwd, hostname, pause_process, user
from podwright.spec.windows.resources import pause_resources, resources
from podwright.spec.windows.security import (
    credential_spec,
    devices,
    host_process,
    pause_credential_spec,
    pause_host_process,
)


def _pause_image(draft: WindowsDraft, request: WindowsSandboxInput, host: HostFacts) -> None:
    pause_image(draft, request.image_name)


CONTAINER: tuple[Callable[[WindowsDraft, WindowsContainerInput, HostFacts], None], ...] = (
    args,
    env,
    cwd,
    terminal,
    user,
    hostname,
    mounts,
    devices,
    layers,
    network,
    hyperv,
    resources,
    credential_spec,
    container_annotations,
    host_process,
)

PAUSE: tuple[Callable[[WindowsDraft, WindowsSandboxInput, HostFacts], None], ...] = (
    pause_process,
    layers,
    network,
    hyperv,
    pause_resources,
    pause_credential_spec,
    pause_annotations,
    _pause_image,
    pause_host_process,
)


def build_container(request: WindowsContainerInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a container.

    Raises InvalidArgument for requests that are wrong in themselves, FailedPrecondition for what this node
    or handler cannot do, Unimplemented for what the engine prepared nothing for.
    """
    base = request.handler.base_spec
    draft = WindowsDraft(explain, base.spec, base_origin(request.handler)) if base else WindowsDraft(explain)
    for rule in CONTAINER:
        rule(draft, request, host)
    if request.config.linux.ByteSize():
        draft.warn("config.linux means nothing on Windows")
    return _built(draft)


def build_sandbox(request: WindowsSandboxInput, host: HostFacts, *, explain: bool = False) -> Built:
    """The spec of a pod's pause container. Errors as above."""
    draft = WindowsDraft(explain)
    for rule in PAUSE:
        rule(draft, request, host)
    return _built(draft)


def _built(draft: WindowsDraft) -> Built:
    return Built(
        spec=draft.spec(),
        user=User(0, 0, ()),
        warnings=tuple(draft.warnings),
        origins=draft.origins or {},
    )
