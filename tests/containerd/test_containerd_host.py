"""Which handlers can work with a containerd, and why others cannot."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, ContainerdConfig, HandlerConfig
from podwright.engines.containerd.api import Containerd
from podwright.engines.containerd.host import Host, Shims, shim_path
from podwright.engines.containerd.shims import RUNC, RUNSC, RUNSC_OPTIONS, binary, shim_of, write_settings
from podwright.engines.node.places import Places
from podwright.errors import FailedPrecondition, InvalidArgument, Unavailable
from podwright.wire.containerd import runc_pb2, runtimeoptions_pb2
from tests.containerd.daemon import Daemon, start

SHIM = "containerd-shim-runc-v2"


def configured(tmp_path: Path, **handlers: HandlerConfig) -> Config:
    return Config(
        root=str(tmp_path / "root"), run=str(tmp_path / "run"), default_handler="crun", handlers=handlers
    )


def program(directory: Path, name: str, script: str = "exit 0") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("io.containerd.runc.v2", "containerd-shim-runc-v2"),
        ("io.containerd.kata-qemu.v2", "containerd-shim-kata-qemu-v2"),
        ("/opt/kata/bin/containerd-shim-kata-v2", "/opt/kata/bin/containerd-shim-kata-v2"),
    ],
)
def test_a_shim_is_found_by_the_name_of_its_runtime(name: str, expected: str) -> None:
    assert binary(name) == expected


@pytest.mark.parametrize("name", ["runc", "io..v2", ".runc.v2"])
def test_a_runtime_type_that_names_no_shim_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="runtime_type"):
        binary(name)


def test_runc_compatible_runtimes_are_called_by_containerds_own_shim(tmp_path: Path) -> None:
    runtime = program(tmp_path / "bin", "crun")
    program(tmp_path / "shims", SHIM)
    config = configured(tmp_path, crun=HandlerConfig(path=str(runtime)))
    shim = shim_of(config, "crun", Places(config), str(tmp_path / "shims"))
    assert (shim.runtime_type, shim.program, shim.kind) == (RUNC, str(runtime), "crun")
    assert shim.options is not None and shim.options.type_url == "containerd.runc.v1.Options"
    options = runc_pb2.Options.FromString(shim.options.value)
    assert options.binary_name == str(runtime) and not options.systemd_cgroup and not options.root
    assert not shim.sandboxed and shim.snapshotter == "overlayfs" and shim.sandboxer == "podsandbox"


def test_the_systemd_driver_is_told_to_the_shim(tmp_path: Path) -> None:
    runtime = program(tmp_path / "bin", "crun")
    program(tmp_path / "shims", SHIM)
    config = configured(tmp_path, crun=HandlerConfig(path=str(runtime)))
    config = msgspec.structs.replace(config, cgroup_driver="systemd")
    shim = shim_of(config, "crun", Places(config), str(tmp_path / "shims"))
    assert shim.options is not None
    assert runc_pb2.Options.FromString(shim.options.value).systemd_cgroup


def test_other_shims_get_their_configuration_by_a_file(tmp_path: Path) -> None:
    kata = program(tmp_path / "shims", "containerd-shim-kata-v2")
    handler = HandlerConfig(
        runtime_type="io.containerd.kata.v2",
        runtime_config="/etc/kata.toml",
        snapshotter="blockfile",
    )
    config = configured(tmp_path, kata=handler)
    shim = shim_of(config, "kata", Places(config), str(tmp_path / "shims"))
    assert (shim.program, shim.kind, shim.sandboxed) == (str(kata), "kata", True)
    assert shim.snapshotter == "blockfile" and shim.options is not None
    assert runtimeoptions_pb2.Options.FromString(shim.options.value).config_path == "/etc/kata.toml"


def test_gvisors_shim_gets_a_file_made_of_the_handlers_options(tmp_path: Path) -> None:
    runsc = program(tmp_path / "bin", "runsc")
    program(tmp_path / "shims", "containerd-shim-runsc-v1")
    config = configured(
        tmp_path, runsc=HandlerConfig(path=str(runsc), options=["--platform=ptrace", "--debug"])
    )
    places = Places(config)
    shim = shim_of(config, "runsc", places, str(tmp_path / "shims"))
    assert (shim.runtime_type, shim.kind, shim.sandboxed) == (RUNSC, "runsc", True)
    assert shim.options is not None
    options = runtimeoptions_pb2.Options.FromString(shim.options.value)
    assert options.type_url == RUNSC_OPTIONS
    write_settings(config, places)
    assert msgspec.toml.decode(Path(options.config_path).read_bytes()) == {
        "binary_name": str(runsc),
        "runsc_config": {"platform": "ptrace", "debug": "true"},
    }


def test_a_shim_may_be_told_by_its_path(tmp_path: Path) -> None:
    runtime = program(tmp_path / "bin", "runc")
    shim = program(tmp_path / "elsewhere", "containerd-shim-runc-v2")
    config = configured(tmp_path, crun=HandlerConfig(path=str(runtime), runtime_type=str(shim)))
    found = shim_of(config, "crun", Places(config), str(tmp_path / "shims"))
    assert (found.runtime_type, found.program, found.kind) == (str(shim), str(runtime), "runc")
    assert found.calls_runc and found.options is not None
    assert runc_pb2.Options.FromString(found.options.value).binary_name == str(runtime)
    gvisors = program(tmp_path / "elsewhere", "containerd-shim-runsc-v1")
    config = configured(tmp_path, crun=HandlerConfig(path=str(runtime), runtime_type=str(gvisors)))
    options = shim_of(config, "crun", Places(config), None).options
    assert options is not None
    assert runtimeoptions_pb2.Options.FromString(options.value).type_url == RUNSC_OPTIONS


def test_a_shim_that_calls_a_runtime_has_a_usual_one(tmp_path: Path) -> None:
    config = configured(tmp_path, crun=HandlerConfig(runtime_type=RUNC))
    assert shim_of(config, "crun", Places(config), None).program == "runc"
    config = configured(tmp_path, crun=HandlerConfig(runtime_type=RUNSC))
    assert shim_of(config, "crun", Places(config), None).kind == "runsc"


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (HandlerConfig(path="no-such-runtime"), "no-such-runtime is not installed"),
        (HandlerConfig(path="true", options=["--debug"]), "passes none on"),
        (HandlerConfig(path="true", runtime_type="io.containerd.far.v2"), "containerd-shim-far-v2"),
    ],
)
def test_a_handler_that_cannot_work_says_why(tmp_path: Path, handler: HandlerConfig, words: str) -> None:
    program(tmp_path / "shims", SHIM)
    config = configured(tmp_path, crun=handler)
    with pytest.raises(FailedPrecondition, match=words):
        shim_of(config, "crun", Places(config), str(tmp_path / "shims"))


# With a containerd


def opened(daemon: Daemon, api: Containerd, tmp_path: Path, **handlers: HandlerConfig) -> tuple[Host, Shims]:
    config = configured(tmp_path, **{**daemon.handlers, **handlers})
    config = msgspec.structs.replace(config, containerd=daemon.config)
    shims = Shims(config, api, Places(config))
    return Host(config, api, shims), shims


@pytest.mark.root
def test_shims_are_looked_for_where_that_containerd_does(daemon: Daemon) -> None:
    """Not in our PATH: a service manager's is another."""
    environment = (Path("/proc") / str(daemon.process.pid) / "environ").read_bytes().split(b"\0")
    path = next(os.fsdecode(each[5:]) for each in environment if each.startswith(b"PATH="))
    beside = (Path("/proc") / str(daemon.process.pid) / "exe").readlink().parent
    assert shim_path(daemon.socket).split(":") == list(dict.fromkeys([*path.split(":"), str(beside)]))


def test_a_containerd_that_takes_no_connections_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "full.sock"
    with ExitStack() as sockets:
        listening, *clients = [sockets.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(10)]
        listening.bind(str(path))
        listening.listen(0)
        with pytest.raises(BlockingIOError):
            for client in clients:
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(FailedPrecondition, match="temporarily"):
            shim_path(path)


@pytest.mark.root
async def test_handlers_tell_what_they_can_do_and_why_not(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    bad = replace_handler(daemon.handlers["runc"], snapshotter="devmapper")
    none = replace_handler(daemon.handlers["runc"], snapshotter="nosuch")
    held = replace_handler(daemon.handlers["runc"], sandboxer="shim")
    host, shims = opened(daemon, api, tmp_path, bad=bad, none=none, held=held)
    await host.look()
    handlers = {each.name: each for each in await shims.handlers()}
    assert handlers["crun"].available and handlers["crun"].recursive_read_only
    assert handlers["runc"].available
    # The first has a plugin that failed to start, with its own words.
    assert not handlers["bad"].available and "devmapper not configured" in handlers["bad"].reason
    assert handlers["none"].reason == "snapshotter 'nosuch': this containerd has none"
    if not api.has("io.containerd.grpc.v1", "sandbox-controllers"):
        assert "sandbox" in handlers["held"].reason and "has none" in handlers["held"].reason
    assert "crun" in shims.versions()["crun"] and host.version
    with pytest.raises(FailedPrecondition, match="'bad' cannot work with this containerd"):
        shims.get("bad")
    with pytest.raises(InvalidArgument, match="no handler 'other'"):
        shims.get("other")
    assert shims.of_existing("other") is None and shims.get("").handler == "crun"


@pytest.mark.root
async def test_a_runtime_that_does_not_start_makes_its_handler_unavailable(
    daemon: Daemon, api: Containerd, tmp_path: Path
) -> None:
    broken = program(tmp_path / "bin", "crun", "echo no such library >&2; exit 1")
    host, shims = opened(daemon, api, tmp_path, crun=HandlerConfig(path=str(broken)))
    await host.look()
    crun = next(each for each in await shims.handlers() if each.name == "crun")
    assert not crun.available and "no such library" in crun.reason
    with pytest.raises(FailedPrecondition, match="no such library"):
        shims.get("crun")
    # Looking again, as each Status does, does not make it work.
    await host.look()
    with pytest.raises(FailedPrecondition, match="no such library"):
        shims.get("crun")


@pytest.mark.root
async def test_a_containerd_that_comes_back_is_found_again(tmp_path: Path) -> None:
    daemon = start(tmp_path / "daemon")
    api = Containerd(daemon.config)
    api.open()
    try:
        host, shims = opened(daemon, api, tmp_path)
        await host.look()
        daemon.stop()
        with pytest.raises(Unavailable, match=r"nobody listens|no such socket"):
            await host.look()
        daemon.restart()
        await host.look()
        assert shims.get("crun").handler == "crun"
    finally:
        await api.close()
        daemon.clear()


async def test_no_containerd_is_told_with_the_key_of_the_configuration(tmp_path: Path) -> None:
    config = ContainerdConfig(endpoint=str(tmp_path / "none.sock"))
    api = Containerd(config)
    api.open()
    try:
        with pytest.raises(Unavailable, match=r"containerd\.endpoint.*no such socket"):
            await api.look()
    finally:
        await api.close()


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1234", "containerd.sock", "/" + "x" * 120])
def test_an_endpoint_that_is_none_is_refused_with_its_key(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^containerd\.endpoint: ") as caught:
        Containerd(ContainerdConfig(endpoint=endpoint))
    assert "address" not in str(caught.value)


def replace_handler(handler: HandlerConfig, **changes: str) -> HandlerConfig:
    return msgspec.structs.replace(handler, **changes)
