"""Reads what the administrator laid down for specs: the configuration's values, and the files it names."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import iglob
from pathlib import Path

from podwright.config import Config, SpecConfig
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec import base_spec, blockio, cdi, oci_hooks, quantities, rdt, rlimits
from podwright.spec.inputs import HandlerOptions, Policy
from podwright.spec.selinux import SELinux, parse_contexts

log = logging.getLogger(__name__)

_SELINUX_FS = Path("/sys/fs/selinux/enforce")
_SELINUX = Path("/etc/selinux")
_RESCTRL = Path("/sys/fs/resctrl/schemata")
_ZONES = Path("/usr/share/zoneinfo")
_LOCALTIME = Path("/etc/localtime")


def policy(config: Config) -> Policy:
    """FailedPrecondition for a value that means nothing; it names the setting."""
    settings = config.spec
    try:
        umask = int(settings.umask, 8) if settings.umask else None
        if umask is not None and not 0 <= umask <= 0o777:
            raise ValueError
    except ValueError:
        raise FailedPrecondition(
            f"configuration spec.umask: {settings.umask!r} is no umask, such as 022"
        ) from None
    try:
        ulimits = rlimits.parse_settings(settings.default_ulimits, "spec.default_ulimits")
        shm_size = quantities.parse(settings.shm_size, "spec.shm_size")
    except InvalidArgument as error:
        raise FailedPrecondition(f"configuration {error}") from error
    if shm_size <= 0:
        raise FailedPrecondition(f"configuration spec.shm_size: {settings.shm_size!r} is no size above 0")
    return Policy(
        restrict_oom_score_adj=config.restrict_oom_score_adj,
        disable_proc_mount=settings.disable_proc_mount,
        unset_seccomp_profile=settings.unset_seccomp_profile,
        seccomp_root=config.seccomp_root,
        device_ownership_from_security_context=settings.device_ownership_from_security_context,
        unprivileged_ports=settings.enable_unprivileged_ports,
        unprivileged_icmp=settings.enable_unprivileged_icmp,
        hugepages=settings.hugepages,
        tolerate_missing_hugetlb=settings.tolerate_missing_hugetlb_controller,
        ignore_blockio_not_enabled=settings.ignore_blockio_not_enabled_errors,
        ignore_rdt_not_enabled=settings.ignore_rdt_not_enabled_errors,
        image_volumes=not settings.ignore_image_defined_volumes,
        absent_mount_sources_to_reject=tuple(settings.absent_mount_sources_to_reject),
        pids_limit=settings.pids_limit,
        default_ulimits=ulimits,
        umask=umask,
        shm_size=shm_size,
        read_only_rootfs=settings.read_only_rootfs,
        gomaxprocs=settings.gomaxprocs,
        systemd=settings.systemd,
        pause_cpuset=settings.pause_cpuset,
        additional_devices=tuple(settings.additional_devices),
        allowed_devices=tuple(settings.allowed_devices),
        unlabel_host_namespaces=settings.selinux_unlabel_host_namespaces,
        shared_relabel=settings.selinux_shared_relabel,
    )


def handler_options(config: Config, name: str, sandboxed: bool = False) -> HandlerOptions:
    """What the configuration says of a handler ("": the default one); the base spec is not among it."""
    name = name or config.default_handler
    given = config.handlers[name]
    return HandlerOptions(
        name=name,
        privileged_without_host_devices=given.privileged_without_host_devices,
        privileged_without_host_devices_all_devices_allowed=(
            given.privileged_without_host_devices_all_devices_allowed
        ),
        cgroup_writable=given.cgroup_writable,
        pod_annotations=tuple(given.pod_annotations),
        container_annotations=tuple(given.container_annotations),
        allowed_annotations=tuple(given.allowed_annotations),
        minimum_memory=given.minimum_memory,
        virtual_machine=given.virtual_machine,
        type_annotations=not sandboxed,
        own_kernel=sandboxed,
    )


def base_specs(config: Config) -> Mapping[str, base_spec.BaseSpec]:
    """The base spec of each handler that has one. FailedPrecondition when a file cannot be used."""
    found = {}
    for name, handler in config.handlers.items():
        if handler.base_runtime_spec:
            setting = f"handlers.{name}.base_runtime_spec"
            with _configured(setting):
                found[name] = base_spec.parse(_read(handler.base_runtime_spec), handler.base_runtime_spec)
    return found


def cdi_registry(directories: Sequence[str]) -> cdi.Registry:
    """The devices of all files in `directories`, as they are now; a directory may be missing."""
    files = _files(directories, (".json", ".yaml", ".yml"))
    return cdi.Registry.build(cdi.File(path, place, text) for path, place, text in files)


def hooks(directories: Sequence[str]) -> tuple[oci_hooks.Hook, ...]:
    """FailedPrecondition for a file that is no hook, or whose program is missing: leaving out what somebody
    wants to run for every container is no choice."""
    files = _files(directories, (".json",))
    found, errors = oci_hooks.load(oci_hooks.File(path, place, text) for path, place, text in files)
    for error in errors.values():
        raise FailedPrecondition(f"configuration spec.hooks_dirs: {error}")
    for hook in found:
        if not os.access(hook.entry["path"], os.X_OK):
            raise FailedPrecondition(
                f"configuration spec.hooks_dirs: {hook.path}: {hook.entry['path']} is no program"
            )
    return found


def blockio_classes(path: str) -> blockio.Classes | None:
    """FailedPrecondition for a file that cannot be used, or names devices that are not there."""
    if not path:
        return None
    with _configured("spec.blockio_config_file"):
        configuration = blockio.parse(_read(path), path)
        return configuration.resolve({each: _block_devices(each) for each in configuration.patterns()})


def rdt_classes(path: str) -> rdt.Classes | None:
    """None, too, on a host without resctrl: requests that name a class are told so."""
    if not path:
        return None
    with _configured("spec.rdt_config_file"):
        classes = rdt.parse(_read(path), path)
    if not _RESCTRL.exists():
        log.warning("rdt_config_file is set, but resctrl is not mounted: there are no RDT classes")
        return None
    return classes


def selinux(settings: SpecConfig) -> SELinux | None:
    """What the host's policy gives to containers. FailedPrecondition when labels are wanted, SELinux is
    enabled, and the policy has none for them."""
    if not settings.selinux:
        return None
    if not _SELINUX_FS.exists():
        log.warning("selinux is on in the configuration, but not on this host: nothing is labelled")
        return None
    file = _SELINUX / _policy_type() / "contexts" / "lxc_contexts"
    with _configured("spec.selinux"):
        return parse_contexts(_read(str(file)).decode(), str(file))


def localtime(timezone: str) -> str:
    """The file that is /etc/localtime in the time zone: "local", or a name. FailedPrecondition for others."""
    if not timezone:
        return ""
    file = Path(os.path.realpath(_LOCALTIME if timezone == "local" else _ZONES / timezone))
    inside = timezone == "local" or file.is_relative_to(_ZONES)
    if not inside or not file.is_file():
        raise FailedPrecondition(
            f"configuration spec.timezone: {timezone!r} is neither local nor a file below {_ZONES}"
        )
    return str(file)


def _files(directories: Sequence[str], endings: tuple[str, ...]) -> Iterator[tuple[str, int, bytes]]:
    for place, directory in enumerate(directories):
        try:
            files = sorted(Path(directory).iterdir())
        except OSError:
            continue  # vendors make it when they come
        for file in files:
            if file.name.endswith(endings) and not file.name.startswith("."):
                try:
                    yield str(file), place, file.read_bytes()
                except OSError as error:
                    log.warning("%s cannot be read: %s", file, error.strerror)


@contextmanager
def _configured(setting: str) -> Iterator[None]:
    """What is wrong with a file that the configuration names is wrong with the configuration."""
    try:
        yield
    except InvalidArgument as error:
        raise FailedPrecondition(f"configuration {setting}: {error}") from error
    except OSError as error:
        raise FailedPrecondition(
            f"configuration {setting}: cannot read {error.filename}: {error.strerror}"
        ) from error


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _block_devices(pattern: str) -> list[tuple[int, int]]:
    found = []
    for path in sorted(iglob(pattern)):  # noqa: PTH207 - an absolute pattern
        status = Path(path).stat()
        if stat.S_ISBLK(status.st_mode):
            found.append((os.major(status.st_rdev), os.minor(status.st_rdev)))
    return found


def _policy_type() -> str:
    """The policy's name in /etc/selinux/config (selinux_config(5))."""
    try:
        lines = (_SELINUX / "config").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition("=")
        if name.strip() == "SELINUXTYPE":
            return value.strip()
    return "targeted"
