"""What keeps short calls short. `before_grpc` runs before gRPC is imported.

Measured with Version from a Python client, p50, on a two-core virtual machine: 0.65 ms with gRPC's and
asyncio's defaults, 0.49 without the event engine's listener, 0.43 with uvloop besides; containerd's Go server
takes 0.28. What brought nothing and is left out: channel options, fewer malloc arenas, a shorter switch
interval, and keeping the loop and gRPC's poller on one CPU: it helped an idle machine, not a busy one.
"""

from __future__ import annotations

import gc
import os

EXPERIMENTS = "GRPC_EXPERIMENTS"
_NO_EVENT_ENGINE_LISTENER = "-event_engine_listener"


def before_grpc() -> None:
    """With gRPC's event engine as listener a request passes two more threads before Python sees it."""
    os.environ.setdefault(EXPERIMENTS, _NO_EVENT_ENGINE_LISTENER)


def after_listening() -> None:
    """gRPC has read its settings: they do not pass on to child processes."""
    if os.environ.get(EXPERIMENTS) == _NO_EVENT_ENGINE_LISTENER:
        del os.environ[EXPERIMENTS]


def settle() -> None:
    """Recovery has ended: what is in memory now stays, no garbage collection looks at it again."""
    gc.collect()
    gc.freeze()
