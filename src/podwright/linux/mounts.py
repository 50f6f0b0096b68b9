"""Mounts: made with one line, undone as often as one likes, and read from the kernel's table.

Nothing here decides what is mounted where. A mount that has to go is unmounted plainly; it is detached
only when somebody still holds it, for a mount that stays would leak for good.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from podwright.errors import ResourceExhausted
from podwright.linux import syscalls
from podwright.linux.threads import run_in_fresh_thread

MAX_DATA = os.sysconf("SC_PAGESIZE") - 1
"""Bytes of mount options the kernel copies; it cuts the rest off without an error."""

SHM_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    id: int
    parent: int
    root: str
    """The directory of the file system that is mounted."""
    target: str
    options: frozenset[str]
    """Options of this mount (ro, nosuid, …)."""
    shared: int | None
    """Peer group, None unless the mount is shared."""
    master: int | None
    """Peer group of the master, None unless the mount is a slave."""
    fstype: str
    source: str
    super_options: frozenset[str]
    """Options of the file system."""

    @property
    def readonly(self) -> bool:
        return "ro" in self.options


def bind(source: Path, target: Path, *, recursive: bool = False, readonly: bool = False) -> None:
    """Bind `source` to the existing `target`; `readonly` holds for submounts too when `recursive`.

    Raises OSError. A mount that cannot be made read-only is taken back.
    """
    syscalls.mount(source, target, None, syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0))
    if readonly:
        try:
            _make_readonly(target, recursive)
        except OSError:
            unmount(target)
            raise


def bind_mapped(source: Path, target: Path, user_namespace: Path, *, recursive: bool = False) -> None:
    """Show `source` on the existing `target` with its owners mapped as the pinned `user_namespace` says. What
    is mounted below it comes along, with the owners it has, when `recursive`.

    Raises OSError, with EINVAL when the file system of `source` cannot be mapped.
    """
    tree = syscalls.open_tree(source, syscalls.AT_RECURSIVE if recursive else 0)
    try:
        namespace = os.open(user_namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.map_ids(tree, namespace)
        finally:
            os.close(namespace)
        syscalls.move_mount(tree, target)
    finally:
        os.close(tree)


def tmpfs(
    target: Path, *, size: int, mode: int = 0o1777, owner: tuple[int, int] = (0, 0), flags: int = SHM_FLAGS
) -> None:
    """A tmpfs of `size` bytes on `target`; its root has `mode` and belongs to `owner`. Raises OSError."""
    uid, gid = owner
    syscalls.mount("tmpfs", target, "tmpfs", flags, f"size={size},mode={mode:o},uid={uid},gid={gid}")


def overlay(
    target: Path,
    lower: Sequence[Path],
    upper: Path | None,
    work: Path | None,
    *,
    options: str = "",
    readonly: bool = False,
) -> None:
    """An overlayfs on `target`: `lower` topmost first, changes go to `upper`.

    `work` must be on the file system of `upper`; without them there are no changes, and two layers at least.
    Raises OSError; ResourceExhausted when there are more lower directories than fit into the page that the
    kernel takes.
    """
    flags = syscalls.MS_RDONLY if readonly else 0
    data = _overlay_data(lower, upper, work, options)
    if len(os.fsencode(data)) <= MAX_DATA:
        syscalls.mount("overlay", target, "overlay", flags, data)
        return
    # Too long with absolute paths: a thread with a working directory of its own may use relative ones.
    base = Path(os.path.commonpath([*lower, *(each for each in (upper, work) if each is not None)]))
    short = _overlay_data(
        [each.relative_to(base) for each in lower],
        upper.relative_to(base) if upper is not None else None,
        work.relative_to(base) if work is not None else None,
        options,
    )
    if len(os.fsencode(short)) > MAX_DATA:
        raise ResourceExhausted(
            f"overlay on {target}: {len(lower)} lower directories need {len(short)} bytes of mount options, "
            f"the kernel takes {MAX_DATA}"
        )

    def mount_relative() -> None:
        syscalls.unshare(syscalls.CLONE_FS)
        os.chdir(base)
        syscalls.mount("overlay", target.absolute(), "overlay", flags, short)

    run_in_fresh_thread(mount_relative)


def unmount(target: Path) -> None:
    """Unmount everything stacked on `target`; fine when nothing is mounted there or it does not exist.

    Raises OSError when the kernel refuses for another reason than use.
    """
    for _ in range(64):
        try:
            syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            if error.errno != errno.EBUSY:
                raise
            syscalls.umount2(target, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


def unmount_below(path: Path) -> None:
    """Unmount everything on and below `path`, the deepest first."""
    for each in reversed(mounts_below(path)):
        unmount(Path(each.target))


def make_private(target: Path, *, recursive: bool = False) -> None:
    """Stop propagation of the mount at `target` in both directions."""
    syscalls.mount(None, target, None, syscalls.MS_PRIVATE | (syscalls.MS_REC if recursive else 0))


def make_shared(target: Path, *, recursive: bool = False) -> None:
    """Make the mount at `target` a member of a (new) peer group."""
    syscalls.mount(None, target, None, syscalls.MS_SHARED | (syscalls.MS_REC if recursive else 0))


def read_table(pid: int | str = "thread-self") -> list[Mount]:
    """All mounts that `pid` sees, in the order they were made. Raises OSError when it is gone."""
    return parse_table(Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape"))


def parse_table(text: str) -> list[Mount]:
    """The mounts of a mountinfo text."""
    return [_parse_line(line) for line in text.splitlines() if line]


def mounts_below(path: Path, table: Iterable[Mount] | None = None) -> list[Mount]:
    """The mounts on `path` itself and below it, in the order they were made."""
    top = str(path)
    prefix = top.rstrip("/") + "/"
    rows = read_table() if table is None else table
    return [row for row in rows if row.target == top or row.target.startswith(prefix)]


def is_mounted(path: Path) -> bool:
    """Whether `path` itself is a mount point (a bind of a file counts)."""
    try:
        return _mount_id(path) != _mount_id(path.parent)
    except FileNotFoundError:
        return False


def containing(path: Path) -> Mount | None:
    """The mount that `path` lies on; None when the table does not show it. FileNotFoundError if absent."""
    wanted = _mount_id(path)
    start = f"{wanted} "
    with Path("/proc/thread-self/mountinfo").open(errors="surrogateescape") as lines:
        for line in lines:
            if line.startswith(start):
                return _parse_line(line)
    return None


def shared_group(path: Path) -> int | None:
    """The peer group of the mount that `path` lies on; None when that mount is not shared."""
    mount = containing(path)
    return mount.shared if mount else None


def master_group(path: Path) -> int | None:
    """The group whose slave the mount is that `path` lies on; None when it is no slave."""
    mount = containing(path)
    return mount.master if mount else None


def _make_readonly(target: Path, recursive: bool) -> None:
    try:
        syscalls.mount_setattr(
            target, syscalls.AT_RECURSIVE if recursive else 0, set=syscalls.MOUNT_ATTR_RDONLY
        )
        return
    except OSError as error:
        # Without the call (before Linux 5.12) only a single mount can be remounted; claiming that the
        # submounts are read-only as well would be a lie.
        if error.errno != errno.ENOSYS or recursive:
            raise
    mount = containing(target)
    flags = 0
    for option, flag in _KEPT_FLAGS.items():
        if mount is not None and option in mount.options:
            flags |= flag
    syscalls.mount(None, target, None, syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | flags)


# A bind remount replaces all of a mount's flags, so those it has are named again.
_KEPT_FLAGS = {
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "relatime": syscalls.MS_RELATIME,
    "nosymfollow": syscalls.MS_NOSYMFOLLOW,
}


def _overlay_data(lower: Sequence[Path], upper: Path | None, work: Path | None, options: str) -> str:
    layers = ":".join(_escape(each).replace(":", "\\:") for each in lower)
    data = f"lowerdir={layers}"
    if upper is not None and work is not None:
        data += f",upperdir={_escape(upper)},workdir={_escape(work)}"
    return f"{data},{options}" if options else data


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,")


def _mount_id(path: Path) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        text = Path(f"/proc/thread-self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    return int(text.split("mnt_id:", 1)[1].split(None, 1)[0])


def _parse_line(line: str) -> Mount:
    left, _, right = line.rstrip("\n").partition(" - ")
    id, parent, _device, root, target, options, *tags = left.split(" ")
    fstype, source, super_options = right.split(" ", 2)
    groups = dict(tag.split(":", 1) for tag in tags if ":" in tag)
    return Mount(
        id=int(id),
        parent=int(parent),
        root=_unescape(root),
        target=_unescape(target),
        options=frozenset(options.split(",")),
        shared=int(groups["shared"]) if "shared" in groups else None,
        master=int(groups["master"]) if "master" in groups else None,
        fstype=fstype,
        source=_unescape(source),
        super_options=frozenset(super_options.split(",")),
    )


def _unescape(text: str) -> str:
    """Space, tab, newline and backslash stand as octal escapes in the table."""
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
