"""Pods and containers on a real Docker Engine: made, started, looked at, ended, removed."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from podwright.config import Config
from podwright.engines.base import ContainerFacts, Presence, SandboxFacts
from podwright.engines.docker.objects import DOCKER_ID
from podwright.errors import FailedPrecondition, InvalidArgument, PodwrightError, Unimplemented
from podwright.wire import cri_pb2 as cri
from tests.docker.conftest import docker_opened
from tests.docker.daemon import Daemon
from tests.oci.bench import POD, Bench

pytestmark = pytest.mark.root

LOOP = "while :; do sleep 0.05; done"
WAIT = f"trap 'exit 0' TERM; {LOOP}"


async def test_a_pod_of_two_containers(docker_bench: Bench, daemon: Daemon) -> None:
    pod = cri.PodSandboxConfig(hostname="web-0")
    pod.dns_config.servers.append("10.96.0.10")
    pod.dns_config.searches.append("svc.test")
    pod.linux.sysctls["net.ipv4.ip_forward"] = "1"
    sandbox = await docker_bench.sandbox(network=POD, pid=POD, config=pod)
    (address,) = sandbox.facts.ips
    first = await docker_bench.container(sandbox, "sh", "-c", WAIT)
    said = await docker_bench.run(
        sandbox,
        "id; hostname; cat /etc/resolv.conf /proc/sys/net/ipv4/ip_forward /proc/net/fib_trie /proc/1/comm",
        cri.ContainerConfig(
            linux=cri.LinuxContainerConfig(
                security_context=cri.LinuxContainerSecurityContext(
                    run_as_username="app", supplemental_groups=[4004]
                )
            )
        ),
    )
    assert said.startswith("uid=1001(app) gid=1002(own) groups=1002(own),3003(extra),4004\nweb-0\n")
    assert "search svc.test\nnameserver 10.96.0.10\n1\n" in said
    assert address in said
    # They share the pod's processes, whose first is the sandbox's.
    assert said.endswith("catatonit\n")
    assert (await docker_bench.engine.observe_container(first)).presence is Presence.RUNNING
    assert await docker_bench.engine.sandbox_alive(sandbox)
    await docker_bench.engine.stop_sandbox(sandbox)
    # Its end takes those along that share its processes.
    assert (await docker_bench.exit_of(first)).code == 137
    assert not await docker_bench.engine.sandbox_alive(sandbox)
    await docker_bench.engine.stop_sandbox(sandbox)


async def test_exits_tell_code_and_time(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    soft = await docker_bench.container(sandbox, "sh", "-c", f"trap 'exit 5' TERM; {LOOP}")
    hard = await docker_bench.container(sandbox, "sleep", "1000")
    await docker_bench.engine.signal_container(soft, signal.SIGTERM)
    await docker_bench.engine.signal_container(hard, signal.SIGKILL)
    first, second = await docker_bench.exit_of(soft), await docker_bench.exit_of(hard)
    assert (first.code, second.code) == (5, 137)
    assert not first.oom_killed
    seen = await docker_bench.engine.observe_container(soft)
    assert (seen.presence, seen.exit) == (Presence.EXITED, first)
    # A signal to what has ended is no error.
    await docker_bench.engine.signal_container(soft, signal.SIGKILL)


async def test_what_is_killed_before_its_start_has_ended(docker_bench: Bench) -> None:
    """Docker has no process to kill then, and tells of no end."""
    container = await docker_bench.container(await docker_bench.sandbox(), "true", start=False)
    await docker_bench.engine.signal_container(container, signal.SIGTERM)
    assert (await docker_bench.engine.observe_container(container)).presence is Presence.CREATED
    await docker_bench.engine.signal_container(container, signal.SIGKILL)
    exit = await docker_bench.exit_of(container)
    assert exit.code == 137
    assert (await docker_bench.engine.observe_container(container)).exit == exit
    with pytest.raises(FailedPrecondition, match="ended before its start"):
        await docker_bench.engine.start_container(container)


async def test_a_sandbox_that_is_killed_is_told(docker_bench: Bench, daemon: Daemon) -> None:
    sandbox = await docker_bench.sandbox()
    daemon.request("POST", f"/containers/{sandbox.facts.own[DOCKER_ID]}/kill")
    exit = await docker_bench.exit_of(sandbox)
    assert exit.sandbox
    assert not await docker_bench.engine.sandbox_alive(sandbox)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/no/such", "no such file"),
        ("nosuch", "executable file not found in $PATH"),
        ("/etc/passwd", "permission denied"),
    ],
)
async def test_what_cannot_be_started_says_why(docker_bench: Bench, command: str, words: str) -> None:
    sandbox = await docker_bench.sandbox()
    container = await docker_bench.container(sandbox, command, start=False)
    with pytest.raises(PodwrightError, match=words.replace("$", r"\$")) as raised:
        await docker_bench.engine.start_container(container)
    assert "runc create" not in str(raised.value)
    assert (await docker_bench.engine.observe_container(container)).presence is Presence.EXITED


async def test_limits_are_set_and_changed(docker_bench: Bench, daemon: Daemon) -> None:
    sandbox = await docker_bench.sandbox()
    asked = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_quota=50000, cpu_period=100000)
    config = cri.ContainerConfig(linux=cri.LinuxContainerConfig(resources=asked))
    container = await docker_bench.container(sandbox, "sh", "-c", WAIT, config=config)

    def host() -> dict[str, object]:
        path = f"/containers/{container.facts.own[DOCKER_ID]}/json"
        found: dict[str, object] = json.loads(daemon.request("GET", path))["HostConfig"]
        return found

    assert (host()["Memory"], host()["MemorySwap"], host()["CpuQuota"]) == (64 << 20, 64 << 20, 50000)
    more = cri.LinuxContainerResources(memory_limit_in_bytes=96 << 20)
    await docker_bench.engine.check_update(container, more)
    await docker_bench.engine.update_container(container, more, asked)
    assert (host()["Memory"], host()["MemorySwap"], host()["CpuQuota"]) == (96 << 20, 96 << 20, -1)
    with pytest.raises(Unimplemented, match=r"linux\.memory_limit_in_bytes"):
        await docker_bench.engine.check_update(container, cri.LinuxContainerResources())


async def test_mounts_and_devices(docker_bench: Bench, tmp_path: Path) -> None:
    sandbox = await docker_bench.sandbox()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "f").write_text("seen\n")
    config = cri.ContainerConfig(
        mounts=[
            cri.Mount(host_path=str(tmp_path / "made" / "dir"), container_path="made"),
            cri.Mount(host_path=str(tmp_path / "ro"), container_path="/ro", readonly=True),
        ],
        devices=[cri.Device(host_path="/dev/zero", container_path="/dev/z", permissions="r")],
    )
    said = await docker_bench.run(
        sandbox,
        "cat /ro/f; echo x >/made/f; (echo x >/ro/g) 2>/dev/null || echo read-only; ls -l /dev/z",
        config,
    )
    assert said.startswith("seen\nread-only\ncrw")
    assert (tmp_path / "made" / "dir" / "f").read_text() == "x\n"


async def test_of_a_creation_that_fails_nothing_stays(
    docker_bench: Bench, daemon: Daemon, tmp_path: Path
) -> None:
    sandbox = await docker_bench.sandbox()
    before = len(daemon.containers())
    config = cri.ContainerConfig(
        mounts=[cri.Mount(host_path=str(tmp_path / "new" / "dir"), container_path="/m")],
        # A directory is in the way where the working directory would be made.
        working_dir="/etc/passwd",
    )
    with pytest.raises(InvalidArgument, match=r"^config\.working_dir: /etc/passwd is no directory"):
        await docker_bench.container(sandbox, "true", config=config)
    assert not (tmp_path / "new").exists()
    assert len(daemon.containers()) == before
    with pytest.raises(InvalidArgument, match=r"config\.devices\[0\]\.host_path"):
        missing = cri.ContainerConfig(devices=[cri.Device(host_path="/dev/nosuch")])
        await docker_bench.container(sandbox, "true", config=missing)
    docker_bench.containers.clear()


async def test_what_is_made_is_found_without_a_note_of_it(docker_bench: Bench, daemon: Daemon) -> None:
    """As after a crash between what Docker did and what was written down."""
    sandbox = await docker_bench.sandbox(network=POD)
    container = await docker_bench.container(sandbox, "sh", "-c", WAIT)
    bare = replace(sandbox, facts=SandboxFacts())
    lost = replace(container, sandbox=bare, facts=ContainerFacts())
    assert (await docker_bench.engine.observe_container(lost)).presence is Presence.RUNNING
    assert await docker_bench.engine.sandbox_alive(bare)
    orphans = await docker_bench.engine.orphans({sandbox.id}, set())
    assert [each.name for each in orphans] == [container.facts.own[DOCKER_ID]]
    await docker_bench.engine.remove_container(lost)
    await docker_bench.engine.remove_sandbox(bare)
    assert (await docker_bench.engine.observe_container(lost)).presence is Presence.MISSING
    assert not await docker_bench.engine.orphans(set(), set())


async def test_what_ended_meanwhile_is_seen_by_the_next_podwright(
    docker_config: Config, daemon: Daemon
) -> None:
    async with AsyncExitStack() as first:
        bench = await first.enter_async_context(docker_opened(docker_config))
        sandbox = await bench.sandbox(network=POD)
        container = await bench.container(
            sandbox, "sh", "-c", f"trap 'echo bye; exit 3' TERM; echo hi; {LOOP}"
        )
        bench.containers.clear()
        bench.sandboxes.clear()
    daemon.request("POST", f"/containers/{container.facts.own[DOCKER_ID]}/kill?signal=TERM")
    daemon.request("POST", f"/containers/{container.facts.own[DOCKER_ID]}/wait")
    async with docker_opened(docker_config) as again:
        again.containers[container.id], again.sandboxes[sandbox.id] = container, sandbox
        seen = await again.engine.observe_container(container)
        assert seen.exit is not None
        assert seen.exit.code == 3
        text = Path(container.log_path).read_text()
        assert [line.rpartition(" ")[2] for line in text.splitlines()] == ["hi", "bye"]
        assert await again.engine.sandbox_alive(sandbox)


async def test_a_privileged_container_needs_a_privileged_pod(docker_bench: Bench) -> None:
    asked = cri.ContainerConfig()
    asked.linux.security_context.privileged = True
    with pytest.raises(InvalidArgument, match="privileged"):
        await docker_bench.container(await docker_bench.sandbox(), "true", config=asked)
    docker_bench.containers.clear()
    pod = cri.PodSandboxConfig()
    pod.linux.security_context.privileged = True
    sandbox = await docker_bench.sandbox(config=pod)
    said = await docker_bench.run(sandbox, "cat /proc/self/status; ls /dev", asked)
    assert "Seccomp:\t0" in said
    assert "kmsg" in said


async def test_confinement_as_asked(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    asked = cri.ContainerConfig()
    security = asked.linux.security_context
    security.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
    security.no_new_privs = True
    security.capabilities.drop_capabilities.append("ALL")
    security.capabilities.add_capabilities.append("net_bind_service")
    security.masked_paths.append("/proc/version")
    security.readonly_rootfs = True
    said = await docker_bench.run(
        sandbox,
        "cat /proc/self/status; stat -c %F /proc/version; (echo >/x) 2>/dev/null || echo fixed",
        asked,
    )
    assert "Seccomp:\t2" in said
    assert "NoNewPrivs:\t1" in said
    assert "CapBnd:\t0000000000000400" in said
    assert said.endswith("character special file\nfixed\n")


_IDS = [cri.IDMapping(host_id=1 << 16, length=1 << 16)]
USERS = cri.UserNamespace(mode=POD, uids=_IDS, gids=_IDS)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        (
            "userns_options",
            lambda c: c.linux.security_context.namespace_options.userns_options.MergeFrom(USERS),
        ),
        (
            "add_ambient_capabilities",
            lambda c: c.linux.security_context.capabilities.add_ambient_capabilities.append("CHOWN"),
        ),
        ("image", lambda c: c.mounts.append(_image_volume())),
        ("CDI_devices", lambda c: c.CDI_devices.add(name="vendor/class=x")),
        ("unified", lambda c: c.linux.resources.unified.update({"memory.high": "1"})),
    ],
)
async def test_what_dockers_api_cannot_do_is_an_error_that_names_the_field(
    docker_bench: Bench, member: str, change: object
) -> None:
    sandbox = await docker_bench.sandbox()
    config = cri.ContainerConfig()
    change(config)  # type: ignore[operator]
    with pytest.raises(Unimplemented, match=member):
        await docker_bench.container(sandbox, "true", config=config)
    docker_bench.containers.clear()


def _image_volume() -> cri.Mount:
    return cri.Mount(image=cri.ImageSpec(image="x"), container_path="/v", readonly=True)
