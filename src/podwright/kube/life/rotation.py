"""Rotating containers' logs as a kubelet does: a log that is too large is renamed, the runtime opens a new
one, and older ones are compressed, of which only so many are kept. All but `rotate_all` blocks.
"""

from __future__ import annotations

import asyncio
import gzip
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from podwright.api import Cri
from podwright.clock import Clock
from podwright.errors import PodwrightError
from podwright.kube.node import Node
from podwright.steps import step
from podwright.wire import cri_pb2 as cri

INTERVAL = 10.0
"""Seconds between two looks at the logs (the kubelet's containerLogMonitorInterval)."""
STAMP = "%Y%m%d-%H%M%S"
UNFINISHED = ".tmp"


async def rotate_all(
    runtime: Cri, node: Node, clock: Clock, containers: Iterable[cri.ContainerStatus]
) -> None:
    """Rotate the logs of running containers that have grown beyond the node's limit. What goes wrong with one
    is tried again the next time."""
    for status in containers:
        if status.state != cri.CONTAINER_RUNNING or not status.log_path:
            continue
        log = Path(status.log_path)
        with suppress(OSError, PodwrightError):
            size = (await asyncio.to_thread(log.stat)).st_size
            if size >= node.container_log_max_size:
                with step("rotate log", str(log)):
                    await _rotate(runtime, node, clock, status.id, log)


async def _rotate(runtime: Cri, node: Node, clock: Clock, container_id: str, log: Path) -> None:
    await asyncio.to_thread(tidy, log, node.container_log_max_files)
    stamp = datetime.fromtimestamp(clock.now() / 1e9, UTC).strftime(STAMP)
    rotated = log.with_name(f"{log.name}.{stamp}")
    await asyncio.to_thread(log.rename, rotated)
    try:
        await runtime.reopen_container_log(cri.ReopenContainerLogRequest(container_id=container_id))
    except PodwrightError:
        # The runtime still writes to the renamed file: it takes its name back.
        await asyncio.to_thread(rotated.rename, log)
        raise


def tidy(log: Path, files: int) -> None:
    """Make room for one more rotation of `log`: compress what was rotated before, and remove the
    oldest, so that with the log itself there are at most `files`. Raises OSError."""
    for unfinished in log.parent.glob(f"{log.name}.*{UNFINISHED}"):
        unfinished.unlink(missing_ok=True)
    rotated = sorted(log.parent.glob(f"{log.name}.*"))
    # The log and the rotation to come take two places.
    for old in rotated[: max(0, len(rotated) - max(0, files - 2))]:
        old.unlink(missing_ok=True)
        rotated.remove(old)
    for one in rotated:
        if one.suffix != ".gz":
            _compress(one)


def _compress(path: Path) -> None:
    unfinished = path.with_name(f"{path.name}{UNFINISHED}")
    with path.open("rb") as source, gzip.open(unfinished, "wb") as target:
        shutil.copyfileobj(source, target)
    unfinished.rename(path.with_name(f"{path.name}.gz"))
    path.unlink()
