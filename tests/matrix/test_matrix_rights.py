"""What the container's own process may do: capabilities, no_new_privs, users and groups, limits, umask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, Pod
from tests.matrix.server import NOFILE

pytestmark = pytest.mark.root

# capability.h of the kernel
CHOWN, KILL, NET_BIND_SERVICE, NET_RAW, SYS_ADMIN, SYS_TIME, AUDIT_READ = 0, 5, 10, 13, 21, 25, 37
DEFAULT = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
ALL = frozenset(range(64))
SETS = ("Bnd", "Prm", "Eff")
CREDENTIALS = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd")


def status(text: str) -> dict[str, str]:
    """The fields of a /proc/PID/status."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def own_status(pod: Pod, **options: object) -> dict[str, str]:
    """The status of a container's first process, as that process itself sees it."""
    container = pod.run("/bin/cat", "/proc/self/status", **options).ended()
    assert container.status().exit_code == 0, container.output("stderr")
    return status(container.output())


def held(fields: Mapping[str, str], kind: str) -> frozenset[int]:
    mask = int(fields[f"Cap{kind}"], 16)
    return frozenset(bit for bit in range(64) if mask >> bit & 1)


def daemons() -> frozenset[int]:
    """What can be given at all: the server's bounding set is this process's."""
    return held(status(Path("/proc/self/status").read_text()), "Bnd")


def known_to(handler: str) -> frozenset[int]:
    """gVisor's kernel is older, and it gives raw sockets to nobody unless its option --net-raw is set."""
    return frozenset(range(AUDIT_READ + 1)) - {NET_RAW} if handler == "runsc" else ALL


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT),
        (["sys_time", "CAP_SYS_ADMIN"], [], DEFAULT | {SYS_TIME, SYS_ADMIN}),
        (["Sys_Time"], ["cap_chown", "KILL"], (DEFAULT | {SYS_TIME}) - {CHOWN, KILL}),
        ([], ["ALL"], frozenset()),
        (["NET_RAW", "chown"], ["all"], frozenset({NET_RAW, CHOWN})),
        (["ALL"], [], ALL),
        (["all"], ["CHOWN", "CAP_SYS_ADMIN"], ALL - {CHOWN, SYS_ADMIN}),
        (["SYS_TIME"], ["SYS_TIME"], DEFAULT),
        (["ALL"], ["ALL"], frozenset()),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_capabilities(
    client: Client, handler: str, add: list[str], drop: list[str], expected: frozenset[int]
) -> None:
    wanted = cri.Capability(add_capabilities=add, drop_capabilities=drop)
    fields = own_status(client.pod(handler=handler), security={"capabilities": wanted})
    assert {kind: held(fields, kind) for kind in SETS} == dict.fromkeys(
        SETS, expected & daemons() & known_to(handler)
    )
    assert held(fields, "Inh") == frozenset()
    if "CapAmb" in fields:  # gVisor shows none
        assert held(fields, "Amb") == frozenset()


def test_a_user_holds_none_and_may_be_given_ambient_ones(client: Client, handler: str) -> None:
    pod = client.pod(handler=handler)
    user = cri.Int64Value(value=1000)
    plain = own_status(pod, security={"run_as_user": user})
    assert held(plain, "Eff") == held(plain, "Prm") == frozenset()
    assert held(plain, "Bnd") == DEFAULT & daemons() & known_to(handler)
    wanted = cri.Capability(drop_capabilities=["ALL"], add_ambient_capabilities=["chown"])
    ambient = own_status(pod, security={"run_as_user": user, "capabilities": wanted})
    assert {held(ambient, kind) for kind in (*SETS, "Inh")} == {frozenset({CHOWN})}
    # They are for what the program executes, too.
    script = "touch /tmp/mine && chown 5:6 /tmp/mine && stat -c %u:%g /tmp/mine"
    given = pod.shell(script, security={"run_as_user": user, "capabilities": wanted}).ended()
    assert given.output() == "5:6\n", given.output("stderr")
    refused = pod.shell(script, security={"run_as_user": user}).ended()
    assert refused.output() == "" and refused.status().exit_code != 0


def test_privileged_containers_hold_what_the_daemon_does(client: Client, handler: str) -> None:
    pod = client.pod(handler=handler, privileged=True)
    drop = cri.Capability(drop_capabilities=["ALL"])
    fields = own_status(pod, privileged=True, security={"capabilities": drop, "no_new_privs": True})
    assert {held(fields, kind) for kind in SETS} == {daemons() & known_to(handler)}


def test_no_new_privileges(client: Client, native: str) -> None:
    pod = client.pod(handler=native)
    assert own_status(pod)["NoNewPrivs"] == "0"
    assert own_status(pod, security={"no_new_privs": True})["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("image", "security", "expected"),
    [
        ("busybox", {}, (0, 0, {0})),
        ("numeric-user", {}, (1234, 0, {0})),
        ("named-user", {}, (1000, 1000, {1000, 2000, 2001})),
        ("both-user", {}, (1000, 2001, {2000, 2001})),
        ("named-user", {"run_as_username": "nobody"}, (65534, 65534, {65534})),
        (
            "busybox",
            {
                "run_as_user": cri.Int64Value(value=1000),
                "run_as_group": cri.Int64Value(value=3000),
                "supplemental_groups": [9000, 5000, 9000],
            },
            (1000, 3000, {2000, 2001, 3000, 5000, 9000}),
        ),
        (
            "named-user",
            {"supplemental_groups": [5000], "supplemental_groups_policy": cri.Strict},
            (1000, 1000, {1000, 5000}),
        ),
    ],
    ids=["root", "number", "name", "name-group", "username", "merge", "strict"],
)
def test_users_and_groups(
    client: Client,
    handler: str,
    image: str,
    security: dict[str, object],
    expected: tuple[int, int, set[int]],
) -> None:
    fields = own_status(client.pod(handler=handler), image=image, security=security)
    uid, gid, groups = expected
    assert set(fields["Uid"].split()) == {str(uid)}
    assert set(fields["Gid"].split()) == {str(gid)}
    assert {int(group) for group in fields["Groups"].split()} == groups


def test_limits_and_umask_are_the_nodes_or_an_allowed_annotations(client: Client, native: str) -> None:
    """By NRI's format for ulimits, limit by limit; a handler that allows nothing gives what the node says."""
    asked = {
        "umask.crio.io": "0077",
        "ulimits.noderesource.dev/container.limited": "- {type: RLIMIT_CORE, soft: 1024, hard: 2048}",
    }
    script = "umask; ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc"
    soft, hard = map(str, NOFILE)

    def seen(handler: str, **options: object) -> list[str]:
        container = client.pod(handler=handler).shell(script, name="limited", **options).ended()
        return container.output().split()

    own = seen(native, annotations=asked)
    assert own[0] == "0077"
    assert own[1:3] == [soft, hard]
    assert own[3:] == ["2", "4"]  # the shell counts in blocks of 512 bytes
    for refused in (seen(native), seen(f"{native}-strict", annotations=asked)):
        assert refused[0] == "0022"
        assert refused[1:3] == [soft, hard]


def test_what_is_executed_later_has_the_same_rights(client: Client, handler: str) -> None:
    wanted = cri.Capability(add_capabilities=["SYS_TIME"], drop_capabilities=["CHOWN"])
    profile = cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    pod = client.pod(handler=handler)
    container = pod.run(
        security={
            "run_as_user": cri.Int64Value(value=1000),
            "supplemental_groups": [4000],
            "capabilities": wanted,
            "no_new_privs": True,
            "seccomp": profile,
        }
    )
    first = status(container.sh("cat /proc/1/status"))
    later = status(container.sh("cat /proc/self/status"))
    # gVisor shows fewer, and its `exec` sets no filter.
    more = () if handler == "runsc" else ("CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask")
    same = (*CREDENTIALS, *more)
    assert {key: later[key] for key in same} == {key: first[key] for key in same}
    if handler == "runsc":  # gVisor has no such file
        return
    limits = "grep -e 'open files' -e 'core file' /proc/{}/limits | tr -s ' '"
    now, then = (container.sh(limits.format(each)).splitlines() for each in ("self", "1"))
    if handler == "runc":
        # Until 1.1.13 its `exec` may raise the soft limit of open files (opencontainers/runc#4195).
        now, then = ([line.split()[-2] for line in each] for each in (now, then))
    assert now == then
