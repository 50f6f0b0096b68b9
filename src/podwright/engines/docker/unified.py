"""Values of cgroup v2 that Docker's API has no words for, written beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from podwright.errors import FailedPrecondition

_ROOT = Path("/sys/fs/cgroup")


def write_unified(
    pid: int, values: Mapping[str, str], root: Path = _ROOT, proc: Path = Path("/proc")
) -> None:
    """Set `values` ("memory.oom.group": "1") in the cgroup of the process `pid`; fine when it has just ended.

    Raises FailedPrecondition for a value that the kernel does not take.
    """
    try:
        rows = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    place = next((row.removeprefix("0::") for row in rows if row.startswith("0::")), "")
    if place in ("", "/"):
        return
    for name, value in values.items():
        field = f"linux.resources.unified[{name}]"
        if "/" in name or name.startswith("cgroup."):
            raise FailedPrecondition(f"{field}: this is no limit")
        try:
            (root / place.lstrip("/") / name).write_text(value)
        except FileNotFoundError:
            if (root / place.lstrip("/")).is_dir():
                raise FailedPrecondition(f"{field}: this host's kernel does not have it") from None
            return
        except OSError as error:
            raise FailedPrecondition(f"{field}: {value!r} is refused: {error.strerror}") from error
