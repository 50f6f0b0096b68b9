"""CNI network configurations: reading, checking and choosing them. Runs no plugin.

A directory's files are tried in lexical order; the first valid one is the network. Both forms are taken:
a list of plugins, and a single plugin, which is a list of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from podwright.errors import FailedPrecondition

SUFFIXES = (".conf", ".conflist", ".json")

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""The specification versions spoken here, oldest first. Older ones have another result format."""

Json = Any


@dataclass(frozen=True, slots=True)
class Network:
    """A checked configuration."""

    name: str
    version: str
    plugins: tuple[Mapping[str, Json], ...]
    disable_check: bool = False
    disable_gc: bool = False
    source: str = ""
    """The file it comes from, for people."""

    def at_least(self, version: str) -> bool:
        return VERSIONS.index(self.version) >= VERSIONS.index(version)

    @property
    def plugin_types(self) -> list[str]:
        """The programs it needs, those of the address management included."""
        types = [str(plugin["type"]) for plugin in self.plugins]
        for plugin in self.plugins:
            ipam = plugin.get("ipam")
            if isinstance(ipam, Mapping) and isinstance(ipam.get("type"), str):
                types.append(ipam["type"])
        return list(dict.fromkeys(types))

    def to_json(self) -> dict[str, Json]:
        """The conflist that `parse` turns into an equal Network."""
        return {
            "cniVersion": self.version,
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": list(self.plugins),
        }


class BadNetwork(FailedPrecondition):
    """A network configuration that cannot be used; the message says why."""


def load_directory(directory: Path) -> Network | None:
    """The first valid configuration of `directory`; None when it has no configuration files at all.

    Raises BadNetwork with every file's fault when there are files and none is valid.
    """
    faults: list[str] = []
    for file in files(directory):
        try:
            return load_file(file)
        except BadNetwork as error:
            faults.append(str(error))
    if faults:
        raise BadNetwork(f"no valid network configuration in {directory}: " + "; ".join(faults))
    return None


def files(directory: Path) -> list[Path]:
    """The configuration files of `directory` in lexical order; none when it is absent."""
    try:
        return sorted(each for each in directory.iterdir() if each.suffix in SUFFIXES and not each.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def load_file(file: Path) -> Network:
    """The configuration of one file, and of the directory of single plugins beside it when it wants that.

    Raises BadNetwork.
    """
    tree = _read(file)
    if "plugins" not in tree and file.suffix != ".conflist":
        tree = {"name": tree.get("name"), "cniVersion": tree.get("cniVersion"), "plugins": [tree]}
    elif not tree.get("loadOnlyInlinedPlugins", False) and isinstance(tree.get("name"), str):
        # Since CNI 1.1 plugins may also stand in files of their own, in a directory named as the network.
        extra = (
            [_read(each) for each in files(file.parent / tree["name"])]
            if _NAME.fullmatch(tree["name"])
            else []
        )
        tree["plugins"] = [*(tree.get("plugins") or []), *extra]
    return parse(tree, str(file))


def parse(tree: Mapping[str, Json], source: str = "") -> Network:
    """The Network of a conflist. Raises BadNetwork that names `source` and the fault."""
    name, plugins = tree.get("name"), tree.get("plugins")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadNetwork(f"{source}: the network's name {name!r} must be letters, digits, '_', '.' or '-'")
    if not isinstance(plugins, list) or not plugins:
        raise BadNetwork(f"{source}: it lists no plugins")
    for plugin in plugins:
        type = plugin.get("type") if isinstance(plugin, Mapping) else None
        if not isinstance(type, str) or not type or "/" in type or type.startswith("."):
            raise BadNetwork(f"{source}: a plugin's type {type!r} is not the name of a program")
    return Network(
        name=name,
        version=_version(tree, source),
        plugins=tuple(plugins),
        disable_check=_flag(tree, "disableCheck"),
        disable_gc=_flag(tree, "disableGC"),
        source=source,
    )


def plugin_input(
    network: Network,
    plugin: Mapping[str, Json],
    capability_args: Mapping[str, Json],
    previous: Mapping[str, Json] | None = None,
    extra: Mapping[str, Json] | None = None,
) -> dict[str, Json]:
    """What `plugin` reads on its standard input: its configuration with the runtime's additions."""
    tree = {**plugin, "name": network.name, "cniVersion": network.version, **(extra or {})}
    if granted := granted_args(plugin, capability_args):
        tree["runtimeConfig"] = granted
    if previous is not None:
        tree["prevResult"] = previous
    return tree


def granted_args(plugin: Mapping[str, Json], capability_args: Mapping[str, Json]) -> dict[str, Json]:
    """Those of the arguments whose capability the plugin's configuration declares."""
    declared = plugin.get("capabilities")
    if not isinstance(declared, Mapping):
        return {}
    return {name: capability_args[name] for name, on in declared.items() if on and name in capability_args}


def declared_args(
    plugins: Sequence[Mapping[str, Json]], capability_args: Mapping[str, Json]
) -> dict[str, Json]:
    """Those of the arguments that at least one plugin gets."""
    kept: dict[str, Json] = {}
    for plugin in plugins:
        kept.update(granted_args(plugin, capability_args))
    return kept


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _read(file: Path) -> dict[str, Json]:
    try:
        tree = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise BadNetwork(f"{file}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise BadNetwork(f"{file}: {error}") from error
    if not isinstance(tree, dict):
        raise BadNetwork(f"{file}: it is not a JSON object")
    return tree


def _version(tree: Mapping[str, Json], source: str) -> str:
    """The newest version that the configuration offers and we speak."""
    offered = tree.get("cniVersions")
    wanted = [tree.get("cniVersion"), *(offered if isinstance(offered, list) else [])]
    known = [version for version in VERSIONS if version in wanted]
    if not known:
        said = ", ".join(str(version) for version in wanted if version) or "none"
        raise BadNetwork(f"{source}: its cniVersion ({said}) is none of {', '.join(VERSIONS)}")
    return known[-1]


def _flag(tree: Mapping[str, Json], key: str) -> bool:
    """The specification allows the words "true" and "false" beside JSON's own."""
    return tree.get(key) in (True, "true")
