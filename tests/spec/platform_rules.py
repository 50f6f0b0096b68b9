"""The OCI runtime specification's rules for the sections that podwright writes for Windows and Darwin.

From runtime-spec 1.3: config.md, config-windows.md and the JSON schema beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Json = Any

UINT16, UINT32, UINT64 = 2**16 - 1, 2**32 - 1, 2**64 - 1

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_WINDOWS_ABSOLUTE = re.compile(r"([A-Za-z]:[\\/]|[\\/])")
_TOP = {"ociVersion", "process", "mounts", "annotations", "hostname", "root", "windows"}


def check_common(spec: Mapping[str, Json]) -> None:
    assert set(spec) <= _TOP
    assert _VERSION.fullmatch(spec["ociVersion"])
    process = spec["process"]
    assert set(process) <= {"args", "commandLine", "env", "cwd", "terminal", "user"}
    assert process["cwd"]
    _strings(process.get("env", []))
    assert isinstance(process.get("terminal", False), bool)
    for mount in spec["mounts"]:
        assert set(mount) <= {"destination", "source", "options", "type"}
        assert mount["destination"]
        assert mount["source"]
        _strings(mount.get("options", []))
    for key, value in spec["annotations"].items():
        assert key
        assert isinstance(value, str)


def check_windows(spec: Mapping[str, Json]) -> None:
    """But for `root`, which Windows shims do not want beside the layer folders."""
    check_common(spec)
    process = spec["process"]
    # One of them is required, and args wins where both are: the spec says so, the shim does otherwise.
    assert ("args" in process) != ("commandLine" in process)
    assert process.get("args", [None])
    assert isinstance(process.get("commandLine", ""), str)
    assert isinstance(process["user"].get("username", ""), str)
    assert _is_windows_path(process["cwd"])
    for mount in spec["mounts"]:
        assert mount.get("type", "bind") == "bind"
        assert mount["source"].startswith("\\\\.\\pipe\\") or _is_windows_path(mount["destination"])
    windows = spec["windows"]
    _members(
        windows,
        layerFolders=_layers,
        devices=_each(id=_string, idType=_string),
        resources=lambda entry: _members(entry, memory=_memory, cpu=_cpu, storage=_storage),
        network=lambda entry: _members(entry, networkNamespace=_string),
        credentialSpec=_string,
        servicing=_boolean,
        ignoreFlushesDuringBoot=_boolean,
        hyperv=lambda entry: _members(entry, utilityVMPath=_string),
    )
    assert "layerFolders" in windows


def check_darwin(spec: Mapping[str, Json]) -> None:
    check_common(spec)
    assert "windows" not in spec
    assert spec["process"]["cwd"].startswith("/")
    assert set(spec["process"]["user"]) == {"uid", "gid"}
    assert isinstance(spec["root"]["path"], str)
    for mount in spec["mounts"]:
        assert mount["destination"].startswith("/")


def _is_windows_path(path: str) -> bool:
    """Absolute, or a bare drive."""
    return bool(_WINDOWS_ABSOLUTE.match(path)) or path[1:2] == ":"


def _members(section: Mapping[str, Json], **checks: Callable[[Json], object]) -> None:
    assert set(section) <= set(checks)
    for name, value in section.items():
        checks[name](value)


def _each(**checks: Callable[[Json], object]) -> Callable[[Json], None]:
    def check(entries: Json) -> None:
        for entry in entries:
            _members(entry, **checks)

    return check


def _layers(folders: Json) -> None:
    assert len(folders) >= 1
    for folder in folders:
        assert _WINDOWS_ABSOLUTE.match(folder)


def _memory(section: Mapping[str, Json]) -> None:
    _members(section, limit=_unsigned(UINT64))


def _cpu(section: Mapping[str, Json]) -> None:
    _members(
        section,
        count=_unsigned(UINT64),
        shares=_unsigned(UINT16),
        maximum=_unsigned(10_000),
        affinity=_each(mask=_unsigned(UINT64), group=_unsigned(UINT32)),
    )


def _storage(section: Mapping[str, Json]) -> None:
    _members(section, iops=_unsigned(UINT64), bps=_unsigned(UINT64), sandboxSize=_unsigned(UINT64))


def _unsigned(most: int) -> Callable[[Json], None]:
    def check(value: Json) -> None:
        assert type(value) is int
        assert 0 <= value <= most

    return check


def _string(value: Json) -> None:
    assert isinstance(value, str)


def _boolean(value: Json) -> None:
    assert isinstance(value, bool)


def _strings(values: Json) -> None:
    for value in values:
        assert isinstance(value, str)
