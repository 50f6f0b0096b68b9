"""Where the program that unpacks layers locks itself in, before it looks at the first byte of a layer.

Standard library only: part of that program.
"""

# ruff: noqa: PTH102

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# unshare(2), mount(2), umount2(2), prctl(2), capabilities(7), seccomp(2)
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
HARMLESS = MS_NOSUID | MS_NODEV | MS_NOEXEC
MNT_DETACH = 0x2
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
CAPABILITY_VERSION_3 = 0x20080522
KEPT = (0, 1, 3, 4, 21, 27, 31)
"""CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN (attributes trusted.*), MKNOD, SETFCAP."""

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE_THREAD = 0x10000
# fmt: off
FORBIDDEN = {
    "x86_64": {
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "setns": 308, "unshare": 272,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "open_by_handle_at": 304, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "kill": 62, "tkill": 200, "tgkill": 234,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_open": 434, "pidfd_send_signal": 424,
        "pidfd_getfd": 438, "bpf": 321, "perf_event_open": 298, "init_module": 175, "finit_module": 313,
        "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169, "swapon": 167,
        "swapoff": 168, "sethostname": 170, "setdomainname": 171, "socket": 41, "execve": 59,
        "execveat": 322, "fork": 57, "vfork": 58, "clone3": 435, "io_uring_setup": 425,
        "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249, "acct": 163,
        "quotactl": 179, "syslog": 103, "settimeofday": 164, "clock_settime": 227,
    },
    "aarch64": {
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "setns": 268, "unshare": 97,
        "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "open_by_handle_at": 265, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "kill": 129, "tkill": 130, "tgkill": 131,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_open": 434, "pidfd_send_signal": 424,
        "pidfd_getfd": 438, "bpf": 280, "perf_event_open": 241, "init_module": 105, "finit_module": 273,
        "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "reboot": 142, "swapon": 224,
        "swapoff": 225, "sethostname": 161, "setdomainname": 162, "socket": 198, "execve": 221,
        "execveat": 281, "clone3": 435, "io_uring_setup": 425, "userfaultfd": 282, "keyctl": 219,
        "add_key": 217, "request_key": 218, "acct": 89, "quotactl": 60, "syslog": 116,
        "settimeofday": 170, "clock_settime": 112,
    },
}
# fmt: on
"""What CAP_SYS_ADMIN would still allow, and the ways to other processes, programs and the network. clone(2)
is for threads alone."""

# linux/filter.h, linux/seccomp.h
LOAD, EQUAL, AT_LEAST, SOME_OF, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
X32 = 0x40000000
"""From here on x86_64 has every call once more."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(place: str, target: str, lowers: Sequence[str]) -> tuple[int, list[int]]:
    """Make a world of nothing but the directory `target`, and the `lowers` to read; `place` is an empty
    directory, which stays so. Their descriptors."""
    _call("unshare", CLONE_NEWNS)
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("none", place, "tmpfs", HARMLESS, "size=1m,mode=0700")
    os.chdir(place)
    for name, source in (("layer", target), *((str(number), lower) for number, lower in enumerate(lowers))):
        os.mkdir(name)
        _mount(source, name, None, MS_BIND)
        readonly = 0 if name == "layer" else MS_RDONLY
        _mount(None, name, None, MS_REMOUNT | MS_BIND | HARMLESS | readonly)
    # pivot_root(2): both may be the same; the old root then lies on top of the new one.
    _call("pivot_root", b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    _mount(None, "/", None, MS_REMOUNT | MS_BIND | HARMLESS | MS_RDONLY)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    below = [os.open(str(number), flags) for number in range(len(lowers))]
    layer = os.open("layer", flags)
    os.fchdir(layer)
    os.chroot(".")
    return layer, below


def lock() -> None:
    """Give up for ever what is not needed any more, in this thread and those that it starts."""
    kept = sum(1 << number for number in KEPT)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _call("capset", header, struct.pack("=6I", low, low, 0, high, high, 0))
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    machine = os.uname().machine
    if machine in FORBIDDEN:
        program = _filter(machine)
        code = ctypes.create_string_buffer(program, len(program))
        described = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
        _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0)


def _filter(machine: str) -> bytes:
    """A seccomp filter (classic BPF) that lets every call through but the forbidden ones."""
    clone = CLONE[machine]
    rows = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, AUDIT_ARCHITECTURES[machine]),
        (RETURN, 0, 0, EPERM),  # another architecture's calls, such as 32-bit ones
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, EPERM),
    ]
    for name, number in FORBIDDEN[machine].items():
        # glibc asks clone3 first, and then clone when there is no clone3.
        rows += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ENOSYS if name == "clone3" else EPERM)]
    rows += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST_ARGUMENT), (SOME_OF, 1, 0, CLONE_THREAD)]
    rows += [(RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), options.encode())


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
