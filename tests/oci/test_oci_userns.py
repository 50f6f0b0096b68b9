"""Pods with user namespaces of their own, seen from the inside and from the host."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright.config import Config
from podwright.engines.base import Container, Sandbox
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.linux import mounts, trees
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import NODE, POD, Bench, opened
from tests.oci.clients import Client

pytestmark = pytest.mark.root

FIRST, LENGTH = 300000, 65536


@pytest.fixture(params=["crun", "runc"])
def place(place: Config, request: pytest.FixtureRequest) -> Iterator[Config]:
    """For each runtime, with a run directory that the roots of user namespaces can reach: pytest closes its
    own to others."""
    run = Path(tempfile.mkdtemp(prefix="pwo-", dir="/run"))
    run.chmod(0o711)
    yield msgspec.structs.replace(place, run=str(run), default_handler=request.param)
    below = mounts.mounts_below(run)
    mounts.unmount_below(run)
    trees.remove(run)
    assert not below, f"mounts are left: {[each.target for each in below]}"


def mapped(first: int = FIRST, length: int = LENGTH, inside: int = 0) -> cri.UserNamespace:
    ids = [cri.IDMapping(host_id=first, container_id=inside, length=length)]
    return cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)


def pod(userns: cri.UserNamespace | None = None) -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig(hostname="mapped")
    config.linux.security_context.namespace_options.userns_options.CopyFrom(userns or mapped())
    return config


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def host_uids(container: Container) -> list[str]:
    status = Path(f"/proc/{container.facts.pid}/status").read_text()
    return next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]


def user_namespace(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/user").readlink())


def user_pin(bench: Bench, sandbox: Sandbox) -> str:
    return str(Path(bench.config.run, "sandboxes", sandbox.id, "ns", "user"))


async def test_the_ids_inside_are_others_on_the_host(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod(), network=POD)
    container = await bench.container(sandbox, "sleep", "1000")
    assert (await bench.exec(container, "cat", "/proc/self/uid_map")).split() == ["0", "300000", "65536"]
    assert (await bench.exec(container, "cat", "/proc/self/gid_map")).split() == ["0", "300000", "65536"]
    assert (await bench.exec(container, "id", "-u")).strip() == "0"
    assert host_uids(container) == ["300000"] * 4
    assert container.facts.uid == 0
    assert (await bench.exec(container, "hostname")).strip() == "mapped"
    assert "LOOPBACK,UP" in await bench.exec(container, "ip", "link", "show", "lo")


async def test_an_image_as_a_volume_has_the_pods_owners(bench: Bench) -> None:
    sandbox, ids, config = await bench.sandbox(config=pod()), mapped(), cri.ContainerConfig()
    # A kubelet gives every mount of such a pod its ids.
    mount = config.mounts.add(
        container_path="/img", readonly=True, uidMappings=ids.uids, gidMappings=ids.gids
    )
    mount.image.image = "localhost/busybox:test"
    container = await bench.container(sandbox, "sleep", "1000", config=config)
    assert (await bench.exec(container, "stat", "-c", "%u:%g", "/img/etc/passwd")).strip() == "0:0"


async def test_files_have_one_owner_inside_and_another_outside(
    bench: Bench, place: Config, tmp_path: Path
) -> None:
    sandbox = await bench.sandbox(config=pod())
    plain, shown = tmp_path / "plain", tmp_path / "shown"
    for each in (plain, shown):
        each.mkdir()
        (each / "of-root").write_text("x")
        (each / "of-app").write_text("y")
        os.chown(each / "of-app", 1000, 1000)
    plain.chmod(0o777)
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/plain", host_path=str(plain))
    ids = mapped()
    config.mounts.add(
        container_path="/shown", host_path=str(shown), uidMappings=ids.uids, gidMappings=ids.gids
    )
    container = await bench.container(sandbox, "sleep", "1000", config=config)

    async def inside(*paths: str) -> list[str]:
        return (await bench.exec(container, "stat", "-c", "%u:%g", *paths)).split()

    # The image's, the pod's and the volume's files are root's; what is not mapped belongs to nobody.
    assert (
        await inside("/bin/sh", "/", "/etc/passwd", "/etc/hosts", "/etc/hostname", "/dev/shm") == ["0:0"] * 6
    )
    assert await inside("/plain/of-root", "/plain/of-app") == ["65534:65534"] * 2
    assert await inside("/shown", "/shown/of-root", "/shown/of-app") == ["0:0", "0:0", "1000:1000"]
    script = "echo z >/plain/new; echo z >/shown/new; echo z >/new; chown 7:8 /new; echo z >/bin/sh.new;"
    script += "echo h >>/etc/hosts; echo s >/dev/shm/s; chown 5:6 /shown/of-root; touch /tmp/t"
    await bench.exec(container, "sh", "-ec", script)
    assert owner(plain / "new") == (FIRST, FIRST)
    assert owner(shown / "new") == (0, 0)
    assert owner(shown / "of-root") == (5, 6)
    upper = Path(place.root, "containers", container.id, "upper")
    assert owner(upper) == (FIRST, FIRST)
    assert owner(upper / "new") == (FIRST + 7, FIRST + 8)
    assert owner(upper / "bin") == owner(upper / "bin/sh.new") == (FIRST, FIRST)
    assert owner(Path(place.run, "sandboxes", sandbox.id, "shm", "s")) == (FIRST, FIRST)
    hosts = Path(place.root, "sandboxes", sandbox.id, "hosts")
    assert owner(hosts) == (0, 0) and hosts.read_text().endswith("h\n")


async def test_a_mapped_volume_of_a_pod_without_user_namespace(
    bench: Bench, place: Config, tmp_path: Path
) -> None:
    sandbox = await bench.sandbox()
    (tmp_path / "of-root").write_text("x")
    ids = mapped()
    config = cri.ContainerConfig()
    config.mounts.add(
        container_path="/v", host_path=str(tmp_path), uidMappings=ids.uids, gidMappings=ids.gids
    )
    if place.default_handler == "runc":
        with pytest.raises(FailedPrecondition, match=r"config\.mounts\[0\]: .*no id-mapped mounts"):
            await bench.run(sandbox, "true", config)
    else:
        assert await bench.run(sandbox, "stat -c %u:%g /v/of-root", config) == f"{FIRST}:{FIRST}\n"


async def test_a_user_without_rights_and_the_log(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod())
    config = cri.ContainerConfig()
    config.linux.security_context.run_as_user.value = 1000
    config.linux.security_context.run_as_group.value = 1000
    script = "id -u; echo e >/dev/stderr; echo o >/dev/stdout; sleep 1"
    container = await bench.container(sandbox, "sh", "-c", script, config=config)
    assert host_uids(container) == [str(FIRST + 1000)] * 4
    assert container.facts.uid == 1000
    assert sorted((await bench.output(container)).split()) == ["1000", "e", "o"]
    assert owner(Path(container.log_path)) == (0, 0)


async def test_a_program_run_inside_can_open_its_streams_again(bench: Bench) -> None:
    config = cri.ContainerConfig()
    config.linux.security_context.run_as_user.value = 1000
    container = await bench.container(await bench.sandbox(config=pod()), "sleep", "1000", config=config)
    script = ["sh", "-c", "echo e >/dev/stderr; echo o >/dev/stdout; cat /dev/stdin"]
    client = Client(b"i\n", closed=True)
    assert await bench.engine.exec(container, script, client.streams) == 0
    assert bytes(client.stdout.data) == b"o\ni\n" and bytes(client.stderr.data) == b"e\n"
    assert await bench.exec(container, *script[:2], "echo o >/dev/stdout") == "o\n"
    terminal = Client(tty=True)
    assert await bench.engine.exec(container, ["sh", "-c", "echo t >/dev/tty"], terminal.streams) == 0
    assert terminal.stdout.data == b"t\r\n"


async def test_a_user_that_the_pod_does_not_have(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod())
    config = cri.ContainerConfig()
    config.linux.security_context.run_as_user.value = LENGTH
    with pytest.raises(InvalidArgument, match=f"run_as_user: .* no user {LENGTH} "):
        await bench.container(sandbox, "id", config=config)


async def test_the_network_belongs_to_the_pod(bench: Bench) -> None:
    config = pod()
    config.linux.sysctls["net.ipv4.ip_forward"] = "1"
    config.linux.sysctls["kernel.shmmax"] = "12345678"
    sandbox = await bench.sandbox(config=config, network=POD)
    [address] = sandbox.facts.ips
    gateway = address.rpartition(".")[0] + ".1"
    wanted = cri.ContainerConfig()
    wanted.linux.security_context.capabilities.add_capabilities.extend(["NET_ADMIN", "NET_RAW"])
    script = f"""
        ping -c1 -W5 127.0.0.1 >&2 && ping -c1 -W5 {gateway} >&2 || exit 1
        cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax
        ip link add name own type dummy 2>/dev/null || ip link set lo mtu 1400 || exit 2
        nc -l -p 80 & sleep 0.1; kill $! && echo low
    """
    container = await bench.container(sandbox, "sleep", "1000", config=wanted)
    assert (await bench.exec(container, "sh", "-c", script)).split() == ["1", "12345678", "low"]


async def test_kernel_file_systems_and_rights(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod(), network=POD)
    script = """
        ls /sys/class/net; ls -d /sys/fs/cgroup/*/ /sys/fs/cgroup/cgroup.controllers 2>/dev/null | head -n1
        touch /dev/mqueue/q && ls /dev/mqueue
        echo 1 >/proc/sys/kernel/panic || echo refused
        mount -t tmpfs none /tmp || echo refused
    """
    output = (await bench.run(sandbox, script)).split("\n")
    assert {"lo", "eth0", "q"} <= set(output)
    assert any(line.startswith("/sys/fs/cgroup/") for line in output)
    assert output.count("refused") == 2


async def test_it_is_explained_as_it_is_made(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod(), pid=POD)
    container = await bench.container(sandbox, "sleep", "1000")
    explained = await bench.engine.explain_container(container)
    made = (await bench.engine.container_info(container))["runtimeSpec"]
    ids = [{"containerID": 0, "hostID": FIRST, "size": LENGTH}]
    for document in (explained.document, made):
        assert document["linux"]["uidMappings"] == document["linux"]["gidMappings"] == ids
        assert {"type": "user", "path": user_pin(bench, sandbox)} in document["linux"]["namespaces"]
    assert explained.document["root"] == made["root"]
    pause = await bench.engine.explain_sandbox(sandbox)
    assert pause is not None and pause.document["linux"]["uidMappings"] == ids


async def test_two_pods_share_layers_and_nothing_else(bench: Bench, place: Config) -> None:
    one = await bench.container(await bench.sandbox(config=pod()), "sleep", "1000")
    two = await bench.container(await bench.sandbox(config=pod(mapped(500000))), "sleep", "1000")
    three = await bench.container(await bench.sandbox(), "sleep", "1000")
    assert [host_uids(each)[0] for each in (one, two, three)] == ["300000", "500000", "0"]
    for each in (one, two, three):
        assert (await bench.exec(each, "stat", "-c", "%u", "/bin/sh")).strip() == "0"
    assert len({user_namespace(each.facts.pid) for each in (one, two, three)}) == 3
    # Neither can pass the other's way.
    for each, gid in ((one, 300000), (two, 500000)):
        way = Path(place.run, "mapped", each.id).stat()
        assert (way.st_mode & 0o777, way.st_uid, way.st_gid) == (0o710, 0, gid)


async def test_containers_of_a_pod_share_it_with_the_pause_process(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod(), pid=POD)
    one = await bench.container(sandbox, "sleep", "1000")
    two = await bench.container(sandbox, "sleep", "2000")
    namespaces = {user_namespace(pid) for pid in (sandbox.facts.pid, one.facts.pid, two.facts.pid)}
    assert len(namespaces) == 1
    assert namespaces != {user_namespace("self")}
    assert "sleep 1000" in await bench.exec(two, "ps", "-o", "args")


async def test_volumes_of_images(bench: Bench, busybox: Path) -> None:
    image = await bench.engine.images.import_root(
        busybox,
        "localhost/volumes:test",
        config={"Env": ["PATH=/bin"], "Volumes": {"/home": {}, "/empty": {}}},
    )
    bench.image = image
    sandbox = await bench.sandbox(config=pod())
    config = cri.ContainerConfig()
    mount = config.mounts.add(container_path="/image", readonly=True)
    mount.image.image = image.id
    script = "stat -c %u:%g /home /home/app /empty /image /image/bin/sh; touch /home/x /empty/x"
    script += "; touch /image/x 2>/dev/null || echo no"
    output = (await bench.run(sandbox, script, config)).split()
    assert [each for each in output if each[0].isdigit()] == ["0:0"] * 5
    assert output[-1] == "no"


async def test_the_hosts_network_with_ids_of_its_own(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=pod(), network=NODE)
    output = await bench.run(
        sandbox, "cat /proc/self/uid_map; ls /sys/class/net; ip link set lo mtu 1000 || echo no"
    )
    assert output.split()[:3] == ["0", str(FIRST), str(LENGTH)]
    assert {each.name for each in Path("/sys/class/net").iterdir()} <= set(output.split())
    assert "no" in output.split("\n")


async def test_a_privileged_container_is_privileged_in_its_pod_only(bench: Bench) -> None:
    config = pod()
    config.linux.security_context.privileged = True
    sandbox = await bench.sandbox(config=config, network=POD)
    wanted = cri.ContainerConfig()
    wanted.linux.security_context.privileged = True
    script = "mount -t tmpfs none /tmp && echo mounted; echo 1 >/proc/sys/kernel/panic || echo refused; id -u"
    output = (await bench.run(sandbox, script, wanted)).split("\n")
    assert "mounted" in output and "refused" in output


async def test_a_restarted_engine_finds_and_forgets_it(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as old:
        sandbox = await old.sandbox(config=pod(), network=POD)
        container = await old.container(sandbox, "sleep", "1000")
        lost = await old.sandbox(config=pod(mapped(500000)), pid=POD)
        orphan = await old.container(lost, "sleep", "1000")
        old.containers.clear()
        old.sandboxes.clear()
    async with opened(place, busybox) as new:
        new.sandboxes[sandbox.id], new.containers[container.id] = sandbox, container
        assert await new.engine.sandbox_alive(sandbox)
        assert (await new.exec(container, "id", "-u")).strip() == "0"
        found = await new.engine.orphans({sandbox.id}, {container.id})
        assert {"userns", "ipcns", "mount"} <= {each.kind for each in found}
        for each in found:
            assert sandbox.id not in each.name and container.id not in each.name
            await new.engine.remove_orphan(each)
        assert await new.engine.orphans({sandbox.id}, {container.id}) == []
        assert not Path(f"/proc/{orphan.facts.pid}").exists()
        again = await new.container(sandbox, "sleep", "1000")
        assert host_uids(again) == [str(FIRST)] * 4
        # A pod whose user namespace is gone is lost, whatever else is there.
        mounts.unmount(Path(place.run, "sandboxes", sandbox.id, "ns", "user"))
        assert not await new.engine.sandbox_alive(sandbox)


async def test_nothing_is_left(bench: Bench, place: Config) -> None:
    sandbox = await bench.sandbox(config=pod(), network=POD, pid=POD)
    container = await bench.container(sandbox, "sleep", "1000")
    await bench.remove(container)
    await bench.remove_sandbox(sandbox)
    assert await bench.engine.orphans(set(), set()) == []
    assert mounts.mounts_below(Path(place.run)) == []
    for name in ("sandboxes", "containers", "mapped"):
        assert list(Path(place.run, name).iterdir()) == []


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08])
async def test_a_cancelled_creation_leaves_nothing(bench: Bench, delay: float) -> None:
    async def make() -> None:
        sandbox = await bench.sandbox(config=pod(), network=POD)
        await bench.container(sandbox, "sleep", "100", start=False)

    task = asyncio.ensure_future(make())
    await asyncio.sleep(delay)
    task.cancel()
    await asyncio.wait([task])
    await bench.clear()
    assert await bench.engine.orphans(set(), set()) == []


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"handler": "runsc"}, FailedPrecondition, r"userns_options: .*'runsc' cannot run pods"),
        ({"pid": NODE}, InvalidArgument, r"namespace_options\.pid: NODE"),
        ({"ipc": NODE}, InvalidArgument, r"namespace_options\.ipc: NODE"),
        ({"config": pod(mapped(inside=1))}, InvalidArgument, r"userns_options\.uids: container_id is 1"),
        ({"config": pod(mapped(first=2**32 - 10))}, InvalidArgument, r"userns_options\.uids"),
        (
            {"config": pod(mapped(length=65535)), "pid": POD},
            InvalidArgument,
            r"run_as_user: .* no user 65535 ",
        ),
    ],
    ids=["runsc", "host-pid", "host-ipc", "no-root", "too-high", "too-few"],
)
async def test_what_cannot_be_is_refused_by_name(
    bench: Bench, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await bench.sandbox(**{"config": pod(), **changed})
    bench.sandboxes.clear()
    assert await bench.engine.orphans(set(), set()) == []


async def test_handlers_say_whether_they_can(bench: Bench, place: Config) -> None:
    status = await bench.engine.status()
    assert {each.name: each.user_namespaces for each in status.handlers if each.available} == {
        "crun": True,
        "runc": True,
        "runsc": False,
    }


async def test_a_run_directory_that_is_closed_is_named(place: Config, busybox: Path) -> None:
    above = Path(place.run)
    async with opened(msgspec.structs.replace(place, run=str(above / "below")), busybox) as bench:
        above.chmod(0o700)
        assert not any(each.user_namespaces for each in (await bench.engine.status()).handlers)
        with pytest.raises(FailedPrecondition, match=rf"chmod o\+x {above}"):
            await bench.sandbox(config=pod())
        bench.sandboxes.clear()
