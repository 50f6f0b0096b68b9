"""Containers of a real containerd: files of images, limits, and what is left of creations that broke off."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright.config import Config, HandlerConfig
from podwright.engines.base import Container, ContainerFacts, Presence
from podwright.engines.containerd.creation import Creation
from podwright.engines.containerd.objects import Objects
from podwright.engines.containerd.snapshots import Snapshots
from podwright.engines.containerd.tasks import Tasks
from podwright.errors import CommandFailed, FailedPrecondition, ImageVolumeMountFailed, NotFound
from podwright.linux import cgroups, mounts, proc, trees
from podwright.logs.writing import LogWriter
from podwright.wire import cri_pb2 as cri
from tests.containerd.conftest import containerd_opened
from tests.containerd.daemon import BUSYBOX, Daemon
from tests.oci.bench import POD, TARGET, Bench
from tests.oci.test_oci_userns import mapped, pod

pytestmark = pytest.mark.root

MIB = 1 << 20


@pytest.fixture
async def mapped_bench(containerd_config: Config) -> AsyncIterator[Bench]:
    """With a run directory that the roots of user namespaces can reach: pytest closes its own to others."""
    run = Path(tempfile.mkdtemp(prefix="pwc-", dir="/run"))
    run.chmod(0o711)
    try:
        async with containerd_opened(msgspec.structs.replace(containerd_config, run=str(run))) as made:
            yield made
        assert not mounts.mounts_below(run)
    finally:
        mounts.unmount_below(run)
        trees.remove(run)


# Files of images


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
async def test_users_and_volumes_come_from_the_image(
    containerd_config: Config, tmp_path: Path, snapshotter: str
) -> None:
    """However its snapshotter keeps the layers."""
    handlers = {
        name: msgspec.structs.replace(each, snapshotter=snapshotter)
        for name, each in containerd_config.handlers.items()
    }
    config = msgspec.structs.replace(containerd_config, handlers=handlers)
    async with containerd_opened(config) as bench:
        root = tmp_path / "root-of-image"
        for each in ("bin", "etc", "kept"):
            (root / each).mkdir(parents=True)
        (root / "bin/busybox").write_bytes(Path(shutil.which("busybox") or "").read_bytes())
        (root / "bin/busybox").chmod(0o755)
        for applet in ("sh", "id", "stat", "cat", "ls"):
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nservice:x:1234:1235::/:/bin/sh\n")
        (root / "kept/file").write_text("of the image\n")
        os.chown(root / "kept/file", 1234, 1235)
        name = f"localhost/volumes-{snapshotter}:1"
        (image,) = await bench.engine.images.import_image(
            str(root), name, {"Volumes": {"/kept": {}, "/empty": {}}, "User": "service", "Env": ["PATH=/bin"]}
        )
        bench.image = image
        try:
            script = "id -u; stat -c %u:%g /kept/file; echo x >>/kept/file; cat /kept/file; ls /empty"
            container = await bench.container(await bench.sandbox(), "/bin/sh", "-c", script)
            said = await bench.output(container)
            assert said == "1234\n1234:1235\nof the image\nx\n"
            volumes = Path(config.root) / "containers" / container.id / "volumes"
            (volume,) = volumes.glob("*/file")
            assert volume.read_text() == "of the image\nx\n"
            assert (root / "kept/file").read_text() == "of the image\n"
        finally:
            await bench.clear()
            await bench.engine.images.remove(name)


@pytest.mark.parametrize("ids", [False, True], ids=["host-ids", "own-ids"])
async def test_an_image_is_mounted_as_a_volume(mapped_bench: Bench, ids: bool) -> None:
    bench = mapped_bench
    sandbox = await bench.sandbox(config=pod() if ids else None)
    config = cri.ContainerConfig()
    for place, directory in (("/img", ""), ("/users", "etc")):
        mount = config.mounts.add(container_path=place, readonly=True, image_sub_path=directory)
        mount.image.image = BUSYBOX
        if ids:
            # A kubelet gives every mount of such a pod its ids.
            mount.uidMappings.extend(mapped().uids)
            mount.gidMappings.extend(mapped().gids)
    container = await bench.container(sandbox, "sleep", "1000", config=config)
    paths = ("/img/etc/passwd", "/users/passwd", "/bin/sh")
    assert await bench.exec(container, "stat", "-c", "%u:%g", *paths) == "0:0\n" * 3
    done = await bench.engine.exec_sync(container, ["touch", "/users/new"], 10, 1 << 10)
    assert done.code == 1 and b"Read-only" in done.stderr
    del config.mounts[1:]
    config.mounts[0].image.image = "localhost/absent:1"
    with pytest.raises(ImageVolumeMountFailed, match=r"config\.mounts\[0\]\.image: there is no image"):
        await bench.container(sandbox, "true", config=config)


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_a_pod_with_ids_of_its_own(mapped_bench: Bench, handler: str) -> None:
    bench = mapped_bench
    sandbox = await bench.sandbox(config=pod(), pid=POD, handler=handler)
    wanted = cri.ContainerConfig()
    wanted.linux.security_context.run_as_user.value = 1000
    script = "cat /proc/self/uid_map; echo again >/dev/stdout; touch /tmp/mine; sleep 1000"
    container = await bench.container(sandbox, "sh", "-c", script, config=wanted)
    beside = await bench.container(
        sandbox,
        "sleep",
        "1000",
        config=cri.ContainerConfig(
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(
                    namespace_options=cri.NamespaceOption(pid=TARGET, target_id=container.id)
                )
            )
        ),
        target=container,
    )
    first, second = (proc.ns_inode(f"/proc/{each.facts.pid}/ns/pid") for each in (container, beside))
    assert first == second and container.facts.pid != beside.facts.pid
    await bench.exec(container, "sh", "-c", "until [ -e /tmp/mine ]; do sleep 0.05; done")
    uid = mapped().uids[0].host_id + 1000
    assert f"Uid:\t{uid}\t" in Path(f"/proc/{container.facts.pid}/status").read_text()
    await bench.engine.signal_container(container, signal.SIGKILL)
    await bench.exit_of(container)
    assert " stdout F again\n" in Path(container.log_path).read_text()
    info = await bench.engine.container_info(container)
    assert (info["snapshotKey"], info["snapshotter"]) == (container.id, "overlayfs")
    assert (info["sandboxID"], info["runtimeType"]) == (sandbox.id, "io.containerd.runc.v2")
    assert info["runtimeSpec"]["process"]["user"]["uid"] == 1000
    assert info["cgroup"] == f"{bench.config.cgroup_parent}/{container.id}"


# Limits


@pytest.mark.parametrize("handler", ["crun", "runc"])
async def test_limits_follow_in_every_state(containerd_bench: Bench, daemon: Daemon, handler: str) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox(handler=handler)

    def limits(**fields: int) -> cri.LinuxContainerResources:
        return cri.LinuxContainerResources(**fields)  # type: ignore[arg-type]

    config = cri.ContainerConfig()
    config.linux.resources.CopyFrom(
        limits(memory_limit_in_bytes=64 * MIB, cpu_quota=50_000, cpu_period=100_000)
    )
    container = await bench.container(sandbox, "sleep", "1000", config=config, start=False)

    def kernel(v1: str, v2: str) -> str:
        name = v1 if cgroups.layout().version == 1 else v2
        directory = cgroups.directory(f"{bench.config.cgroup_parent}/{container.id}", name.partition(".")[0])
        return (directory / name).read_text().split()[0]

    def memory() -> str:
        return kernel("memory.limit_in_bytes", "memory.max")

    def spec() -> Any:
        (record,) = [each for each in daemon.containers() if each.id == container.id]
        return msgspec.json.decode(record.spec.value)["linux"]["resources"]

    async def update(to: cri.LinuxContainerResources, former: cri.LinuxContainerResources) -> None:
        await bench.engine.check_update(container, to)
        await bench.engine.update_container(container, to, former)

    first = limits(memory_limit_in_bytes=48 * MIB, cpu_quota=50_000, cpu_period=100_000)
    await update(first, config.linux.resources)
    assert memory() == str(48 * MIB)
    await bench.engine.start_container(container)
    # What the new ones have not is not limited any more.
    second = limits(memory_limit_in_bytes=96 * MIB)
    await update(second, first)
    assert (memory(), kernel("cpu.cfs_quota_us", "cpu.max")) in [
        (str(96 * MIB), "-1"),
        (str(96 * MIB), "max"),
    ]
    assert spec()["memory"]["limit"] == 96 * MIB and "quota" not in spec()["cpu"]
    assert spec()["devices"]
    with pytest.raises(
        FailedPrecondition, match=r"linux\.cpuset_cpus: '9999' has 9999, and the cgroup above"
    ):
        await update(cri.LinuxContainerResources(cpuset_cpus="9999"), second)
    await bench.engine.update_container(container, second, cri.LinuxContainerResources(cpuset_cpus="9999"))
    assert "cpus" not in spec()["cpu"]
    await bench.engine.signal_container(container, signal.SIGKILL)
    await bench.exit_of(container)
    await update(limits(memory_limit_in_bytes=128 * MIB), second)
    assert spec()["memory"]["limit"] == 128 * MIB


# Ways not to start


async def test_the_start_says_that_a_program_cannot_be_executed(containerd_bench: Bench) -> None:
    bench = containerd_bench
    sandbox = await bench.sandbox(handler="runc")
    container = await bench.container(sandbox, "/no/such", start=False)
    assert (await bench.engine.observe_container(container)).presence is Presence.CREATED
    with pytest.raises(
        CommandFailed, match=r'^runc failed with status 1: exec: "/no/such": stat /no/such: no'
    ):
        await bench.engine.start_container(container)
    other = await bench.container(sandbox, "/no/such", start=False)
    await bench.engine.signal_container(other, signal.SIGKILL)
    assert (await bench.exit_of(other)).code == 137


async def test_what_is_only_created_dies_as_well_and_without_its_handler(
    containerd_config: Config, tmp_path: Path
) -> None:
    async with containerd_opened(containerd_config) as bench:
        sandbox = await bench.sandbox(handler="runc")
        created = await bench.container(sandbox, "sleep", "1000", start=False)
        runs = await bench.container(sandbox, "sleep", "1000")
        kept = dict(bench.sandboxes), dict(bench.containers)
        bench.sandboxes.clear()
        bench.containers.clear()
    handlers = {"crun": containerd_config.handlers["crun"]}
    async with containerd_opened(msgspec.structs.replace(containerd_config, handlers=handlers)) as bench:
        bench.sandboxes.update(kept[0])
        bench.containers.update(kept[1])
        assert (await bench.engine.observe_container(created)).presence is Presence.CREATED
        assert (await bench.engine.observe_container(runs)).presence is Presence.RUNNING
        for each in (created, runs):
            await bench.engine.signal_container(each, signal.SIGKILL)
            assert (await bench.exit_of(each)).code == 137
            await bench.engine.signal_container(each, signal.SIGTERM)


# Creations that broke off

STEPS: dict[str, tuple[type, str]] = {
    "snapshot": (Snapshots, "prepare"),
    "root": (Creation, "root"),
    "spec": (Creation, "draw"),
    "record": (Objects, "put"),
    "streams": (LogWriter, "add"),
    "task": (Tasks, "create"),
}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", STEPS)
async def test_a_creation_that_broke_off_behind_a_step_is_removed_by_its_id(
    containerd_config: Config, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As after a kill -9: nothing was undone, nobody knows any facts."""
    async with containerd_opened(containerd_config) as bench:
        sandbox = await bench.sandbox()
        owner, name = STEPS[step]
        real: Callable[..., Awaitable[object]] = getattr(owner, name)

        async def cut(*arguments: object, **named: object) -> object:
            await real(*arguments, **named)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, cut)
            patch.setattr(AsyncExitStack, "push_async_callback", lambda *_: None)
            with pytest.raises(Killed):
                await bench.container(sandbox, "sleep", "1000")
        kept = dict(bench.sandboxes), dict(bench.containers)
        bench.sandboxes.clear()
        bench.containers.clear()
    async with containerd_opened(containerd_config) as bench:
        bench.sandboxes.update(kept[0])
        (left,) = kept[1].values()
        bench.containers[left.id] = left  # removed at the end, and nothing of it may be left then
        seen = await bench.engine.observe_container(left)
        assert seen.presence is (Presence.CREATED if step == "task" else Presence.MISSING)


async def test_a_podwright_that_is_killed_in_the_middle_of_a_creation_leaves_nothing(
    containerd_config: Config, tmp_path: Path
) -> None:
    """While the runtime creates; it goes on for a while."""
    hangs = tmp_path / "runc"
    hangs.write_text(
        "#!/bin/sh\n"
        'case " $* " in *" create "*)\n'
        f"    [ -e {tmp_path}/on ] && : >{tmp_path}/creates\n"
        f"    while [ -e {tmp_path}/on ]; do sleep 0.05; done\n"
        f"    [ -e {tmp_path}/creates ] && exit 1 ;;\n"
        "esac\n"
        f'exec {containerd_config.handlers["runc"].path} "$@"\n'
    )
    hangs.chmod(0o755)
    config = msgspec.structs.replace(
        containerd_config,
        default_handler="runc",
        handlers={**containerd_config.handlers, "runc": HandlerConfig(path=str(hangs))},
    )
    async with containerd_opened(config) as bench:
        sandbox = await bench.sandbox()
        (tmp_path / "on").touch()
        (tmp_path / "config.json").write_bytes(msgspec.json.encode(config))
        (tmp_path / "sandbox").write_bytes(sandbox.config.SerializeToString())
        id = "c" * 64
        argv = [sys.executable, "-c", _CHILD, str(tmp_path), sandbox.id, str(sandbox.facts.pid), id]
        child = await asyncio.create_subprocess_exec(*argv, cwd=Path(__file__).parents[2])
        try:
            async with asyncio.timeout(60):
                while not (tmp_path / "creates").exists():
                    assert child.returncode is None
                    await asyncio.sleep(0.02)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
        wanted = cri.ContainerConfig(command=["true"])
        wanted.metadata.name = "c"
        left = Container(id, "c", sandbox, wanted, bench.image, "", facts=ContainerFacts())
        await bench.engine.remove_container(left)
        assert (await bench.engine.observe_container(left)).presence is Presence.MISSING
        (tmp_path / "on").unlink()  # the pod's shim does nothing else before


_CHILD = """
import asyncio, sys
from contextlib import AsyncExitStack
from pathlib import Path
import msgspec
from podwright.config import Config
from podwright.engines.base import Container, Sandbox, SandboxFacts
from podwright.engines.containerd.engine import ContainerdEngine
from podwright.wire import cri_pb2 as cri
from tests.containerd.daemon import BUSYBOX

async def main(place, sandbox, pid, id):
    engine = ContainerdEngine(msgspec.json.decode(Path(place, "config.json").read_bytes(), type=Config))
    await engine.open()
    image = await engine.images.find(BUSYBOX)
    pod = cri.PodSandboxConfig.FromString(Path(place, "sandbox").read_bytes())
    facts = SandboxFacts(pid=int(pid), own={"sandboxer": "podsandbox"})
    wanted = cri.ContainerConfig(command=["true"])
    wanted.metadata.name = "c"
    wanted.linux.security_context.namespace_options.CopyFrom(
        pod.linux.security_context.namespace_options
    )
    container = Container(id, "c", Sandbox(sandbox, "pod", pod, "", facts), wanted, image, "")
    async with AsyncExitStack() as undo:
        await engine.create_container(container, undo)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_image_may_come_again_just_when_it_is_needed(
    containerd_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, prepare = containerd_bench, Snapshots.prepare
    sandbox = await bench.sandbox()
    missed: list[str] = []

    async def missing(self: Snapshots, key: str, *arguments: Any) -> Any:
        if not missed:
            missed.append(key)
            raise NotFound(f"snapshot {key}: its parent has been removed")
        return await prepare(self, key, *arguments)

    monkeypatch.setattr(Snapshots, "prepare", missing)
    container = await bench.container(sandbox, "sh", "-c", "exit 4")
    assert (await bench.exit_of(container)).code == 4
    assert missed == [container.id]
