"""The administrator's files and values, as the engine reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from podwright.config import Config, HandlerConfig, SpecConfig
from podwright.engines.node import host, node_files
from podwright.engines.node.places import Places
from podwright.engines.node.requests import Requests
from podwright.errors import FailedPrecondition
from podwright.spec.inputs import HostFacts
from podwright.spec.rlimits import Rlimit
from podwright.wire import cri_pb2 as cri


def config(**settings: Any) -> Config:
    return Config(spec=SpecConfig(**settings))


def test_the_defaults_change_nothing() -> None:
    policy = node_files.policy(config())
    assert policy.shm_size == 64 << 20
    assert policy.umask is None and not policy.default_ulimits and not policy.additional_devices


def test_values_are_read() -> None:
    policy = node_files.policy(config(umask="027", shm_size="1Gi", default_ulimits=["nofile=1:2"]))
    assert (policy.umask, policy.shm_size) == (0o27, 1 << 30)
    assert policy.default_ulimits == (Rlimit("RLIMIT_NOFILE", 1, 2),)


@pytest.mark.parametrize(
    "settings",
    [{"umask": "9"}, {"umask": "1777"}, {"shm_size": "0"}, {"shm_size": "x"}, {"default_ulimits": ["x=1"]}],
)
def test_values_that_mean_nothing_are_refused_by_their_names(settings: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition, match=f"spec.{next(iter(settings))}"):
        node_files.policy(config(**settings))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="cdi_dirs"):
        msgspec.convert({"spec": {"cdi_dirs": []}}, Config)


def test_a_handler_has_what_its_configuration_says() -> None:
    handler = HandlerConfig(path="crun", pod_annotations=["a/*"], cgroup_writable=True, minimum_memory=9)
    options = node_files.handler_options(Config(handlers={"crun": handler}), "")
    assert options.name == "crun" and options.pod_annotations == ("a/*",)
    assert options.cgroup_writable and options.minimum_memory == 9
    assert options.type_annotations and not options.own_kernel
    assert node_files.handler_options(Config(handlers={"crun": handler}), "crun", sandboxed=True).own_kernel


def test_apparmor_profiles_are_those_that_are_loaded_when_a_container_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators load profiles while the server runs."""
    file = tmp_path / "profiles"
    file.write_text("/usr/bin/man (enforce)\nlsb release (complain)\n")
    monkeypatch.setattr(host, "_APPARMOR_PROFILES", file)
    place = Config(root=str(tmp_path), run=str(tmp_path))
    began = HostFacts(hostname="h", apparmor=True, apparmor_profiles=host.apparmor_profiles())
    requests = Requests(place, Places(place), cast(Any, None), began)
    assert requests.facts(cri.ContainerConfig()).apparmor_profiles == {"/usr/bin/man", "lsb release"}
    file.write_text("late (enforce)\n")
    assert requests.facts(cri.ContainerConfig()).apparmor_profiles == {"late"}
    without = Requests(place, Places(place), cast(Any, None), HostFacts(hostname="h"))
    assert not without.facts(cri.ContainerConfig()).apparmor_profiles


def test_base_specs_are_read_for_their_handlers(tmp_path: Path) -> None:
    file = tmp_path / "base.json"
    file.write_text('{"ociVersion": "1.0.2"}')
    handlers = {"a": HandlerConfig(path="crun", base_runtime_spec=str(file)), "b": HandlerConfig(path="crun")}
    found = node_files.base_specs(Config(handlers=handlers, default_handler="a"))
    assert {name: spec.spec for name, spec in found.items()} == {"a": {"ociVersion": "1.0.2"}}
    file.write_text("{")
    with pytest.raises(FailedPrecondition, match=r"handlers\.a\.base_runtime_spec.*base\.json"):
        node_files.base_specs(Config(handlers=handlers))
    file.unlink()
    with pytest.raises(FailedPrecondition, match=r"handlers\.a\.base_runtime_spec: cannot read"):
        node_files.base_specs(Config(handlers=handlers))


def test_cdi_directories_are_read_in_their_order(tmp_path: Path) -> None:
    for place, value in (("etc", "A=1"), ("run", "A=2")):
        (tmp_path / place).mkdir()
        device = {"name": "x", "containerEdits": {"env": [value]}}
        spec = {"cdiVersion": "0.6.0", "kind": "vendor.com/dev", "devices": [device]}
        (tmp_path / place / "dev.json").write_text(json.dumps(spec))
    (tmp_path / "etc" / "notes.txt").write_text("not a CDI file")
    names = [str(tmp_path / place) for place in ("etc", "run", "missing")]
    assert node_files.cdi_registry(names).devices["vendor.com/dev=x"].edits.env == ["A=2"]
    assert node_files.cdi_registry(names).errors == {}
    assert node_files.cdi_registry(names[:1]).devices["vendor.com/dev=x"].edits.env == ["A=1"]


def test_hooks_must_be_hooks_and_have_a_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    file = tmp_path / "hook.json"
    hook = {
        "version": "1.0.0",
        "hook": {"path": str(program)},
        "when": {"always": True},
        "stages": ["prestart"],
    }
    file.write_text(json.dumps(hook))
    with pytest.raises(FailedPrecondition, match="is no program"):
        node_files.hooks([str(tmp_path)])
    program.touch(mode=0o755)
    assert [each.path for each in node_files.hooks([str(tmp_path)])] == [str(file)]
    file.write_text("{}")
    with pytest.raises(FailedPrecondition, match=r"hooks_dirs: .*hook\.json"):
        node_files.hooks([str(tmp_path)])


def test_class_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text("Classes: {slow: [{Weight: 80}]}")
    assert node_files.blockio_classes(str(file)) == {"slow": {"weight": 80}}
    assert node_files.blockio_classes("") is None
    file.write_text("Classes: {slow: [{Devices: [/nowhere/*], Weight: 80}]}")
    with pytest.raises(FailedPrecondition, match=r"blockio_config_file.*/nowhere/"):
        node_files.blockio_classes(str(file))
    file.write_text("partitions: {p: {classes: {gold: {}}}}")
    known = Path("/sys/fs/resctrl/schemata").exists()
    assert node_files.rdt_classes(str(file)) == ({"gold": (False, False)} if known else None)
    with pytest.raises(FailedPrecondition, match="rdt_config_file"):
        node_files.rdt_classes(str(tmp_path / "missing"))


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/Europe/Berlin").exists(), reason="no tzdata")
def test_time_zones_are_files_below_the_data_base() -> None:
    assert node_files.localtime("") == ""
    assert node_files.localtime("Europe/Berlin").startswith("/usr/share/zoneinfo/")
    for wrong in ("Nowhere/City", "../../../etc/passwd", "Europe"):
        with pytest.raises(FailedPrecondition, match="timezone"):
            node_files.localtime(wrong)


def test_the_local_time_zone_is_the_hosts() -> None:
    if not Path("/etc/localtime").exists():
        pytest.skip("this host has no /etc/localtime")
    assert node_files.localtime("local") == os.path.realpath("/etc/localtime")
