"""Rules of the docker engine that no recording shows. Pure, but for files in a directory of the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, DockerConfig
from podwright.engines.base import Presence, Sandbox
from podwright.engines.docker import limits, mounts, refused, security, states
from podwright.engines.docker.container_config import Found, create_request
from podwright.engines.docker.features import read
from podwright.engines.docker.host import network_mode
from podwright.engines.docker.objects import NEVER, nanoseconds
from podwright.engines.docker.plan import planned
from podwright.engines.docker.sandbox_config import cgroup_parent, sysctls_of
from podwright.engines.docker.sandbox_config import create_request as sandbox_request
from podwright.engines.docker.unified import write_unified
from podwright.errors import FailedPrecondition, InvalidArgument, Unimplemented
from podwright.spec.inputs import MountSource, Policy, RootfsFiles
from podwright.wire import cri_pb2 as cri
from tests.docker import golden

STRICT = cri.SupplementalGroupsPolicy.Strict
FILES = RootfsFiles("root:x:0:0::/:\napp:x:1001:1002::/:\n", "own:x:1002:\nextra:x:3003:app\n")


def test_times_of_docker() -> None:
    assert nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert nanoseconds("1970-01-01T00:00:01Z") == 1_000_000_000
    assert nanoseconds("1970-01-01T01:00:00.000000001+01:00") == 1
    assert nanoseconds("1970-01-01T01:00:00+01:00") == 0
    assert nanoseconds("0001-01-01T00:00:00Z") == NEVER
    assert nanoseconds("") == NEVER


@pytest.mark.parametrize(
    ("state", "presence"),
    [
        ({"Running": True, "Paused": True}, Presence.RUNNING),
        ({"Dead": True, "ExitCode": 3}, Presence.MISSING),
        ({"Status": "removing"}, Presence.MISSING),
        ({"FinishedAt": "0001-01-01T00:00:00Z"}, Presence.CREATED),
    ],
)
def test_states_that_were_not_recorded(state: dict[str, object], presence: Presence) -> None:
    assert states.observation("c", {"State": state}).presence is presence
    assert states.running_pid({"State": {"Running": False, "Pid": 7}}) == 0


def test_a_start_that_failed_keeps_dockers_words() -> None:
    chain = "OCI runtime create failed: runc create failed: unable to start container process: "
    words = f'{chain}exec: "nope": not found in $PATH'
    state = {"FinishedAt": "0001-01-01T00:00:00Z", "ExitCode": 127, "Error": words}
    seen = states.observation("c", {"State": state, "Created": "1970-01-01T00:00:02Z"})
    assert seen.presence is Presence.EXITED and seen.exit is not None
    assert (seen.exit.code, seen.exit.finished_at) == (127, 2_000_000_000)
    assert seen.exit.refusal == 'Docker could not start it: exec: "nope": not found in $PATH'
    ended = {"FinishedAt": "1970-01-01T00:00:03Z", "ExitCode": 127, "Error": ""}
    assert (over := states.observation("c", {"State": ended}).exit) is not None and not over.refusal


@pytest.mark.parametrize(
    ("group", "policy", "user", "added"),
    [
        # Docker adds the image's groups to a user without a group, and to no other.
        (None, 0, "1001:1002", ["3003", "4004"]),
        (7, 0, "1001:7", ["3003", "4004"]),
        (None, STRICT, "1001:1002", ["4004"]),
        (7, STRICT, "1001:7", ["4004"]),
    ],
)
def test_groups_are_those_of_the_policy(
    group: int | None, policy: cri.SupplementalGroupsPolicy, user: str, added: list[str]
) -> None:
    container = golden.container_of("create-minimal")
    asked = container.config.linux.security_context
    asked.run_as_username = "app"
    if group is not None:
        asked.run_as_group.value = group
    asked.supplemental_groups.append(4004)
    asked.supplemental_groups_policy = policy
    body = create_request(container, golden.FEATURES, "/", Found(sandbox="s", users=FILES))
    assert (body["User"], body["HostConfig"]["GroupAdd"]) == (user, added)


def test_annotations_of_both_generations_select_profiles() -> None:
    container = golden.container_of("create-minimal")
    pod = container.sandbox.config
    for key in (
        "container.seccomp.security.alpha.kubernetes.io/c",
        "security.alpha.kubernetes.io/seccomp/container/c",
    ):
        pod.annotations.clear()
        pod.annotations[key] = "runtime/default"
        assert security.of_container(container.config, pod, golden.FEATURES) == []
    pod.annotations["container.apparmor.security.beta.kubernetes.io/c"] = "localhost/tight"
    assert security.of_container(container.config, pod, golden.FEATURES) == ["apparmor=tight"]
    without = replace(golden.FEATURES, apparmor=False)
    with pytest.raises(FailedPrecondition, match="apparmor is not supported"):
        security.of_container(container.config, pod, without)


def test_a_profile_that_is_no_json_is_refused() -> None:
    container = golden.container_of("create-seccomp-localhost")
    with pytest.raises(InvalidArgument, match="is not JSON"):
        security.of_container(container.config, container.sandbox.config, golden.FEATURES, b"{")


def _volume(**members: object) -> cri.ContainerConfig:
    return cri.ContainerConfig(mounts=[cri.Mount(host_path="/h", container_path="/c", **members)])  # type: ignore[arg-type]


def test_newer_apis_are_told_more_of_mounts() -> None:
    newer = replace(golden.FEATURES, api=(1, 44))
    (entry,) = mounts.made(_volume(readonly=True), (), newer).mounts
    assert entry["BindOptions"] == {"CreateMountpoint": True, "ReadOnlyNonRecursive": True}
    (entry,) = mounts.made(_volume(readonly=True, recursive_read_only=True), (), newer).mounts
    assert entry["BindOptions"] == {"CreateMountpoint": True, "ReadOnlyForceRecursive": True}


def test_propagation_needs_a_mount_that_has_it() -> None:
    config = _volume(propagation=cri.MountPropagation.PROPAGATION_BIDIRECTIONAL)
    with pytest.raises(FailedPrecondition, match="shared mount"):
        mounts.made(config, [MountSource(path="/h", mountpoint="/")], golden.FEATURES)
    shared = MountSource(path="/h", mountpoint="/", shared=True)
    (entry,) = mounts.made(config, [shared], golden.FEATURES).mounts
    assert entry["BindOptions"] == {"Propagation": "rshared"}


def test_of_two_mounts_at_one_place_the_later_counts() -> None:
    config = _volume()
    config.mounts.add(host_path="/later", container_path="//c/")
    assert [each["Source"] for each in mounts.made(config, (), golden.FEATURES).mounts] == ["/later"]


def test_volumes_are_relabelled_for_pods_with_a_label_alone() -> None:
    with_selinux = replace(golden.FEATURES, selinux=True)
    config = _volume(readonly=True, selinux_relabel=True)
    assert mounts.made(config, (), with_selinux).binds == []
    config.linux.security_context.selinux_options.level = "s0:c1,c2"
    assert mounts.made(config, (), with_selinux).binds == ["/h:/c:ro,Z"]
    assert mounts.made(config, (), golden.FEATURES).binds == []
    config.mounts[0].host_path = "/a:b"
    with pytest.raises(InvalidArgument, match="colon"):
        mounts.made(config, (), with_selinux)


def test_what_is_to_be_unlimited_again_has_a_word_of_its_own() -> None:
    former = cri.LinuxContainerResources(cpu_quota=5000, cpu_period=10000, cpu_shares=2)
    body = limits.changed(cri.LinuxContainerResources(), former, golden.FEATURES)
    assert body == {"CpuQuota": -1, "CpuPeriod": 100_000, "CpuShares": 1024}
    for member, value in (("memory_limit_in_bytes", 1 << 30), ("cpuset_cpus", "0"), ("oom_score_adj", 5)):
        with pytest.raises(Unimplemented, match=rf"linux\.{member}"):
            one = cri.LinuxContainerResources(**{member: value})  # type: ignore[arg-type]
            limits.changed(cri.LinuxContainerResources(), one, golden.FEATURES)


@pytest.mark.parametrize(
    ("member", "value"), [("memory_limit_in_bytes", 6 << 10), ("cpu_quota", 999), ("oom_score_adj", 1001)]
)
def test_what_dockerd_refuses_is_told_by_its_field(member: str, value: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"linux\.{member}"):
        limits.check(cri.LinuxContainerResources(**{member: value}), "linux")  # type: ignore[arg-type]


def test_scores_that_cannot_be_given_are_raised() -> None:
    features = replace(golden.FEATURES, least_oom_score=0)
    wanted = cri.LinuxContainerResources(oom_score_adj=-997)
    assert limits.at_creation(wanted, features)["OomScoreAdj"] == 0
    assert limits.at_creation(wanted, golden.FEATURES)["OomScoreAdj"] == -997


def test_the_systemd_driver_wants_the_slice_alone() -> None:
    features = replace(golden.FEATURES, cgroup_driver="systemd", cgroup_parent="/podwright")
    config = cri.PodSandboxConfig()
    assert cgroup_parent(config, features) == ""
    config.linux.cgroup_parent = "/kubepods.slice/kubepods-pod1.slice"
    assert cgroup_parent(config, features) == "kubepods-pod1.slice"
    config.linux.cgroup_parent = "/kubepods/pod1"
    with pytest.raises(InvalidArgument, match="cgroup_parent"):
        cgroup_parent(config, features)


def test_what_the_node_does_not_allow_docker_is_told_to_take_back() -> None:
    policy = Policy(unprivileged_ports=False, unprivileged_icmp=False)
    config = cri.PodSandboxConfig()
    assert sysctls_of(config, Policy()) == {}
    assert sysctls_of(config, policy) == {
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv4.ping_group_range": "1 0",
    }
    config.linux.sysctls["net.ipv4.ping_group_range"] = "5 6"
    assert sysctls_of(config, policy)["net.ipv4.ping_group_range"] == "5 6"
    config.linux.security_context.namespace_options.network = cri.NamespaceMode.NODE
    assert sysctls_of(config, policy) == {"net.ipv4.ping_group_range": "5 6"}


def test_what_docker_can_do_is_read_from_its_info() -> None:
    options = ["name=apparmor", "name=seccomp,profile=builtin", "name=selinux"]
    found = read({"SecurityOptions": options, "CDISpecDirs": ["/etc/cdi"]}, (1, 44))
    assert (found["apparmor"], found["selinux"], found["seccomp"], found["cdi"]) == (True,) * 4
    found = read({"SecurityOptions": None, "Runtimes": {"runc": {}, "kata": {}}}, (1, 41))
    assert (found["apparmor"], found["cdi"], found["runtimes"]) == (False, False, ("kata", "runc"))


@pytest.mark.parametrize("setting", ["docker:", "docker:host", "docker:container:x", "bridge"])
def test_networks_that_pods_cannot_have_are_refused(setting: str) -> None:
    with pytest.raises(InvalidArgument, match=r"docker\.network"):
        network_mode(Config(docker=DockerConfig(network=setting)))
    assert network_mode(Config(docker=DockerConfig(network="docker:mine"))) == "mine"


def test_values_of_cgroup_v2_are_written_where_the_process_is(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text("1:name=systemd:/x\n0::/pod/c\n")
    place = tmp_path / "fs" / "pod" / "c"
    place.mkdir(parents=True)
    (place / "memory.high").write_text("max")
    write_unified(7, {"memory.high": "1000"}, tmp_path / "fs", tmp_path)
    assert (place / "memory.high").read_text() == "1000"
    with pytest.raises(FailedPrecondition, match="no limit"):
        write_unified(7, {"cgroup.procs": "1"}, tmp_path / "fs", tmp_path)
    with pytest.raises(FailedPrecondition, match="no limit"):
        write_unified(7, {"../memory.high": "1"}, tmp_path / "fs", tmp_path)
    write_unified(8, {"memory.high": "1"}, tmp_path / "fs", tmp_path)  # it has ended


async def test_a_request_is_explained_without_a_docker_engine(tmp_path: Path) -> None:
    config = Config(root=str(tmp_path / "root"), docker=DockerConfig(endpoint=f"unix://{tmp_path}/no"))
    container = golden.container_of("create-user-group")
    with planned(config) as plan:
        explained = await plan.explain_container(container)
        pod = await plan.explain_sandbox(container.sandbox)
    assert explained.what == "Docker create request"
    assert explained.document["User"] == "1001:2002"
    assert explained.origins["User"] == "request: config.linux.security_context.run_as_user"
    assert "no Docker Engine answers" in explained.warnings[0]
    # Every part of both has a reason.
    assert pod is not None
    for each in (explained, pod):
        members = {key for key in each.document if key != "HostConfig"}
        members |= {f"HostConfig.{key}" for key in each.document["HostConfig"]}
        assert members <= each.origins.keys()
    assert not (tmp_path / "root").exists()
    assert msgspec.json.encode(explained.document)


def _pod(member: str = "name", text: str = "p") -> cri.PodSandboxConfig:
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name="p", namespace="n", uid="u"))
    setattr(config.metadata, member, text)
    return config


@pytest.mark.parametrize("member", ["name", "namespace", "uid"])
def test_names_that_docker_does_not_take_are_refused_with_their_field(member: str) -> None:
    refused.of_sandbox(_pod(member, "A.b_c-9"))
    for bad in ("a/b", "a b", "ä", "a\n"):
        with pytest.raises(InvalidArgument, match=rf"^config\.metadata\.{member}: "):
            refused.of_sandbox(_pod(member, bad))
        with pytest.raises(InvalidArgument, match=r"^config\.metadata\.name: "):
            refused.of_container(
                cri.ContainerConfig(metadata=cri.ContainerMetadata(name=bad)), golden.FEATURES
            )


def test_what_docker_would_refuse_without_a_field_is_refused_with_one(tmp_path: Path) -> None:
    nameless = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="c"))
    nameless.envs.add(key="A", value=b"")
    nameless.envs.add(key="", value=b"x")
    with pytest.raises(InvalidArgument, match=r"^config\.envs\[1\]\.key: "):
        refused.of_container(nameless, golden.FEATURES)
    (tmp_path / "file").touch()
    for path, why in (("/nosuch", "no such file"), (str(tmp_path / "file"), "not a device node")):
        with pytest.raises(InvalidArgument, match=rf"^config\.devices\[2\]\.host_path: .*{why}"):
            refused.device(cri.Device(host_path=path), "config.devices[2]")
    refused.device(cri.Device(host_path="/dev/null"), "config.devices[0]")


@pytest.mark.parametrize("member", ["run_as_user", "run_as_group", "supplemental_groups"])
def test_ids_of_the_pause_process_are_ids(member: str) -> None:
    config = _pod()
    asked = config.linux.security_context
    asked.run_as_user.value = asked.run_as_group.value = 1
    asked.supplemental_groups.append(1)
    sandbox = Sandbox("s", "p", config, "")
    body = sandbox_request(sandbox, golden.FEATURES, "/root")
    assert (body["User"], body["HostConfig"]["GroupAdd"]) == ("1:1", ["1"])
    if member == "supplemental_groups":
        asked.supplemental_groups[0] = 1 << 31
    else:
        getattr(asked, member).value = -1
    with pytest.raises(InvalidArgument, match=rf"security_context\.{member}: "):
        sandbox_request(sandbox, golden.FEATURES, "/root")
