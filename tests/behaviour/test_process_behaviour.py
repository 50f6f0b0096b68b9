"""The process of a container: command, environment, directory, user and groups."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Pod, rejected


def _output(pod: Pod, config: cri.ContainerConfig) -> str:
    container = pod.create(config=config)
    container.start()
    return container.ended().output().strip()


@pytest.mark.parametrize(
    ("image", "command", "args", "printed"),
    [
        ("entry", [], [], "entry cmd"),
        ("entry", [], ["mine"], "entry mine"),
        ("entry", ["/bin/echo", "own"], [], "own"),
        ("entry", ["/bin/echo", "own"], ["mine"], "own mine"),
        ("hollow", [], [], "cmd only"),
    ],
)
def test_command_and_args_override_the_image(
    client: Client, image: str, command: list[str], args: list[str], printed: str
) -> None:
    pod = client.pod()
    assert _output(pod, pod.container_config(*command, args=args, image=image)) == printed


def test_nothing_to_run_is_an_error(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "command"):
        client.pod().create(image="nothing")


def test_environment_order_and_precedence(client: Client) -> None:
    pod = client.pod(hostname="named")
    container = pod.run("/bin/env", env={"BOTH": "cri", "EQUALS": "a=b=c", "EMPTY": ""}).ended()
    env = container.output().splitlines()
    assert env[0].startswith("PATH=")
    assert "HOSTNAME=named" in env
    assert "FROM_IMAGE=yes" in env
    assert [e for e in env if e.startswith("BOTH=")] == ["BOTH=cri"]
    assert "EQUALS=a=b=c" in env
    assert "EMPTY=" in env
    assert not any(e.startswith("TERM=") for e in env)


def test_a_terminal_brings_term(client: Client) -> None:
    # The terminal puts a carriage return before each new line.
    lines = client.once("/bin/env", tty=True).output().splitlines()
    assert "TERM=xterm" in [line.rstrip("\r") for line in lines]


def test_environment_values_are_never_altered(client: Client) -> None:
    container = client.pod().shell('echo "$WORDS"; sleep 2147483', env={"WORDS": "ünï\tco∂é\nline"})
    container.await_output("ünï\tco∂é\nline\n")
    request = cri.ExecSyncRequest(container_id=container.id, cmd=["/bin/sh", "-c", 'printf %s "$WORDS"'])
    assert container.runtime.ExecSync(request).stdout == "ünï\tco∂é\nline".encode()
    # An OCI specification is JSON and cannot carry other bytes: refused, not replaced.
    with rejected(StatusCode.INVALID_ARGUMENT, "BYTES"):
        container.pod.create("/bin/true", env={"BYTES": b"\xff\xfe"})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"envs": [cri.KeyValue(key="ONE"), cri.KeyValue(key="ZERO", value=b"a\0b")]}, "envs[1]: 'ZERO'"),
        ({"envs": [cri.KeyValue(key="ZE\0RO", value=b"1")]}, "envs[0]"),
        ({"args": ["-c", "a\0b"]}, "args[1]"),
        ({"working_dir": "/tmp\0"}, "working_dir"),
    ],
    ids=["value", "key", "argument", "directory"],
)
def test_a_zero_byte_is_refused_by_name(client: Client, fields: dict[str, Any], named: str) -> None:
    pod = client.pod()
    config = pod.container_config("/bin/true")
    config.MergeFrom(cri.ContainerConfig(**fields))
    with rejected(StatusCode.INVALID_ARGUMENT, f"config.{named}"):
        pod.create(config=config)


def test_a_zero_byte_in_a_command_to_execute_is_refused(client: Client) -> None:
    container, argv = client.pod().run(), ["echo", "a\0b"]
    with rejected(StatusCode.INVALID_ARGUMENT, "cmd[1]"):
        container.runtime.ExecSync(cri.ExecSyncRequest(container_id=container.id, cmd=argv))
    with rejected(StatusCode.INVALID_ARGUMENT, "cmd[1]"):
        container.runtime.Exec(cri.ExecRequest(container_id=container.id, cmd=argv, stdout=True))


@pytest.mark.parametrize(
    ("image", "asked", "there"),
    [
        ("busybox", "", "/"),
        ("entry", "", "/usr/bin"),
        ("entry", "/tmp", "/tmp"),
        ("busybox", "/made/up", "/made/up"),
    ],
)
def test_working_directory(client: Client, image: str, asked: str, there: str) -> None:
    assert client.once("pwd", image=image, working_dir=asked).output().strip() == there


@pytest.mark.parametrize(
    ("image", "security", "uid", "gid", "groups"),
    [
        ("busybox", {}, 0, 0, {0}),
        ("numeric-user", {}, 1234, 0, {0}),
        ("busybox", {"run_as_user": cri.Int64Value(value=7777)}, 7777, 0, {0}),
        (
            "numeric-user",
            {"run_as_user": cri.Int64Value(value=7777), "run_as_group": cri.Int64Value(value=3000)},
            7777,
            3000,
            {3000},
        ),
        (
            "busybox",
            {"run_as_user": cri.Int64Value(value=7777), "supplemental_groups": [9000, 5000, 9000]},
            7777,
            0,
            {0, 5000, 9000},
        ),
        ("busybox", {"run_as_username": "nobody"}, 65534, 65534, {65534}),
    ],
)
def test_user_and_groups_come_from_request_and_image(
    client: Client, image: str, security: dict[str, object], uid: int, gid: int, groups: set[int]
) -> None:
    _run_as(client, image, security, uid, gid, groups)


@pytest.mark.parametrize(
    ("image", "security", "uid", "gid", "groups"),
    [
        ("named-user", {}, 1000, 1000, {1000, 2000, 2001}),
        ("both-user", {}, 1000, 2001, {2000, 2001}),
        ("busybox", {"run_as_user": cri.Int64Value(value=1000)}, 1000, 1000, {1000, 2000, 2001}),
        ("busybox", {"run_as_username": "app"}, 1000, 1000, {1000, 2000, 2001}),
        (
            "busybox",
            {"run_as_username": "app", "run_as_user": cri.Int64Value(value=1)},
            1000,
            1000,
            {1000, 2000, 2001},
        ),
        (
            "busybox",
            {"run_as_user": cri.Int64Value(value=1000), "run_as_group": cri.Int64Value(value=3000)},
            1000,
            3000,
            {2000, 2001, 3000},
        ),
        (
            "busybox",
            {"run_as_user": cri.Int64Value(value=1000), "supplemental_groups": [9000, 5000, 9000]},
            1000,
            1000,
            {1000, 2000, 2001, 5000, 9000},
        ),
        (
            "busybox",
            {
                "run_as_user": cri.Int64Value(value=1000),
                "supplemental_groups": [5000],
                "supplemental_groups_policy": cri.Strict,
            },
            1000,
            1000,
            {1000, 5000},
        ),
    ],
)
def test_names_and_memberships_come_from_the_images_files(
    client: Client, image: str, security: dict[str, object], uid: int, gid: int, groups: set[int]
) -> None:
    _run_as(client, image, security, uid, gid, groups)


def _run_as(
    client: Client, image: str, security: dict[str, object], uid: int, gid: int, groups: set[int]
) -> None:
    container = client.pod().shell("id -u; id -g; id -G", image=image, security=security).ended()
    seen_uid, seen_gid, seen_groups = container.output().splitlines()
    assert (int(seen_uid), int(seen_gid)) == (uid, gid)
    assert {int(group) for group in seen_groups.split()} == groups
    user = container.status().user.linux
    assert (user.uid, user.gid) == (uid, gid)
    assert list(user.supplemental_groups) == sorted(groups)


def test_bad_users_are_refused(client: Client) -> None:
    pod = client.pod()
    with rejected(StatusCode.INVALID_ARGUMENT):
        pod.create("/bin/true", security={"run_as_group": cri.Int64Value(value=5)})
    with rejected(StatusCode.INVALID_ARGUMENT, "nobody-such"):
        pod.create("/bin/true", security={"run_as_username": "nobody-such"})
    with rejected(StatusCode.INVALID_ARGUMENT):
        pod.create("/bin/true", security={"run_as_user": cri.Int64Value(value=1 << 31)})
    with rejected(StatusCode.INVALID_ARGUMENT):
        pod.create("/bin/true", security={"supplemental_groups_policy": 9})


def test_image_users_are_told_to_the_kubelet(client: Client) -> None:
    def status(name: str) -> cri.Image:
        image: cri.Image = client.images.ImageStatus(cri.ImageStatusRequest(image=client.image(name))).image
        return image

    assert status("named-user").username == "app"
    assert not status("named-user").HasField("uid")
    assert status("numeric-user").uid.value == 1234
    assert status("numeric-user").username == ""
    assert status("both-user").uid.value == 1000
