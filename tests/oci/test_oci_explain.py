"""What the oci engine says that it would make is what it makes; and saying so makes nothing."""

from __future__ import annotations

import json
import os
import resource
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podwright import hooks
from podwright.config import Config
from podwright.engines.base import Container, Image, Sandbox, SandboxFacts
from podwright.engines.node import layered
from podwright.engines.node.foreseen import PAUSE_PID, TARGET_PID, UNKNOWN_ID
from podwright.engines.node.seen import compare
from podwright.engines.oci.plan import planned
from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.hooks.running import Hooks
from podwright.linux import mounts, process_facts
from podwright.linux.process_facts import ProcessFacts
from podwright.spec.places import origin, places
from podwright.wire import cri_pb2 as cri
from tests.oci.bench import CONTAINER, POD, TARGET, Bench, opened
from tests.testing.requests import until

pytestmark = pytest.mark.root


def written(bench: Bench, container: Container) -> Any:
    """The spec in its bundle."""
    return json.loads((Path(bench.config.run) / "containers" / container.id / "config.json").read_text())


def before(container: Container, **pids: int) -> Container:
    """The container and its pod as they were before anything was made for them."""
    pod = replace(container.sandbox, facts=SandboxFacts())
    target = container.target and replace(container.target, facts=type(container.facts)())
    return replace(container, sandbox=pod, target=target, facts=type(container.facts)())


def everything(*roots: str) -> set[tuple[str, int, int]]:
    """All files below `roots`, with what would tell that somebody touched them."""
    found = set()
    for root in roots:
        for here, directories, files in os.walk(root):
            for name in (".", *directories, *files):
                status = os.lstat(os.path.join(here, name))  # noqa: PTH118
                # What the connections of a database share is memory: who reads may mark it, and the kernel
                # dates that whenever it likes.
                touched = 0 if name.endswith(".db-shm") else status.st_mtime_ns
                found.add((f"{here}/{name}", status.st_ino, touched))
    return found


def rich(tmp_path: Path) -> cri.ContainerConfig:
    """A configuration with something of most kinds."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (tmp_path / "link").unlink(missing_ok=True)
    (tmp_path / "link").symlink_to(data)
    config = cri.ContainerConfig(
        envs=[cri.KeyValue(key="A", value=b"1")],
        mounts=[
            cri.Mount(container_path="/data", host_path=str(tmp_path / "link"), readonly=True),
            cri.Mount(container_path="/new", host_path=str(tmp_path / "new" / "deep")),
            cri.Mount(
                container_path="/box",
                image=cri.ImageSpec(image="localhost/busybox:test"),
                image_sub_path="bin",
                readonly=True,
            ),
        ],
        devices=[cri.Device(host_path="/dev/null", container_path="/dev/nil", permissions="rw")],
    )
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.resources.cpu_quota = 50_000
    config.linux.resources.cpu_period = 100_000
    security = config.linux.security_context
    security.run_as_username = "nobody"
    security.capabilities.add_capabilities.append("NET_RAW")
    security.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
    security.masked_paths.append("/proc/kcore")
    return config


async def test_what_is_said_is_what_is_made(bench: Bench, tmp_path: Path) -> None:
    sandbox = await bench.sandbox(network=POD, pid=POD)
    container = await bench.container(sandbox, "sleep", "100", config=rich(tmp_path))
    said = await bench.engine.explain_container(container)
    assert json.loads(json.dumps(said.document)) == written(bench, container)
    assert [path for path in places(said.document) if not origin(path, said.origins)] == []


async def test_what_is_said_beforehand_differs_in_pids_only(bench: Bench, tmp_path: Path) -> None:
    sandbox = await bench.sandbox(network=POD, pid=POD)
    asked = before(await bench.container(sandbox, "sleep", "100", config=rich(tmp_path)))
    with planned(bench.config, Hooks()) as plan:
        said = await plan.explain_container(asked)
    text = json.dumps(said.document).replace(PAUSE_PID, str(sandbox.facts.pid))
    assert json.loads(text) == written(bench, asked)
    assert PAUSE_PID in json.dumps(said.document)


async def test_a_pause_process_is_said_as_it_is_made(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD, pid=POD)
    bundle = Path(bench.config.run) / "sandboxes" / sandbox.id / "pause"
    said = await bench.engine.explain_sandbox(replace(sandbox, facts=SandboxFacts()))
    assert said is not None
    assert json.loads(json.dumps(said.document)) == json.loads((bundle / "config.json").read_text())
    assert [path for path in places(said.document) if not origin(path, said.origins)] == []
    alone = await bench.sandbox(pid=CONTAINER)
    assert await bench.engine.explain_sandbox(alone) is None


async def test_joining_another_containers_processes(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    other = await bench.container(sandbox, "sleep", "100")
    config = cri.ContainerConfig()
    options = config.linux.security_context.namespace_options
    options.pid, options.target_id = TARGET, other.id
    container = await bench.container(sandbox, "sleep", "100", config=config, target=other)
    assert dict((await bench.engine.explain_container(container)).document) == written(bench, container)
    said = await bench.engine.explain_container(before(container))
    assert f"/proc/{TARGET_PID}/ns/pid" in json.dumps(said.document)


async def test_saying_makes_nothing(bench: Bench, tmp_path: Path, busybox: Path) -> None:
    pod = cri.PodSandboxConfig()
    pod.linux.security_context.namespace_options.pid = POD
    sandbox = Sandbox("POD", "pod", pod, "")
    container = Container("NEW", "c", sandbox, rich(tmp_path), bench.image, str(tmp_path / "logs" / "0.log"))
    mounted = mounts.mounts_below(tmp_path)
    roots = str(tmp_path), *(str(each) for each in Path("/sys/fs/cgroup").glob("*/podwright*"))
    found = everything(*roots)
    said = await bench.engine.explain_container(container)
    assert await bench.engine.explain_sandbox(sandbox)
    with planned(bench.config, Hooks()) as plan:
        assert (await plan.explain_container(container)).document == said.document
    assert everything(*roots) == found
    assert mounts.mounts_below(tmp_path) == mounted
    assert any("a directory would be made" in warning for warning in said.warnings)


async def test_a_closed_store_is_read_without_a_trace(place: Config, busybox: Path) -> None:
    async with opened(place, busybox) as bench:
        image = bench.image
    found = everything(place.root)
    with planned(place, Hooks()) as plan:
        assert await plan.find_image("localhost/busybox:test") == image
    assert everything(place.root) == found


@pytest.mark.parametrize(
    ("pod", "container", "error", "words"),
    [
        (
            {"linux": {"security_context": {"namespace_options": {"pid": TARGET}}}},
            {},
            Unimplemented,
            "TARGET",
        ),
        ({"linux": {"cgroup_parent": "/a/../b"}}, {}, InvalidArgument, "must not contain"),
        ({}, {"linux": {"security_context": {"run_as_username": "nemo"}}}, InvalidArgument, "no such user"),
        ({}, {"devices": [{"host_path": "/dev/nemo"}]}, InvalidArgument, "/dev/nemo"),
    ],
)
async def test_what_cannot_be_made_is_refused_in_the_same_words(
    bench: Bench, pod: Any, container: Any, error: type[Exception], words: str
) -> None:
    pod_config = cri.PodSandboxConfig(**pod)
    said: list[str] = []
    with pytest.raises(error, match=words) as refused:
        sandbox = await bench.sandbox(config=pod_config)
        await bench.container(sandbox, "true", config=cri.ContainerConfig(**container))
    said.append(str(refused.value))
    with pytest.raises(error, match=words) as refused:
        id = list(bench.sandboxes)[-1]
        asked = Sandbox(id, "pod", pod_config, "")
        await bench.engine.explain_sandbox(asked)
        config = cri.ContainerConfig(command=["true"], **container)
        await bench.engine.explain_container(Container("NEW", "c", asked, config, bench.image, ""))
    assert said == [str(refused.value)]


async def test_an_image_that_is_not_here_leaves_names_unknown(bench: Bench) -> None:
    image = Image("sha256:" + "0" * 64, (), (), 1, {"User": "web", "Cmd": ["true"]})
    asked = Container(
        "NEW", "c", Sandbox("POD", "pod", cri.PodSandboxConfig(), ""), cri.ContainerConfig(), image, ""
    )
    said = await bench.engine.explain_container(asked)
    assert said.document["process"]["user"]["uid"] == UNKNOWN_ID
    assert "not known" in said.origins["process.user"]
    assert any("user web" in warning for warning in said.warnings)


async def test_handlers_that_do_not_work_here_can_be_explained(bench: Bench) -> None:
    handlers = dict(bench.config.handlers)
    handlers["far"] = replace_path(handlers["crun"], "/nonexistent/kata")
    with planned(replace_config(bench.config, handlers), Hooks()) as plan:
        sandbox = Sandbox("POD", "pod", cri.PodSandboxConfig(), "far")
        asked = Container("NEW", "c", sandbox, cri.ContainerConfig(), bench.image, "")
        said = await plan.explain_container(asked)
        assert any("not installed" in warning for warning in said.warnings)
        with pytest.raises(InvalidArgument, match="no handler 'none'"):
            await plan.explain_container(replace(asked, sandbox=replace(sandbox, handler="none")))


def replace_path(handler: Any, path: str) -> Any:
    import msgspec

    return msgspec.structs.replace(handler, path=path)


def replace_config(config: Config, handlers: Any) -> Config:
    import msgspec

    return msgspec.structs.replace(config, handlers=handlers)


# Layers


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[list[Path]]:
    """Three layers, topmost first."""
    made = [tmp_path / "layers" / name for name in ("top", "middle", "bottom")]
    for each in made:
        (each / "etc").mkdir(parents=True)
    yield made


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def passwd(layers: list[Path]) -> str | None:
    return layered.user_files(layers).passwd


def test_the_topmost_file_counts(layers: list[Path]) -> None:
    (layers[2] / "etc/passwd").write_text("bottom")
    assert passwd(layers) == "bottom"
    (layers[0] / "etc/passwd").write_text("top")
    assert passwd(layers) == "top"
    assert layered.user_files(layers).group is None


def test_a_whiteout_hides_what_is_below_it(layers: list[Path]) -> None:
    (layers[2] / "etc/passwd").write_text("bottom")
    whiteout(layers[1] / "etc/passwd")
    assert passwd(layers) is None
    (layers[0] / "etc/passwd").write_text("top")
    assert passwd(layers) == "top"


def test_a_whiteout_of_the_directory_hides_it_too(layers: list[Path]) -> None:
    (layers[2] / "etc/passwd").write_text("bottom")
    (layers[1] / "etc").rmdir()
    whiteout(layers[1] / "etc")
    assert passwd(layers) is None


def test_an_opaque_directory_is_all_there_is(layers: list[Path]) -> None:
    (layers[2] / "etc/passwd").write_text("bottom")
    os.setxattr(layers[1] / "etc", "trusted.overlay.opaque", b"y")
    assert passwd(layers) is None


def test_links_are_followed_inside_the_image(layers: list[Path]) -> None:
    (layers[0] / "etc/passwd").symlink_to("/usr/share/users")
    (layers[2] / "usr/share").mkdir(parents=True)
    (layers[2] / "usr/share/users").write_text("linked")
    assert passwd(layers) == "linked"
    (layers[0] / "etc/passwd").unlink()
    (layers[0] / "etc/passwd").symlink_to("passwd")
    assert passwd(layers) is None
    (layers[0] / "etc/passwd").unlink()
    (layers[0] / "etc/passwd").symlink_to("/../../../../etc/hostname")
    assert passwd(layers) is None


# Hooks


def hooked(*functions: Any) -> Hooks:
    return Hooks(
        [
            replace(hook, name=f"site.{each.__name__}")
            for each in functions
            for hook in each.__podwright_hooks__
        ]
    )


@hooks.adjust()
def die_first(spec: dict[str, Any], target: hooks.Target) -> None:
    spec["process"]["oomScoreAdj"] = 777
    spec["annotations"]["site/kind"] = target.kind


@hooks.adjust(order=1)
def refuse(spec: dict[str, Any], target: hooks.Target) -> None:
    raise hooks.Rejected("config.labels", "no such pods here")


async def test_hooks_change_what_is_made_and_said(place: Config, busybox: Path) -> None:
    async with opened(place, busybox, hooked(die_first)) as bench:
        sandbox = await bench.sandbox(pid=POD)
        container = await bench.container(sandbox, "sleep", "100")
        spec = written(bench, container)
        assert spec["process"]["oomScoreAdj"] == 777 and spec["annotations"]["site/kind"] == "container"
        assert Path(f"/proc/{container.facts.pid}/oom_score_adj").read_text() == "777\n"
        assert Path(f"/proc/{sandbox.facts.pid}/oom_score_adj").read_text() == "777\n"
        said = await bench.engine.explain_container(container)
        assert dict(said.document) == spec
        assert origin("process.oomScoreAdj", said.origins) == "hook: site.die_first"
        assert origin("annotations[site/kind]", said.origins) == "hook: site.die_first"
        pause = await bench.engine.explain_sandbox(sandbox)
        assert pause is not None and pause.document["annotations"]["site/kind"] == "sandbox"


async def test_a_refusal_is_rolled_back(place: Config, busybox: Path, tmp_path: Path) -> None:
    async with opened(place, busybox, hooked(refuse)) as bench:
        sandbox = await bench.sandbox()
        with pytest.raises(
            FailedPrecondition, match=r"config\.labels: no such pods here \(hook site\.refuse\)"
        ):
            await bench.container(sandbox, "sleep", "100")
        assert list((Path(place.run) / "containers").iterdir()) == []
        assert list((Path(place.root) / "containers").iterdir()) == []
        assert not bench.engine.images.orphans(set())
        with pytest.raises(FailedPrecondition, match=r"site\.refuse"):
            await bench.sandbox(network=POD, pid=POD)
        assert [each.name for each in (Path(place.run) / "sandboxes").iterdir()] == [sandbox.id]


# What the kernel shows


def sealed() -> cri.ContainerConfig:
    """A configuration whose every promise the kernel can be asked about."""
    config = cri.ContainerConfig()
    resources = config.linux.resources
    resources.memory_limit_in_bytes, resources.cpu_shares = 64 << 20, 512
    resources.cpu_quota, resources.cpu_period = 50_000, 100_000
    resources.oom_score_adj = 500
    security = config.linux.security_context
    security.run_as_user.value, security.run_as_group.value = 1000, 2000
    security.supplemental_groups.append(3000)
    security.capabilities.drop_capabilities.append("ALL")
    security.no_new_privs = security.readonly_rootfs = True
    security.seccomp.profile_type = cri.SecurityProfile.RuntimeDefault
    security.masked_paths.extend(["/proc/interrupts", "/sys/firmware", "/proc/no-such-file"])
    security.readonly_paths.append("/proc/sys")
    return config


async def facts_of(container: Container) -> ProcessFacts:
    """Once its program runs: a runtime's `start` may return just before."""
    await until(lambda: process_facts.read(container.facts.pid).command[:1] == ("sleep",))
    return process_facts.read(container.facts.pid)


async def test_the_kernel_shows_what_was_given(bench: Bench) -> None:
    sandbox = await bench.sandbox(network=POD, pid=POD)
    container = await bench.container(sandbox, "sleep", "100", config=sealed())
    found = compare(written(bench, container), await facts_of(container))
    assert [each for each in found.values() if not each.agrees] == []
    assert found["process.user"].value == {"uid": 1000, "gid": 2000, "additionalGids": [2000, 2001, 3000]}
    assert found["linux.seccomp"].value == "filtered"
    assert found["linux.maskedPaths"].value == ["/proc/interrupts", "/sys/firmware"]
    assert {path for path in found if path.startswith("linux.namespaces[")} >= {
        "linux.namespaces[network]",
        "linux.namespaces[pid]",
        "linux.namespaces[mount]",
    }
    assert {path.rpartition("resources.")[2] for path in found if "resources" in path} >= {
        "memory.limit", "cpu.quota", "cpu.shares"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("process.user", lambda spec: spec["process"]["user"].update(additionalGids=[2000])),
        ("process.args", lambda spec: spec["process"]["args"].append("more")),
        ("process.cwd", lambda spec: spec["process"].update(cwd="/tmp")),
        ("process.oomScoreAdj", lambda spec: spec["process"].update(oomScoreAdj=1)),
        ("process.noNewPrivileges", lambda spec: spec["process"].pop("noNewPrivileges")),
        (
            "process.capabilities",
            lambda spec: spec["process"].update(capabilities={"bounding": ["CAP_KILL"]}),
        ),
        ("linux.seccomp", lambda spec: spec["linux"].pop("seccomp")),
        ("root.readonly", lambda spec: spec["root"].pop("readonly")),
        ("mounts[/proc]", lambda spec: spec["mounts"][0]["options"].append("ro")),
        ("mounts[/nowhere]", lambda spec: spec["mounts"].append({"destination": "/nowhere"})),
        ("linux.maskedPaths", lambda spec: spec["linux"]["maskedPaths"].append("/proc/meminfo")),
        ("linux.readonlyPaths", lambda spec: spec["linux"]["readonlyPaths"].append("/proc/meminfo")),
        (
            "linux.namespaces[network]",
            lambda spec: spec["linux"].update(
                namespaces=[{"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid"}]
            ),
        ),
        (
            "linux.resources.memory.limit",
            lambda spec: spec["linux"]["resources"]["memory"].update(limit=32 << 20),
        ),
        ("linux.resources.cpu.quota", lambda spec: spec["linux"]["resources"]["cpu"].update(quota=-1)),
        ("linux.cgroupsPath", lambda spec: spec["linux"].update(cgroupsPath="/podwright/other")),
    ],
)
async def test_what_differs_is_seen(bench_of_all: tuple[Any, ProcessFacts], path: str, change: Any) -> None:
    spec, facts = bench_of_all
    changed = json.loads(json.dumps(spec))
    change(changed)
    assert path in [each.path for each in compare(changed, facts).values() if not each.agrees]


@pytest.fixture
async def bench_of_all(bench: Bench) -> tuple[Any, ProcessFacts]:
    sandbox = await bench.sandbox(network=POD)
    container = await bench.container(sandbox, "sleep", "100", config=sealed())
    return written(bench, container), await facts_of(container)


async def test_a_program_that_is_not_root_loses_what_is_not_ambient(bench: Bench) -> None:
    config = cri.ContainerConfig()
    config.linux.security_context.run_as_user.value = 1000
    sandbox = await bench.sandbox()
    container = await bench.container(sandbox, "sleep", "100", config=config)
    found = compare(written(bench, container), await facts_of(container))
    assert [path for path, each in found.items() if not each.agrees] == ["process.capabilities"]
    assert found["process.capabilities"].value["effective"] == []


def test_facts_of_this_very_process() -> None:
    facts = process_facts.read(os.getpid())
    assert (facts.uid, facts.gid) == (os.geteuid(), os.getegid())
    assert facts.cwd == str(Path.cwd())
    assert facts.namespaces is not None and facts.namespaces["net"] == Path("/proc/self/ns/net").stat().st_ino
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert facts.limits["RLIMIT_NOFILE"][0] == soft
    with pytest.raises(ProcessLookupError):
        process_facts.read(2**22 + 1)
