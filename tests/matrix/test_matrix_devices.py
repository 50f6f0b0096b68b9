"""Devices: which nodes there are, whose they are, and whether the cgroup lets them be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, Pod, rejected
from tests.matrix.server import FUSE, MatrixServer

pytestmark = pytest.mark.root

MAKE = f"mknod /tmp/made c {FUSE[0]} {FUSE[1]}"
READ, WRITE = "exec 3< {}", "exec 3>> {}"


def allows(container: Container, way: str, path: str) -> bool:
    """Whether opening it works; what forbids it can only be the device cgroup, for root."""
    done = container.exec("/bin/sh", "-c", way.format(path))
    assert done.code == 0 or "Operation not permitted" in done.err, done.err
    return done.code == 0


def device(host: Path | str, inside: str, permissions: str = "rwm") -> cri.Device:
    return cri.Device(host_path=str(host), container_path=inside, permissions=permissions)


def test_only_harmless_ones_by_default(client: Client, native: str) -> None:
    container = client.pod(handler=native).run()
    names = set(container.sh("ls /dev").split())
    usual = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd"}
    links = {"stdin", "stdout", "stderr", "core", "console"}
    assert usual <= names
    assert names - usual - links == {"of-the-node"}
    assert container.sh("head -c 3 /dev/zero | wc -c; echo x > /dev/null") == "3"
    container.sh(MAKE)
    assert not allows(container, READ, "/tmp/made")


def test_permissions_are_the_cgroups(client: Client, native: str, server: MatrixServer) -> None:
    pod = client.pod(handler=native)
    for permissions in ("r", "w", "rw", "rwm"):
        container = pod.run(devices=[device(server.fuse, "/dev/given", permissions)])
        assert allows(container, READ, "/dev/given") == ("r" in permissions)
        assert allows(container, WRITE, "/dev/given") == ("w" in permissions)
        # Making a node without being allowed to use it does no harm: the usual rule for all devices.
        container.sh(MAKE)
        assert allows(container, READ, "/tmp/made") == ("r" in permissions)
    with rejected(StatusCode.INVALID_ARGUMENT, "permissions"):
        pod.create("/bin/true", devices=[device(server.fuse, "/dev/given", "rwx")])


def test_a_directory_of_devices(client: Client, native: str, server: MatrixServer) -> None:
    many = server.nodes / f"many-{native}"
    for name in ("a", "below/b", "console", "pts/0"):
        server.node(f"{many.name}/{name}", FUSE)
    (many / "file").write_text("no device")
    (many / "link").symlink_to("a")
    container = client.pod(handler=native).run(devices=[device(many, "/dev/many", "r")])
    found = container.sh("find /dev/many -type c | sort").split()
    assert found == ["/dev/many/a", "/dev/many/below/b"]
    assert container.sh("find /dev/many -type f -o -type l") == ""
    assert allows(container, READ, found[1]) and not allows(container, WRITE, found[1])
    with rejected(StatusCode.INVALID_ARGUMENT, "not a device"):
        client.pod().create("/bin/true", devices=[device(many / "file", "/dev/x")])


def test_a_link_to_a_device_is_followed(client: Client, native: str, server: MatrixServer) -> None:
    link = server.nodes / f"link-{native}"
    link.symlink_to(server.fuse)
    container = client.pod(handler=native).run(devices=[device(link, "/dev/linked", "r")])
    assert container.sh("stat -c '%F %t,%T' /dev/linked") == f"character special file {FUSE[0]:x},{FUSE[1]:x}"


def test_devices_belong_to_the_user(client: Client, native: str, server: MatrixServer) -> None:
    """device_ownership_from_security_context: run_as_user and run_as_group, else the host's owner."""
    pod = client.pod(handler=native)
    given = [device(server.fuse, "/dev/given", "rw")]
    security = {"run_as_user": cri.Int64Value(value=1000), "run_as_group": cri.Int64Value(value=3000)}
    own = pod.run(devices=given, security=security)
    assert own.sh("stat -c '%u:%g %a' /dev/given") == "1000:3000 600"
    assert allows(own, READ, "/dev/given")
    assert pod.run(devices=given).sh("stat -c '%u:%g %a' /dev/given") == "0:0 600"


def test_devices_of_the_node(client: Client, native: str) -> None:
    container = client.pod(handler=native).run()
    assert container.sh("stat -c '%t,%T' /dev/of-the-node; head -c 2 /dev/of-the-node | wc -c") == "1,5\n2"


def test_devices_by_annotation(client: Client, native: str, server: MatrixServer) -> None:
    asked = {"devices.crio.io": f"{server.fuse}:/dev/by-annotation:r"}
    container = client.pod(handler=native, annotations=asked).run()
    assert allows(container, READ, "/dev/by-annotation") and not allows(
        container, WRITE, "/dev/by-annotation"
    )
    strict = client.pod(handler=f"{native}-strict", annotations=asked).run()
    assert strict.exec("ls", "/dev/by-annotation").code != 0
    other = client.pod(handler=native, annotations={"devices.crio.io": "/dev/kmsg"})
    with rejected(StatusCode.INVALID_ARGUMENT, "allowed_devices"):
        other.create("/bin/true")


def test_privileged_containers_have_the_hosts(client: Client, native: str) -> None:
    def privileged(handler: str) -> Container:
        return client.pod(handler=handler, privileged=True).run(privileged=True)

    hosts = {path.name for path in Path("/dev").iterdir() if path.is_char_device() or path.is_block_device()}
    every, modest, free = (privileged(f"{native}{variant}") for variant in ("", "-modest", "-open"))
    assert hosts - {"console", "tty", "ptmx"} <= set(every.sh("ls /dev").split())
    assert "kmsg" in hosts
    for container in (modest, free):
        assert "kmsg" not in container.sh("ls /dev").split()
        container.sh(MAKE)
    every.sh(MAKE)
    assert allows(every, READ, "/tmp/made") and allows(free, READ, "/tmp/made")
    assert not allows(modest, READ, "/tmp/made")


# CDI


def write_cdi(server: MatrixServer, kind: str, name: str, edits: dict[str, Any], common: Any = None) -> None:
    """The file of one vendor's class, there before or after the server started."""
    file = server.cdi / f"{kind.replace('/', '-')}.json"
    tree = {
        "cdiVersion": "0.7.0",
        "kind": kind,
        "devices": [{"name": name, "containerEdits": edits}],
        "containerEdits": common or {},
    }
    file.write_text(json.dumps(tree))


@pytest.fixture
def vendor(server: MatrixServer, native: str, tmp_path: Path) -> str:
    """A device with every kind of edit; its class is named for the handler."""
    (tmp_path / "file").write_text("of the vendor\n")
    hook = server.program(f"cdi-{native}.sh", f'cat > "{tmp_path}/$1"; echo "$WORD" >> "{tmp_path}/$1"')
    edits = {
        "env": ["VENDOR=device", "ALSO=device"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": str(server.fuse), "permissions": "r"}],
        "mounts": [
            {"hostPath": str(tmp_path), "containerPath": "/opt/vendor", "options": ["ro", "rbind", "nosuid"]}
        ],
        "hooks": [
            {
                "hookName": "createRuntime",
                "path": str(hook),
                "args": [hook.name, "told"],
                "env": ["WORD=cdi", "PATH=/bin:/usr/bin"],
            }
        ],
        "additionalGids": [7777],
    }
    write_cdi(server, f"vendor.example/{native}", "all", edits, {"env": ["VENDOR=common", "COMMON=1"]})
    return f"vendor.example/{native}=all"


SCRIPT = (
    "env | grep -e VENDOR -e ALSO -e COMMON | sort; cat /opt/vendor/file; id -G; touch /opt/vendor/x;"
    "stat -c '%t,%T %u' /dev/vendor0; exec 3< /dev/vendor0 && echo open"
)


def _seen(container: Container) -> list[str]:
    return container.ended().output().splitlines()


def _check_vendor(pod: Pod, told: Path, **options: Any) -> None:
    container = pod.shell(SCRIPT, **options)
    assert _seen(container) == [
        "ALSO=device",
        "COMMON=1",
        "VENDOR=device",
        "of the vendor",
        "0 7777",
        f"{FUSE[0]:x},{FUSE[1]:x} 0",
        "open",
    ]
    assert "Read-only" in container.output("stderr")
    state, _, word = told.read_text().rpartition("}")
    assert json.loads(state + "}")["id"] == container.id
    assert word.strip() == "cdi"
    told.unlink()


def test_cdi_devices_by_field(client: Client, native: str, vendor: str, tmp_path: Path) -> None:
    pod = client.pod(handler=native)
    wanted = [cri.CDIDevice(name=vendor)]
    _check_vendor(pod, tmp_path / "told", CDI_devices=wanted)
    with rejected(StatusCode.INVALID_ARGUMENT, "no-such"):
        pod.create("/bin/true", CDI_devices=[cri.CDIDevice(name=vendor.replace("all", "no-such"))])


def test_cdi_devices_by_annotation(client: Client, native: str, vendor: str, tmp_path: Path) -> None:
    pod = client.pod(handler=native)
    _check_vendor(pod, tmp_path / "told", annotations={"cdi.k8s.io/x": vendor})
    # Asked for in both ways it is there once.
    twice = pod.run(annotations={"cdi.k8s.io/x": vendor}, CDI_devices=[cri.CDIDevice(name=vendor)])
    spec = twice.info()["runtimeSpec"]
    assert len(spec["hooks"]["createRuntime"]) == 1
    assert [each["destination"] for each in spec["mounts"]].count("/opt/vendor") == 1
    with rejected(StatusCode.INVALID_ARGUMENT, "cdi.k8s.io/x"):
        pod.create("/bin/true", annotations={"cdi.k8s.io/x": "not a device"})


def test_cdi_files_that_change_count_at_once(client: Client, native: str, server: MatrixServer) -> None:
    pod = client.pod(handler=native)
    for value in ("first", "second"):
        write_cdi(server, "changing.example/x", "one", {"env": [f"VALUE={value}"]})
        container = pod.shell("echo $VALUE", CDI_devices=[cri.CDIDevice(name="changing.example/x=one")])
        assert _seen(container) == [value]
