"""Control groups, v1 and v2: the one place that knows their paths.

A cgroup is named by its path from the root of each hierarchy ("/podwright/0123…"), never relative to the
caller's own cgroup: a server that runs inside one must still find its pods. On v1 that path exists once
in every hierarchy.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import mounts

DEFAULT_SLICE = "system.slice"
SCOPE_PREFIX = "podwright"

KILL_ROUNDS = 16
SWAPS = Path("/proc/swaps")
"""Is there where the kernel can swap."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How this host mounts its cgroups."""

    version: int
    """1 when the controllers are mounted one by one, 2 when all are in the unified hierarchy."""
    hybrid: bool
    """v1, and an empty or nearly empty cgroup2 is mounted as well."""
    unified: Path | None
    """Mount point of cgroup2, when there is one."""
    unified_controllers: frozenset[str]
    controllers: Mapping[str, Path]
    """v1: mount point of each controller and of each named hierarchy ("name=systemd")."""

    @property
    def roots(self) -> list[Path]:
        """The mount points of all hierarchies that hold pods; each once, however many controllers it has."""
        if self.version == 2:
            assert self.unified is not None
            return [self.unified]
        return list(dict.fromkeys(self.controllers.values()))

    @property
    def hierarchies(self) -> list[Path]:
        """Every mount point below which a runtime may have made a cgroup. On a hybrid host runc makes them in
        the unified hierarchy, too."""
        return [*self.roots, self.unified] if self.hybrid and self.unified else self.roots

    def has(self, controller: str) -> bool:
        return controller in (self.unified_controllers if self.version == 2 else self.controllers)


@functools.cache
def layout() -> Layout:
    """The layout of this host, looked up once. FailedPrecondition when no cgroups are mounted."""
    return detect(mounts.read_table())


def detect(table: Iterable[mounts.Mount]) -> Layout:
    """The layout that a mount table shows."""
    unified: Path | None = None
    controllers: dict[str, Path] = {}
    for row in table:
        if row.fstype == "cgroup2" and (unified is None or row.target == "/sys/fs/cgroup"):
            unified = Path(row.target)
        elif row.fstype == "cgroup":
            for option in row.super_options - _NOT_CONTROLLERS:
                if "=" not in option or option.startswith("name="):
                    controllers.setdefault(option, Path(row.target))
    available = _words(unified / "cgroup.controllers") if unified else frozenset[str]()
    if not controllers and unified is None:
        raise FailedPrecondition("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")
    version = 1 if any("=" not in name for name in controllers) else 2
    if version == 2 and unified is None:
        raise FailedPrecondition("neither cgroup2 nor a cgroup v1 controller is mounted")
    return Layout(version, version == 1 and unified is not None, unified, available, controllers)


def container_path(driver: str, parent: str, id: str) -> str:
    """The OCI spec's linux.cgroupsPath of the container `id` below `parent`.

    cgroupfs: PARENT/ID. systemd: SLICE:podwright:ID, of whose parent only the last component counts.
    Raises InvalidArgument for a parent that is no slice under systemd, or leaves the hierarchy.
    """
    if driver == "systemd":
        slice = parent.rstrip("/").rpartition("/")[2] or DEFAULT_SLICE
        if not slice.endswith(".slice"):
            raise InvalidArgument(
                "config.linux.cgroup_parent", f"{parent!r} must end in .slice: the cgroup driver is systemd"
            )
        return f"{slice}:{SCOPE_PREFIX}:{id}"
    return _clean(f"{parent}/{id}")


def location(cgroups_path: str) -> str:
    """Where the kernel has the cgroup that `cgroups_path` (from `container_path`) stands for."""
    slice, separator, rest = cgroups_path.partition(":")
    if not separator:
        return _clean(cgroups_path)
    prefix, _, id = rest.partition(":")
    return f"{slice_location(slice)}/{prefix}-{id}.scope"


def slice_location(slice: str) -> str:
    """ "a-b.slice" lies in "/a.slice/a-b.slice" (systemd.slice(5)); "-.slice" is the root."""
    name = slice.removesuffix(".slice")
    if name in ("", "-"):
        return ""
    parts = name.split("-")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def directories(path: str, where: Layout | None = None) -> list[Path]:
    """The directories that exist for the cgroup `path`, one a hierarchy.

    There is none for the root: it belongs to no container, and killing all in it would take the host down.
    """
    inner = _clean(path).lstrip("/")
    if not inner:
        return []
    return [each for root in (where or layout()).hierarchies if (each := root / inner).is_dir()]


def directory(path: str, controller: str, where: Layout | None = None) -> Path:
    """The directory of the cgroup `path` where `controller`'s files are (they may not exist)."""
    host = where or layout()
    inner = _clean(path).lstrip("/")
    if host.version == 2:
        assert host.unified is not None
        return host.unified / inner
    try:
        return host.controllers[controller] / inner
    except KeyError:
        raise FailedPrecondition(f"this host has no cgroup controller {controller!r}") from None


def create(path: str, where: Layout | None = None) -> None:
    """Make the cgroup `path` with all its parents in every hierarchy; fine when it exists.

    v2: the controllers are handed down to its parents' children. v1: a new cpuset gets its parent's CPUs
    and memory nodes, for without them nobody can join. Raises OSError.
    """
    host = where or layout()
    parts = Path(_clean(path)).parts[1:]
    for root in host.roots:
        here = root
        for part in parts:
            if host.version == 2:
                _hand_down(here, host.unified_controllers)
            child = here / part
            child.mkdir(mode=0o755, exist_ok=True)
            if host.version == 1 and host.controllers.get("cpuset") == root:
                _inherit_cpuset(here, child)
            here = child


def join(path: str, pid: int, where: Layout | None = None) -> None:
    """Move `pid` (0: the caller) into the cgroup `path` in every hierarchy that has it. Raises OSError."""
    for each in directories(path, where):
        _write(each / "cgroup.procs", str(pid))


def remove(path: str, where: Layout | None = None) -> None:
    """Remove the cgroup `path` and those below it; fine when it is absent.

    Raises FailedPrecondition when a process is still in it.
    """
    for each in directories(path, where):
        for top, _, _ in os.walk(each, topdown=False):
            try:
                Path(top).rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                inside = ", ".join(map(str, sorted(read_pids(each)))) or "none is visible"
                raise FailedPrecondition(
                    f"cannot remove cgroup {top}: processes are in it ({inside})"
                ) from None


def prune(path: str, where: Layout | None = None) -> None:
    """Remove the cgroup `path` if it has neither processes nor children."""
    for each in directories(path, where):
        try:
            each.rmdir()
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
                raise


def pids(path: str, where: Layout | None = None) -> set[int]:
    """The processes in the cgroup `path` and below it, in any hierarchy; empty when it is absent."""
    found: set[int] = set()
    for each in directories(path, where):
        found |= read_pids(each)
    return found


def kill_all(path: str, where: Layout | None = None) -> set[int]:
    """SIGKILL every process in the cgroup `path` and below it; returns those that were sent it.

    They have not ended when this returns: wait for them. Processes that fork meanwhile are caught by
    cgroup.kill (v2, Linux 5.14) or by freezing (v1).
    """
    host = where or layout()
    if host.version == 2:
        victims = pids(path, host)
        for each in directories(path, host):
            try:
                _write(each / "cgroup.kill", "1")
            except FileNotFoundError:
                break
        else:
            return victims
    victims = set()
    for _ in range(KILL_ROUNDS):
        _freeze(path, host, True)
        try:
            new = pids(path, host) - victims
            for pid in new:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        finally:
            _freeze(path, host, False)
        victims |= new
        if not new:
            break
    return victims


def memory_oom_kills(path: str, where: Layout | None = None) -> int:
    """How many processes of the cgroup `path` the OOM killer has ended; 0 when that cannot be known."""
    host = where or layout()
    if not host.has("memory"):
        return 0
    name = "memory.events" if host.version == 2 else "memory.oom_control"
    try:
        text = (directory(path, "memory", host) / name).read_text()
    except OSError:
        return 0
    rows = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return int(rows.get("oom_kill", 0))


def swap_controller(where: Layout | None = None) -> bool:
    """Whether swap can be limited: the file for it is there."""
    host = where or layout()
    if not host.has("memory"):
        return False
    if host.version == 1:
        return (host.controllers["memory"] / "memory.memsw.limit_in_bytes").exists()
    assert host.unified is not None
    # The root has no such file: any cgroup below it that has the memory controller shows it.
    own = next((line[3:] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::")), "/")
    below = [host.unified / own.lstrip("/"), *(file.parent for file in host.unified.glob("*/memory.current"))]
    limited = next((each for each in below if (each / "memory.current").exists()), None)
    if limited is not None:
        return (limited / "memory.swap.max").exists()
    # This process is in the root, and nobody has made another. Whatever kernel can swap will have the file
    # there, but for those before 6.1 that were told not to account it.
    return SWAPS.exists()


_NOT_CONTROLLERS = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none"})


def _clean(path: str) -> str:
    if ".." in path.split("/"):
        raise InvalidArgument("config.linux.cgroup_parent", f"{path!r} must not contain '..'")
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _words(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text().split())
    except OSError:
        return frozenset()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _write(file: Path, value: str) -> None:
    """One write(2), and never a new file: cgroup files exist or the kernel does not have them."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"writing {value!r}: {error.strerror}", str(file)) from error
    finally:
        os.close(fd)


def _hand_down(parent: Path, available: frozenset[str]) -> None:
    wanted = available & _words(parent / "cgroup.controllers")
    for controller in sorted(wanted - _words(parent / "cgroup.subtree_control")):
        try:
            _write(parent / "cgroup.subtree_control", f"+{controller}")
        except OSError:
            pass  # a parent with processes of its own, or threaded: the runtime says what it then misses


def _inherit_cpuset(parent: Path, child: Path) -> None:
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (child / name).read_text().strip():
            _write(child / name, (parent / name).read_text().strip())


def read_pids(top: Path) -> set[int]:
    """The processes in the cgroup whose directory is `top` and below it."""
    found: set[int] = set()
    for here, _, _ in os.walk(top):
        try:
            text = Path(here, "cgroup.procs").read_text()
        except OSError:
            continue  # removed meanwhile, or a threaded cgroup whose processes its parent lists
        found.update(map(int, text.split()))
    found.discard(0)  # a process that our PID namespace does not show
    return found


def _freeze(path: str, host: Layout, frozen: bool) -> None:
    try:
        if host.version == 2:
            _write(directory(path, "", host) / "cgroup.freeze", "1" if frozen else "0")
        elif host.has("freezer"):
            _write(directory(path, "freezer", host) / "freezer.state", "FROZEN" if frozen else "THAWED")
    except OSError:
        pass  # absent, or already gone: killing works without, only a fork bomb takes more rounds
