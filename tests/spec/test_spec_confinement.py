"""Confinement that is asked for otherwise than by the CRI's fields: annotations, files; ambient rights."""

from __future__ import annotations

from typing import Any

import pytest

from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.spec.inputs import ContainerInput, HandlerOptions, ImageConfig, Policy, SandboxInput
from podwright.spec.linux.build import build_sandbox
from podwright.spec.linux.capabilities import DEFAULT, KNOWN
from podwright.spec.linux.security import artifact_reference, localhost_path
from podwright.wire import cri_pb2 as cri
from tests.spec.builds import build, container, host, pod

Security = cri.LinuxContainerSecurityContext
NEWER = "container.seccomp.security.alpha.kubernetes.io/main"
NEWER_POD = "seccomp.security.alpha.kubernetes.io/pod"
OLDER = "security.alpha.kubernetes.io/seccomp/container/main"
OLDER_POD = "security.alpha.kubernetes.io/seccomp/pod"
LOG = b'{"defaultAction": "SCMP_ACT_LOG"}'


def action(annotations: dict[str, str], security: Security | None = None, content: bytes | None = LOG) -> str:
    """What the chosen profile does: "ERRNO" the default one, "LOG" the file, "" none."""
    sandbox = cri.PodSandboxConfig(annotations=annotations)
    built = build(container(security), sandbox=sandbox, seccomp_profile=content)
    seccomp = built.spec["linux"].get("seccomp", {"defaultAction": ""})
    return str(seccomp["defaultAction"].removeprefix("SCMP_ACT_"))


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, ""),
        ({NEWER: "runtime/default"}, "ERRNO"),
        ({NEWER_POD: "docker/default"}, "ERRNO"),
        ({OLDER: "runtime/default"}, "ERRNO"),
        ({OLDER_POD: "localhost/p"}, "LOG"),
        ({NEWER: "unconfined", NEWER_POD: "runtime/default"}, ""),
        ({NEWER: "localhost/p", OLDER: "runtime/default"}, "LOG"),
        ({NEWER_POD: "localhost/p", OLDER: "runtime/default"}, "LOG"),
        ({NEWER.replace("main", "other"): "runtime/default"}, ""),
    ],
)
def test_both_generations_of_seccomp_annotations(annotations: dict[str, str], expected: str) -> None:
    assert action(annotations) == expected


@pytest.mark.parametrize(
    "security",
    [
        Security(seccomp=cri.SecurityProfile(profile_type="Unconfined")),
        Security(seccomp_profile_path="unconfined"),
    ],
)
def test_fields_count_more_than_annotations(security: Security) -> None:
    assert action({NEWER: "runtime/default"}, security) == ""


def test_annotations_count_more_than_the_nodes_default() -> None:
    sandbox = cri.PodSandboxConfig(annotations={NEWER: "unconfined"})
    facts = host(Policy(unset_seccomp_profile="runtime/default"))
    assert "seccomp" in build(facts=facts).spec["linux"]
    assert "seccomp" not in build(facts=facts, sandbox=sandbox).spec["linux"]


def test_a_bad_annotation_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"annotations\[container\.seccomp\.security\.alpha"):
        action({NEWER: "bad"})
    with pytest.raises(InvalidArgument, match=r"annotations\[container\.seccomp.*cannot be read"):
        action({NEWER: "localhost/p"}, content=None)


def test_the_pods_annotation_is_for_its_pause_process_too() -> None:
    config = cri.PodSandboxConfig(annotations={NEWER_POD: "runtime/default", NEWER: "unconfined"})
    request = SandboxInput(id="s", config=config, cgroups_path="/p", rootfs_path="/r")
    assert build_sandbox(request, host()).spec["linux"]["seccomp"]


@pytest.mark.parametrize(
    ("root", "ref", "expected"),
    [
        ("", "/any/where", "/any/where"),
        ("", "a/../b", "a/../b"),
        ("/root", "a.json", "/root/a.json"),
        ("/root", "a/../b.json", "/root/b.json"),
        ("/root", "/root/a.json", "/root/a.json"),
        ("/root/", "x//y", "/root/x/y"),
        ("/", "/etc/x", "/etc/x"),
        ("/root", "../a", None),
        ("/root", "/rootless/a", None),
        ("/root", "/etc/a", None),
        ("/root", "a/../../b", None),
        ("/root", ".", None),
    ],
)
def test_profiles_stay_below_their_root(root: str, ref: str, expected: str | None) -> None:
    profile = cri.SecurityProfile(profile_type="Localhost", localhost_ref=ref)
    policy = Policy(seccomp_root=root)
    for security in (Security(seccomp=profile), Security(seccomp_profile_path=f"localhost/{ref}")):
        if expected is None:
            with pytest.raises(InvalidArgument, match="not below /root"):
                localhost_path(security, policy)
        else:
            assert localhost_path(security, policy) == expected


ARTIFACT = "seccomp-profile.crio.io"


@pytest.mark.parametrize(
    ("annotations", "security", "allowed", "expected"),
    [
        ({f"{ARTIFACT}/main": "r/own", f"{ARTIFACT}/POD": "r/pod"}, Security(), True, "r/own"),
        ({f"{ARTIFACT}/POD": "r/pod"}, Security(), True, "r/pod"),
        ({f"{ARTIFACT}/other": "r/x"}, Security(), True, ""),
        ({f"{ARTIFACT}/POD": "r/pod"}, Security(), False, ""),
        ({f"{ARTIFACT}/POD": "r/pod"}, Security(seccomp=cri.SecurityProfile()), True, ""),
        (
            {f"{ARTIFACT}/POD": "r/pod"},
            Security(seccomp=cri.SecurityProfile(profile_type="Unconfined")),
            True,
            "r/pod",
        ),
    ],
)
def test_profiles_from_artifacts(
    annotations: dict[str, str], security: Security, allowed: bool, expected: str
) -> None:
    request = ContainerInput(
        id="c",
        config=container(security),
        sandbox_id="s",
        sandbox=cri.PodSandboxConfig(annotations=annotations),
        image=ImageConfig(),
        cgroups_path="",
        handler=HandlerOptions(allowed_annotations=[ARTIFACT] if allowed else []),
        seccomp_profile=LOG,
    )
    assert artifact_reference(request, Policy()) == expected
    built = build(request.config, sandbox=request.sandbox, handler=request.handler, seccomp_profile=LOG)
    is_from_artifact = built.spec["linux"].get("seccomp", {}).get("defaultAction") == "SCMP_ACT_LOG"
    assert is_from_artifact == bool(expected)


# AppArmor

BETA = "container.apparmor.security.beta.kubernetes.io/main"
ARMOUR: dict[str, Any] = {
    "apparmor": True,
    "apparmor_default": "default",
    "apparmor_profiles": frozenset({"loaded"}),
}


@pytest.mark.parametrize(
    ("security", "value", "expected"),
    [
        (Security(), "", "default"),
        (Security(), "localhost/loaded", "loaded"),
        (Security(), "runtime/default", "default"),
        (Security(), "unconfined", None),
        (Security(apparmor_profile="unconfined"), "localhost/loaded", None),
        (Security(apparmor=cri.SecurityProfile(profile_type="Unconfined")), "localhost/loaded", None),
        (Security(privileged=True), "localhost/loaded", "loaded"),
        (Security(privileged=True), "", None),
    ],
)
def test_the_apparmor_annotation_counts_less_than_fields(
    security: Security, value: str, expected: str | None
) -> None:
    annotations = {BETA: value} if value else {}
    sandbox = pod(cri.LinuxSandboxSecurityContext(privileged=True), annotations=annotations)
    built = build(container(security), host(**ARMOUR), sandbox=sandbox)
    assert built.spec["process"].get("apparmorProfile") == expected


def test_a_profile_that_cannot_be_is_named_with_its_annotation() -> None:
    sandbox = cri.PodSandboxConfig(annotations={BETA: "localhost/missing"})
    with pytest.raises(FailedPrecondition, match=r"container\.apparmor.*'missing' is not loaded"):
        build(facts=host(**ARMOUR), sandbox=sandbox)
    with pytest.raises(FailedPrecondition, match="not supported"):
        build(sandbox=sandbox)


# Ambient capabilities


def sets(capability: cri.Capability, held: frozenset[str] = KNOWN, **given: Any) -> dict[str, set[str]]:
    security = Security(capabilities=capability, **given)
    sandbox = pod(cri.LinuxSandboxSecurityContext(privileged=True))
    built = build(container(security), host(capabilities=sorted(held)), sandbox=sandbox)
    return {name: set(value) for name, value in built.spec["process"]["capabilities"].items()}


def test_ambient_capabilities_are_in_every_set() -> None:
    found = sets(cri.Capability(add_ambient_capabilities=["net_admin", "CAP_CHOWN"]))
    assert found["ambient"] == found["inheritable"] == {"CAP_NET_ADMIN", "CAP_CHOWN"}
    for name in ("bounding", "effective", "permitted"):
        assert found[name] == {*DEFAULT, "CAP_NET_ADMIN"}


@pytest.mark.parametrize(
    ("add", "drop", "ambient", "bounding", "given"),
    [
        ([], ["ALL"], ["NET_ADMIN"], {"CAP_NET_ADMIN"}, {"CAP_NET_ADMIN"}),
        (["KILL"], ["ALL"], ["ALL"], {*KNOWN}, {*KNOWN}),
        ([], ["NET_ADMIN", "ALL"], ["NET_ADMIN"], set(), set()),
        (["SYS_TIME"], ["ALL"], [], {"CAP_SYS_TIME"}, None),
    ],
)
def test_ambient_with_adds_and_drops(
    add: list[str], drop: list[str], ambient: list[str], bounding: set[str], given: set[str] | None
) -> None:
    # Adding ALL and dropping ALL leaves what is added by its own name.
    asked = cri.Capability(add_capabilities=add, drop_capabilities=drop, add_ambient_capabilities=ambient)
    found = sets(asked)
    if "ALL" in ambient:
        bounding = given = {"CAP_KILL"}
    assert found["bounding"] == bounding
    assert found.get("ambient") == given


def test_nothing_is_ambient_that_the_daemon_lacks() -> None:
    found = sets(cri.Capability(add_ambient_capabilities=["BPF", "KILL"]), KNOWN - {"CAP_BPF"})
    assert found["ambient"] == {"CAP_KILL"}
    assert "CAP_BPF" not in found["bounding"]


def test_a_privileged_container_has_ambient_ones_only_when_asked() -> None:
    assert "ambient" not in sets(cri.Capability(), privileged=True)
    found = sets(cri.Capability(add_ambient_capabilities=["KILL"]), privileged=True)
    assert found["bounding"] == KNOWN and found["ambient"] == {"CAP_KILL"}


@pytest.mark.parametrize("privileged", [False, True])
def test_an_unknown_ambient_name_is_refused(privileged: bool) -> None:
    with pytest.raises(InvalidArgument, match="add_ambient_capabilities"):
        sets(cri.Capability(add_ambient_capabilities=["NO_SUCH"]), privileged=privileged)


@pytest.mark.parametrize("privileged", [False, True])
def test_a_user_on_gvisors_kernel_has_only_what_is_ambient(privileged: bool) -> None:
    """Linux takes the others away at execve(2), gVisor does not."""
    sandbox = pod(cri.LinuxSandboxSecurityContext(privileged=privileged))

    def given(uid: int, ambient: tuple[str, ...] = ()) -> dict[str, set[str]]:
        security = Security(
            privileged=privileged,
            run_as_user=cri.Int64Value(value=uid),
            capabilities=cri.Capability(add_ambient_capabilities=ambient),
        )
        handler = HandlerOptions(own_kernel=True)
        built = build(container(security), sandbox=sandbox, handler=handler)
        return {name: set(held) for name, held in built.spec["process"]["capabilities"].items()}

    user = given(1000)
    assert user["effective"] == user["permitted"] == set()
    assert set(DEFAULT) <= user["bounding"]
    assert given(1000, ("KILL",))["effective"] == given(1000, ("KILL",))["permitted"] == {"CAP_KILL"}
    root = given(0)
    assert root["effective"] == root["permitted"] == root["bounding"]
