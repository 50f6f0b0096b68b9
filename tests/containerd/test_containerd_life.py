"""Pods on a real containerd, from their making to their removal; nothing is left of them."""

from __future__ import annotations

import signal
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config
from podwright.engines.base import Presence
from podwright.errors import PodwrightError
from podwright.linux import cgroups, spawn
from podwright.wire import cri_pb2 as cri
from podwright.wire.containerd import containers_pb2
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import Daemon, running
from tests.oci.bench import POD, Bench

pytestmark = pytest.mark.root

LOOP = "while :; do sleep 0.05; done"
WAIT = f"trap 'exit 0' TERM; {LOOP}"


async def test_a_pod_of_two_containers(containerd_bench: Bench, daemon: Daemon) -> None:
    pod = cri.PodSandboxConfig(hostname="web-0", labels={"app": "web"})
    pod.dns_config.servers.append("10.96.0.10")
    pod.linux.sysctls["net.ipv4.ip_forward"] = "1"
    sandbox = await containerd_bench.sandbox(network=POD, pid=POD, config=pod)
    (address,) = sandbox.facts.ips
    first = await containerd_bench.container(sandbox, "sh", "-c", WAIT)
    wanted = cri.ContainerConfig()
    wanted.linux.security_context.run_as_username = "app"
    wanted.linux.security_context.supplemental_groups.append(4004)
    said = await containerd_bench.run(
        sandbox,
        "id; hostname; cat /etc/resolv.conf /proc/sys/net/ipv4/ip_forward /proc/net/fib_trie /proc/1/comm",
        wanted,
    )
    assert said.startswith(
        "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra),2001(more),4004\nweb-0\n"
    )
    assert "nameserver 10.96.0.10\n1\n" in said and address in said
    # They share the pod's processes, whose first is the sandbox's.
    assert said.endswith("catatonit\n")
    assert (await containerd_bench.engine.observe_container(first)).presence is Presence.RUNNING
    assert await containerd_bench.engine.sandbox_alive(sandbox)
    assert await containerd_bench.exec(first, "hostname") == "web-0\n"
    assert cgroups.pids(f"{containerd_bench.config.cgroup_parent}/{first.id}")
    record = _record(daemon, first.id)
    assert record.labels["podwright.io/kind"] == "container"
    assert record.labels["podwright.io/sandbox"] == sandbox.id
    assert not [
        label for each in daemon.containers() for label in each.labels if "io.cri-containerd" in label
    ]
    await containerd_bench.engine.stop_sandbox(sandbox)
    # Its end takes those along that share its processes.
    assert (await containerd_bench.exit_of(first)).code == 137
    assert not await containerd_bench.engine.sandbox_alive(sandbox)
    await containerd_bench.engine.stop_sandbox(sandbox)


async def test_exits_tell_code_and_time(containerd_bench: Bench) -> None:
    sandbox = await containerd_bench.sandbox()
    soft = await containerd_bench.container(sandbox, "sh", "-c", f"trap 'exit 5' TERM; : >/tmp/on; {LOOP}")
    hard = await containerd_bench.container(sandbox, "sleep", "1000")
    await containerd_bench.exec(soft, "sh", "-c", "until [ -e /tmp/on ]; do sleep 0.05; done")
    await containerd_bench.engine.signal_container(soft, signal.SIGTERM)
    await containerd_bench.engine.signal_container(hard, signal.SIGKILL)
    first, second = await containerd_bench.exit_of(soft), await containerd_bench.exit_of(hard)
    assert (first.code, second.code, first.oom_killed) == (5, 137, False)
    seen = await containerd_bench.engine.observe_container(soft)
    assert (seen.presence, seen.exit) == (Presence.EXITED, first)
    # A signal to what has ended is no error.
    await containerd_bench.engine.signal_container(soft, signal.SIGKILL)


async def test_creations_are_undone_and_orphans_are_found(
    containerd_config: Config, daemon: Daemon, tmp_path: Path
) -> None:
    async with containerd_opened(containerd_config) as bench:
        sandbox = await bench.sandbox(network=POD)
        refused = cri.ContainerConfig()
        refused.mounts.add(container_path="/etc/passwd", host_path=str(tmp_path))
        with pytest.raises(PodwrightError):
            await bench.container(sandbox, "true", config=refused)
        (left,) = bench.containers.values()
        bench.containers.clear()
        assert left.id not in [each.id for each in daemon.containers()]
        running_one = await bench.container(sandbox, "sleep", "1000")
        known = {sandbox.id}, {running_one.id}
        assert not await bench.engine.orphans(*known)
        # What another podwright has in the same containerd, namespace and cgroup is not left over.
        roots = {"root": str(tmp_path / "other-root"), "run": str(tmp_path / "other-run")}
        async with containerd_opened(msgspec.structs.replace(containerd_config, **roots)) as other:
            assert not await other.engine.orphans(set(), set())
        # Records that are gone: all of it is left over, and goes.
        bench.sandboxes.clear()
        bench.containers.clear()
        kinds = []
        for orphan in await bench.engine.orphans(set(), set()):
            kinds.append(orphan.kind)
            await bench.engine.remove_orphan(orphan)
        assert kinds[:4] == ["task", "task", "record", "record"]
        assert {"snapshot", "cni", "netns", "directory"} <= set(kinds)
        assert not await bench.engine.orphans(set(), set())


async def test_both_go_away_and_nothing_is_lost(tmp_path: Path) -> None:
    """podwright first, then containerd: what ended meanwhile is told with its code, its log is whole."""
    with running(tmp_path / "daemon") as daemon:
        config = engine_config(daemon, tmp_path)
        async with containerd_opened(config) as bench:
            sandbox = await bench.sandbox()
            ends = await bench.container(
                sandbox, "sh", "-c", "mkfifo /tmp/go; read words </tmp/go; echo $words; exit 7"
            )
            stays = await bench.container(sandbox, "sleep", "1000")
            await bench.exec(ends, "sh", "-c", "until [ -p /tmp/go ]; do sleep 0.05; done")
            kept = dict(bench.sandboxes), dict(bench.containers)
            bench.sandboxes.clear()
            bench.containers.clear()
        daemon.stop(number=signal.SIGKILL)
        pid = ends.facts.pid
        with open(f"/proc/{pid}/root/tmp/go", "w") as fifo:
            fifo.write("said while nobody was there\n")
        await spawn.exited(pid)
        daemon.restart()
        async with containerd_opened(config) as bench:
            bench.sandboxes.update(kept[0])
            bench.containers.update(kept[1])
            seen = await bench.engine.observe_container(ends)
            assert seen.presence is Presence.EXITED and seen.exit is not None and seen.exit.code == 7
            assert "said while nobody was there" in Path(ends.log_path).read_text()
            assert (await bench.engine.observe_container(stays)).presence is Presence.RUNNING
            assert await bench.engine.sandbox_alive(sandbox)
        assert not left_over(daemon, config)


def _record(daemon: Daemon, id: str) -> containers_pb2.Container:
    (found,) = [each for each in daemon.containers() if each.id == id]
    return found
