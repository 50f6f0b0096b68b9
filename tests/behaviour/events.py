"""A stream of container events, read in a thread of its own so that waiting for one can have an end."""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc

from podwright.wire import cri_pb2 as cri


class Events:
    def __init__(self, stream: Any) -> None:
        self._queue: queue.SimpleQueue[cri.ContainerEventResponse | grpc.RpcError] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def next(self, seconds: float = 10.0) -> cri.ContainerEventResponse:
        """The next one; what ended the stream is raised. AssertionError when none comes in time."""
        try:
            event = self._queue.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"no event within {seconds:g} s") from None
        if isinstance(event, grpc.RpcError):
            raise event
        return event

    def kinds(self, count: int) -> list[tuple[str, str]]:
        """Of the next `count`: which one, and whose id."""
        events = [self.next() for _ in range(count)]
        name = cri.ContainerEventType.Name
        return [
            (name(e.container_event_type).removeprefix("CONTAINER_").removesuffix("_EVENT"), e.container_id)
            for e in events
        ]

    def another(self, seconds: float = 0.3) -> object:
        """The next one if it comes in this time, or the error that ended the stream; else None."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return None

    def _read(self, stream: Any) -> None:
        try:
            for event in stream:
                self._queue.put(event)
        except grpc.RpcError as error:
            self._queue.put(error)
