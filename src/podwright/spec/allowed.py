"""Annotations that change a spec, where the runtime handler allows it (HandlerOptions.allowed_annotations).

Whoever may write a pod's annotations need not be allowed to choose devices or limits: without the
administrator's word these keys mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from podwright.spec.inputs import ContainerInput, HandlerOptions

UMASK = ("umask.crio.io", "io.kubernetes.cri-o.umask")
"""Octal: "077"."""
SHM_SIZE = ("shm-size.crio.io", "io.kubernetes.cri-o.ShmSize")
"""A quantity: "128Mi"."""
DEVICES = ("devices.crio.io", "io.kubernetes.cri-o.Devices")
"""HOST_PATH[:CONTAINER_PATH[:PERMISSIONS]], comma separated."""
CGROUP_WRITABLE = ("cgroup2-mount-hierarchy-rw.crio.io", "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw")
"""The word "true"."""
SKIP_RELABEL = ("try-skip-volume-selinux-label.crio.io", "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel")
"""The word "true"."""
SECCOMP_ARTIFACT = ("seccomp-profile.crio.io",)
"""Reference of an OCI artifact; the key ends in /POD or /CONTAINER."""
ULIMITS = ("ulimits.noderesource.dev", "ulimits.nri.containerd.io")
"""YAML; the key ends in /container.CONTAINER."""


class Annotation(NamedTuple):
    value: str
    field: str
    """Its place in the request."""


def of_container(request: ContainerInput, keys: Sequence[str], suffix: str = "") -> Annotation | None:
    """The first of `keys` that the container's annotations have, else the first that the pod's have."""
    if not request.handler.allowed_annotations:
        return None
    own = find(request.config.annotations, request.handler, keys, suffix, "config.annotations")
    return own or of_pod(request.sandbox.annotations, request.handler, keys, suffix)


def of_pod(
    annotations: Mapping[str, str], handler: HandlerOptions, keys: Sequence[str], suffix: str = ""
) -> Annotation | None:
    return find(annotations, handler, keys, suffix, "sandbox_config.annotations")


def find(
    annotations: Mapping[str, str], handler: HandlerOptions, keys: Sequence[str], suffix: str, field: str
) -> Annotation | None:
    for key in keys:
        full = f"{key}{suffix}"
        if full in annotations and is_allowed(full, handler):
            return Annotation(annotations[full], f"{field}[{full}]")
    return None


def is_allowed(key: str, handler: HandlerOptions) -> bool:
    for allowed in handler.allowed_annotations:
        if allowed.endswith("*") and key.startswith(allowed[:-1]):
            return True
        if key == allowed or key.startswith(f"{allowed}/"):
            return True
    return False
