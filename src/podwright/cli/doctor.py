"""doctor: what this host can do, handler by handler, and what is left over on it.

It looks at the host itself first, so that it has something to say where the house cannot even be opened.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podwright.cli.node import handlers_of
from podwright.cli.output import Format, in_words, json, table
from podwright.config import Config
from podwright.errors import CommandFailed, DeadlineExceeded, PodwrightError, Unavailable
from podwright.linux import caps, cgroups, mounts, spawn
from podwright.linux.criu import Criu
from podwright.wire import cri_pb2 as cri

if TYPE_CHECKING:
    from podwright.api import Cri
    from podwright.cli.door import Door
    from podwright.engines.base import Orphan

OK, WARNING, MISSING = "ok", "warning", "missing"

VERSION_TIMEOUT = 10.0
"""Seconds that a program gets to tell its version."""

SYSTEMD = Path("/run/systemd/system")
"""Is there where systemd runs (sd_booted(3))."""

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
FILESYSTEMS = Path("/proc/filesystems")
MODULES = Path("/lib/modules")

NEEDED_CAPS = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID")
PLUGINS = {
    "bridge": "pods of the built-in network",
    "host-local": "pods of the built-in network",
    "portmap": "host ports",
    "loopback": "",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    subject: str
    state: str
    """OK; WARNING: something is lost, but pods run; MISSING: without it no pod runs."""
    note: str


async def doctor(door: Door, fix: bool, output: Format) -> bool:
    """Print what was found, with `fix` remove the orphans; False when pods cannot run here."""
    config = door.config()
    address = door.answering()
    engine = await _engine(config, address)
    if engine == "fake":
        checks = [Check("engine", OK, "fake: containers in memory; it needs nothing of this host")]
    elif engine == "docker":
        checks = [*_docker_host(config), *await _docker_programs(config)]
    elif engine == "containerd":
        checks = [*await _containerd(config), await _criu(config)]
    else:
        checks = [*_host(config), *await _programs(config), await _criu(config)]
    orphans: Sequence[Orphan] = ()
    failures: dict[str, str] = {}
    if address:
        from podwright.client import connect

        async with connect(address) as remote:
            checks += await _node(remote)
        checks.append(
            Check(
                "orphans",
                WARNING if fix else OK,
                f"not looked for: the podwright at {address} owns the state; stop it and ask again",
            )
        )
    else:
        try:
            async with door.house() as runtime:
                checks += await _node(
                    runtime, "; `podwright run` brings a bridge of its own, a server does not"
                )
                orphans = await runtime.orphans()
                if fix:
                    failures = await _repair(runtime.repair, orphans)
        except (PodwrightError, OSError) as error:
            if engine == "docker" and isinstance(error, Unavailable):
                checks[0] = Check("engine", MISSING, in_words(error))
            else:
                checks.append(Check("state", MISSING, in_words(error)))
    _print(checks, orphans, failures, fix, output)
    return not failures and all(check.state != MISSING for check in checks)


async def _engine(config: Config, address: str | None) -> str:
    """What runs pods here: at the server that answers, or by the configuration."""
    if address is None:
        return config.engine
    import msgspec

    from podwright.client import connect

    async with connect(address) as remote:
        told = (await remote.status(cri.StatusRequest(verbose=True))).info.get("config", "{}")
    return str(msgspec.json.decode(told).get("engine") or "oci")


def _host(config: Config) -> Iterator[Check]:
    name = os.uname()
    yield Check("kernel", OK, f"{name.release} ({name.machine})")
    yield _capabilities()
    yield _cgroups(config)
    yield _namespaces()
    yield _overlay(Path(config.root))
    yield _seccomp(Path(config.seccomp_profile))
    yield _security_module()
    yield _cni_plugins(config)


def _docker_host(config: Config) -> Iterator[Check]:
    """What the docker engine needs beside Docker, which tells of itself by whether the state opens."""
    from podwright.engines.docker.endpoint import Endpoint

    yield Check("engine", OK, f"docker: {Endpoint.of(config.docker).address}")
    yield _capabilities()
    yield _security_module()
    if config.docker.network == "cni":
        yield _cni_plugins(config)


async def _docker_programs(config: Config) -> list[Check]:
    wanted = []
    if not config.docker.sandbox_image:
        wanted.append(("catatonit", MISSING, "there is nothing to make a sandbox image of"))
    if config.docker.network == "cni":
        wanted.append(("iptables", WARNING, "CNI plugins cannot masquerade or map ports"))
    return list(await asyncio.gather(*(_program(*each) for each in wanted)))


async def _containerd(config: Config) -> list[Check]:
    from podwright.cli.doctor_containerd import containerd

    wanted = [("iptables", WARNING, "CNI plugins cannot masquerade or map ports")]
    if not config.containerd.sandbox_image:
        wanted.append(("catatonit", MISSING, "there is nothing to make a sandbox image of"))
    return [
        *(each for each in _host(config) if each.subject != "overlayfs"),
        *await containerd(config),
        *await asyncio.gather(*(_program(*each) for each in wanted)),
    ]


def _capabilities() -> Check:
    held = set(caps.bounding()) & set(caps.effective())
    lost = [name for name in NEEDED_CAPS if name not in held]
    if lost:
        return Check("privileges", MISSING, f"uid {os.geteuid()} lacks {', '.join(lost)}: run it as root")
    if "CAP_SYS_RESOURCE" not in held:
        return Check(
            "privileges",
            WARNING,
            "without CAP_SYS_RESOURCE limits cannot be raised, nor OOM scores lowered: values are clamped",
        )
    return Check("privileges", OK, f"{len(held)} capabilities")


def _cgroups(config: Config) -> Check:
    if config.cgroup_driver == "systemd" and not SYSTEMD.is_dir():
        return Check(
            "cgroups", MISSING, 'cgroup_driver is "systemd", which does not run here: no container can'
        )
    try:
        layout = cgroups.layout()
    except PodwrightError as error:
        return Check("cgroups", MISSING, str(error))
    kind = "v2" if layout.version == 2 else "v1 (hybrid)" if layout.hybrid else "v1"
    lost = [name for name in ("cpu", "cpuset", "memory", "pids") if not layout.has(name)]
    if lost:
        return Check("cgroups", WARNING, f"{kind}, without {', '.join(lost)}: such limits are not kept")
    return Check("cgroups", OK, kind)


def _namespaces() -> Check:
    kinds = {entry.name for entry in Path("/proc/self/ns").iterdir()}
    lost = [kind for kind in ("mnt", "net", "ipc", "uts", "pid") if kind not in kinds]
    if lost:
        return Check("namespaces", MISSING, f"the kernel has no {', '.join(lost)} namespaces")
    lost = [kind for kind in ("user", "cgroup") if kind not in kinds]
    if lost:
        return Check("namespaces", WARNING, f"the kernel has no {', '.join(lost)} namespaces")
    return Check("namespaces", OK, "mnt, net, ipc, uts, pid, user, cgroup")


def _overlay(root: Path) -> Check:
    known = FILESYSTEMS.read_text().split()
    # A module is loaded by the first mount.
    if "overlay" not in known and not _has_module("overlay"):
        return Check("overlayfs", MISSING, "the kernel does not offer it: try `modprobe overlay`")
    filesystem = _filesystem(root)
    if filesystem == "overlay":
        return Check(
            "overlayfs",
            MISSING,
            f"{root} lies on an overlay itself, which cannot carry another: choose another --root",
        )
    return Check("overlayfs", OK, f"{root} on {filesystem}")


def _has_module(name: str) -> bool:
    """Whether modprobe would find `name` for the running kernel (modules.dep(5))."""
    try:
        rows = (MODULES / os.uname().release / "modules.dep").read_text().splitlines()
    except OSError:
        return False
    return any(row.partition(":")[0].rpartition("/")[2].partition(".")[0] == name for row in rows)


def _filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, or will hold it."""
    while not path.exists():
        path = path.parent
    path = path.resolve()
    at = [mount for mount in mounts.read_table() if path.is_relative_to(mount.target)]
    # Of the mounts above it the innermost counts, and of those at one place the last.
    return max(enumerate(at), key=lambda each: (len(Path(each[1].target).parts), each[0]))[1].fstype


def _seccomp(profile: Path) -> Check:
    if not Path("/proc/sys/kernel/seccomp").exists():
        return Check("seccomp", WARNING, "the kernel has none: pods that ask for a profile fail")
    if not profile.exists():
        note = f"{profile} is missing (Debian: golang-github-containers-common): RuntimeDefault fails"
        return Check("seccomp", WARNING, note)
    return Check("seccomp", OK, str(profile))


def _security_module() -> Check:
    found = []
    # "N" where the kernel has it and its command line has switched it off.
    if APPARMOR.exists() and APPARMOR.read_text().startswith("Y"):
        found.append("AppArmor")
    if Path("/sys/fs/selinux/enforce").exists():
        found.append("SELinux")
    return Check("security modules", OK, ", ".join(found) or "neither AppArmor nor SELinux")


def _cni_plugins(config: Config) -> Check:
    lost = [
        f"{name} ({use})" if use else name
        for name, use in PLUGINS.items()
        if not any((Path(directory) / name).exists() for directory in config.cni.bin_dirs)
    ]
    if lost:
        return Check("CNI plugins", WARNING, f"not in {':'.join(config.cni.bin_dirs)}: {', '.join(lost)}")
    return Check("CNI plugins", OK, ", ".join(PLUGINS))


async def _programs(config: Config) -> list[Check]:
    wanted = [
        (config.conmon, MISSING, "nothing supervises containers"),
        *(
            (
                handler.path or f"handlers.{name}.path",
                MISSING if name == config.default_handler else WARNING,
                f"handler {name} cannot run",
            )
            for name, handler in config.handlers.items()
        ),
        ("skopeo", WARNING, "no image can be pulled from a registry"),
        ("catatonit", WARNING, "no pod can share its PID namespace"),
        ("iptables", WARNING, "CNI plugins cannot masquerade or map ports"),
    ]
    return list(await asyncio.gather(*(_program(*each) for each in wanted)))


async def _criu(config: Config) -> Check:
    loss = "no container can be checkpointed or restored"
    try:
        found = await Criu(config.criu).require()
    except PodwrightError as error:
        return Check("criu", WARNING, f"{loss}: {error}")
    if "CAP_SYS_RESOURCE" not in caps.effective():
        note = "without CAP_SYS_RESOURCE it can dump processes of root alone"
        return Check("criu", WARNING, f"{found.version} ({found.path}): {note}")
    return Check("criu", OK, f"{found.version} ({found.path})")


async def _program(program: str, absent: str, loss: str) -> Check:
    path = shutil.which(program)
    if path is None:
        return Check(program, absent, f"not installed: {loss}")
    try:
        done = await spawn.run([path, "--version"], timeout=VERSION_TIMEOUT, limit=1 << 12)
    except (OSError, DeadlineExceeded) as error:
        return Check(program, absent, f"{path} does not start: {error}")
    said = (done.stdout or done.stderr).decode(errors="replace").strip()
    if done.status != 0:
        return Check(program, absent, str(CommandFailed(path, done.status, said)))
    return Check(program, OK, f"{said.splitlines()[0] if said else 'tells no version'} ({path})")


async def _node(runtime: Cri, networkless: str = "") -> list[Check]:
    """What the engine itself says; `networkless` is added to why there is no network."""
    answer = await runtime.status(cri.StatusRequest(verbose=True))
    found = []
    for condition in answer.status.conditions:
        subject = {"RuntimeReady": "runtime", "NetworkReady": "network"}.get(condition.type, condition.type)
        if condition.status:
            found.append(Check(subject, OK, condition.message or "ready"))
        elif condition.type == "NetworkReady":
            found.append(Check(subject, WARNING, condition.message + networkless))
        else:
            found.append(Check(subject, MISSING, condition.message))
    for name, reason in handlers_of(answer).items():
        if name:
            found.append(Check(f"handler {name}", WARNING if reason else OK, reason or "can run pods"))
    return found


async def _repair(repair: Callable[[Orphan], Awaitable[None]], orphans: Sequence[Orphan]) -> dict[str, str]:
    """Remove each; what could not be removed, by its name, with the reason."""
    failures = {}
    for orphan in orphans:
        try:
            await repair(orphan)
        except (PodwrightError, OSError) as error:
            failures[orphan.name] = str(error)
    return failures


def _print(
    checks: Sequence[Check],
    orphans: Sequence[Orphan],
    failures: dict[str, str],
    fix: bool,
    output: Format,
) -> None:
    def fate(orphan: Orphan) -> str:
        return failures.get(orphan.name, "removed") if fix else "left"

    if output is Format.JSON:
        json(
            {
                "checks": [
                    {"subject": check.subject, "state": check.state, "note": check.note} for check in checks
                ],
                "orphans": [
                    {"kind": one.kind, "name": one.name, "note": one.note, "fate": fate(one)}
                    for one in orphans
                ],
            }
        )
        return
    table(("SUBJECT", "STATE", "NOTE"), [(check.subject, check.state, check.note) for check in checks])
    if orphans:
        print()
        rows = [(one.kind, one.name, one.note, fate(one)) for one in orphans]
        table(("ORPHAN", "NAME", "NOTE", "FATE"), rows)
        if not fix:
            print("\n`podwright doctor --fix` removes them.")
