"""The stage of the behaviour suite: a network configuration, registries and images, all of this session only.

Every name carries the process id and a number, so that neither sessions nor servers meet.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from podwright.network.bridge import host_routes, overlaps
from tools import busybox_rootfs
from tools.oci_image import Layout

CNI_BIN = Path("/usr/lib/cni")
USER, PASSWORD = "reader", "sesame"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuinwY/tkBVrn3xrxQI/TgnMHhkvl85RW\n"
"""USER and the bcrypt hash of PASSWORD, the only kind docker-registry takes, of the least cost: each request
computes it."""

_numbers = itertools.count(1)

VARIANTS: Mapping[str, Mapping[str, object]] = {
    "busybox": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes", "BOTH=image"]},
    "entry": {
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["cmd"],
        "Env": ["PATH=/bin"],
        "WorkingDir": "/usr/bin",
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "false"]},
    },
    "hollow": {"Entrypoint": [""], "Cmd": ["/bin/echo", "cmd only"]},
    "nothing": {"Env": ["PATH=/bin"]},
    "named-user": {"User": "app", "Cmd": ["/bin/id"]},
    "numeric-user": {"User": "1234", "Cmd": ["/bin/id"]},
    "both-user": {"User": "1000:2001", "Cmd": ["/bin/id"]},
    "stop-signal": {"StopSignal": "SIGUSR1", "Cmd": ["/bin/sh"]},
    "volume": {"Volumes": {"/home/app": {}}, "Cmd": ["/bin/sh"]},
}


@dataclass
class Registry:
    """A registry, real or not."""

    host: str
    ids: dict[str, str] = field(default_factory=dict)
    """Of its images, by the names in VARIANTS."""

    def reference(self, name: str) -> str:
        return f"{self.host}/test/{name}:1"


@dataclass
class OpenRegistry(Registry):
    """A docker-registry on loopback with every variant, all with one layer."""

    layout: Path = Path()
    """Where the images come from: an OCI layout."""


@dataclass(frozen=True)
class Network:
    """A CNI configuration directory with one bridge network; the bridge goes with the session."""

    conf_dir: Path
    state: Path
    bridge: str
    subnets: tuple[str, str]
    """Of both families; nobody else's."""

    @property
    def file(self) -> Path:
        return self.conf_dir / "10-test.conflist"

    def write(self, *, dual_stack: bool = False, masquerade: bool = True) -> None:
        """Put the configuration in place in one step: the server watches the directory."""
        ranges = [[{"subnet": self.subnets[0]}]]
        routes = [{"dst": "0.0.0.0/0"}]
        if dual_stack:
            ranges.append([{"subnet": self.subnets[1]}])
            routes.append({"dst": "::/0"})
        ipam = {"type": "host-local", "dataDir": str(self.state), "ranges": ranges, "routes": routes}
        bridge = {
            "type": "bridge",
            "bridge": self.bridge,
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": masquerade,
            "ipam": ipam,
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        tree = {"cniVersion": "1.0.0", "name": self.bridge, "plugins": [bridge, portmap]}
        fresh = self.state.parent / "fresh.conflist"
        fresh.write_text(json.dumps(tree))
        fresh.rename(self.file)

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)

    def allocations(self) -> set[str]:
        """The addresses that host-local has given out."""
        folder = self.state / self.bridge
        if not folder.exists():
            return set()
        return {path.name for path in folder.iterdir() if path.name[0].isdigit() or ":" in path.name}

    def rules(self) -> list[str]:
        """The address translation rules that the plugins have made for pods of this network."""
        command = ["iptables", "-w", "10", "-t", "nat", "-S"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [line for line in listed.splitlines() if f'"{self.bridge}\\"' in line]


def own_name() -> str:
    """A name that nobody else has, short enough for a network interface."""
    return f"pwt{os.getpid()}-{next(_numbers)}"


@contextmanager
def open_network(root: Path) -> Iterator[Network]:
    network = Network(root / "net.d", root / "ipam", own_name(), _free_subnets())
    network.conf_dir.mkdir(parents=True)
    network.write()
    try:
        yield network
    finally:
        subprocess.run(["ip", "link", "delete", network.bridge], capture_output=True, check=False)


def _free_subnets() -> tuple[str, str]:
    """Not those of other sessions that run now, or of killed ones whose bridges are still there."""
    taken = host_routes()
    while True:
        second, third = random.randrange(20, 200), random.randrange(0, 256, 16)
        subnet = ipaddress.IPv4Network(f"10.{second}.{third}.0/20")
        if not overlaps(subnet, taken):
            return str(subnet), f"fd00:77:{second:x}:{third:x}::/64"


@contextmanager
def open_registry(root: Path) -> Iterator[OpenRegistry]:
    """Registry with the variants, for everyone."""
    with _registry_process(root / "registry") as host:
        registry = OpenRegistry(host)
        root_fs = busybox_rootfs.make(root / "rootfs")
        layout = Layout(root / "layout")
        registry.layout = layout.directory
        layer = layout.layer(root_fs)
        for name, config in VARIANTS.items():
            registry.ids[name] = layout.add(name, [layer], config)
            push(layout.directory, name, registry.reference(name))
        yield registry


@contextmanager
def open_private_registry(root: Path, layout: Path) -> Iterator[Registry]:
    """Registry that answers USER with PASSWORD only; it has the image "busybox"."""
    with _registry_process(root, HTPASSWD) as host:
        registry = Registry(host)
        push(layout, "busybox", registry.reference("busybox"), credentials=f"{USER}:{PASSWORD}")
        yield registry


def push(layout: Path, name: str, reference: str, credentials: str = "") -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
    if credentials:
        command += ["--dest-creds", credentials]
    subprocess.run([*command, f"oci:{layout}:{name}", f"docker://{reference}"], check=True)


@contextmanager
def _registry_process(root: Path, htpasswd: str = "") -> Iterator[str]:
    root.mkdir(parents=True)
    port = free_port()
    host = f"127.0.0.1:{port}"
    auth = ""
    if htpasswd:
        (root / "htpasswd").write_text(htpasswd)
        auth = f"auth: {{htpasswd: {{realm: test, path: {root / 'htpasswd'}}}}}\n"
    config = root / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root / 'store'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{host}'}}\n{auth}"
    )
    program = shutil.which("docker-registry") or "/usr/bin/docker-registry"
    with ExitStack() as stack:
        log = stack.enter_context((root / "log").open("wb"))
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
        stack.callback(end, process)
        until(lambda: _connects(port), f"the registry at {host} to answer")
        yield host


def end(process: subprocess.Popen[bytes], patience: float = 20.0) -> int:
    """Terminate `process`, kill it when that does not help, reap it."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def until(holds: Callable[[], object], what: str | Callable[[], str], seconds: float = 60.0) -> None:
    """Wait until `holds()` is true; AssertionError that says what was awaited when it never is."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
