"""The whole life of pods on the oci engine, against the real kernel and the real programs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from pathlib import Path

import pytest

from podwright.engines.base import ContainerFacts, Presence, SandboxFacts
from podwright.errors import CommandFailed, InvalidArgument, Unavailable, Unimplemented
from podwright.linux import namespaces, proc
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import CONTAINER, NODE, POD, TARGET, Bench, uncreatable

pytestmark = pytest.mark.root


async def test_a_pod_runs_prints_and_ends(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    container = await bench.container(sandbox, "sh", "-c", "echo out; echo err >&2; exit 3")
    end = await bench.exit_of(container)
    assert (end.code, end.oom_killed, end.sandbox) == (3, False, False)
    log = Path(container.log_path).read_text()
    assert " stdout F out\n" in log and " stderr F err\n" in log
    assert Path(container.log_path).stat().st_mode & 0o777 == 0o640
    assert len(sandbox.facts.ips) == 1
    assert await bench.engine.sandbox_alive(sandbox)
    await bench.remove(container)
    await bench.remove_sandbox(sandbox)
    assert not await bench.engine.sandbox_alive(sandbox)


async def test_two_containers_share_network_name_and_memory(bench: Bench) -> None:
    config = cri.PodSandboxConfig(hostname="twins")
    sandbox = await bench.sandbox(network=POD, config=config)
    one = await bench.container(sandbox, "sh", "-c", "echo hello >/dev/shm/note; sleep 100")
    two = await bench.container(sandbox, "sleep", "100")
    assert await bench.exec(two, "hostname") == "twins\n"
    assert await bench.exec(two, "cat", "/etc/hostname") == "twins\n"
    assert await bench.exec(two, "cat", "/dev/shm/note") == "hello\n"
    rows = (await bench.exec(two, "df", "-k", "/dev/shm")).split()
    assert "65536" in rows
    assert await bench.exec(two, "stat", "-c", "%a", "/dev/shm") == "1777\n"
    assert await bench.exec(one, "readlink", "/proc/self/ns/net") == await bench.exec(
        two, "readlink", "/proc/self/ns/net"
    )
    assert "UP" in await bench.exec(two, "ip", "link", "show", "lo")


async def test_sysctls_of_a_pod_stay_in_the_pod(bench: Bench) -> None:
    config = cri.PodSandboxConfig()
    config.linux.sysctls["net.ipv4.ip_local_port_range"] = "1024 9999"
    sandbox = await bench.sandbox(network=POD, config=config)
    container = await bench.container(sandbox, "sleep", "100")
    read = await bench.exec(
        container,
        "cat",
        "/proc/sys/net/ipv4/ip_local_port_range",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/net/ipv4/ping_group_range",
    )
    assert read.split() == ["1024", "9999", "0", "0", "2147483647"]


async def test_signals_reach_the_first_process(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    container = await bench.container(sandbox, "sh", "-c", script)
    async for _ in reader.follow(container.log_path, follow=True):
        break
    await bench.engine.signal_container(container, signal.SIGTERM)
    assert (await bench.exit_of(container)).code == 7
    await bench.engine.signal_container(container, signal.SIGTERM)


async def test_sigkill_ends_it_with_137(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "1000")
    await bench.engine.signal_container(container, signal.SIGKILL)
    end = await bench.exit_of(container)
    assert end.code == 137 and not end.oom_killed


async def test_a_pid_that_was_given_away_gets_no_signal(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "1000")
    other = dataclasses.replace(container, facts=dataclasses.replace(container.facts, own={"started": 1}))
    await bench.engine.signal_container(other, signal.SIGTERM)
    assert proc.alive(container.facts.pid)


async def test_shared_pid_namespace_has_a_pause_process(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD, pid=POD)
    assert sandbox.facts.pid > 0
    one = await bench.container(sandbox, "sh", "-c", "sleep 301 & sleep 302")
    two = await bench.container(sandbox, "sleep", "303")
    async with asyncio.timeout(60):
        # The runtime has told it to start; it executes its program a moment later.
        while "sleep 303" not in (seen := await bench.exec(two, "ps", "-o", "args")):
            pass
    assert "catatonit" in seen and "sleep 302" in seen
    # Nothing but SIGKILL of everybody ends the background process: it is not under the container's init.
    await bench.engine.signal_container(one, signal.SIGKILL)
    await bench.exit_of(one)
    seen = await bench.exec(two, "ps", "-o", "args")
    assert "sleep 301" not in seen and "sleep 303" in seen


async def test_the_end_of_a_pause_process_is_reported(bench: Bench) -> None:
    sandbox = await bench.sandbox(pid=POD)
    assert await bench.engine.sandbox_alive(sandbox)
    os.kill(sandbox.facts.pid, signal.SIGKILL)
    end = await bench.exit_of(sandbox)
    assert end.sandbox and end.code == 137
    assert not await bench.engine.sandbox_alive(sandbox)


async def test_leftovers_of_an_ended_container_are_killed(bench: Bench) -> None:
    sandbox = await bench.sandbox(pid=POD)
    other = await bench.container(sandbox, "sleep", "100")
    gone = await bench.container(sandbox, "sh", "-c", "setsid sleep 304 & exit 0")
    assert (await bench.exit_of(gone)).code == 0
    assert "sleep 304" not in await bench.exec(other, "ps", "-o", "args")


async def test_target_joins_another_containers_processes(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    first = await bench.container(sandbox, "sleep", "305")
    config = cri.ContainerConfig()
    options = config.linux.security_context.namespace_options
    options.pid, options.target_id = TARGET, first.id
    second = await bench.container(sandbox, "sleep", "306", config=config, target=first)
    assert "sleep 305" in await bench.exec(second, "ps", "-o", "args")


async def test_host_namespaces(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=NODE, pid=NODE, ipc=NODE)
    assert sandbox.facts.ips == ()
    container = await bench.container(sandbox, "sleep", "100")
    for kind in ("net", "pid", "ipc", "uts"):
        inside = (await bench.exec(container, "readlink", f"/proc/self/ns/{kind}")).strip()
        assert inside == os.readlink(f"/proc/self/ns/{kind}"), kind  # noqa: PTH115
    await bench.engine.signal_container(container, signal.SIGKILL)
    await bench.exit_of(container)


async def test_a_terminal(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig(tty=True)
    assert "a terminal" in await bench.run(sandbox, "test -t 1 && echo a terminal", config)


async def test_standard_input_stays_open(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    config = cri.ContainerConfig(stdin=True)
    container = await bench.container(sandbox, "sh", "-c", "cat; echo end", config=config)
    assert (await bench.exec(container, "readlink", "/proc/1/fd/0")).startswith("pipe:")
    assert (await bench.engine.observe_container(container)).presence is Presence.RUNNING


async def test_without_a_log_path_output_is_dropped(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sh", "-c", "yes | head -c 1000000", log=False)
    assert (await bench.exit_of(container)).code == 0


async def test_a_log_directory_may_contain_a_colon(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    bench.logs = bench.logs / "a:b"
    assert await bench.run(sandbox, "echo here") == "here\n"


async def test_a_missing_program_is_named_in_the_error(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    with pytest.raises(CommandFailed, match="executable file `no-such-program` not found") as caught:
        await bench.container(sandbox, "no-such-program")
    assert str(caught.value).startswith("crun failed with status 1: executable file")


async def test_a_failed_creation_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    sandbox = await bench.sandbox()
    config = uncreatable(tmp_path)
    config.mounts.add(container_path="/data", host_path=str(tmp_path / "new" / "deep"))
    with pytest.raises(CommandFailed):
        await bench.container(sandbox, "true", config=config, start=False)
    bench.containers.clear()
    assert not (tmp_path / "new").exists()
    assert list(Path(bench.config.run, "containers").iterdir()) == []
    assert list(Path(bench.config.root, "containers").iterdir()) == []
    assert await bench.engine.orphans({sandbox.id}, set()) == []


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04])
async def test_a_cancelled_creation_leaves_nothing(bench: Bench, delay: float) -> None:
    async def make() -> None:
        sandbox = await bench.sandbox(network=POD, pid=POD)
        await bench.container(sandbox, "sleep", "100", start=False)

    for more in (0.0, 0.03, 0.06):
        task = asyncio.ensure_future(make())
        await asyncio.sleep(delay + more)
        task.cancel()
        await asyncio.wait([task])
        for container in list(bench.containers.values()):
            await bench.remove(container)
        for sandbox in list(bench.sandboxes.values()):
            await bench.remove_sandbox(sandbox)
        assert await bench.engine.orphans(set(), set()) == []


async def test_what_the_engine_cannot_do_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(Unimplemented, match=r"namespace_options\.pid"):
        await bench.sandbox(pid=TARGET)
    with pytest.raises(InvalidArgument, match="runtime_handler"):
        bench.engine.check_handler("nonsense")
    config = cri.PodSandboxConfig()
    config.linux.sysctls["kernel.panic"] = "1"
    with pytest.raises(InvalidArgument, match=r"kernel\.panic"):
        await bench.sandbox(config=config)


async def test_network_off_makes_no_pod_and_leaves_nothing(bench: Bench) -> None:
    for file in Path(bench.config.cni.conf_dir).iterdir():
        file.write_text(file.read_text().replace('"bridge"', '"no-such-plugin"', 1))
    async with asyncio.timeout(10):
        while not bench.engine.network.error:  # noqa: ASYNC110 - it tells nobody when it has read the file
            await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="no-such-plugin"):
        await bench.sandbox(network=POD)
    bench.sandboxes.clear()
    assert await bench.engine.orphans(set(), set()) == []
    assert (await bench.engine.status()).network_error


async def test_stop_and_remove_without_facts(bench: Bench) -> None:
    """After a crash before the facts were stored."""
    sandbox = await bench.sandbox(network=POD, pid=POD)
    started = await bench.container(sandbox, "sleep", "100")
    created = await bench.container(sandbox, "sleep", "100", start=False)
    for each in (started, created):
        bare = dataclasses.replace(each, facts=ContainerFacts())
        await bench.engine.remove_container(bare)
        await bench.engine.remove_container(bare)
    bare_sandbox = dataclasses.replace(sandbox, facts=SandboxFacts())
    await bench.engine.stop_sandbox(bare_sandbox)
    await bench.engine.stop_sandbox(bare_sandbox)
    await bench.engine.remove_sandbox(bare_sandbox)
    await bench.engine.remove_sandbox(bare_sandbox)
    bench.containers.clear()
    bench.sandboxes.clear()
    assert await bench.engine.orphans(set(), set()) == []
    assert not proc.alive(started.facts.pid) and not proc.alive(sandbox.facts.pid)


async def test_stop_copes_with_a_namespace_that_vanished(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    namespaces.unpin(Path(bench.config.run, "sandboxes", sandbox.id, "ns", "net"))
    assert not await bench.engine.sandbox_alive(sandbox)
    await bench.remove_sandbox(sandbox)
    assert not bench.engine.network.cached_ids()


async def test_container_mode_pid_is_its_own(bench: Bench) -> None:
    sandbox = await bench.sandbox(pid=CONTAINER)
    assert sandbox.facts.pid == 0
    assert await bench.run(sandbox, "echo $$") == "1\n"


async def test_info_for_people(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD)
    container = await bench.container(sandbox, "sleep", "100")
    about = await bench.engine.container_info(container)
    assert about["runtimeSpec"]["process"]["args"] == ["sleep", "100"] and about["pid"] == container.facts.pid
    about = await bench.engine.sandbox_info(sandbox)
    assert about["cniResult"]["ips"] and Path(about["netns"]).exists()
