"""The matrix's server: the oci engine with every handler, and with the settings of `[spec]` that leave their
marks in containers. Beside each runtime's own handler stand variants of it, named RUNTIME-VARIANT."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.behaviour.oci_server import OciServer
from tests.behaviour.stage import CNI_BIN, Network, OpenRegistry, push
from tools import busybox_rootfs
from tools.oci_image import Layout

RUNTIMES = ("crun", "runc", "runsc")
NATIVE = ("crun", "runc")
"""Those whose containers run on the host's own kernel."""
NODE_LIMIT = 3_333_333
"""Bytes a second of the block I/O class "slow"."""
PIDS = 321
CPU = min(os.sched_getaffinity(0))
"""The processor of the pause processes."""
NOFILE = (333, 444)
OWNED = (1000, 2000)
"""Who owns what the image "filled" has in its volume."""
FUSE = (10, 229)
"""A device that no container has by itself (devices.txt of the kernel)."""

_ALLOWED = (
    "umask.crio.io",
    "shm-size.crio.io",
    "devices.crio.io",
    "cgroup2-mount-hierarchy-rw.crio.io",
    "ulimits.noderesource.dev",
)
_VARIANTS: Mapping[str, str] = {
    "": (
        f"allowed_annotations = {json.dumps(_ALLOWED)}\n"
        'pod_annotations = ["pod.example.com/*"]\ncontainer_annotations = ["example.com/*"]\n'
    ),
    "strict": "",
    "modest": "privileged_without_host_devices = true\n",
    "open": (
        "privileged_without_host_devices = true\nprivileged_without_host_devices_all_devices_allowed = true\n"
    ),
    "cgroups": "cgroup_writable = true\n",
    "large": f"minimum_memory = {64 << 20}\n",
}


class MatrixNetwork(Network):
    """Without a gateway: what containers see of their network is the behaviour suite's subject."""

    def write(self, *, dual_stack: bool = False, masquerade: bool = False) -> None:
        ranges = [[{"subnet": self.subnets[0]}]]
        ipam = {"type": "host-local", "dataDir": str(self.state), "ranges": ranges}
        bridge = {"type": "bridge", "bridge": self.bridge, "ipMasq": masquerade, "ipam": ipam}
        tree = {"cniVersion": "1.0.0", "name": self.bridge, "plugins": [bridge]}
        self.file.write_text(json.dumps(tree))


class MatrixServer(OciServer):
    def __init__(self, root: Path, network: MatrixNetwork, registry: OpenRegistry) -> None:
        super().__init__(root, network, registry)
        self.parent = f"/pwtm{os.getpid()}"
        self.cdi, self.hooks, self.seccomp, self.nodes = (
            root / name for name in ("cdi", "hooks", "seccomp", "nodes")
        )
        for each in (self.cdi, self.hooks, self.seccomp, self.nodes):
            each.mkdir()
        self.marks = root / "marks"
        """Where the hooks of the hooks directory leave what they are told: STAGE-ID."""
        self.marks.mkdir()
        self.fuse = self.node("fuse", FUSE)
        self.disk = next(iter(sorted(Path("/dev").glob("loop[0-9]"))), None)
        self._write_hooks()
        self.config.write_text(self._text())

    def node(self, name: str, number: tuple[int, int], *, mode: int = 0o600) -> Path:
        """A character device below `nodes`."""
        path = self.nodes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(*number))
        path.chmod(mode)
        return path

    def program(self, name: str, script: str) -> Path:
        """An executable shell script of the host."""
        path = self.root / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def _write_hooks(self) -> None:
        for stage in ("createRuntime", "poststart", "poststop"):
            program = self.program(f"{stage}.sh", f'cat > "{self.marks}/{stage}-$1"')
            _write_hook(self.hooks / f"{stage}.json", program, stage, {"example.com/marked": "^yes$"})

    def _text(self) -> str:
        handlers = "".join(
            f'[handlers.{runtime}{"-" if variant else ""}{variant}]\npath = "{runtime}"\n{text}'
            for runtime in NATIVE
            for variant, text in _VARIANTS.items()
        )
        sandboxed = '[handlers.runsc]\npath = "runsc"\noptions = ["--platform=ptrace", "--oci-seccomp"]\n'
        classes = self.root / "blockio.yaml"
        if self.disk is not None:
            classes.write_text(
                f"Classes: {{slow: [{{Devices: [{self.disk}], ThrottleReadBps: {NODE_LIMIT}}}]}}"
            )
        soft, hard = NOFILE
        return (
            f'root = "{self.lib}"\nrun = "{self.run}"\nlisten = "{self.socket}"\n'
            f'cgroup_parent = "{self.parent}"\nseccomp_root = "{self.seccomp}"\n'
            f'[cni]\nconf_dir = "{self.network.conf_dir}"\nbin_dirs = ["{CNI_BIN}"]\n'
            f'[images]\ninsecure_registries = ["{self.registry.host}"]\n'
            f"{handlers}{sandboxed if shutil.which('runsc') else ''}"
            f'[spec]\ncdi_spec_dirs = ["{self.cdi}"]\nhooks_dirs = ["{self.hooks}"]\n'
            f'blockio_config_file = "{classes if self.disk else ""}"\n'
            f'default_ulimits = ["nofile={soft}:{hard}"]\nshm_size = "32Mi"\nhugepages = true\n'
            f'timezone = "Etc/GMT+5"\npids_limit = {PIDS}\ngomaxprocs = true\nsystemd = true\n'
            f"device_ownership_from_security_context = true\n"
            f'pause_cpuset = "{CPU}"\nabsent_mount_sources_to_reject = ["{self.root}/absent"]\n'
            f'additional_devices = ["/dev/zero:/dev/of-the-node:r"]\nallowed_devices = ["{self.fuse}"]\n'
        )


def add_images(registry: OpenRegistry, root: Path) -> None:
    """The image "filled": a VOLUME with content that has owners, modes and links; and a program that is
    called systemd and runs what it is given."""
    tree = busybox_rootfs.make(root / "filled")
    volume = tree / "data"
    (volume / "deep").mkdir(parents=True)
    (volume / "deep/secret").write_text("of the image\n")
    (volume / "deep/secret").chmod(0o640)
    (volume / "link").symlink_to("deep/secret")
    for each in (volume, volume / "deep", volume / "deep/secret"):
        os.chown(each, *OWNED)
    volume.chmod(0o751)
    program = tree / "bin/systemd"
    program.write_text('#!/bin/sh\nexec "$@"\n')
    program.chmod(0o755)
    layout = Layout(root / "layout")
    config: Mapping[str, Sequence[str] | Mapping[str, Mapping[str, str]]] = {
        "Env": ["PATH=/bin"],
        "Volumes": {"/data": {}},
    }
    registry.ids["filled"] = layout.add("filled", [layout.layer(tree)], config)
    push(layout.directory, "filled", registry.reference("filled"))


def _write_hook(file: Path, program: Path, stage: str, annotations: Mapping[str, str]) -> None:
    file.write_text(
        json.dumps(
            {
                "version": "1.0.0",
                "hook": {"path": str(program), "args": [program.name, file.stem]},
                "when": {"annotations": annotations},
                "stages": [stage],
            }
        )
    )
