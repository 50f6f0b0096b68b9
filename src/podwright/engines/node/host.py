"""Looks at this host: the facts and the files that the pure spec rules need."""

from __future__ import annotations

import os
import platform
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from podwright.config import Config
from podwright.engines.node import node_files
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import caps, cgroups, mounts, proc
from podwright.spec.inputs import DeviceNode, HostFacts, MountSource
from podwright.spec.linux.devices import SKIPPED_DIRECTORIES, SKIPPED_NODES
from podwright.spec.linux.mounts import Lookup, absent
from podwright.spec.linux.seccomp import SeccompProfile

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_APPARMOR_PROFILES = Path("/sys/kernel/security/apparmor/profiles")


def facts(config: Config) -> HostFacts:
    """What specs depend on. FailedPrecondition when a configured file or value cannot be used."""
    layout = cgroups.layout()
    settings = config.spec
    machine = platform.machine()
    apparmor = _text(_APPARMOR).startswith("Y")
    return HostFacts(
        hostname=socket.gethostname(),
        architecture=_GO_NAMES.get(machine, machine),
        kernel=kernel(),
        cgroup_version=layout.version,
        swap_controller=cgroups.swap_controller(),
        hugetlb_controller=layout.has("hugetlb"),
        capabilities=tuple(caps.bounding()),
        own_oom_score_adj=proc.own_oom_score_adj(),
        seccomp=Path("/proc/sys/kernel/seccomp").exists(),
        default_seccomp=_default_seccomp(config.seccomp_profile),
        apparmor=apparmor,
        apparmor_profiles=apparmor_profiles() if apparmor else frozenset(),
        apparmor_default=settings.apparmor_profile,
        selinux=node_files.selinux(settings),
        cgroup_mount_options=_cgroup_mount_options(layout),
        cdi=node_files.cdi_registry(settings.cdi_spec_dirs) if settings.cdi_spec_dirs else None,
        blockio=node_files.blockio_classes(settings.blockio_config_file),
        rdt=node_files.rdt_classes(settings.rdt_config_file),
        hooks=node_files.hooks(settings.hooks_dirs),
        localtime=node_files.localtime(settings.timezone),
        policy=node_files.policy(config),
    )


def apparmor_profiles() -> frozenset[str]:
    """The names of those that are loaded now: lines "NAME (MODE)"."""
    return frozenset(line.rpartition(" (")[0] for line in _text(_APPARMOR_PROFILES).splitlines())


def _cgroup_mount_options(layout: cgroups.Layout) -> frozenset[str]:
    if layout.version != 2:
        return frozenset()
    table = (row for row in mounts.read_table() if row.target == str(layout.unified))
    return frozenset(option for row in table for option in row.super_options)


def kernel() -> tuple[int, int]:
    """Major and minor version of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def check_source(lookup: Lookup, place: int) -> None:
    """FailedPrecondition when the source of config.mounts[place] is missing and cannot be made."""
    path = Path(lookup.host_path)
    try:
        if path.exists():
            return
    except PermissionError:
        return  # whoever may look will see
    if not lookup.make:
        raise absent(lookup, place)
    # Where the link leads, nobody meant a directory to be.
    if any(each.is_symlink() and not each.exists() for each in (path, *path.parents)):
        raise FailedPrecondition(f"config.mounts[{place}].host_path: {path} leads over a link to nothing")


def mount_source(lookup: Lookup, made: list[Path]) -> MountSource:
    """What is at the source of a mount; a missing directory is made and appended to `made`.

    Raises OSError when it cannot be made.
    """
    path = Path(os.path.realpath(lookup.host_path))
    if not path.exists():
        make_directory(path, made)
    return source_on(path, mounts.containing(path) if lookup.propagated else None)


def foreseen_source(lookup: Lookup, place: int, to_come: Sequence[str]) -> tuple[MountSource, bool]:
    """What `mount_source` would give, and whether it is there or below a path `to_come`; nothing is made.
    FailedPrecondition when it cannot be made."""
    path = Path(os.path.realpath(lookup.host_path))
    there = _there(path) or any(path.is_relative_to(each) for each in to_come)
    if not there:
        check_source(lookup, place)
    return source_on(path, _mount_below(path) if lookup.propagated else None), there


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return True  # nobody can tell from here


def _is_file(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False  # a directory will be made of what is missing


def _mount_below(path: Path) -> mounts.Mount | None:
    """The mount that `path` lies on, or will once it is made."""
    for each in (path, *path.parents):
        try:
            return mounts.containing(each)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
    return None


def source_on(path: Path, below: mounts.Mount | None) -> MountSource:
    """The source `path`, with what counts of the mount it lies on; None where that does not matter."""
    directory = not _is_file(path)
    if below is None:
        return MountSource(path=str(path), directory=directory)
    return MountSource(
        path=str(path),
        directory=directory,
        mountpoint=below.target,
        shared=below.shared is not None,
        slave=below.master is not None,
    )


def make_directory(path: Path, made: list[Path]) -> None:
    """`mkdir -p` with mode 0755, whatever the umask; every directory that was missing goes to `made`."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(0o755)
        made.append(each)


def unmake_directories(made: Sequence[Path]) -> None:
    """Take back what `make_directory` made, as far as nobody put something there."""
    for each in reversed(made):
        try:
            each.rmdir()
        except OSError:
            pass


def own_streams(pid: int, user: tuple[int, int]) -> None:
    """Let `user` open the pipes of process `pid` again, by /dev/stdout. runc sees to that itself, but cannot
    inside a user namespace in which their owner, root, has no number."""
    for number in range(3):
        stream = Path(f"/proc/{pid}/fd/{number}")
        try:
            if stat.S_ISFIFO(stream.stat().st_mode):
                os.chown(stream, *user)
        except FileNotFoundError:
            continue  # closed, or the process has just ended: that is noticed elsewhere


def devices_at(host_path: str) -> list[DeviceNode] | None:
    """The node at `host_path`, or the nodes below it if it is a directory; None when it does not exist."""
    try:
        status = Path(host_path).stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return list(_nodes_below(host_path))
    node = _node(host_path, status)
    return [node] if node else []


def _nodes_below(directory: str) -> Iterator[DeviceNode]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED_DIRECTORIES:
                yield from _nodes_below(entry.path)
        elif entry.name not in SKIPPED_NODES and not entry.is_symlink():
            node = _node(entry.path, entry.stat(follow_symlinks=False))
            if node:
                yield node


def _node(path: str, status: os.stat_result) -> DeviceNode | None:
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(
        path=path,
        type=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def seccomp_profile(path: str, root: str) -> bytes:
    """A Localhost profile. InvalidArgument when it is not there, or outside `root` (unless "")."""
    field = "config.linux.security_context.seccomp"
    file = Path(path)
    if root:
        file = Path(os.path.realpath(Path(root, path)))
        if not file.is_relative_to(os.path.realpath(root)):
            raise InvalidArgument(field, f"the profile {path} is not below {root}")
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidArgument(field, f"cannot read the profile {file}: {error.strerror}") from error


def _default_seccomp(path: str) -> SeccompProfile | None:
    if not path:
        return None
    try:
        return SeccompProfile.parse(Path(path).read_bytes(), path)
    except FileNotFoundError:
        return None
    except InvalidArgument as error:
        raise FailedPrecondition(f"configuration seccomp_profile: {error}") from error


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
