"""SELinux: levels, labels of processes and files, and what may be relabelled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwright.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from podwright.spec.inputs import HandlerOptions, HostFacts, MountSource, Policy, SandboxInput
from podwright.spec.linux.build import build_sandbox
from podwright.spec.linux.selinux import needs_level, pod_labels
from podwright.spec.selinux import Context, allocate, check_level, is_system, parse_contexts
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host, pod

CONTEXTS = """
process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file="system_u:object_r:container_ro_file_t:s0"
sandbox_kvm_process = "system_u:system_r:container_kvm_t:s0"
"""
SELINUX = parse_contexts(CONTEXTS, "lxc_contexts")
POD_LEVEL = "s0:c7,c8"


def labelled(policy: Policy | None = None) -> HostFacts:
    return host(policy, selinux=SELINUX)


def options(**members: str) -> cri.LinuxContainerSecurityContext:
    return cri.LinuxContainerSecurityContext(selinux_options=cri.SELinuxOption(**members))


def labels(**given: Any) -> tuple[str | None, str | None]:
    facts = given.pop("facts", None) or labelled()
    built = build(
        given.pop("config", None),
        facts,
        **{"pod_selinux_level": POD_LEVEL, "selinux_level": "s0:c1,c2", **given},
    )
    return built.spec["process"].get("selinuxLabel"), built.spec["linux"].get("mountLabel")


@pytest.mark.parametrize(
    ("given", "process", "mount"),
    [
        ({}, f"system_u:system_r:container_t:{POD_LEVEL}", f"system_u:object_r:container_file_t:{POD_LEVEL}"),
        (
            {"type": "spc_t"},
            "system_u:system_r:spc_t:s0:c1,c2",
            "system_u:object_r:container_file_t:s0:c1,c2",
        ),
        (
            {"user": "u", "role": "r", "level": "s0"},
            "u:r:container_t:s0",
            "u:object_r:container_file_t:s0",
        ),
    ],
)
def test_what_options_leave_open_is_the_hosts_or_drawn(
    given: dict[str, str], process: str, mount: str
) -> None:
    assert labels(config=container(options(**given))) == (process, mount)


def test_a_container_without_options_has_those_of_its_pod() -> None:
    security = cri.LinuxSandboxSecurityContext(selinux_options=cri.SELinuxOption(type="my_t", level="s0:c3"))
    assert labels(sandbox=pod(security)) == (
        "system_u:system_r:my_t:s0:c3",
        "system_u:object_r:container_file_t:s0:c3",
    )


def test_without_selinux_options_mean_nothing() -> None:
    assert labels(config=container(options(level="x")), facts=host()) == (None, None)


def test_a_privileged_container_has_a_label_for_its_files_only() -> None:
    privileged = cri.LinuxContainerSecurityContext(privileged=True)
    found = labels(
        config=container(privileged), sandbox=pod(cri.LinuxSandboxSecurityContext(privileged=True))
    )
    assert found == (None, f"system_u:object_r:container_file_t:{POD_LEVEL}")


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_host_namespaces_take_the_label_away_where_the_node_wants_that(kind: str) -> None:
    namespace = cri.NamespaceOption(**{kind: cri.NamespaceMode.NODE})  # type: ignore[arg-type]
    sandbox = pod(cri.LinuxSandboxSecurityContext(namespace_options=namespace))
    assert labels(sandbox=sandbox)[0] is not None
    assert labels(sandbox=sandbox, facts=labelled(Policy(unlabel_host_namespaces=True)))[0] is None
    assert labels(facts=labelled(Policy(unlabel_host_namespaces=True)))[0] is not None


def test_a_virtual_machine_has_a_type_of_its_own() -> None:
    assert labels(handler=HandlerOptions(virtual_machine=True))[0] == (
        f"system_u:system_r:container_kvm_t:{POD_LEVEL}"
    )


def test_origins_name_the_options() -> None:
    built = build(container(options(level="s0")), labelled(), pod_selinux_level=POD_LEVEL)
    assert "config.linux.security_context.selinux_options" in built.origins["process.selinuxLabel"]


def test_the_pause_process_is_labelled_as_its_pod() -> None:
    request = SandboxInput(id="s", config=pod(), cgroups_path="/p", rootfs_path="/r", selinux_level=POD_LEVEL)
    spec = build_sandbox(request, labelled()).spec
    found = pod_labels(pod(), HandlerOptions(), POD_LEVEL, labelled())
    assert found is not None
    assert (spec["process"]["selinuxLabel"], spec["linux"]["mountLabel"]) == tuple(map(str, found))


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        (pod(), True),
        (pod(cri.LinuxSandboxSecurityContext(selinux_options=cri.SELinuxOption(level="s0"))), False),
        (container(), False),
        (container(options(type="t")), True),
        (container(options(type="t", level="s0")), False),
    ],
)
def test_when_a_level_has_to_be_drawn(config: Any, needed: bool) -> None:
    assert needs_level(config, labelled()) == needed
    assert not needs_level(config, host())


def test_a_level_that_was_not_drawn_is_missed() -> None:
    with pytest.raises(FailedPrecondition, match="none was drawn"):
        build(container(), labelled())


# Levels


@pytest.mark.parametrize(
    "level", ["s0", "s0-s0", "s15", "s0:c0", "s0:c0.c3", "s0:c0,c3", "s0-s0:c0,c3.c6,c8.c10", "s0:c0.c1023"]
)
def test_levels(level: str) -> None:
    check_level(level, "f")


@pytest.mark.parametrize(
    "level",
    ["", "s", "s0,c0", "s0:c0.c3.c6", "s0:", "s0:c", "s0:c1,", "$(x)", "s0:c1024", "s0:c5.c2", "s0\n", "s٠"],
)
def test_what_is_no_level_is_refused(level: str) -> None:
    with pytest.raises(InvalidArgument, match="f"):
        check_level(level, "f")


@pytest.mark.parametrize("member", ["user", "role", "type", "level"])
def test_options_must_fit_into_a_context(member: str) -> None:
    with pytest.raises(InvalidArgument, match=f"selinux_options.{member}"):
        build(container(options(**{member: "a:b c"})), labelled(), selinux_level="s0")


@given(st.lists(st.text(max_size=4), unique=True, max_size=10), st.integers(5, 1024))
def test_levels_are_drawn_once(seeds: list[str], categories: int) -> None:
    taken: list[str] = []
    for seed in seeds:
        level = allocate(taken, seed, categories)
        check_level(level, "f")
        assert level not in taken
        assert level == allocate(taken, seed, categories)
        taken.append(level)


def test_every_pair_of_categories_is_used_before_there_is_none() -> None:
    taken: set[str] = set()
    for number in range(10):
        taken.add(allocate(taken, str(number), 5))
    assert taken == {f"s0:c{low},c{high}" for high in range(5) for low in range(high)}
    with pytest.raises(ResourceExhausted):
        allocate(taken, "x", 5)


# Relabelling


def relabelling(path: str, **given: Any) -> Any:
    mount = cri.Mount(container_path="/x", host_path="/link", selinux_relabel=True)
    return build(
        container(given.pop("security", None), mounts=[mount]),
        given.pop("facts", None) or labelled(),
        mount_sources=[MountSource(path=path)],
        pod_selinux_level=POD_LEVEL,
        selinux_level="s0:c1,c2",
        **given,
    ).relabels


def test_a_volume_gets_the_label_of_the_containers_files() -> None:
    (found,) = relabelling("/data/volume")
    assert found.path == "/data/volume"
    assert found.label == f"system_u:object_r:container_file_t:{POD_LEVEL}"
    assert found.field == "config.mounts[0].selinux_relabel"
    (own,) = relabelling("/data/volume", security=options(type="t"))
    assert own.label == "system_u:object_r:container_file_t:s0:c1,c2"


def test_a_shared_label_is_for_every_container() -> None:
    (found,) = relabelling("/data", facts=labelled(Policy(shared_relabel=True)))
    assert found.label == "system_u:object_r:container_file_t:s0"


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/var/lib", "/home", "/etc/", "//etc", "/var/../etc"])
def test_what_belongs_to_the_host_is_not_relabelled(path: str) -> None:
    assert is_system(path)
    with pytest.raises(InvalidArgument, match=r"mounts\[0\]\.selinux_relabel"):
        relabelling(path)


def test_nothing_is_relabelled_for_super_privileged_containers_and_without_selinux() -> None:
    assert relabelling("/data", security=options(type="spc_t")) == ()
    assert relabelling("/etc", facts=host()) == ()


def test_the_annotation_that_skips_labelled_volumes_needs_the_handlers_word() -> None:
    key = "try-skip-volume-selinux-label.crio.io"
    sandbox = cri.PodSandboxConfig(annotations={key: "true"})
    (plain,) = relabelling("/data", sandbox=sandbox)
    assert not plain.skip_if_labelled
    (skipped,) = relabelling("/data", sandbox=sandbox, handler=HandlerOptions(allowed_annotations=[key]))
    assert skipped.skip_if_labelled


# The policy's file


def test_contexts_of_the_policy() -> None:
    assert SELINUX.process == Context("system_u", "system_r", "container_t", "s0")
    assert str(SELINUX.file) == "system_u:object_r:container_file_t:s0"
    assert SELINUX.kvm_process and SELINUX.kvm_process.type == "container_kvm_t"
    assert str(Context.parse("a:b:c:s0-s1:c0.c5", "f")) == "a:b:c:s0-s1:c0.c5"


@pytest.mark.parametrize("text", ["", 'process = "a:b:c:s0"', 'process = "a:b"\nfile = "a:b:c:s0"'])
def test_a_policy_without_contexts_for_containers_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="lxc_contexts"):
        parse_contexts(text, "lxc_contexts")
