"""Capabilities, privileges, seccomp, masked and read-only paths, devices: as the kernel sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Container, rejected, status_value

CHOWN, KILL, NET_RAW, SYS_ADMIN, SYS_TIME = 0, 5, 13, 21, 25
DEFAULT_14 = {0, 1, 3, 4, 27, 13, 6, 7, 31, 8, 10, 18, 5, 29}


def _caps(container: Container, kind: str) -> set[int]:
    mask = int(status_value(container.pid, f"Cap{kind}"), 16)
    return {bit for bit in range(64) if mask >> bit & 1}


def _own_caps() -> set[int]:
    mask = int(status_value(1, "CapBnd"), 16) & int(status_value(_self(), "CapBnd"), 16)
    return {bit for bit in range(64) if mask >> bit & 1}


def _self() -> int:
    import os

    return os.getpid()


@pytest.mark.kernel
def test_default_capabilities(client: Client) -> None:
    container = client.pod().run()
    assert _caps(container, "Bnd") == _caps(container, "Prm") == _caps(container, "Eff") == DEFAULT_14
    assert _caps(container, "Inh") == _caps(container, "Amb") == set()


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("add", "drop", "there", "absent"),
    [
        (["sys_time"], [], {SYS_TIME, CHOWN}, {SYS_ADMIN}),
        (["CAP_SYS_TIME"], ["chown"], {SYS_TIME, KILL}, {CHOWN}),
        (["NET_RAW"], ["ALL"], {NET_RAW}, {CHOWN, KILL}),
        ([], ["all"], set(), DEFAULT_14),
        (["ALL"], ["CAP_CHOWN"], {SYS_ADMIN, SYS_TIME}, {CHOWN}),
    ],
)
def test_added_and_dropped_capabilities(
    client: Client, add: list[str], drop: list[str], there: set[int], absent: set[int]
) -> None:
    capabilities = cri.Capability(add_capabilities=add, drop_capabilities=drop)
    container = client.pod().run(security={"capabilities": capabilities})
    held = _caps(container, "Bnd")
    assert there <= held
    assert not absent & held
    assert held == _caps(container, "Eff")
    assert _caps(container, "Inh") == set()


@pytest.mark.kernel
def test_a_user_that_is_not_root_holds_no_capability(client: Client) -> None:
    container = client.pod().run(security={"run_as_user": cri.Int64Value(value=1000)})
    assert _caps(container, "Eff") == set()
    assert _caps(container, "Bnd") == DEFAULT_14


def test_unknown_capabilities_are_refused(client: Client) -> None:
    capabilities = cri.Capability(add_capabilities=["CAP_FLY"])
    with rejected(StatusCode.INVALID_ARGUMENT, "FLY"):
        client.pod().create("/bin/true", security={"capabilities": capabilities})


@pytest.mark.kernel
def test_no_new_privileges_is_what_was_asked(client: Client) -> None:
    pod = client.pod()
    assert status_value(pod.run().pid, "NoNewPrivs") == "0"
    assert status_value(pod.run(security={"no_new_privs": True}).pid, "NoNewPrivs") == "1"


def test_privileged_needs_a_privileged_sandbox(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "privileged"):
        client.pod().create("/bin/true", privileged=True)


@pytest.mark.kernel
def test_privileged_holds_every_capability(client: Client) -> None:
    container = client.pod(privileged=True).run(privileged=True)
    assert _caps(container, "Eff") == _own_caps()


@pytest.mark.kernel
def test_privileged_lifts_the_limits(client: Client) -> None:
    pod = client.pod(privileged=True)
    masked = ["/proc/kcore", "/proc/keys"]
    container = pod.run(
        privileged=True,
        security={
            "masked_paths": masked,
            "readonly_paths": ["/proc/sys"],
            "seccomp": cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
        },
    )
    assert status_value(container.pid, "Seccomp") == "0"
    spec = container.info()["runtimeSpec"]
    assert not spec["linux"].get("maskedPaths") and not spec["linux"].get("readonlyPaths")
    options = {m["destination"]: m.get("options", []) for m in spec["mounts"]}
    assert "ro" not in options["/sys"] and "ro" not in options["/sys/fs/cgroup"]
    assert container.exec("test", "-c", "/dev/kmsg").code == container.exec("ls", "/dev/kmsg").code
    assert {"rwm"} <= {rule["access"] for rule in spec["linux"]["resources"]["devices"] if rule["allow"]}
    exec_caps = container.sh("grep CapEff /proc/self/status").split()[1]
    assert int(exec_caps, 16) == int(status_value(container.pid, "CapEff"), 16)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("profile", "mode"),
    [
        (cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault), "2"),
        (cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined), "0"),
        (None, "0"),
    ],
)
def test_seccomp_profiles(client: Client, profile: cri.SecurityProfile | None, mode: str) -> None:
    assert status_value(client.pod().run(security={"seccomp": profile}).pid, "Seccomp") == mode


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("path", "mode"), [("runtime/default", "2"), ("docker/default", "2"), ("unconfined", "0"), ("", "0")]
)
def test_deprecated_seccomp_strings(client: Client, path: str, mode: str) -> None:
    container = client.pod().run(security={"seccomp": None, "seccomp_profile_path": path})
    assert status_value(container.pid, "Seccomp") == mode


@pytest.mark.kernel
def test_a_localhost_profile_is_applied(client: Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    profile = tmp_path_factory.mktemp("seccomp") / "no-mkdir.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    wanted = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref=str(profile))
    container = client.pod().run(security={"seccomp": wanted})
    assert container.exec("mkdir", "/tmp/x").code != 0
    assert container.exec("touch", "/tmp/y").code == 0
    by_string = client.pod().run(security={"seccomp": None, "seccomp_profile_path": f"localhost/{profile}"})
    assert by_string.exec("mkdir", "/tmp/x").code != 0


def test_bad_security_profiles_are_refused(client: Client) -> None:
    pod = client.pod()
    wrong = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault, localhost_ref="/x.json")
    with rejected(StatusCode.INVALID_ARGUMENT, "localhost_ref"):
        pod.create("/bin/true", security={"seccomp": wrong})
    with rejected(StatusCode.INVALID_ARGUMENT, "localhost_ref"):
        pod.create("/bin/true", security={"apparmor": wrong})
    with rejected(StatusCode.INVALID_ARGUMENT):
        pod.create("/bin/true", security={"seccomp": None, "seccomp_profile_path": "what/ever"})


def test_an_absent_localhost_profile_is_refused(client: Client) -> None:
    absent = cri.SecurityProfile(profile_type=cri.SecurityProfile.Localhost, localhost_ref="/no/such.json")
    with rejected(StatusCode.INVALID_ARGUMENT, "/no/such.json"):
        client.pod().create("/bin/true", security={"seccomp": absent})


@pytest.mark.kernel
def test_masked_and_readonly_paths_are_exactly_those_given(client: Client) -> None:
    pod = client.pod()
    container = pod.run(
        security={"masked_paths": ["/proc/keys", "/sys/firmware"], "readonly_paths": ["/proc/sys"]}
    )
    assert container.sh("cat /proc/keys | wc -c; ls /sys/firmware | wc -l") == "0\n0"
    assert container.exec("/bin/sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward").code != 0
    assert container.exec("/bin/sh", "-c", "head -c 1 /proc/timer_list").code == 0
    bare = pod.run()
    assert "maskedPaths" not in bare.info()["runtimeSpec"]["linux"]
    assert "/proc/sys " not in bare.sh("cat /proc/self/mounts")


def test_read_only_root_leaves_volumes_writable(client: Client, outside: Path) -> None:
    container = client.pod().run(
        security={"readonly_rootfs": True}, mounts=[cri.Mount(host_path=str(outside), container_path="/data")]
    )
    assert container.exec("touch", "/file").code != 0
    assert container.exec("/bin/sh", "-c", "echo x > /etc/hosts").code != 0
    container.sh("echo kept > /data/file")
    assert (outside / "file").read_text() == "kept\n"


@pytest.mark.kernel
def test_devices_are_denied_unless_given(client: Client) -> None:
    pod = client.pod()
    plain = pod.run()
    assert plain.info()["runtimeSpec"]["linux"]["resources"]["devices"][0] == {
        "allow": False,
        "access": "rwm",
    }
    assert plain.exec("head", "-c", "1", "/dev/zero").code == 0
    plain.sh("mknod /tmp/loop b 7 0")
    assert plain.exec("head", "-c", "1", "/tmp/loop").code != 0
    given = pod.run(devices=[cri.Device(host_path="/dev/zero", container_path="/dev/nil", permissions="r")])
    assert given.exec("head", "-c", "1", "/dev/nil").code == 0


def test_a_missing_device_is_refused(client: Client) -> None:
    device = cri.Device(host_path="/dev/no-such", container_path="/dev/x", permissions="rw")
    with rejected(StatusCode.INVALID_ARGUMENT, "/dev/no-such"):
        client.pod().create("/bin/true", devices=[device])
