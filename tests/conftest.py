"""What holds for all tests: set before any of them is imported."""

from __future__ import annotations

import os

# A fork of a process with gRPC's threads runs gRPC's handlers, which may crash the child before it executes.
# Tests start programs through vfork, which calls none; this is for a fork that one of their libraries makes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
