"""The node's settings, seen from inside real containers of each runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podwright.config import Config, HandlerConfig, SpecConfig
from podwright.errors import InvalidArgument
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import POD, Bench, opened

pytestmark = pytest.mark.root
HANDLERS = ["crun", "runc"]


async def run(bench: Bench, handler: str, script: str, **given: Any) -> str:
    """What the script prints in a container that waits."""
    sandbox = await bench.sandbox(network=POD, handler=handler, config=given.pop("pod", None))
    container = await bench.container(sandbox, "sleep", "1000", **given)
    done = await bench.engine.exec_sync(container, ["sh", "-c", script], 20, 1 << 20)
    assert done.code == 0, done.stderr
    return done.stdout.decode()


def configured(place: Config, handler: dict[str, Any] | None = None, **settings: Any) -> Config:
    handlers = {name: HandlerConfig(path=name, **(handler or {})) for name in HANDLERS}
    return msgspec.structs.replace(place, handlers=handlers, spec=SpecConfig(**settings))


@pytest.mark.parametrize("handler", HANDLERS)
async def test_ulimits_umask_and_shared_memory(place: Config, busybox: Path, handler: str) -> None:
    config = configured(
        place,
        {"allowed_annotations": ["shm-size.crio.io"]},
        default_ulimits=["nofile=333:444"],
        umask="027",
        shm_size="1Mi",
    )
    script = "grep -e Umask /proc/1/status; grep 'open files' /proc/1/limits; df -k /dev/shm | tail -n 1"
    async with opened(config, busybox) as bench:
        plain = await run(bench, handler, script)
        larger = await run(
            bench, handler, script, pod=cri.PodSandboxConfig(annotations={"shm-size.crio.io": "3Mi"})
        )
    assert plain.split()[:2] == ["Umask:", "0027"]
    assert plain.splitlines()[1].split()[3:5] == ["333", "444"]
    assert plain.splitlines()[2].split()[1] == "1024"
    assert larger.splitlines()[2].split()[1] == "3072"


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_cdi_device_and_a_hook(place: Config, busybox: Path, handler: str, tmp_path: Path) -> None:
    for name in ("cdi", "hooks", "vendor"):
        (tmp_path / name).mkdir()
    (tmp_path / "vendor" / "file").write_text("of the vendor")
    edits = {
        "env": ["VENDOR=1"],
        "deviceNodes": [{"path": "/dev/from-vendor", "hostPath": "/dev/zero"}],
        "mounts": [
            {"hostPath": str(tmp_path / "vendor"), "containerPath": "/vendor", "options": ["ro", "rbind"]}
        ],
        "additionalGids": [4444],
    }
    device = {"name": "all", "containerEdits": edits}
    called = tmp_path / "called"
    program = tmp_path / "hook.sh"
    program.write_text(f"#!/bin/sh\necho called > {called}\n")
    program.chmod(0o755)
    hook = {
        "version": "1.0.0",
        "hook": {"path": str(program)},
        "when": {"commands": ["sleep"]},
        "stages": ["poststart"],
    }
    (tmp_path / "hooks" / "h.json").write_text(json.dumps(hook))
    config = configured(place, cdi_spec_dirs=[str(tmp_path / "cdi")], hooks_dirs=[str(tmp_path / "hooks")])
    wanted = cri.ContainerConfig(CDI_devices=[cri.CDIDevice(name="vendor.com/x=all")])
    script = "cat /vendor/file; head -c 2 /dev/from-vendor | wc -c; tr '\\0' '\\n' < /proc/1/environ; id -G"
    async with opened(config, busybox) as bench:
        with pytest.raises(InvalidArgument, match=r"vendor\.com/x=all"):
            await run(bench, handler, "true", config=wanted)
        # The vendor comes later than the server.
        spec = {"cdiVersion": "0.7.0", "kind": "vendor.com/x", "devices": [device]}
        (tmp_path / "cdi" / "x.json").write_text(json.dumps(spec))
        said = await run(bench, handler, script, config=wanted)
    assert said.startswith("of the vendor2\n")
    assert "VENDOR=1" in said
    assert "4444" in said.splitlines()[-1].split()
    assert called.read_text() == "called\n"


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_hook_that_reads_no_state_harms_nothing(
    place: Config, busybox: Path, handler: str, tmp_path: Path
) -> None:
    program = tmp_path / "hook.sh"
    program.write_text(f"#!/bin/sh\necho called >> {tmp_path}/called\n")
    program.chmod(0o755)
    stages = ["createRuntime", "poststart", "poststop"]
    hook = {"version": "1.0.0", "hook": {"path": str(program)}, "when": {"always": True}, "stages": stages}
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "h.json").write_text(json.dumps(hook))
    config = configured(
        place, {"container_annotations": ["example.com/*"]}, hooks_dirs=[str(tmp_path / "hooks")]
    )
    # More than a pipe holds, so that it breaks whenever the hook ends.
    wanted = cri.ContainerConfig(annotations={f"example.com/{i}": "x" * 8000 for i in range(20)})
    async with opened(config, busybox) as bench:
        sandbox = await bench.sandbox(network=POD, handler=handler)
        container = await bench.container(sandbox, "sleep", "1000", config=wanted)
        assert (await bench.engine.exec_sync(container, ["echo", "runs"], 20, 100)).stdout == b"runs\n"
        await bench.engine.signal_container(container, 9)
        await bench.exit_of(container)
        await bench.remove(container)
        assert not bench.engine._runtimes.get(handler).knows(container.id)
    assert (tmp_path / "called").read_text() == "called\n" * 3


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_base_spec_and_passed_annotations(
    place: Config, busybox: Path, handler: str, tmp_path: Path
) -> None:
    base = tmp_path / "base.json"
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/of-base", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
    ]
    spec = {"ociVersion": "1.0.2", "process": {"env": ["BASE=1"], "cwd": "/of-base"}, "mounts": mounts}
    base.write_text(json.dumps(spec))
    config = configured(place, {"base_runtime_spec": str(base), "container_annotations": ["example.com/*"]})
    wanted = cri.ContainerConfig(annotations={"example.com/a": "1", "other": "2"})
    async with opened(config, busybox) as bench:
        sandbox = await bench.sandbox(network=POD, handler=handler)
        container = await bench.container(sandbox, "sleep", "1000", config=wanted)
        script = "readlink /proc/1/cwd; grep -c of-base /proc/mounts; tr '\\0' '\\n' < /proc/1/environ"
        done = await bench.engine.exec_sync(container, ["sh", "-c", script], 20, 1 << 20)
        annotations = (await bench.engine.container_info(container))["runtimeSpec"]["annotations"]
    said = done.stdout.decode()
    assert said.startswith("/of-base\n1\n") and "BASE=1" in said
    assert annotations["example.com/a"] == "1" and "other" not in annotations


@pytest.mark.parametrize("handler", HANDLERS)
async def test_ambient_capabilities_are_a_users_own(place: Config, busybox: Path, handler: str) -> None:
    wanted = cri.ContainerConfig()
    security = wanted.linux.security_context
    security.run_as_user.value = 1000
    security.capabilities.add_ambient_capabilities.append("NET_BIND_SERVICE")
    async with opened(configured(place), busybox) as bench:
        said = await run(bench, handler, "grep -e CapEff -e CapAmb /proc/1/status", config=wanted)
    assert {line.split()[1] for line in said.splitlines()} == {f"{1 << 10:016x}"}


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_read_only_node_leaves_room_to_write(place: Config, busybox: Path, handler: str) -> None:
    async with opened(configured(place, read_only_rootfs=True), busybox) as bench:
        said = await run(bench, handler, "touch /tmp/a /run/b /var/tmp/c; touch /d 2>&1 || echo no")
    assert said.endswith("no\n") and "/tmp" not in said
