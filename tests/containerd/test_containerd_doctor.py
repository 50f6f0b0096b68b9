"""What `podwright doctor` says of a containerd."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from podwright.cli.doctor import MISSING, OK, WARNING
from podwright.cli.doctor_containerd import containerd
from podwright.config import Config, ContainerdConfig
from podwright.engines.containerd import host
from podwright.engines.containerd.api import Containerd
from tests.containerd.daemon import BUSYBOX, Daemon


def configured(tmp_path: Path, daemon: Daemon, **containerd: str) -> Config:
    return Config(
        engine="containerd",
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        handlers=daemon.handlers,
        containerd=msgspec.structs.replace(daemon.config, **containerd),
    )


async def states(config: Config) -> dict[str, tuple[str, str]]:
    return {each.subject: (each.state, each.note) for each in await containerd(config)}


@pytest.mark.root
async def test_all_that_is_needed_is_told_by_name(daemon: Daemon, tmp_path: Path) -> None:
    found = await states(configured(tmp_path, daemon, sandbox_image=BUSYBOX))
    assert {state for state, _ in found.values()} == {OK}
    assert daemon.endpoint in found["containerd"][1]
    assert found["services"][1].split(", ") == list(host.NEEDED)
    assert str(daemon.root) in found["snapshotter overlayfs"][1]
    assert daemon.handlers["crun"].path in found["shim of crun"][1]
    assert found["sandbox image"] == (OK, BUSYBOX)


@pytest.mark.root
async def test_what_a_handler_lacks_is_a_warning_unless_it_is_the_default(
    daemon: Daemon, tmp_path: Path
) -> None:
    config = configured(tmp_path, daemon)
    mapped = msgspec.structs.replace(daemon.handlers["runc"], snapshotter="devmapper")
    config = msgspec.structs.replace(config, handlers={**daemon.handlers, "mapped": mapped})
    found = await states(config)
    assert found["snapshotter devmapper"][0] == WARNING and found["shim of mapped"][0] == WARNING
    assert "of handlers mapped" in found["snapshotter devmapper"][1]
    assert "sandbox image" not in found
    found = await states(msgspec.structs.replace(config, default_handler="mapped"))
    assert found["snapshotter devmapper"][0] == MISSING and found["shim of mapped"][0] == MISSING


@pytest.mark.root
async def test_each_service_that_is_missing_is_named(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "NEEDED", (*host.NEEDED, "teleport"))
    monkeypatch.setattr("podwright.cli.doctor_containerd.NEEDED", host.NEEDED)
    found = await states(configured(tmp_path, daemon))
    assert found["containerd"][0] == MISSING and "teleport" in found["containerd"][1]
    assert found["service teleport"] == (MISSING, "this containerd has none")


@pytest.mark.root
async def test_services_of_which_a_part_does_not_work_are_told_as_none(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = Containerd.has

    def as_1_7(self: Containerd, kind: str, id: str) -> bool:
        return has(self, kind, id) or (kind, id) in {(host.SERVICE, each) for each in host.SANDBOXES}

    monkeypatch.setattr(Containerd, "has", as_1_7)
    told = (await states(configured(tmp_path, daemon)))["service sandboxes and sandbox-controllers"]
    assert told == (OK, "not in this containerd: pods are held together by pause containers")


async def test_no_containerd_is_one_line(tmp_path: Path) -> None:
    config = Config(engine="containerd", containerd=ContainerdConfig(endpoint=str(tmp_path / "none.sock")))
    (check,) = await containerd(config)
    assert check.state == MISSING and "containerd.endpoint" in check.note
