"""The Container Device Interface: spec files, and the registry of the devices that they define.

A vendor's file (CDI specification 0.3.0 to 1.1.0, JSON or YAML) says what a container needs to use a
device. Reading directories is the engine's; here texts become a registry, and the registry answers names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from podwright import structs
from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri

ANNOTATION_PREFIX = "cdi.k8s.io/"
HOOK_STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_VENDOR = re.compile(r"[a-zA-Z]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?", re.ASCII)
_CLASS = _VENDOR
_DEVICE = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.:-]*[a-zA-Z0-9])?", re.ASCII)


class _Member(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="camel"):
    """Unknown members make a file invalid: what it asks for cannot be left out in silence."""


class DeviceNode(_Member, frozen=True, kw_only=True):
    path: str
    host_path: str = ""
    type: str = ""
    """"b", "c", "u", "p"; "": the host's node tells."""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class Mount(_Member, frozen=True, kw_only=True):
    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class Hook(_Member, frozen=True, kw_only=True):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class IntelRdt(_Member, frozen=True, kw_only=True):
    clos_id: str = msgspec.field(default="", name="closID")
    l3_cache_schema: str = msgspec.field(default="", name="l3CacheSchema")
    mem_bw_schema: str = ""
    schemata: list[str] | None = None
    enable_cmt: bool = msgspec.field(default=False, name="enableCMT")
    enable_mbm: bool = msgspec.field(default=False, name="enableMBM")
    enable_monitoring: bool = False


class NetDevice(_Member, frozen=True, kw_only=True):
    host_interface_name: str
    name: str


class Edits(_Member, frozen=True, kw_only=True):
    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    net_devices: list[NetDevice] = []
    hooks: list[Hook] = []
    mounts: list[Mount] = []
    intel_rdt: IntelRdt | None = None
    additional_gids: list[int] = []


class Device(_Member, frozen=True, kw_only=True):
    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits


class Spec(_Member, frozen=True, kw_only=True):
    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: list[Device]
    container_edits: Edits = Edits()


class File(NamedTuple):
    """The text of one file of a CDI directory."""

    path: str
    priority: int
    """Place of its directory in the configuration: a device of a later one hides that of an earlier one."""
    text: bytes


class Found(NamedTuple):
    """A device of the registry."""

    name: str
    """VENDOR/CLASS=DEVICE."""
    edits: Edits
    common: Edits
    """What every device of the same file needs."""
    path: str
    """Of its file."""


@dataclass(frozen=True, slots=True)
class Registry:
    """The devices of all files, by qualified name."""

    devices: Mapping[str, Found] = field(default_factory=lambda: MappingProxyType({}))
    errors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Why a file, or a device (by its name), cannot be used."""

    @classmethod
    def build(cls, files: Iterable[File]) -> Registry:
        """Invalid files are left out, with a note in `errors`; so is a device that two files of the same
        directory define, for nobody can tell which of them is meant."""
        best: dict[str, tuple[int, Found]] = {}
        errors: dict[str, str] = {}
        for file in sorted(files, key=lambda each: (each.priority, each.path)):
            try:
                spec = parse(file.text, file.path)
            except InvalidArgument as error:
                errors[file.path] = str(error)
                continue
            for device in spec.devices:
                name = f"{spec.kind}={device.name}"
                found = Found(name, device.container_edits, spec.container_edits, file.path)
                other = best.get(name)
                if other and other[0] == file.priority:
                    errors[name] = f"is defined by {other[1].path} and by {file.path} of the same directory"
                else:
                    errors.pop(name, None)
                best[name] = (file.priority, found)
        return cls({name: found for name, (_, found) in best.items() if name not in errors}, errors)

    def resolve(self, names: Iterable[str]) -> list[Found]:
        """InvalidArgument that names all devices which cannot be had, and says why."""
        found: list[Found] = []
        missing: list[str] = []
        for name in names:
            device = self.devices.get(name)
            if device:
                found.append(device)
            else:
                missing.append(f"{name} ({self._why(name)})")
        if missing:
            raise InvalidArgument("config.CDI_devices", f"unresolvable CDI devices {', '.join(missing)}")
        return found

    def _why(self, name: str) -> str:
        if name in self.errors:
            return self.errors[name]
        kind = name.partition("=")[0]
        known = sorted(each.partition("=")[2] for each in self.devices if each.partition("=")[0] == kind)
        if known:
            return f"{kind} has {', '.join(known[:10])}{', …' if len(known) > 10 else ''}"
        broken = [f"{path}: {error}" for path, error in self.errors.items() if path.startswith("/")]
        return "; ".join([f"no CDI file defines {kind}", *broken])


def requested(config: cri.ContainerConfig) -> list[tuple[str, str]]:
    """Qualified names of the CDI devices of a request, each once, with the field that asks first: the
    CRI's own field, then the annotations "cdi.k8s.io/…" in the order of their keys.

    Raises InvalidArgument for what is no qualified name.
    """
    asked: dict[str, str] = {}
    for place, device in enumerate(config.CDI_devices):
        asked.setdefault(_qualified(device.name, f"config.CDI_devices[{place}]"), f"CDI_devices[{place}]")
    for key in sorted(key for key in config.annotations if key.startswith(ANNOTATION_PREFIX)):
        for name in config.annotations[key].split(","):
            asked.setdefault(_qualified(name, f"config.annotations[{key}]"), f"annotations[{key}]")
    return list(asked.items())


def host_paths(found: Iterable[Found]) -> list[str]:
    """Device nodes of the host that the edits of these devices leave to be looked up."""
    nodes = (
        node for device in found for edits in (device.common, device.edits) for node in edits.device_nodes
    )
    return list(dict.fromkeys(node.host_path or node.path for node in nodes if needs_host(node)))


def needs_host(node: DeviceNode) -> bool:
    """Whether the file leaves out what only the host's own node can tell."""
    return not node.type or (not node.major and node.type != "p")


def parse(text: bytes, path: str) -> Spec:
    """One file. Raises InvalidArgument that names the file and what is wrong."""
    import yaml  # few nodes have such files, and each server would keep it in memory

    try:
        tree = msgspec.json.decode(text) if path.endswith(".json") else yaml.safe_load(text)
        spec = structs.convert(tree, Spec)
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(path, f"is no CDI spec: {error}") from error
    for problem in _problems(spec):
        raise InvalidArgument(path, problem)
    return spec


def _qualified(name: str, field: str) -> str:
    kind, equals, device = name.partition("=")
    vendor, slash, class_ = kind.partition("/")
    if (
        equals
        and slash
        and _VENDOR.fullmatch(vendor)
        and _CLASS.fullmatch(class_)
        and _DEVICE.fullmatch(device)
    ):
        return name
    raise InvalidArgument(field, f"{name!r} is no CDI device name: it must be VENDOR/CLASS=DEVICE")


def _problems(spec: Spec) -> Iterator[str]:
    if spec.cdi_version.removeprefix("v") not in _VERSIONS:
        yield f"cdiVersion {spec.cdi_version!r} is none of {', '.join(_VERSIONS)}"
        return
    needed, member = _needed_version(spec)
    if _VERSIONS.index(spec.cdi_version.removeprefix("v")) < _VERSIONS.index(needed):
        yield f"cdiVersion must be at least {needed}, because of {member}"
    vendor, slash, class_ = spec.kind.partition("/")
    if not (slash and _VENDOR.fullmatch(vendor) and _CLASS.fullmatch(class_)):
        yield f"kind {spec.kind!r} is not VENDOR/CLASS"
    if not spec.devices:
        yield "defines no devices"
    names = [device.name for device in spec.devices]
    for device in spec.devices:
        if not _DEVICE.fullmatch(device.name):
            yield f"{device.name!r} is no device name"
        if names.count(device.name) > 1:
            yield f"device {device.name!r} is defined twice"
        if device.container_edits == Edits():
            yield f"device {device.name!r} has empty containerEdits"
    for edits in _all_edits(spec):
        yield from _edit_problems(edits)


def _edit_problems(edits: Edits) -> Iterator[str]:
    for variable in (*edits.env, *(each for hook in edits.hooks for each in hook.env)):
        if variable.find("=") <= 0:
            yield f"env {variable!r} is not NAME=VALUE"
    for node in edits.device_nodes:
        if not node.path.startswith("/"):
            yield f"device path {node.path!r} is not absolute"
        if node.type not in ("", "b", "c", "u", "p"):
            yield f"device {node.path}: type {node.type!r} is none of b, c, u, p"
        if node.permissions != "none" and set(node.permissions) - set("rwm"):
            yield f"device {node.path}: permissions {node.permissions!r} have more than r, w and m"
        numbers = (node.major, node.minor, node.file_mode or 0, node.uid or 0, node.gid or 0)
        if not all(0 <= number < 2**32 for number in numbers):
            yield f"device {node.path}: a number is out of range"
    for hook in edits.hooks:
        if hook.hook_name not in HOOK_STAGES:
            yield f"hookName {hook.hook_name!r} is none of {', '.join(HOOK_STAGES)}"
        if not hook.path.startswith("/"):
            yield f"hook path {hook.path!r} is not absolute"
        if hook.timeout is not None and hook.timeout <= 0:
            yield f"hook {hook.path}: timeout {hook.timeout} is not above 0"
    for mount in edits.mounts:
        if not mount.host_path or not mount.container_path.startswith("/"):
            yield f"mount {mount.host_path!r} at {mount.container_path!r}: two absolute paths are needed"
    if edits.intel_rdt:
        clos = edits.intel_rdt.clos_id
        if clos != "/" and (clos in (".", "..") or "/" in clos or "\n" in clos or len(clos) >= 4096):
            yield f"intelRdt closID {clos!r} is no file name"
    if not all(0 <= gid < 2**32 for gid in edits.additional_gids):
        yield "additionalGids are out of range"


def _needed_version(spec: Spec) -> tuple[str, str]:
    """The oldest version of the specification that has all of this, and the newest member in it."""
    everything = _all_edits(spec)
    rdt = [edits.intel_rdt for edits in everything if edits.intel_rdt]
    uses: Sequence[tuple[str, str, bool]] = (
        ("1.1.0", "netDevices", any(edits.net_devices for edits in everything)),
        ("1.1.0", "intelRdt schemata", any(each.schemata or each.enable_monitoring for each in rdt)),
        ("0.7.0", "intelRdt", bool(rdt)),
        ("0.7.0", "additionalGids", any(edits.additional_gids for edits in everything)),
        ("0.6.0", "annotations", bool(spec.annotations) or any(each.annotations for each in spec.devices)),
        ("0.6.0", "a dot in the class", "." in spec.kind.partition("/")[2]),
        ("0.5.0", "a device name that starts with a digit", any(d.name[:1].isdigit() for d in spec.devices)),
        ("0.5.0", "hostPath", any(node.host_path for edits in everything for node in edits.device_nodes)),
        ("0.4.0", "the type of a mount", any(mount.type for edits in everything for mount in edits.mounts)),
    )
    return next(((version, member) for version, member, used in uses if used), ("0.3.0", ""))


def _all_edits(spec: Spec) -> list[Edits]:
    return [spec.container_edits, *(device.container_edits for device in spec.devices)]
