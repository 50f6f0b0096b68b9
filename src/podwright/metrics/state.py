"""What there is, as gauges: read when somebody asks."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from podwright import __version__
from podwright.core.operations import CHANGING, SESSIONS
from podwright.core.runtime import Runtime
from podwright.core.states import ContainerState, SandboxState
from podwright.errors import PodwrightError


@dataclass(frozen=True, slots=True)
class State:
    """One moment."""

    engine: str
    sandboxes: Mapping[str, int]
    containers: Mapping[str, int]
    """By state."""
    images: int
    image_bytes: int
    database_bytes: int
    subscribers: int
    events_lost: int
    operations: Mapping[str, int]
    """By call; none is 0, of calls that change something."""
    sessions: Mapping[str, int]
    parked: int
    """Creations that wait for their clients to come again."""


async def read(runtime: Runtime) -> State:
    """The state of now. What cannot be read at the moment counts as 0."""
    records = runtime.records
    sandboxes = Counter({state.value: 0 for state in SandboxState})
    sandboxes.update(each.state.value for each in records.sandboxes)
    containers = Counter({state.value: 0 for state in ContainerState})
    containers.update(each.state.value for each in records.containers)
    images = runtime.engine.images
    try:
        use = await images.filesystem_use()
        count, size = len(await images.list()), sum(each.used_bytes for each in (use, *use.others))
    except (PodwrightError, OSError):
        count, size = 0, 0
    calls = Counter(dict.fromkeys((*CHANGING, *SESSIONS), 0))
    calls.update(call.name for call in runtime.in_flight.calls())
    return State(
        engine=runtime.engine.name,
        sandboxes=sandboxes,
        containers=containers,
        images=count,
        image_bytes=size,
        database_bytes=_database_bytes(runtime),
        subscribers=runtime.events.subscribers,
        events_lost=runtime.events.lost,
        operations={name: number for name, number in calls.items() if name not in SESSIONS},
        sessions={name: calls[name] for name in SESSIONS},
        parked=runtime.parked,
    )


def _database_bytes(runtime: Runtime) -> int:
    path = runtime.config.root_path / "podwright.db"
    size = 0
    for name in (path.name, f"{path.name}-wal"):
        try:
            size += path.with_name(name).stat().st_size
        except OSError:
            pass
    return size


class Gauges(Collector):
    """Tells the state that it was given last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.state: State | None = None
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        state = self.state
        if state is None:
            return
        build = GaugeMetricFamily(
            "podwright_build_info", "What runs here.", labels=("version", "python", "engine")
        )
        build.add_metric((__version__, platform.python_version(), state.engine), 1)
        yield build
        yield _by("podwright_sandboxes", "Pod sandboxes.", "state", state.sandboxes)
        yield _by("podwright_containers", "Containers.", "state", state.containers)
        yield GaugeMetricFamily("podwright_images", "Images that can be used.", state.images)
        yield GaugeMetricFamily("podwright_image_store_bytes", "Bytes of the image store.", state.image_bytes)
        yield GaugeMetricFamily(
            "podwright_database_bytes", "Bytes of the state database and its log.", state.database_bytes
        )
        yield GaugeMetricFamily(
            "podwright_event_subscribers", "Clients that listen to container events.", state.subscribers
        )
        yield CounterMetricFamily(
            "podwright_events_lost", "Events that subscribers did not take in time.", state.events_lost
        )
        yield _by("podwright_operations", "Calls that go on.", "rpc", state.operations)
        yield _by("podwright_sessions", "Sessions of streams that go on.", "session", state.sessions)
        yield GaugeMetricFamily(
            "podwright_parked_creations", "Finished creations whose clients have gone.", state.parked
        )


def _by(name: str, words: str, label: str, numbers: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=(label,))
    for value, number in numbers.items():
        family.add_metric((value,), number)
    return family
