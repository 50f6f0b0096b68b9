"""Whom a call or a step is about, and the patterns by which a scenario picks some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import msgspec

from podwright.engines.base import Container, Sandbox
from podwright.wire import cri_pb2 as cri


def image_as_written(spec: cri.ImageSpec) -> str:
    """The kubelet pulls what the pod's author wrote, and creates containers of the image's id."""
    return spec.user_specified_image or spec.image


@dataclass(frozen=True, slots=True)
class Subject:
    id: str = ""
    """Of the container, or of the sandbox when there is no container."""
    pod: str = ""
    namespace: str = ""
    container: str = ""
    image: str = ""
    """The reference as the pod's author wrote it."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_sandbox(cls, sandbox: Sandbox) -> Subject:
        metadata = sandbox.config.metadata
        return cls(sandbox.id, metadata.name, metadata.namespace, "", "", sandbox.config.labels)

    @classmethod
    def of_container(cls, container: Container) -> Subject:
        metadata = container.sandbox.config.metadata
        return cls(
            container.id,
            metadata.name,
            metadata.namespace,
            container.config.metadata.name,
            image_as_written(container.config.image),
            container.config.labels,
        )


class Match(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, omit_defaults=True):
    """Whom something is for. Each is a pattern with `*`, `?` and `[…]`; upper and lower case differ. All that
    are given must fit; where none is given everything does."""

    id: str = ""
    """Of the container; of the sandbox where no container is concerned."""
    pod: str = ""
    """The pod's name."""
    namespace: str = ""
    """The pod's namespace."""
    container: str = ""
    """The container's name. A pattern fits no call that is about a pod as a whole."""
    image: str = ""
    """The image as the pod's author wrote it: `nginx`, not `docker.io/library/nginx:latest`."""
    labels: dict[str, str] = {}
    """Of the container; of the sandbox where no container is concerned. A label that is missing is like an
    empty one."""

    def fits(self, subject: Subject) -> bool:
        return (
            (not self.pod or fnmatchcase(subject.pod, self.pod))
            and (not self.container or fnmatchcase(subject.container, self.container))
            and (not self.namespace or fnmatchcase(subject.namespace, self.namespace))
            and (not self.image or fnmatchcase(subject.image, self.image))
            and (not self.id or fnmatchcase(subject.id, self.id))
            and all(fnmatchcase(subject.labels.get(key, ""), value) for key, value in self.labels.items())
        )
