"""Links to containers' logs where log shippers of clusters look: LINKS/POD_NAMESPACE_CONTAINER-ID.log.

They are made only where the node's configuration names that directory. All of it blocks.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from podwright.kube.manifests.manifest import Manifest
from podwright.kube.models import AnyContainer
from podwright.kube.node import Node

SUFFIX = ".log"
MAX_NAME = 255
"""Bytes that a file's name may have; the rest is cut off in front of the suffix."""


def path(links: Path, manifest: Manifest, container: str, container_id: str) -> Path:
    name = f"{manifest.name}_{manifest.namespace}_{container}-{container_id}"
    return links / (name[: MAX_NAME - len(SUFFIX)] + SUFFIX)


def make(node: Node, manifest: Manifest, container: AnyContainer, container_id: str, log: Path) -> None:
    """Link to `log`, if it is there: some runtimes log elsewhere. Raises OSError."""
    if node.legacy_logs is None or not log.exists():
        return
    node.legacy_logs.mkdir(mode=0o755, parents=True, exist_ok=True)
    link = path(node.legacy_logs, manifest, container.name, container_id)
    new = link.with_name(f".{container_id[:32]}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(log)
    new.replace(link)


def remove(node: Node, manifest: Manifest, container: str, container_id: str) -> None:
    """The container is removed, and so is its link. Raises OSError."""
    if node.legacy_logs is not None:
        path(node.legacy_logs, manifest, container, container_id).unlink(missing_ok=True)


def sweep(node: Node) -> list[Path]:
    """Remove the links into our logs whose log is no more; returns them. Links of others stay. For whoever
    begins to keep pods: those that are gone by now have nobody else who would do it."""
    if node.legacy_logs is None:
        return []
    dead = []
    try:
        for link in node.legacy_logs.glob(f"*{SUFFIX}"):
            if _is_dead(link, node.logs):
                link.unlink(missing_ok=True)
                dead.append(link)
    except OSError as error:
        logging.getLogger("podwright.kube").warning("dead links to logs may stay: %s", error)
    return dead


def _is_dead(link: Path, logs: Path) -> bool:
    try:
        target = Path(os.readlink(link))  # noqa: PTH115 - it need not lead anywhere
    except OSError:
        return False  # no link, or gone
    # A log that is just being rotated has gone only for a moment: its older parts are there.
    return target.is_relative_to(logs) and not any(target.parent.glob(f"{target.name}*"))
