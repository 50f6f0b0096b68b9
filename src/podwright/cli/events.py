"""`podwright events`: what has happened to pods, from the records that podwright keeps of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podwright.cli.output import Format, age, table
from podwright.cli.pod_records import KnownPod, choose, known
from podwright.errors import PodwrightError
from podwright.kube.life.events import Event
from podwright.linux import inotify
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.cli.door import Door

COLUMNS = ("AGE", "TYPE", "REASON", "OBJECT", "MESSAGE")


@dataclass(frozen=True, slots=True)
class Told:
    """An event of one pod."""

    pod: KnownPod
    event: Event

    @property
    def object(self) -> str:
        """ "web", or "web/main" of a container."""
        container = self.event.object.partition("{")[2].removesuffix("}")
        return f"{self.pod.title}/{container}" if container else self.pod.title


async def events(
    door: Door, word: str | None, *, follow: bool = False, since: str = "", output: Format = Format.TABLE
) -> None:
    """Print them by when they happened last. With `follow` a line for each that is new or happens again."""
    from podwright.logs.lines import moment

    after = moment(since, "--since") if since else 0
    config = door.config()
    root, logs = config.root_path, Path(config.node.pod_logs) if config.node.pod_logs else None
    wanted = await _meant(door, root, logs, word) if word is not None else None
    watch = inotify.Watch() if follow else None
    try:
        if watch is not None:
            _watch(watch, root)
        told = await asyncio.to_thread(_all, root, logs, wanted, after)
        if watch is None:
            _print(told, output)
            return
        async for one in _and_more(watch, told, root, logs, wanted, after):
            _print_line(one, output)
    finally:
        if watch is not None:
            watch.close()


async def _meant(door: Door, root: Path, logs: Path | None, word: str) -> str:
    """The uid of the pod that is meant; the runtime is only asked when the records do not know it."""
    noted = await asyncio.to_thread(known, root, logs)
    with suppress(PodwrightError):
        return choose(word, noted).uid
    async with door.cri() as runtime:
        sandboxes = (await runtime.list_pod_sandbox(cri.ListPodSandboxRequest())).items
    return choose(word, await asyncio.to_thread(known, root, logs, sandboxes)).uid


def _all(root: Path, logs: Path | None, uid: str | None, after: int) -> list[Told]:
    found = [
        Told(pod, event)
        for pod in known(root, logs)
        if uid is None or pod.uid == uid
        for event in pod.events
        if _nanoseconds(event.last) >= after
    ]
    return sorted(found, key=lambda one: one.event.last)


# Following


def _watch(watch: inotify.Watch, root: Path) -> None:
    """The directory of pods, and each pod's; what comes later is added then."""
    pods = root / "pods"
    pods.mkdir(mode=0o755, parents=True, exist_ok=True)
    watch.add(pods, inotify.CREATE | inotify.MOVED_TO | inotify.ONLYDIR)
    for path in pods.iterdir():
        with suppress(OSError):
            watch.add(path, inotify.CLOSE_WRITE | inotify.MOVED_TO | inotify.ONLYDIR)


async def _and_more(
    watch: inotify.Watch, told: Sequence[Told], root: Path, logs: Path | None, uid: str | None, after: int
) -> AsyncIterator[Told]:
    keys = set()
    for one in told:
        keys.add(_key(one))
        yield one
    async for _ in watch:
        watch.pending()
        _watch(watch, root)
        for one in await asyncio.to_thread(_all, root, logs, uid, after):
            if _key(one) not in keys:
                keys.add(_key(one))
                yield one


def _key(one: Told) -> tuple[object, ...]:
    return (one.pod.uid, one.event)


# Forms


def _print(told: Sequence[Told], output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps([_tree(one) for one in told], indent=2, ensure_ascii=False))
    else:
        table(COLUMNS, [_row(one) for one in told])


def _print_line(one: Told, output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps(_tree(one), ensure_ascii=False), flush=True)
        return
    event = one.event
    clock = datetime.fromisoformat(event.last).astimezone().strftime("%H:%M:%S")
    again = f" (x{event.count})" if event.count > 1 else ""
    message = " ".join(event.message.split())
    print(f"{clock}  {event.type:<7}  {event.reason:<12}  {one.object}: {message}{again}", flush=True)


def _row(one: Told) -> tuple[str, ...]:
    event = one.event
    return (how_old(event), event.type, event.reason, one.object, " ".join(event.message.split()))


def how_old(event: Event) -> str:
    """ "5s", or "5s (x4 over 2m)" of one that came again."""
    last = age(_nanoseconds(event.last))
    return last if event.count < 2 else f"{last} (x{event.count} over {age(_nanoseconds(event.first))})"


def _tree(one: Told) -> dict[str, Any]:
    return {"namespace": one.pod.namespace, "pod": one.pod.name, "uid": one.pod.uid, **asdict(one.event)}


def _nanoseconds(stamp: str) -> int:
    return int(datetime.fromisoformat(stamp).timestamp()) * 1_000_000_000
