"""What containers find mounted, and how: by their own mount table, and by trying."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, mount, rejected
from tests.behaviour.stage import until
from tests.matrix.server import OWNED, MatrixServer

pytestmark = pytest.mark.root

HOST_TO_CONTAINER = cri.PROPAGATION_HOST_TO_CONTAINER
BIDIRECTIONAL = cri.PROPAGATION_BIDIRECTIONAL


def table(container: Container) -> dict[str, tuple[str, set[str]]]:
    """Type and options (of the mount and of its file system) of each mount."""
    found = {}
    for row in container.sh("cat /proc/self/mountinfo").splitlines():
        own, _, of_filesystem = row.partition(" - ")
        place, options = own.split()[4:6]
        kind, *_, more = of_filesystem.split()
        found[place] = kind, {*options.split(","), *more.split(",")}
    return found


def test_what_every_container_has(client: Client, native: str) -> None:
    container = client.pod(handler=native).run()
    mounts = table(container)
    none = {"nosuid", "nodev", "noexec"}
    expected = {
        "/proc": ("proc", {"rw"} | none),
        "/dev": ("tmpfs", {"nosuid", "size=65536k", "mode=755"}),
        "/dev/pts": ("devpts", {"nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"}),
        "/dev/mqueue": ("mqueue", none),
        "/dev/shm": ("tmpfs", {"size=32768k"} | none),
        "/sys": ("sysfs", {"ro"} | none),
    }
    # With cgroup v1, runtimes put a tmpfs around the hierarchies.
    hierarchies = {place: each for place, each in mounts.items() if each[0].startswith("cgroup")}
    assert hierarchies
    expected |= {place: (kind, {"ro"} | none) for place, (kind, _) in hierarchies.items()}
    for place, (kind, options) in expected.items():
        assert mounts[place][0] == kind, place
        assert options <= mounts[place][1], place
    assert "/run" not in mounts
    for file in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        assert "rw" in mounts[file][1]
    private = "grep -c -e shared: -e master: /proc/self/mountinfo; true"
    assert container.sh(private) == "0"
    for place in hierarchies:
        assert "Read-only" in container.exec("mkdir", f"{place}/x").err


def test_privileged_containers_may_write_what_is_the_kernels(client: Client, native: str) -> None:
    container = client.pod(handler=native, privileged=True).run(
        privileged=True, security={"masked_paths": ["/proc/keys"], "readonly_paths": ["/proc/sys"]}
    )
    mounts = table(container)
    writable = [place for place, (kind, _) in mounts.items() if kind in ("sysfs", "cgroup", "cgroup2")]
    assert len(writable) > 1
    assert all("rw" in mounts[place][1] and "ro" not in mounts[place][1] for place in writable)
    assert not {"/proc/keys", "/proc/sys"} & mounts.keys()


def test_masked_and_read_only_paths(client: Client, native: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").touch()
    container = client.pod(handler=native).run(
        mounts=[mount(tmp_path, "/data")],
        security={
            "masked_paths": ["/proc/keys", "/sys/firmware", "/data/inner", "/no/such"],
            "readonly_paths": ["/proc/sys", "/proc/irq", "/no/such/either"],
        },
    )
    assert (
        container.sh("cat /proc/keys | wc -c; ls /sys/firmware | wc -l; ls /data/inner | wc -l") == "0\n0\n0"
    )
    mounts = table(container)
    assert "ro" in mounts["/proc/sys"][1] and "ro" in mounts["/proc/irq"][1]
    assert container.exec("sh", "-c", "echo 1 > /proc/sys/kernel/shm_rmid_forced").code != 0


def test_read_only_volumes(client: Client, handler: str, shared: Path) -> None:
    """Without recursion, what is mounted below stays as it is."""
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    container = client.pod(handler=handler).run(mounts=[mount(shared, "/data", readonly=True)])
    assert container.exec("touch", "/data/file").code != 0
    assert container.exec("ls", "/data/sub").code == 0
    if handler != "runsc":
        assert container.exec("touch", "/data/sub/file").code == 0


def test_recursively_read_only_volumes(client: Client, handler: str, shared: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    pod = client.pod(handler=handler)
    wanted = [mount(shared, "/data", readonly=True, recursive_read_only=True)]
    can = {
        each.name: each.features.recursive_read_only_mounts
        for each in client.runtime.Status(cri.StatusRequest()).runtime_handlers
    }
    assert can[handler] == (handler != "runsc")
    if not can[handler]:
        with rejected(StatusCode.UNKNOWN, "RROUnsupported"):
            pod.create("/bin/true", mounts=wanted)
        return
    container = pod.run(mounts=wanted)
    for place in ("/data/file", "/data/sub/file"):
        assert "Read-only" in container.exec("touch", place).err
    assert container.status().mounts[0].recursive_read_only


@pytest.mark.parametrize("propagation", [HOST_TO_CONTAINER, BIDIRECTIONAL])
def test_propagation(client: Client, native: str, shared: Path, propagation: int) -> None:
    """What the host mounts later is seen inside; what the container mounts is seen by the host only if it
    goes both ways."""
    container = client.pod(handler=native, privileged=True).run(
        privileged=True, mounts=[mount(shared, "/data", propagation=propagation)]
    )
    subprocess.run(["mount", "-t", "tmpfs", "pwt", shared / "sub"], check=True)
    (shared / "sub/late").touch()
    assert container.sh("ls /data/sub") == "late"
    container.sh("mkdir /data/own && mount -t tmpfs pwt /data/own && touch /data/own/file")
    assert (shared / "own/file").exists() == (propagation == BIDIRECTIONAL)
    container.remove()
    # What it has mounted on the host stays, as the CRI wants it.
    assert (shared / "own/file").exists() == (propagation == BIDIRECTIONAL)


def test_size_of_shared_memory(client: Client, native: str) -> None:
    def size(handler: str, annotations: dict[str, str]) -> str:
        container = client.pod(handler=handler, annotations=annotations).run()
        return container.sh("df -k /dev/shm | tail -n 1").split()[1]

    asked = {"shm-size.crio.io": "5Mi"}
    assert size(native, asked) == "5120"
    assert size(native, {}) == size(f"{native}-strict", asked) == "32768"


def test_volumes_of_images(client: Client, handler: str, tmp_path: Path) -> None:
    """Each container has its own, with the image's content: owners, modes, links; it goes with it."""
    pod = client.pod(handler=handler)
    container = pod.run(image="filled", security={"run_as_user": cri.Int64Value(value=OWNED[0])})
    assert container.sh("cat /data/link") == "of the image"
    uid, gid = OWNED
    assert container.sh("stat -c '%u:%g %a' /data /data/deep/secret") == f"{uid}:{gid} 751\n{uid}:{gid} 640"
    container.sh("echo changed > /data/deep/secret")
    assert pod.run(image="filled").sh("cat /data/link") == "of the image"
    [volume] = [
        each["source"] for each in container.info()["runtimeSpec"]["mounts"] if each["destination"] == "/data"
    ]
    assert Path(volume, "deep/secret").read_text() == "changed\n"
    container.remove()
    assert not Path(volume).exists()
    (tmp_path / "mine").touch()
    covered = pod.run(image="filled", mounts=[mount(tmp_path, "/data/")])
    assert covered.sh("ls /data") == "mine"


def test_images_as_volumes(client: Client, handler: str) -> None:
    pod = client.pod(handler=handler)
    whole = cri.Mount(container_path="/image", image=client.image("filled"), readonly=True)
    part = cri.Mount(
        container_path="/part", image=client.image("filled"), image_sub_path="data/deep", readonly=True
    )
    container = pod.run(mounts=[whole, part])
    assert container.sh("cat /image/data/deep/secret /part/secret") == "of the image\nof the image"
    for place in ("/image/new", "/part/new"):
        assert "Read-only" in container.exec("touch", place).err
    for path in ("data/link", "data/deep/secret", "../../absent"):
        part.image_sub_path = path
        with rejected(StatusCode.UNKNOWN, "ImageVolumeMountFailed: config.mounts[0].image_sub_path"):
            pod.create("/bin/true", mounts=[part])


def test_an_artifact_is_a_volume_and_nothing_else(client: Client, handler: str, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str, **more: object) -> dict[str, object]:
        digits = hashlib.sha256(content).hexdigest()
        (blobs / digits).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digits}", "size": len(content), **more}

    title = {"org.opencontainers.image.title": "model.txt"}
    manifest = {
        "schemaVersion": 2,
        "artifactType": "application/vnd.example",
        "config": blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [blob(b"weights", "application/vnd.example.file", annotations=title)],
    }
    listed = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    spec = cri.ImageSpec(image=f"oci:{tmp_path}")
    artifact = cri.ImageSpec(image=client.images.PullImage(cri.PullImageRequest(image=spec)).image_ref)
    try:
        pod = client.pod(handler=handler)
        container = pod.run(mounts=[cri.Mount(container_path="/model", image=artifact, readonly=True)])
        assert container.sh("cat /model/model.txt") == "weights"
        wanted = pod.container_config("/bin/true")
        wanted.image.CopyFrom(artifact)
        with rejected(StatusCode.FAILED_PRECONDITION, "is an artifact, no container image"):
            pod.create(config=wanted)
        container.remove()
    finally:
        client.images.RemoveImage(cri.RemoveImageRequest(image=artifact))


def test_mounts_are_made_outer_first_whatever_their_order(
    client: Client, handler: str, tmp_path: Path
) -> None:
    for name in ("outer", "inner", "deep", "tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").touch()
    container = client.pod(handler=handler).run(
        mounts=[
            mount(tmp_path / "deep", "/a/b/c/../c"),
            mount(tmp_path / "inner", "//a//b"),
            mount(tmp_path / "outer", "/a"),
            mount(tmp_path / "tmp", "/tmp"),
        ]
    )
    seen = container.sh("ls /a/of-outer /a/b/of-inner /a/b/c/of-deep /tmp/of-tmp")
    assert len(seen.split()) == 4


def test_a_mount_at_dev_takes_everything_below_it(client: Client, native: str, tmp_path: Path) -> None:
    for name in ("null", "mqueue", "pts", "shm"):
        (tmp_path / name).mkdir() if name != "null" else (tmp_path / name).touch()
    container = client.pod(handler=native).run(mounts=[mount("/dev", "/dev")])
    mounts = table(container)
    assert {place for place in mounts if place.startswith("/dev")} >= {"/dev", "/dev/shm"}
    assert container.exec("ls", "/dev/full").code == 0
    assert "newinstance" not in mounts["/dev"][1]


def test_a_source_that_is_missing(client: Client, native: str, server: MatrixServer, tmp_path: Path) -> None:
    """A directory is made, unless the node says that this one must not be."""
    pod = client.pod(handler=native)
    made = tmp_path / "not/there"
    pod.run(mounts=[mount(made, "/data")])
    assert made.is_dir() and made.stat().st_mode & 0o777 == 0o755
    kept = server.root / "absent"
    with rejected(StatusCode.FAILED_PRECONDITION, "absent_mount_sources_to_reject"):
        pod.create("/bin/true", mounts=[mount(f"{server.root}//absent/", "/data")])
    assert not kept.exists()
    kept.write_text("now it is")
    assert pod.run(mounts=[mount(kept, "/data")]).sh("cat /data") == "now it is"
    kept.unlink()
    (tmp_path / "link").symlink_to("nothing")
    for below in ("link", "link/deep"):
        with rejected(StatusCode.FAILED_PRECONDITION, "a link to nothing"):
            pod.create("/bin/true", mounts=[mount(tmp_path / below, "/data")])
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("source", ["/", "/usr"])
def test_nothing_is_mounted_over_the_root(client: Client, native: str, source: str) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "container_path"):
        client.pod(handler=native).create("/bin/true", mounts=[mount(source, "/", readonly=True)])


def test_read_only_rootfs(client: Client, handler: str, tmp_path: Path) -> None:
    container = client.pod(handler=handler).run(
        security={"readonly_rootfs": True}, mounts=[mount(tmp_path, "/data")]
    )
    # gVisor mounts a /tmp of its own on an empty one.
    for place in ("/file", "/etc/file", *(() if handler == "runsc" else ("/tmp/file",))):
        assert container.exec("touch", place).code != 0
    assert container.exec("sh", "-c", "echo x >> /etc/hosts").code != 0
    container.sh("touch /data/file /dev/shm/file")


def test_the_time_zone(client: Client, handler: str) -> None:
    pod = client.pod(handler=handler)
    of_node = hashlib.sha256(Path("/usr/share/zoneinfo/Etc/GMT+5").read_bytes()).hexdigest()
    container = pod.run()
    assert container.sh("sha256sum /etc/localtime").split()[0] == of_node
    assert container.exec("sh", "-c", "echo x > /etc/localtime").code != 0
    utc = Path("/usr/share/zoneinfo/Etc/UTC")
    own = pod.run(mounts=[mount(utc, "/etc/localtime")])
    assert own.sh("sha256sum /etc/localtime").split()[0] == hashlib.sha256(utc.read_bytes()).hexdigest()


def test_systemd_finds_what_it_needs(client: Client, native: str) -> None:
    """Only where the program is systemd."""
    pod = client.pod(handler=native)
    script = "echo $container; cat /proc/self/mountinfo; touch /run/a /tmp/b /var/log/journal/c; sleep 1000"
    container = pod.run("/bin/systemd", "sh", "-c", script, image="filled")
    until(lambda: "/var/log/journal" in container.output(), "the container's words")
    mounts = table(container)
    for place in ("/run", "/run/lock", "/tmp", "/var/log/journal"):
        assert mounts[place][0] == "tmpfs"
        assert {"rw", "nosuid", "nodev"} <= mounts[place][1]
    assert container.output().splitlines()[0] == "podwright"
    assert container.sh("ls /run/a /tmp/b /var/log/journal/c").split() == [
        "/run/a",
        "/tmp/b",
        "/var/log/journal/c",
    ]
    plain = pod.run()
    assert not {"/run", "/tmp"} & table(plain).keys()
    assert plain.sh("echo $container") == ""
