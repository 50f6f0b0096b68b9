"""What doctor says of a host that lacks something, each check by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.cli import doctor
from podwright.config import Config


def test_systemd_as_the_cgroup_driver_wants_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SYSTEMD", tmp_path / "absent")
    found = doctor._cgroups(Config(cgroup_driver="systemd"))
    assert (found.state, "cgroup_driver" in found.note) == (doctor.MISSING, True)
    assert doctor._cgroups(Config()).state != doctor.MISSING
    monkeypatch.setattr(doctor, "SYSTEMD", tmp_path)
    assert doctor._cgroups(Config(cgroup_driver="systemd")).state != doctor.MISSING


def test_overlayfs_may_be_a_module_that_the_first_mount_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, modules = tmp_path / "filesystems", tmp_path / os.uname().release / "modules.dep"
    known.write_text("nodev\tproc\n\text4\n")
    modules.parent.mkdir()
    monkeypatch.setattr(doctor, "FILESYSTEMS", known)
    monkeypatch.setattr(doctor, "MODULES", tmp_path)
    monkeypatch.setattr(doctor, "_filesystem", lambda path: "ext4")
    assert doctor._overlay(tmp_path).state == doctor.MISSING
    modules.write_text("kernel/fs/ecryptfs/ecryptfs.ko.xz: kernel/fs/overlayfs/not-overlay.ko.xz\n")
    assert doctor._overlay(tmp_path).state == doctor.MISSING
    modules.write_text("kernel/fs/nls/nls_utf8.ko.xz:\nkernel/fs/overlayfs/overlay.ko.xz:\n")
    assert doctor._overlay(tmp_path).state == doctor.OK
    modules.unlink()
    known.write_text("nodev\tproc\nnodev\toverlay\n")
    assert doctor._overlay(tmp_path).state == doctor.OK


def test_apparmor_that_is_switched_off_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = tmp_path / "enabled"
    monkeypatch.setattr(doctor, "APPARMOR", enabled)
    assert "neither AppArmor" in doctor._security_module().note
    enabled.write_text("N\n")
    assert "neither AppArmor" in doctor._security_module().note
    enabled.write_text("Y\n")
    assert doctor._security_module().note.startswith("AppArmor")
