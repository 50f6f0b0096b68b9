"""The OCI specification that Docker has made for a container that runs: its API does not show it, the bundle
beside containerd's shim does."""

from __future__ import annotations

from pathlib import Path

import msgspec

from podwright.engines.base import Json
from podwright.linux import proc


def runtime_spec(pid: int, docker_id: str) -> Json:
    """The specification of Docker's container `docker_id`, whose first process is `pid`; None when it is not
    to be found here, as with a runtime that has no shim of containerd's for a parent."""
    try:
        # A shim works in the bundle of its container.
        directory = Path(f"/proc/{proc.parent(pid)}/cwd").readlink()
        if directory.name != docker_id:
            return None
        return msgspec.json.decode((directory / "config.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
