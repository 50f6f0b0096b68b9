"""What doctor says of a host that lacks something, each check by itself."""

from __future__ import annotations

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
