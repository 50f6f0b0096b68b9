"""Which network configuration counts, and why another does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podwright.network import conflist
from podwright.network.conflist import BadNetwork

BRIDGE = {"type": "bridge", "ipam": {"type": "host-local"}}


def _list(name: str = "net", version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": name, "plugins": [BRIDGE], **more}


def _put(directory: Path, **files: Any) -> None:
    for name, tree in files.items():
        text = tree if isinstance(tree, str) else json.dumps(tree)
        (directory / name.replace("__", "-").replace("_", ".")).write_text(text)


def test_no_files_is_no_network_and_an_absent_directory_too(tmp_path: Path) -> None:
    _put(tmp_path, readme_txt="x", a_conflist_bak="{}")
    assert conflist.load_directory(tmp_path) is None
    assert conflist.load_directory(tmp_path / "absent") is None


def test_the_first_valid_file_in_lexical_order_wins(tmp_path: Path) -> None:
    _put(
        tmp_path,
        **{
            "00__broken_conflist": "{",
            "10__old_conflist": _list("old", version="0.2.0"),
            "20__single_conf": {"cniVersion": "0.3.1", "name": "single", "type": "ptp", "mtu": 1400},
            "30__list_conflist": _list("list"),
        },
    )
    network = conflist.load_directory(tmp_path)
    assert network is not None
    assert (network.name, network.version, network.plugin_types) == ("single", "0.3.1", ["ptp"])
    assert network.plugins[0]["mtu"] == 1400


def test_files_without_a_valid_one_are_an_error_that_names_each(tmp_path: Path) -> None:
    _put(tmp_path, a_conf="[]", b_json={"name": "x", "cniVersion": "1.0.0"})
    with pytest.raises(BadNetwork) as error:
        conflist.load_directory(tmp_path)
    assert str(error.value).startswith(f"no valid network configuration in {tmp_path}: ")
    assert "a.conf: it is not a JSON object" in str(error.value)
    assert "b.json: a plugin's type None is not the name of a program" in str(error.value)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (_list(name="-x"), "name '-x'"),
        (_list(name="a/b"), "name 'a/b'"),
        ({"cniVersion": "1.0.0", "plugins": [BRIDGE]}, "name None"),
        (_list(version="2.0.0"), r"its cniVersion \(2.0.0\) is none of"),
        ({"name": "n", "plugins": [BRIDGE]}, r"its cniVersion \(none\) is none of"),
        ({"name": "n", "cniVersion": "1.0.0", "plugins": []}, "lists no plugins"),
        ({"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "../sh"}]}, "not the name of a program"),
    ],
)
def test_faults_are_named(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(BadNetwork, match=words):
        conflist.parse(tree, "file")


def test_the_newest_version_offered_is_spoken() -> None:
    tree = _list(version="0.4.0", cniVersions=["0.3.1", "1.0.0", "9.0.0"])
    network = conflist.parse(tree)
    assert network.version == "1.0.0"
    assert network.at_least("0.4.0") and not network.at_least("1.1.0")


def test_plugins_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    _put(tmp_path, net_conflist=_list())
    (tmp_path / "net").mkdir()
    _put(tmp_path / "net", b_conf={"type": "tuning"}, a_conf={"type": "portmap"})
    network = conflist.load_directory(tmp_path)
    assert network is not None
    assert network.plugin_types == ["bridge", "portmap", "tuning", "host-local"]
    _put(tmp_path, net_conflist=_list(loadOnlyInlinedPlugins=True))
    network = conflist.load_directory(tmp_path)
    assert network is not None
    assert network.plugin_types == ["bridge", "host-local"]


def test_a_network_survives_being_written_and_read() -> None:
    network = conflist.parse(_list(disableCheck="true", disableGC=True))
    assert network.disable_check and network.disable_gc
    assert conflist.parse(network.to_json()) == network


def test_a_plugin_reads_only_what_it_declares() -> None:
    network = conflist.parse(_list())
    plugin = {
        "type": "x",
        "name": "own",
        "capabilities": {"portMappings": True, "dns": False, "ipRanges": True},
    }
    arguments = {"portMappings": [1], "dns": {}}
    assert conflist.plugin_input(network, plugin, arguments, {"ips": []}) == {
        **plugin,
        "name": "net",
        "cniVersion": "1.0.0",
        "runtimeConfig": {"portMappings": [1]},
        "prevResult": {"ips": []},
    }
    assert "runtimeConfig" not in conflist.plugin_input(network, {"type": "x"}, arguments)
    assert (
        conflist.declared_args([plugin, {"type": "y", "capabilities": {"dns": True}}], arguments) == arguments
    )
