"""podwright explain for the docker engine: a create request with reasons, and where it comes to something
else than with the oci engine, which is told in the words of a runtime spec."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podwright.cli.explain_showing import below
from podwright.cli.main import app
from podwright.config import Config, DockerConfig
from podwright.engines.base import Explanation
from podwright.engines.docker.plan import planned
from podwright.engines.oci.plan import planned as oci_planned
from podwright.errors import PodwrightError
from podwright.hooks.running import Hooks
from podwright.spec.places import changes, origin, places
from podwright.wire import cri_pb2 as cri
from tests.docker import golden
from tests.oci.bench import Bench

Run = Callable[..., tuple[int, str]]

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  hostname: web-0
  containers:
  - name: main
    image: podwright.test/busybox:1
    command: [sh, -c]
    args: ["sleep 5"]
    ports: [{containerPort: 80, hostPort: 8080}]
    env: [{name: A, value: b}]
    resources: {limits: {cpu: 500m, memory: 64Mi}}
    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL], add: [CHOWN]}}
    volumeMounts: [{name: tmp, mountPath: /tmp}, {name: etc, mountPath: /host, readOnly: true}]
  volumes: [{name: tmp, emptyDir: {}}, {name: etc, hostPath: {path: /etc}}]
"""


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, without a Docker Engine; its exit status and output."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    (tmp_path / "pod.yaml").write_text(MANIFEST)

    def explain(*arguments: str) -> tuple[int, str]:
        roots = ["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run")]
        try:
            status = app([*roots, "explain", *arguments, str(tmp_path / "pod.yaml")], standalone_mode=False)
        except SystemExit as left:
            status = left.code
        return int(status or 0), "".join(capsys.readouterr())

    return explain


def test_each_part_of_a_request_has_a_line_and_a_reason(run: Run) -> None:
    status, shown = run("--engine", "docker")
    assert status == 0
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for wanted in (
        "HostConfig.Mounts[/host] /etc ReadOnly request: config.mounts",
        "HostConfig.PortBindings[80/tcp] :8080 request: config.port_mappings; with CNI its portmap plugin",
        "Labels[io.podwright.id] CONTAINER_ID rule: found again by it",
        "Labels[io.kubernetes.pod.name] web request: config.labels",
        "Hostname web-0 request: config.hostname",
    ):
        assert any(line.startswith(wanted) for line in lines), wanted
    # Once, however many are explained.
    assert shown.count("no Docker Engine answers") == 1


@pytest.mark.parametrize(("one", "other"), [("docker", "oci"), ("oci", "docker")])
def test_what_is_the_same_with_both_engines_is_no_difference(one: str, other: str, run: Run) -> None:
    status, shown = run("--engine", one, "--diff", f"engine={other}", "-o", "json")
    found = json.loads(shown.partition("\nwarning")[0].partition("\npodwright")[0])
    assert (status, found) == (0, [])
    # The request again, with something that Docker does in its own way.
    status, shown = run(
        *("--engine", one, "--diff", f"engine={other}"),
        *("--diff", 'spec.containers[0].securityContext.seccompProfile={"type": "RuntimeDefault"}'),
    )
    [row] = [line for line in shown.splitlines() if line.startswith(("linux.", "process.", "mounts["))]
    assert status == 1 and row.startswith("linux.seccomp")
    assert ("Docker's own profile" in row) == (other == "docker")
    assert "(the pod's own process): Docker create request; the other engine has none" in shown


# Recorded requests, on both engines

_DIFFERENT = {"create-seccomp-default": {"linux.seccomp"}}
"""Places that differ, of cases in which some do."""


def unlike(explained: Explanation, spec: Any) -> dict[str, tuple[Any, Any]]:
    """Places that it speaks of, and that differ in `spec`."""
    return {
        each.path: (each.before, each.after)
        for each in changes(explained.document, spec)
        if any(below(each.path, place) for place in explained.origins)
    }


_CASES = [
    name
    for name in golden.names("create-*")
    # Whether there is anything to run only the image tells, which is not here.
    if golden.creation(name) is not None and name != "create-no-command"
]


@pytest.mark.parametrize("name", _CASES)
async def test_a_recorded_request_comes_to_the_same_with_the_oci_engine(name: str, tmp_path: Path) -> None:
    container = golden.container_of(name)
    config = Config(
        root=str(tmp_path / "root"),
        run=str(tmp_path / "run"),
        docker=DockerConfig(endpoint=f"unix://{tmp_path}/none"),
    )
    with planned(config) as docker, oci_planned(config, Hooks()) as oci:
        try:
            theirs = await oci.explain_container(container)
        except PodwrightError as error:
            with pytest.raises(type(error)):
                await docker.explain_container(container)
            return
        ours = await docker.explain_container(container)
    assert ours.spec is not None
    found = unlike(ours.spec, theirs.document)
    assert set(found) == _DIFFERENT.get(name, set()), found
    for path in places(ours.spec.document):
        assert origin(path, ours.spec.origins), path


# What Docker makes of it


@pytest.mark.root
async def test_docker_makes_of_a_request_what_is_told(docker_bench: Bench) -> None:
    engine = docker_bench.engine
    config = cri.ContainerConfig(working_dir="/tmp", envs=[cri.KeyValue(key="PATH", value=b"/bin")])
    config.mounts.add(host_path="/etc", container_path="/host", readonly=True)
    security = config.linux.security_context
    security.run_as_user.value, security.run_as_group.value = 1234, 7
    security.supplemental_groups.append(4004)
    security.capabilities.add_capabilities.append("SYS_TIME")
    security.capabilities.drop_capabilities.append("CHOWN")
    security.no_new_privs = security.readonly_rootfs = True
    security.masked_paths.append("/proc/kcore")
    security.readonly_paths.append("/proc/sys")
    config.linux.resources.cpu_quota, config.linux.resources.cpu_period = 20_000, 100_000
    config.linux.resources.memory_limit_in_bytes = 64 << 20
    config.linux.resources.oom_score_adj = 900
    container = await docker_bench.container(await docker_bench.sandbox(), "sleep", "1000", config=config)
    explained = await engine.explain_container(container)
    docker_id = str(container.facts.own["docker"])
    info = await engine.container_info(container)
    # Or it would be explained as another engine's once it has ended and its spec is gone.
    assert info["engine"] == (await engine.sandbox_info(container.sandbox))["engine"] == "docker"
    made = info["runtimeSpec"]
    assert explained.spec is not None
    made["linux"]["resources"]["cpu"] = {k: v for k, v in made["linux"]["resources"]["cpu"].items() if v}
    wrong = unlike(explained.spec, made)
    # In the cgroup it has Docker's own id; capabilities of who is not root are had by nobody, and runc's
    # mount options come in another order.
    told, given = wrong.pop("linux.cgroupsPath")
    assert (told, given.replace(docker_id, container.id)) == (told, told)
    told, given = wrong.pop("process.capabilities")
    assert set(told["bounding"]) == set(given["bounding"]) and "CAP_SYS_TIME" in told["bounding"]
    told, given = wrong.pop("mounts[/host]")
    assert (set(given["options"]), given["source"]) == ({"rbind", "rprivate", "ro"}, "/etc")
    assert wrong == {}
    assert len(explained.spec.origins) > 20
