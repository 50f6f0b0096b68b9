"""Why a process of the oci engine ended, asked more than once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.node import exits
from podwright.engines.node.places import Places
from podwright.engines.oci import tasks
from podwright.engines.oci.runtimes import Runtimes
from podwright.logs.writing import LogWriter

ID = "a" * 64


@pytest.mark.parametrize("kills", [0, 1])
def test_a_kill_for_want_of_memory_is_known_when_its_cgroup_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    """Also when conmon has not heard of it before the process ended."""
    config = Config(root=str(tmp_path / "root"), run=str(tmp_path / "run"))
    places = Places(config)
    bundle = places.bundle(ID)
    bundle.mkdir(parents=True)
    places.exits.mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps({"linux": {"cgroupsPath": f"/not-there/{ID}"}}))
    exits.write(places.exits, ID, 137)
    counted = [kills, 0]
    count = "podwright.linux.cgroups.memory_oom_kills"
    monkeypatch.setattr(count, lambda cgroup: counted.pop(0) if counted else 0)

    def ended() -> bool:
        asked = tasks.Tasks("conmon", places, Runtimes(config, places), LogWriter(places.logs)).ended(ID)
        assert asked is not None and asked.code == 137
        return asked.oom_killed

    assert [ended(), ended(), ended()] == [bool(kills)] * 3
