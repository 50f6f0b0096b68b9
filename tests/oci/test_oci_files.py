"""What containers see mounted: the image, volumes, host paths; and their logs."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import pytest

from podwright.engines.node import pods, rootfs
from podwright.engines.oci import conmon
from podwright.errors import FailedPrecondition, ImageVolumeMountFailed, InvalidArgument, PodwrightError
from podwright.linux import mounts, trees
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench

pytestmark = pytest.mark.root
SHARED = cri.MountPropagation.PROPAGATION_BIDIRECTIONAL
SLAVE = cri.MountPropagation.PROPAGATION_HOST_TO_CONTAINER


async def test_a_missing_host_directory_is_made(bench: Bench, tmp_path: Path) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/data", host_path=str(tmp_path / "volumes/new"))
    old = os.umask(0o077)
    try:
        await bench.run(sandbox, "echo kept >/data/file", config)
    finally:
        os.umask(old)
    assert (tmp_path / "volumes/new/file").read_text() == "kept\n"
    assert (tmp_path / "volumes/new").stat().st_mode & 0o777 == 0o755


async def test_links_in_a_host_path_are_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("found\n")
    (tmp_path / "link").symlink_to("real")
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/data", host_path=str(tmp_path / "link"), readonly=True)
    assert (
        await bench.run(sandbox, "cat /data/file; touch /data/x 2>/dev/null || echo no", config)
        == "found\nno\n"
    )


async def test_a_read_only_root_and_the_layers_stay_as_they_are(bench: Bench, busybox: Path) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.linux.security_context.readonly_rootfs = True
    assert await bench.run(sandbox, "touch /x 2>/dev/null || echo no", config) == "no\n"
    await bench.run(sandbox, "rm -r /etc; echo changed >/new")
    assert await bench.run(sandbox, "test -e /new || cat /etc/passwd") != ""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared mount of our own: / is private on some hosts."""
    place = tmp_path / "shared"
    place.mkdir()
    mounts.bind(place, place)
    mounts.make_private(place)
    mounts.make_shared(place)
    (place / "sub").mkdir()
    return place


async def test_mounts_propagate_both_ways_and_one_way(bench: Bench, shared: Path) -> None:
    sandbox = await bench.sandbox(config=_privileged())
    both, one = cri.ContainerConfig(), cri.ContainerConfig()
    both.linux.security_context.privileged = True
    one.linux.security_context.privileged = True
    both.mounts.add(container_path="/v", host_path=str(shared), propagation=SHARED)
    one.mounts.add(container_path="/v", host_path=str(shared), propagation=SLAVE)
    try:
        first = await bench.container(sandbox, "sleep", "100", config=both)
        second = await bench.container(sandbox, "sleep", "100", config=one)
        await bench.exec(first, "mount", "-t", "tmpfs", "inner", "/v/sub")
        await bench.exec(first, "touch", "/v/sub/from-first")
        assert (shared / "sub/from-first").exists()
        assert await bench.exec(second, "ls", "/v/sub") == "from-first\n"
        (shared / "own").mkdir()
        mounts.tmpfs(shared / "own", size=1 << 20)
        (shared / "own/from-host").touch()
        assert await bench.exec(first, "ls", "/v/own") == "from-host\n"
        assert await bench.exec(second, "ls", "/v/own") == "from-host\n"
        await bench.exec(second, "mkdir", "/v/third")
        await bench.exec(second, "mount", "-t", "tmpfs", "inner", "/v/third")
        await bench.exec(second, "touch", "/v/third/x")
        assert not (shared / "third/x").exists()
    finally:
        mounts.unmount_below(shared)


async def test_propagation_from_a_private_mount_is_refused(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "private"
    place.mkdir()
    mounts.bind(place, place)
    mounts.make_private(place)
    try:
        sandbox = await bench.sandbox()
        config = cri.ContainerConfig()
        config.mounts.add(container_path="/v", host_path=str(place), propagation=SHARED)
        with pytest.raises(FailedPrecondition, match="not a shared mount"):
            await bench.container(sandbox, "sleep", "1", config=config)
    finally:
        mounts.unmount(place)


async def test_recursive_read_only(bench: Bench, tmp_path: Path) -> None:
    place = tmp_path / "outer"
    (place / "inner").mkdir(parents=True)
    mounts.tmpfs(place / "inner", size=1 << 20)
    file = tmp_path / "file"
    file.write_text("text\n")
    try:
        sandbox = await bench.sandbox()
        config = cri.ContainerConfig()
        config.mounts.add(container_path="/v", host_path=str(place), readonly=True, recursive_read_only=True)
        config.mounts.add(container_path="/f", host_path=str(file), readonly=True, recursive_read_only=True)
        script = "touch /v/inner/x 2>/dev/null || echo no; cat /f; echo more 2>/dev/null >> /f || echo no"
        assert await bench.run(sandbox, script, config) == "no\ntext\nno\n"
    finally:
        mounts.unmount_below(place)


async def test_image_volumes_start_with_the_images_content(bench: Bench, busybox: Path) -> None:
    bench.image = await bench.engine.images.import_root(
        busybox, "localhost/volumes:1", config={"Env": ["PATH=/bin"], "Volumes": {"/home": {}, "/none": {}}}
    )
    sandbox = await bench.sandbox()
    container = await bench.container(
        sandbox, "sh", "-c", "ls /home; touch /home/mine; ls -d /none; mount | grep -c ' /home '"
    )
    assert (await bench.output(container)).split() == ["app", "/none", "1"]
    volume = Path(bench.config.root, "containers", container.id, "volumes/0")
    assert (volume / "mine").exists()
    await bench.remove(container)
    assert not volume.exists()


async def test_an_image_can_be_a_volume(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    mount = config.mounts.add(container_path="/img", readonly=True, image_sub_path="etc")
    mount.image.image = "localhost/busybox:test"
    out = await bench.run(sandbox, "head -c 5 /img/passwd; echo; touch /img/x 2>/dev/null || echo no", config)
    assert out == "root:\nno\n"
    config.mounts[0].image_sub_path = "../../nothing"
    with pytest.raises(ImageVolumeMountFailed, match=r"^ImageVolumeMountFailed: .*image_sub_path"):
        await bench.run(sandbox, "true", config)
    config.mounts[0].image.image = "localhost/absent:1"
    with pytest.raises(ImageVolumeMountFailed, match=r"config\.mounts\[0\]\.image: there is no image"):
        await bench.run(sandbox, "true", config)


async def test_a_pod_mounts_an_image_once_for_as_long_as_a_container_shows_it(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    for path, sub_path in (("/whole", ""), ("/etc-of-it", "etc")):
        mount = config.mounts.add(container_path=path, readonly=True, image_sub_path=sub_path)
        mount.image.image = "localhost/busybox:test"
    home = Path(bench.config.run, "sandboxes", sandbox.id, "images")

    def mounted() -> list[str]:
        return [each.target for each in mounts.mounts_below(home, mounts.read_table())]

    first, second = await asyncio.gather(
        bench.container(sandbox, "sleep", "1000", config=config),
        bench.container(sandbox, "sleep", "1000", config=config),
    )
    [place] = mounted()
    for container in (first, second):
        assert await bench.exec(container, "head", "-c", "5", "/etc-of-it/passwd") == "root:"
    wrong = cri.ContainerConfig()
    wrong.CopyFrom(config)
    wrong.linux.security_context.run_as_username = "nobody-here"
    with pytest.raises(PodwrightError, match="nobody-here"):
        await bench.run(sandbox, "true", wrong)
    assert mounted() == [place]
    await bench.remove(first)
    assert mounted() == [place]
    assert await bench.exec(second, "head", "-c", "5", "/whole/etc/passwd") == "root:"
    await bench.remove(second)
    assert not mounted()
    assert not list(home.iterdir())
    assert not list(Path(bench.config.root, "sandboxes", sandbox.id).rglob("upper"))
    # Of a creation that fails nothing stays, also when it was the first to show the image.
    with pytest.raises(PodwrightError, match="nobody-here"):
        await bench.run(sandbox, "true", wrong)
    assert not mounted()
    await bench.container(sandbox, "sleep", "1000", config=config)
    assert mounted() == [place]
    await bench.engine.stop_sandbox(sandbox)
    assert not mounted()


async def test_after_a_reboot_a_volumes_image_is_not_held(bench: Bench, busybox: Path) -> None:
    images = bench.engine.images
    await images.import_root(busybox, "localhost/data:1", config={"Cmd": ["data"]})
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/img", readonly=True).image.image = "localhost/data:1"
    container = await bench.container(sandbox, "true", config=config)
    await bench.exit_of(container)
    run = Path(bench.config.run, "containers", container.id)
    mounts.unmount_below(run)
    trees.remove(run)
    await bench.remove(container)
    await images.remove("localhost/data:1")
    assert await images.find("localhost/data:1") is None
    assert [each for each in images.orphans(set()) if each.kind == "image-use"] == []


async def test_nobody_but_root_gets_at_a_rootfs_or_a_bundle(bench: Bench) -> None:
    """An environment holds secrets, and a setuid program of a container would be one on the host."""
    sandbox = await bench.sandbox(pid=POD)
    config = cri.ContainerConfig()
    config.linux.security_context.run_as_user.value = 1000
    container = await bench.container(sandbox, "sleep", "1000", config=config)
    assert await bench.exec(container, "id", "-u") == "1000\n"
    run, root = Path(bench.config.run), Path(bench.config.root)
    assert run.stat().st_mode & 0o777 == 0o711, "the socket may lie there"
    for private in (run / "containers", run / "sandboxes", root / "containers", root / "images"):
        assert private.stat().st_mode & 0o077 == 0, private


async def test_a_log_that_is_no_file_holds_nobody_up(bench: Bench) -> None:
    """A pod that has the directory of logs mounted can put there what it likes."""
    sandbox = await bench.sandbox()
    bench.logs = Path(bench.config.root) / "taken"
    bench.logs.mkdir()
    real = secrets.token_hex
    try:
        secrets.token_hex = lambda size: "ab" * size  # type: ignore[assignment, misc]
        os.makedirs(bench.logs / "abababab")  # noqa: PTH103
        os.mkfifo(bench.logs / "abababab/0.log")
        with pytest.raises(FailedPrecondition, match="the log"):
            await bench.container(sandbox, "true")
    finally:
        secrets.token_hex = real


async def test_the_hosts_files_may_hold_any_bytes(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(b"127.0.0.1 localhost # caf\xe9\n")
    monkeypatch.setattr(pods, "_HOSTS", str(hosts))
    sandbox = await bench.sandbox()
    copied = Path(bench.config.root, "sandboxes", sandbox.id, "hosts").read_bytes()
    assert b"caf\xe9" in copied


async def test_a_privileged_container_sees_the_hosts_devices(bench: Bench) -> None:
    sandbox = await bench.sandbox(config=_privileged())
    config = cri.ContainerConfig()
    config.linux.security_context.privileged = True
    out = await bench.run(sandbox, "ls /dev; grep CapEff /proc/self/status", config)
    assert "kmsg" in out.split() or "vda" in out.split()


async def test_devices(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.devices.add(host_path="/dev/null", container_path="/dev/nothing", permissions="rw")
    assert await bench.run(sandbox, "echo x >/dev/nothing && echo written", config) == "written\n"
    config.devices[0].host_path = "/dev/no-such-device"
    with pytest.raises(InvalidArgument, match="no-such-device"):
        await bench.run(sandbox, "true", config)


async def test_runtime_default_seccomp_and_negative_oom_score(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig()
    config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
    config.linux.resources.oom_score_adj = -998
    out = await bench.run(sandbox, "grep Seccomp: /proc/self/status; cat /proc/self/oom_score_adj", config)
    assert out.split()[:2] == ["Seccomp:", "2"]


async def written(log: Path) -> None:
    """Wait until something is in the log."""
    async for _ in reader.follow(log, follow=True):
        return


async def test_a_log_is_reopened_after_rotation(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(
        sandbox, "sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.01; done"
    )
    log = Path(container.log_path)
    await written(log)
    # A log that nobody moved stays as it is.
    await bench.engine.reopen_log(container)
    old = log.rename(log.with_suffix(".old"))
    await bench.engine.reopen_log(container)
    size = old.stat().st_size
    assert log.exists() and log.stat().st_mode & 0o777 == 0o640
    await written(log)
    assert old.stat().st_size == size
    await bench.engine.signal_container(container, 9)
    await bench.exit_of(container)
    numbers = [int(line.split()[3]) for file in (old, log) for line in file.read_text().splitlines()]
    assert numbers == list(range(len(numbers)))
    log.unlink()
    with pytest.raises(FailedPrecondition, match="supervisor"):
        await bench.engine.reopen_log(container)


def test_image_paths_never_leave_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/abs").symlink_to("/etc/passwd")
    (tmp_path / "etc/up").symlink_to("../../../../etc")
    (tmp_path / "loop").symlink_to("loop")
    assert rootfs.inside(tmp_path, "etc/abs") == tmp_path / "etc/passwd"
    assert rootfs.inside(tmp_path, "etc/up/shadow") == tmp_path / "etc/shadow"
    assert rootfs.inside(tmp_path, "../../x") == tmp_path / "x"
    with pytest.raises(FailedPrecondition, match="more than 40 links"):
        rootfs.inside(tmp_path, "loop")
    (tmp_path / "many").symlink_to("/".join(["many"] * 800))
    with pytest.raises(FailedPrecondition, match="more than 40 links"):
        rootfs.inside(tmp_path, "many")
    assert rootfs.user_files(tmp_path).passwd is None


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("2026-11-21T21:37:26.960073Z: executable file `x` not found\n", "executable file `x` not found"),
        (
            'time="2026-11-21T21:37:26Z" level=error msg="runc create failed: \\"x\\": not found"\n',
            'runc create failed: "x": not found',
        ),
        ("same\nsame\nother\n", "same; other"),
        ("", ""),
    ],
)
def test_a_runtimes_words_are_made_plain(output: str, words: str) -> None:
    assert conmon.plain_words(output) == words


def _privileged() -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig()
    config.linux.security_context.privileged = True
    return config
