"""What is noted of a pod: its events, however long it lives."""

from __future__ import annotations

from pathlib import Path

from podwright.kube.files.directory import PodDirectory
from podwright.kube.life.events import Event
from podwright.kube.state import records


def event(message: str, count: int = 1) -> Event:
    last = f"2026-01-01T{count // 3600:02}:{count // 60 % 60:02}:{count % 60:02}Z"
    return Event(
        "Warning", "Unhealthy", "spec.containers{main}", message, count, "2026-01-01T00:00:00Z", last
    )


def test_events_that_repeat_for_ever_take_bounded_room(tmp_path: Path) -> None:
    directory = PodDirectory.below(tmp_path, "default", "web", "u")
    directory.path.mkdir(parents=True)
    largest = 0
    for count in range(1, 12_000):
        records.append_events(directory, [event("probe failed", count)])
        largest = max(largest, directory.events.stat().st_size)
    assert largest <= records.EVENTS_SIZE + 200
    assert records.read_events(directory) == [event("probe failed", 11_999)]


def test_of_many_events_the_newest_stay(tmp_path: Path) -> None:
    directory = PodDirectory.below(tmp_path, "default", "web", "u")
    directory.path.mkdir(parents=True)
    some = [event(f"{count} " + "x" * 4000, count) for count in range(1, 400)]
    records.append_events(directory, some[:200])
    records.append_events(directory, some[200:])
    found = records.read_events(directory)
    assert directory.events.stat().st_size <= records.EVENTS_SIZE // 2
    assert found == some[-len(found) :] and len(found) > 100
