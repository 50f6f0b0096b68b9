"""A whole oci engine on directories of its own, a bridge of its own and cgroups of its own; after each test
nothing of it may be left on the host."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from podwright.config import CniConfig, Config
from podwright.linux import cgroups, mounts
from tests.oci.bench import Bench, opened, processes_with

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("busybox")
    subprocess.run([sys.executable, str(TOOLS / "busybox_rootfs.py"), str(root)], check=True)
    return root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Config]:
    """A configuration that shares nothing with others; at the end, proof that nothing of it is left."""
    name = secrets.token_hex(4)
    conf = tmp_path / "net.d"
    conf.mkdir()
    subnet = f"10.{200 + os.getpid() % 50}.{secrets.randbelow(250)}.0/24"
    (conf / "10-test.conflist").write_text(
        json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": f"test-{name}",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": f"pwo{name}",
                        "isGateway": True,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(tmp_path / "ipam"),
                            "ranges": [[{"subnet": subnet}]],
                        },
                    }
                ],
            }
        )
    )
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        cgroup_parent=f"/pwo-{name}",
        cni=CniConfig(conf_dir=str(conf)),
    )
    yield config
    subprocess.run(["ip", "link", "delete", f"pwo{name}"], capture_output=True)
    below = mounts.mounts_below(tmp_path)
    for each in reversed(below):
        mounts.unmount(Path(each.target))
    assert not below, f"mounts are left: {[each.target for each in below]}"
    assert not processes_with(str(tmp_path)), "processes are left"
    left = cgroups.directories(config.cgroup_parent)
    assert not left, f"cgroups are left: {left}"


@pytest.fixture
async def bench(place: Config, busybox: Path) -> AsyncIterator[Bench]:
    async with opened(place, busybox) as made:
        yield made
