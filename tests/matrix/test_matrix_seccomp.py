"""Seccomp, as the container's own process has it: the mode, and a system call that really fails."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected
from tests.matrix.server import MatrixServer

pytestmark = pytest.mark.root

RUNTIME_DEFAULT = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
UNCONFINED = cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)
FILTERED, FREE = "2", "0"
# The default profile refuses swapoff(2) to everyone; the kernel finds nothing wrong but the file.
SCRIPT = (
    "grep ^Seccomp: /proc/self/status | tr -dc 0-9; mkdir /tmp/made 2>/dev/null && echo -n ' mkdir';"
    "swapoff /bin/busybox 2>&1 | grep -q 'Invalid argument' && echo -n ' swapoff'"
)
FREELY = f"{FREE} mkdir swapoff"
BY_DEFAULT = f"{FILTERED} mkdir"
BY_FILE = f"{FILTERED} swapoff"


@pytest.fixture(scope="module")
def profile(server: MatrixServer) -> str:
    """Below seccomp_root, a profile that forbids making directories; its name there."""
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    (server.seccomp / "own").mkdir()
    text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    (server.seccomp / "own/no-mkdir.json").write_text(text)
    return "own/no-mkdir.json"


def seen(
    client: Client,
    handler: str,
    *,
    field: cri.SecurityProfile | None = None,
    text: str = "",
    pod: Mapping[str, str] | None = None,
) -> str:
    """What SCRIPT says under a profile from the field, the deprecated string, or the pod's annotations."""
    security = {
        "seccomp": field,
        "seccomp_profile_path": text,
        "capabilities": cri.Capability(add_capabilities=["SYS_ADMIN"]),
    }
    sandbox = client.pod(handler=handler, annotations=pod)
    return sandbox.shell(SCRIPT, name="main", security=security).ended().output().strip()


def test_profiles_by_field(client: Client, native: str, profile: str) -> None:
    localhost = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=profile)
    assert seen(client, native) == FREELY
    assert seen(client, native, field=UNCONFINED, text="runtime/default") == FREELY
    assert seen(client, native, field=RUNTIME_DEFAULT) == BY_DEFAULT
    assert seen(client, native, field=localhost) == BY_FILE


def test_the_default_profile_allows_what_granted_capabilities_are_for(client: Client, native: str) -> None:
    wanted = cri.Capability(add_capabilities=["SYS_ADMIN"])
    security = {"seccomp": RUNTIME_DEFAULT, "capabilities": wanted}
    container = client.pod(handler=native).run(security=security)
    assert (
        container.sh("hostname other; hostname; grep ^Seccomp: /proc/self/status | tr -dc 0-9") == "other\n2"
    )


def test_profiles_by_deprecated_string(client: Client, native: str, profile: str) -> None:
    assert seen(client, native, text="unconfined") == FREELY
    assert seen(client, native, text="runtime/default") == BY_DEFAULT
    assert seen(client, native, text="docker/default") == BY_DEFAULT
    assert seen(client, native, text=f"localhost/{profile}") == BY_FILE


@pytest.mark.parametrize(
    "names",
    [
        ("container.seccomp.security.alpha.kubernetes.io/main", "seccomp.security.alpha.kubernetes.io/pod"),
        ("security.alpha.kubernetes.io/seccomp/container/main", "security.alpha.kubernetes.io/seccomp/pod"),
    ],
    ids=["alpha", "older"],
)
def test_profiles_by_annotation(client: Client, native: str, profile: str, names: tuple[str, str]) -> None:
    own, of_pod = names
    assert seen(client, native, pod={of_pod: "runtime/default"}) == BY_DEFAULT
    assert seen(client, native, pod={of_pod: "runtime/default", own: f"localhost/{profile}"}) == BY_FILE
    assert seen(client, native, pod={of_pod: "runtime/default"}, field=UNCONFINED) == FREELY


def test_privileged_containers_have_no_filter(client: Client, native: str) -> None:
    pod = client.pod(handler=native, privileged=True)
    container = pod.shell(SCRIPT, privileged=True, security={"seccomp": RUNTIME_DEFAULT}).ended()
    assert container.output().strip() == FREELY


def test_gvisor_filters_what_it_is_asked_to(client: Client, profile: str, sandboxed: str) -> None:
    """With its option --oci-seccomp; it shows no mode."""
    localhost = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=profile)
    assert "mkdir" in seen(client, sandboxed)
    assert "mkdir" not in seen(client, sandboxed, field=localhost)


def test_profiles_lie_below_their_root(client: Client, server: MatrixServer, profile: str) -> None:
    (server.root / "elsewhere.json").write_text((server.seccomp / profile).read_text())
    (server.seccomp / "link.json").symlink_to(server.root / "elsewhere.json")
    pod = client.pod()
    for path in ("../elsewhere.json", str(server.root / "elsewhere.json"), "link.json"):
        wanted = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=path)
        with rejected(StatusCode.INVALID_ARGUMENT, "is not below"):
            pod.create("/bin/true", security={"seccomp": wanted})
