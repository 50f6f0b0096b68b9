"""Whom a call or a step is about, in the words that a scenario can match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from podwright.engines.base import Container, Sandbox


@dataclass(frozen=True, slots=True)
class Subject:
    id: str = ""
    """Of the container, or of the sandbox when there is no container."""
    pod: str = ""
    namespace: str = ""
    container: str = ""
    image: str = ""
    """The reference as the client wrote it."""
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
            container.config.image.image,
            container.config.labels,
        )
