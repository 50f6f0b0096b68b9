"""Where everything lies: each path follows from an id alone, so that it is found again after a crash.

Volatile things are below `run`, which a reboot must empty; what has to survive one is below `root`.
"""

from __future__ import annotations

import re
from pathlib import Path

from podwright.config import Config
from podwright.linux import mounts, proc, trees

ID = re.compile(r"[0-9a-f]{64}")


class Places:
    def __init__(self, config: Config) -> None:
        self.run = config.run_path.absolute()
        self.root = config.root_path.absolute()
        self.exits = self.run / "exits"
        """conmon writes one file here for each process that ended: its name is the id."""
        self.boot = self.run / "boot-id"
        """Which boot the volatile files belong to."""
        self.logs = self.run / "logs"
        """Of the log writer: a directory for each container whose log has limits."""
        self.pause_rootfs = self.run / "pause-rootfs"
        self.all_mapped = self.run / "mapped"
        """Ids may be passed through here, each directory below lets only its own pod in."""

    def make(self) -> None:
        """Make the directories that must be there before anything else, and forget what an earlier boot has
        left below `run`: its processes and mounts are gone."""
        self._forget_earlier_boot()
        for directory in self.directories():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The socket may lie there, and its group has to reach it. What is below is for root alone: bundles
        # hold what containers' environments hold, and a setuid program in a rootfs is one for all who get
        # at it. Containers' own users need no way to it, the runtimes have opened it before.
        self.run.chmod(0o711)
        for directory in self.directories():
            directory.chmod(0o711 if directory == self.all_mapped else 0o700)

    # Sandboxes

    def sandbox_run(self, id: str) -> Path:
        return self.run / "sandboxes" / id

    def sandbox_root(self, id: str) -> Path:
        return self.root / "sandboxes" / id

    def pins(self, id: str) -> Path:
        return self.sandbox_run(id) / "ns"

    def pin(self, id: str, kind: str) -> Path:
        return self.pins(id) / kind

    def shm(self, id: str) -> Path:
        return self.sandbox_run(id) / "shm"

    def pause_bundle(self, id: str) -> Path:
        return self.sandbox_run(id) / "pause"

    def pod_images(self, id: str) -> Path:
        """The images that containers of sandbox `id` have as volumes, a directory for each: the hex digits of
        its id."""
        return self.sandbox_run(id) / "images"

    def pod_image(self, id: str, digits: str) -> Path:
        """Where one of them is mounted."""
        return self.pod_images(id) / digits / "mount"

    def pod_image_users(self, id: str, digits: str) -> Path:
        """The containers that show files of it: a file for each id."""
        return self.pod_images(id) / digits / "users"

    # Containers

    def container_run(self, id: str) -> Path:
        """The bundle: config.json, pid files, conmon's sockets, the mounted rootfs."""
        return self.run / "containers" / id

    def container_root(self, id: str) -> Path:
        return self.root / "containers" / id

    def of_container(self, id: str) -> tuple[Path, ...]:
        """Every directory of container `id` that goes with it."""
        return self.container_run(id), self.container_root(id), self.mapped(id)

    def rootfs(self, id: str) -> Path:
        return self.container_run(id) / "rootfs"

    def mapped(self, id: str) -> Path:
        """What the root of a user namespace has to reach of container `id`: the mounted rootfs. Apart from
        `container_run`, which is closed to everybody else."""
        return self.all_mapped / id

    def mapped_layers(self, id: str) -> Path:
        """Where the layers are shown with a user namespace's owners, while an overlay is made of them."""
        return self.container_run(id) / "layers"

    def mapped_mounts(self, id: str) -> Path:
        """Where what container `id` mounts is shown with mapped owners, when its runtime cannot do that."""
        return self.container_run(id) / "mounts"

    def dump(self, id: str) -> Path:
        """Where a checkpoint of container `id` is gathered, while one is made: it may be large."""
        return self.container_root(id) / "dump"

    def restore(self, id: str) -> Path:
        """What container `id` is to be restored from, until it has been."""
        return self.container_root(id) / "restore"

    def volume(self, id: str, number: int) -> Path:
        """What container `id` has in the place of a VOLUME of its image."""
        return self.container_root(id) / "volumes" / str(number)

    # Both

    def bundle(self, id: str) -> Path:
        """The bundle of container `id`, or of the pause process of sandbox `id`."""
        pause = self.pause_bundle(id)
        return pause if self.sandbox_run(id).is_dir() else self.container_run(id)

    def exit_file(self, id: str) -> Path:
        return self.exits / id

    def runtime_root(self, handler: str) -> Path:
        """Where the runtime of `handler` keeps its own state."""
        return self.run / "runtime" / handler

    def directories(self) -> tuple[Path, ...]:
        """Those that must be there before anything else."""
        return (
            self.run / "sandboxes",
            self.run / "containers",
            self.run / "runtime",
            self.exits,
            self.all_mapped,
            self.root / "sandboxes",
            self.root / "containers",
        )

    def _forget_earlier_boot(self) -> None:
        boot = proc.boot_id()
        try:
            if self.boot.read_text() == boot:
                return
        except FileNotFoundError:
            pass
        for name in ("sandboxes", "containers", "mapped", "runtime", "exits", "logs"):
            directory = self.run / name
            if directory.exists():
                mounts.unmount_below(directory)
                trees.remove(directory)
        self.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.boot.write_text(boot)
