"""What root may do inside: capabilities, and no-new-privileges."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from podwright.errors import InvalidArgument
from podwright.spec.draft import Draft
from podwright.spec.inputs import ContainerInput, HostFacts, SandboxInput
from podwright.spec.linux.process import base_origin

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
KNOWN = frozenset(
    """
    CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
    CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
    CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT
    CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD
    CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
    CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE
    """.split()  # noqa: SIM905
)
"""capabilities(7), Linux 5.9 and later."""

NOT_IN_GVISOR = frozenset({"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"})
"""Its runsc ends without a word when it is asked for one of them."""

_FIELD = "config.linux.security_context.capabilities"


def capabilities(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    """The defaults with the request's changes, or everything the daemon has for a privileged container.

    Order: add ALL, drop ALL, single adds, single drops. Nothing beyond the daemon's bounding set can be
    given: runtimes fail in capset(2) if it is asked for, so it is left out, with a warning when the request
    named it. Inheritable and ambient stay empty (CVE-2022-27652), save for what the request wants ambient.
    """
    held = list(host.capabilities)
    if request.handler.own_kernel:
        held = [name for name in held if name not in NOT_IN_GVISOR]
    asked = request.security.capabilities
    ambient = [normalise(name) for name in asked.add_ambient_capabilities]
    _check(ambient, "add_ambient_capabilities")
    if request.privileged:
        _write(draft, held, "request: config.linux.security_context.privileged")
        _write_ambient(draft, ambient, held)
        _drop_for_user(draft, request)
        return
    default, origin = DEFAULT, "default: an unprivileged container's set"
    if request.handler.base_spec:
        default = tuple(draft.process.get("capabilities", {}).get("bounding", ()))
        origin = base_origin(request.handler)
    if not (asked.add_capabilities or asked.drop_capabilities or ambient):
        _write(draft, _available(default, held), origin)
        _drop_for_user(draft, request)
        return
    # What is to be ambient must be permitted as well (capabilities(7)).
    added = [*(normalise(name) for name in asked.add_capabilities), *ambient]
    _check(added, "add_capabilities")
    dropped = {normalise(name) for name in asked.drop_capabilities}
    granted = _available(default, held)
    if "ALL" in added:
        granted = list(held)
    if "ALL" in dropped:
        granted = []
    for name in added:
        if name == "ALL" or name in granted:
            continue
        if name in held:
            granted.append(name)
        elif name not in dropped:
            who = "the runtime's kernel" if name in host.capabilities else "the daemon itself"
            draft.warn(f"{name} is not given: {who} lacks it on this host")
    for name in sorted(dropped - KNOWN - {"ALL"}):
        draft.warn(f"{name} cannot be dropped: it is no Linux capability")
    granted = [name for name in granted if name not in dropped]
    _write(draft, granted, f"request: {_FIELD}")
    _write_ambient(draft, ambient, granted)
    _drop_for_user(draft, request)


def normalise(name: str) -> str:
    """ "sys_admin", "CAP_SYS_ADMIN" -> "CAP_SYS_ADMIN"; "all" -> "ALL"."""
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def no_new_privileges(draft: Draft, request: ContainerInput, host: HostFacts) -> None:
    draft.drop(draft.process, "noNewPrivileges", "process.noNewPrivileges")
    if request.security.no_new_privs:
        draft.process["noNewPrivileges"] = True
        draft.note("process.noNewPrivileges", "request: config.linux.security_context.no_new_privs")


def pause_rights(draft: Draft, request: SandboxInput, host: HostFacts) -> None:
    _write(draft, [], "rule: the pause process needs none")
    draft.process["noNewPrivileges"] = True
    draft.note("process.noNewPrivileges", "rule: the pause process never needs more")


def _check(names: Iterable[str], member: str) -> None:
    for name in names:
        if name != "ALL" and name not in KNOWN:
            raise InvalidArgument(f"{_FIELD}.{member}", f"{name} is no Linux capability")


def _available(names: Iterable[str], held: Collection[str]) -> list[str]:
    return [name for name in names if name in held]


def _write(draft: Draft, granted: list[str], origin: str) -> None:
    draft.process["capabilities"] = {"bounding": granted, "effective": granted, "permitted": granted}
    draft.note("process.capabilities", origin)


def _drop_for_user(draft: Draft, request: ContainerInput) -> None:
    """Linux takes all but the ambient capabilities from a user that is not root, at execve(2). gVisor gives
    the first program what the spec says."""
    if request.handler.own_kernel and draft.uid != 0:
        sets = draft.process["capabilities"]
        kept = sets.get("ambient", [])
        sets |= {"effective": kept, "permitted": kept}
        for member in ("effective", "permitted"):
            draft.note(f"process.capabilities.{member}", "rule: a user that is not root has none of its own")


def _write_ambient(draft: Draft, ambient: Collection[str], granted: list[str]) -> None:
    """Only what is inheritable, too, stays ambient across execve(2)."""
    if ambient:
        given = granted if "ALL" in ambient else [name for name in granted if name in ambient]
        draft.process["capabilities"] |= {"inheritable": given, "ambient": given}
        for member in ("inheritable", "ambient"):
            draft.note(f"process.capabilities.{member}", f"request: {_FIELD}.add_ambient_capabilities")
