"""What doctor says where no Docker Engine answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest


@pytest.mark.root
def test_an_engine_that_does_not_answer_is_what_is_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    config = tmp_path / "config.toml"
    config.write_text(
        f'root = "{tmp_path / "lib"}"\nrun = "{tmp_path / "run"}"\nlisten = "{tmp_path / "cri.sock"}"\n'
        f'engine = "docker"\n[docker]\nendpoint = "unix://{tmp_path / "docker.sock"}"\n'
    )
    command = [sys.executable, "-m", "podwright", "--config", str(config), "doctor", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    rows = {row["subject"]: row for row in msgspec.json.decode(done.stdout)["checks"]}
    assert rows["engine"]["state"] == "missing"
    assert str(tmp_path / "docker.sock") in rows["engine"]["note"]
    assert "state" not in rows
