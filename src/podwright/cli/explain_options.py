"""What the command line of explain says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from podwright.cli.output import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    subject: str | None = None
    """A manifest's file, or a container."""
    pod_config: str | None = None
    container_config: str | None = None
    container: str | None = None
    """Only this one of a pod."""
    handler: str | None = None
    engine: str | None = None
    scenario: Path | None = None
    image_config: str | None = None
    diff: Sequence[str] = ()
    json: bool = False
    output: Format = Format.TABLE
    wide: bool = False
    path: str = ""
