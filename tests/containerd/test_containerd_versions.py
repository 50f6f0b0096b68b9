"""A pod's life on containerds of other versions than the host's, where tools/containerd.sh could get them."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from podwright.engines.containerd.api import SPEC, Containerd
from podwright.engines.containerd.sandbox_service import SandboxService
from podwright.wire.containerd import types_pb2
from tests.containerd.conftest import containerd_opened, engine_config, left_over
from tests.containerd.daemon import BUSYBOX, NEWER, running, shim_socket
from tests.oci.bench import POD

pytestmark = pytest.mark.root


@pytest.mark.parametrize("version", NEWER)
async def test_a_pod_from_its_making_to_its_removal(version: str, tmp_path: Path) -> None:
    if not Path(NEWER[version]).exists():
        pytest.skip(f"tools/containerd.sh could not get a containerd {version}")
    with running(tmp_path / "daemon", program=NEWER[version]) as daemon:
        config = engine_config(daemon, tmp_path)
        async with containerd_opened(config) as bench:
            assert bench.engine.runtime_version.startswith(version)
            sandbox = await bench.sandbox(network=POD, pid=POD)
            assert (await bench.engine.sandbox_info(sandbox))["sandboxer"] == "podsandbox"
            runs = await bench.container(sandbox, "sleep", "1000")
            assert await bench.exec(runs, "echo", "here") == "here\n"
            script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; ls -d /proc/[0-9]* | wc -l"
            program, processes = (await bench.run(sandbox, script)).splitlines()
            assert program == "/catatonit -P "
            assert int(processes) >= 3
            # What has ended needs none any more.
            assert sorted(daemon.sandboxes()) == sorted((sandbox.id, runs.id))
            known = {sandbox.id}, set(bench.containers) - {runs.id}
            (guard,) = [each for each in await bench.engine.orphans(*known) if each.kind == "guard"]
            await bench.engine.remove_orphan(guard)
            assert daemon.sandboxes() == [sandbox.id]
            await bench.clear()
        assert left_over(daemon, config) == []


async def test_sandboxes_are_listed_however_many_they_are(tmp_path: Path) -> None:
    """More than containerd says in one answer, which is 16 MiB."""
    if not Path(NEWER["2"]).exists():
        pytest.skip("tools/containerd.sh could not get a containerd 2")
    with running(tmp_path / "daemon", program=NEWER["2"], images=False) as daemon:
        containerd = Containerd(daemon.config)
        containerd.open()
        try:
            await containerd.look()
            service = SandboxService(containerd)
            ids = [secrets.token_hex(32) for _ in range(12)]
            for place, id in enumerate(ids):
                record = types_pb2.Sandbox(sandbox_id=id, labels={"whose": "ours" if place else "theirs"})
                record.runtime.name = "none"
                record.spec.type_url, record.spec.value = SPEC, b'"' + b"x" * (3 << 19) + b'"'
                await service.enter(record)
            listed = await service.list('labels."whose"=="ours"')
            assert sorted(each.sandbox_id for each in listed) == sorted(ids[1:])
            assert sum(each.ByteSize() for each in listed) > 16 << 20
        finally:
            await containerd.close()


@pytest.mark.parametrize("version", ["", *NEWER])
def test_the_end_of_a_daemon_takes_its_shims_and_their_sockets(version: str, tmp_path: Path) -> None:
    with running(tmp_path / "daemon", program=NEWER.get(version, "containerd")) as daemon:
        runtime = str(daemon.directory / "runc")
        daemon.ctr("run", "--detach", "--runc-binary", runtime, BUSYBOX, "stays", "sleep", "1000")
        (bundle,) = daemon.state.glob("io.containerd.runtime.v2.task/*/stays")
        socket = shim_socket(bundle)
        assert socket is not None
        assert socket.is_socket()
        assert daemon.shims()
    assert not socket.exists()
    assert not daemon.shims()
