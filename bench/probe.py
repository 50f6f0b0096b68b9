"""How long a short call takes while a server has something else to do.

    python -m bench.probe SOCKET SECONDS

Asks for the version again and again, from a process of its own, and prints the 99th percentile in
milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import grpc

PAUSE = 0.002
"""Seconds between two calls: this is a visitor, not a load."""


def main(socket: str, seconds: float) -> None:
    options = (("grpc.default_authority", "localhost"),)
    with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
        version: Any = channel.unary_unary("/runtime.v1.RuntimeService/Version")
        version(b"")
        times = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            version(b"")
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(PAUSE)
    print(statistics.quantiles(times, n=100)[98])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
