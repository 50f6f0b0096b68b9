"""What an OCI runtime's program can do of what pods may ask for: by its own words, and on this kernel."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import msgspec

from podwright import structs
from podwright.engines.node import host
from podwright.errors import FailedPrecondition
from podwright.linux import spawn

PROBE_TIMEOUT = 10.0
RRO_KERNEL = (5, 12)
"""mount_setattr(2), which recursive read-only mounts need."""
IDMAP_KERNEL = (5, 19)
"""overlayfs takes id-mapped layers."""
JOIN_USER_NAMESPACES = ("crun", "runc")
"""Known to; of others their features tell."""
CRUN_RRO = (1, 4)
CRUN_IDMAP = (1, 8)
"""Maps the ids of single mounts; tried with 1.8.1."""


@dataclass(frozen=True, slots=True)
class Features:
    version: str = ""
    """The first line of what it says of its version, for people."""
    recursive_read_only: bool = False
    id_maps: bool = False
    """It maps the ids of single mounts."""


def kind_of(program: str) -> str:
    """A program's own name, such as "crun": which of the runtimes' peculiarities apply."""
    return Path(program).name.partition("-")[0].partition(".")[0]


async def probe(program: str) -> Features:
    """Ask `program`. FailedPrecondition with its words when it cannot even tell its version; OSError,
    DeadlineExceeded when it does not start or does not answer."""
    done = await spawn.run([program, "--version"], timeout=PROBE_TIMEOUT)
    if done.status != 0:
        raise FailedPrecondition(f"{program} --version fails: {done.stderr.decode(errors='replace').strip()}")
    version = next(iter(done.stdout.decode(errors="replace").splitlines()), "")
    # crun could do both before it could tell.
    crun = _numbers(version) if kind_of(program) == "crun" else ()
    done = await spawn.run([program, "features"], timeout=PROBE_TIMEOUT)
    if done.status != 0:
        return _on_this_kernel(version, crun >= CRUN_RRO, crun >= CRUN_IDMAP)
    return read(done.stdout, version, id_maps=crun >= CRUN_IDMAP)


def read(document: bytes, version: str, *, id_maps: bool = False) -> Features:
    """By a runtime's features (features.md of the runtime-spec); `id_maps` where it says nothing of that."""
    try:
        told = structs.decode(document, _Document)
    except msgspec.DecodeError:
        return Features(version)
    extensions = told.linux.mount_extensions if told.linux else None
    enabled = extensions.idmap.enabled if extensions and extensions.idmap else None
    return _on_this_kernel(version, "rro" in told.mount_options, id_maps if enabled is None else enabled)


def no_user_namespaces(kind: str, features: Features, all_mapped: Path) -> str:
    """Why a runtime cannot run pods with user namespaces; "" if it can. `all_mapped` is where their files
    are."""
    closed = _closed(all_mapped)
    if kind not in JOIN_USER_NAMESPACES and not features.id_maps:
        return f"{kind} does not enter them"
    if host.kernel() < IDMAP_KERNEL:
        return "the kernel is older than {}.{}".format(*IDMAP_KERNEL)
    if closed:
        return f"others cannot pass through {closed}, below which their files are: chmod o+x {closed}"
    return ""


class _IdMap(msgspec.Struct):
    enabled: bool | None = None


class _MountExtensions(msgspec.Struct):
    idmap: _IdMap | None = None


class _LinuxFeatures(msgspec.Struct, rename="camel"):
    mount_extensions: _MountExtensions | None = None


class _Document(msgspec.Struct, rename="camel"):
    """`runc features`, and of newer cruns."""

    mount_options: list[str] = []
    linux: _LinuxFeatures | None = None


def _on_this_kernel(version: str, recursive_read_only: bool, id_maps: bool) -> Features:
    kernel = host.kernel()
    return Features(version, recursive_read_only and kernel >= RRO_KERNEL, id_maps and kernel >= IDMAP_KERNEL)


def _numbers(version: str) -> tuple[int, ...]:
    """ "crun version 1.8.1" -> (1, 8, 1)."""
    word = next((word for word in version.split() if word[:1].isdigit()), "")
    return tuple(int(part) for part in word.split(".") if part.isdigit())


def _closed(path: Path) -> Path | None:
    """The directory on the way to `path` that others cannot pass through, None when there is none."""
    for each in reversed((path, *path.parents)):
        try:
            if not each.stat().st_mode & stat.S_IXOTH:
                return each
        except OSError:
            return None  # not made yet, or closed to us as well
    return None
