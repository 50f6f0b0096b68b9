"""What a handler is to containerd: the name of its shim, the options of its tasks, its snapshotter, who holds
its pods together."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage

from podwright.config import Config, HandlerConfig
from podwright.engines.containerd.api import any_of
from podwright.engines.node.places import Places
from podwright.engines.node.runtime_features import kind_of
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.wire.containerd import runc_pb2, runtimeoptions_pb2

RUNC, RUNSC = "io.containerd.runc.v2", "io.containerd.runsc.v1"
CALLED = {RUNC: "runc", RUNSC: "runsc"}
"""Shims that call a runtime, and which when `path` does not say."""
RUNSC_OPTIONS = f"{RUNSC}.options"
"""What gVisor's shim wants its options to be called."""
PODSANDBOX, SHIM = "podsandbox", "shim"
OWN_KERNEL = ("runsc", "kata", "firecracker")
"""Beginnings of the names of shims whose processes are not processes of this host's kernel."""


@dataclass(frozen=True, slots=True)
class Shim:
    """One handler, as containerd runs its containers. A node.runtimes.Runtime."""

    handler: str
    runtime_type: str
    """Container.runtime.name."""
    program: str
    """Absolute path: of the runtime that the shim for runc calls, of the shim itself for others."""
    snapshotter: str
    sandboxer: str
    """PODSANDBOX or SHIM."""
    kind: str
    """"crun", "runc", "runsc", "kata", …"""
    sandboxed: bool
    """Its processes are not processes of this host's kernel."""
    options: AnyMessage | None
    """Container.runtime.options."""
    privileged_without_host_devices: bool = False

    @property
    def calls_runc(self) -> bool:
        """It is containerd's own, for `program`."""
        return known_by(self.runtime_type) == RUNC


def runtime_type(handler: HandlerConfig) -> str:
    if handler.runtime_type:
        return handler.runtime_type
    return RUNSC if kind_of(handler.path) == "runsc" else RUNC


def known_by(name: str) -> str:
    """The name of a runtime type that may be the path of its shim:
    "/opt/containerd-shim-runc-v2" -> "io.containerd.runc.v2"."""
    if not name.startswith("/"):
        return name
    kind, _, version = Path(name).name.removeprefix("containerd-shim-").rpartition("-")
    return f"io.containerd.{kind}.{version}"


def binary(name: str) -> str:
    """The program that containerd starts for a runtime: "io.containerd.kata.v2" -> "containerd-shim-kata-v2".
    InvalidArgument for a name without one."""
    if name.startswith("/"):
        return name
    parts = name.split(".")
    if len(parts) < 2 or not all(parts):
        raise InvalidArgument(
            "runtime_type", f'{name!r} is neither a name such as "{RUNC}" nor the path of a shim'
        )
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


def shim_of(config: Config, name: str, places: Places, path: str | None) -> Shim:
    """The shim of handler `name`. `path` is where containerd looks for shims; None: nothing is looked for, as
    for one that cannot work here. FailedPrecondition, InvalidArgument with what is missing or wrong."""
    handler = config.handlers[name]
    kind_of_shim = runtime_type(handler)
    known = known_by(kind_of_shim)
    shim = binary(kind_of_shim)
    if path is not None:
        found = shutil.which(shim, path=path)
        if found is None:
            raise FailedPrecondition(
                f"{shim}, the shim of {kind_of_shim}, is not where containerd looks: {path}"
            )
        shim = found
    calls = known in CALLED
    program = _called(handler) if calls else shim
    if calls and path is not None:
        found = shutil.which(program)
        if found is None:
            raise FailedPrecondition(f"{program} is not installed")
        program = str(Path(found).absolute())
    kind = kind_of(program) if calls else _name(kind_of_shim)
    return Shim(
        handler=name,
        runtime_type=kind_of_shim,
        program=program,
        snapshotter=handler.snapshotter or config.containerd.snapshotter,
        sandboxer=handler.sandboxer or PODSANDBOX,
        kind=kind,
        sandboxed=handler.virtual_machine or kind.startswith(OWN_KERNEL),
        options=_options(config, handler, known, program, _file(places, name)),
        privileged_without_host_devices=handler.privileged_without_host_devices,
    )


def write_settings(config: Config, places: Places) -> None:
    """The files that `Shim.options` name, for shims that take theirs from a file."""
    for name, handler in config.handlers.items():
        if known_by(runtime_type(handler)) == RUNSC and not handler.runtime_config:
            file = _file(places, name)
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.write_text(_runsc_settings(handler))


def _options(
    config: Config, handler: HandlerConfig, kind: str, program: str, file: Path
) -> AnyMessage | None:
    if kind == RUNC:
        if handler.options:
            raise FailedPrecondition(
                f"options {handler.options}: containerd's shim passes none on to {program}; let `path`"
                " be a script that calls it with them"
            )
        return any_of(runc_pb2.Options(binary_name=program, systemd_cgroup=config.cgroup_driver == "systemd"))
    if kind == RUNSC:
        path = handler.runtime_config or str(file)
        return any_of(runtimeoptions_pb2.Options(type_url=RUNSC_OPTIONS, config_path=path))
    if handler.runtime_config:
        return any_of(runtimeoptions_pb2.Options(config_path=handler.runtime_config))
    return None


def _runsc_settings(handler: HandlerConfig) -> str:
    """containerd-shim-runsc-v1's configuration, TOML: flags of runsc go by their names."""
    flags = [each.lstrip("-").partition("=") for each in handler.options]
    settings = [(name, value if equals else "true") for name, equals, value in flags]
    # A JSON string is a TOML string, too.
    lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in settings]
    program = json.dumps(shutil.which(_called(handler)) or _called(handler))
    return "\n".join((f"binary_name = {program}", "[runsc_config]", *lines, ""))


def _called(handler: HandlerConfig) -> str:
    """The runtime that a shim calls which takes one."""
    return handler.path or CALLED[known_by(runtime_type(handler))]


def _file(places: Places, handler: str) -> Path:
    return places.runtime_root(handler) / "shim.toml"


def _name(kind: str) -> str:
    """ "io.containerd.kata-qemu.v2" -> "kata-qemu"; of a path the program's own name."""
    return Path(kind).name.removeprefix("containerd-shim-") if kind.startswith("/") else kind.split(".")[-2]
