"""What all sides share: one directory, one CNI configuration, one root file system; and how it ends.

The stage is a context manager; whatever happens, the bridge and the directory are gone afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import busybox_rootfs
from tools.oci_image import Layout

PAUSE = Path("/usr/bin/catatonit")
CNI_BIN = Path("/usr/lib/cni")
PAYLOAD = ["/bin/sleep", "2147483"]
"""What every container runs; its arguments tell it from the helper processes."""
IMAGE = "localhost/podwright-bench:1"
PAUSE_IMAGE = "localhost/podwright-bench-pause:1"

DISK_SIZE = 16 << 30
"""Bytes that a stage's own disk may grow to; what is written takes room, no more."""


@dataclass(frozen=True)
class Stage:
    root: Path
    bridge: str

    @property
    def conf_dir(self) -> Path:
        return self.root / "net.d"

    @property
    def rootfs(self) -> Path:
        return self.root / "rootfs"

    @property
    def image_archive(self) -> Path:
        return self.root / "busybox.tar"

    @property
    def pause_archive(self) -> Path:
        return self.root / "pause.tar"

    def network(self, *, masquerade: bool) -> dict[str, object]:
        """The one network of all sides."""
        return {
            "cniVersion": "1.0.0",
            "name": self.bridge,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": masquerade,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.root / "ipam"),
                        "ranges": [[{"subnet": "10.213.0.0/16"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }

    def write_network(self, *, masquerade: bool) -> None:
        """Replace the configuration in one step: daemons watch the directory."""
        self.conf_dir.mkdir(exist_ok=True)
        fresh = self.root / "bench.conflist"
        fresh.write_text(json.dumps(self.network(masquerade=masquerade)))
        fresh.rename(self.conf_dir / "10-bench.conflist")


@contextmanager
def open_stage(*, own_disk: bool = False) -> Iterator[Stage]:
    """A new stage. With `own_disk` it is a new ext4 file system with a journal, as nodes have it, in a sparse
    file: on one without (ext4 as some virtual machines have it) files are slow to make for minutes after
    others were removed, whoever removed them."""
    outer = Path(tempfile.mkdtemp(prefix="pwbench-", dir="/tmp"))
    root = outer / "stage"
    root.mkdir()
    stage = Stage(root, f"pwb{os.getpid()}")
    try:
        if own_disk:
            _mount_disk(outer / "disk", root)
        stage.write_network(masquerade=True)
        busybox_rootfs.make(stage.rootfs)
        _archive(stage.rootfs, IMAGE, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}, stage.image_archive)
        pause = root / "pause"
        pause.mkdir()
        shutil.copy(PAUSE, pause / "pause")
        _archive(pause, PAUSE_IMAGE, {"Entrypoint": ["/pause", "-P"]}, stage.pause_archive)
        yield stage
    finally:
        subprocess.run(["ip", "link", "delete", stage.bridge], stderr=subprocess.DEVNULL, check=False)
        _remove_cgroups(stage.bridge)
        _unmount_below(outer)
        shutil.rmtree(outer, ignore_errors=True)


def _mount_disk(file: Path, target: Path) -> None:
    with file.open("wb") as disk:
        disk.truncate(DISK_SIZE)
    subprocess.run(["mkfs.ext4", "-q", str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(target)], check=True)


def _archive(root: Path, name: str, config: Mapping[str, object], file: Path) -> None:
    layout = Layout(file.with_suffix(".layout"))
    layout.add(name, [layout.layer(root)], config)
    layout.archive(file)


def _remove_cgroups(parent: str) -> None:
    """The parent that pods were given: a client makes it and removes it."""
    root = Path("/sys/fs/cgroup")
    # Not by a glob from the root: cgroups of others come and go meanwhile.
    ours = [one / parent for one in (root, *root.iterdir()) if (one / parent).is_dir()]
    for folder in sorted((each for one in ours for each in one.glob("**/")), reverse=True):
        try:
            folder.rmdir()
        except OSError:
            pass  # something still runs in it: better seen than hidden


def _unmount_below(root: Path) -> None:
    with open("/proc/self/mountinfo") as table:
        below = [line.split()[4] for line in table if line.split()[4].startswith(f"{root}/")]
    for target in sorted(below, reverse=True):
        subprocess.run(["umount", "-l", target], stderr=subprocess.DEVNULL, check=False)
