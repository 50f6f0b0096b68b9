"""docs/explain.md: its commands work one after the other, on this host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

CHECKOUT = Path(__file__).parents[2]


def test_its_commands_work(tmp_path: Path) -> None:
    places = f"--root {tmp_path}/root --run {tmp_path}/run"
    program = tmp_path / "podwright"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m podwright {places} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "examples").symlink_to(CHECKOUT / "examples")
    text = (CHECKOUT / "docs/explain.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(commands) > 4
    # The pod is told about in the middle: whatever fails there, it must go.
    script = "\n".join(
        (
            "set -e; trap 'podwright rm --force service >/dev/null 2>&1 || :' EXIT",
            f"{sys.executable} {CHECKOUT}/tools/busybox_rootfs.py rootfs",
            "podwright image import rootfs localhost/podwright/busybox:latest --cmd sh",
            *commands,
        )
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr)
    for words in ("OCI runtime spec", "SEEN", "fake scenario", "default: an unprivileged container's set"):
        assert words in done.stdout
