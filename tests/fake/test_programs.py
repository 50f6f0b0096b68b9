"""The built-in programs: compared with busybox's; the files, mounts and processes they see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podwright.engines.fake.programs.files import LIMIT
from podwright.engines.fake.programs.plain import duration
from podwright.wire import cri_pb2 as cri
from tests.fake.busybox import Real, fake, programs, real, scripts
from tests.fake.containers import Node

__all__ = ["programs", "real"]


@pytest.mark.parametrize("script", scripts("programs"))
async def test_programs_do_what_they_do_in_busybox(script: str, real: Real, tmp_path: Path) -> None:
    assert await fake(tmp_path, script) == real.run(script)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["5"], 5),
        (["0.5"], 0.5),
        ([".5"], 0.5),
        (["1m", "1"], 61),
        (["2h"], 7200),
        (["1d"], 86400),
        (["inf"], float("inf")),
        (["1", "infinity"], float("inf")),
        (["2147483"], 2147483),
        (["9" * 400], float("inf")),
    ],
)
def test_durations(words: list[str], seconds: float) -> None:
    assert duration(words) == seconds


@pytest.mark.parametrize("words", [[], ["x"], ["-1"], ["5x"], ["1e3"], ["5 "], ["nan"]])
def test_what_is_no_duration(words: list[str]) -> None:
    with pytest.raises(ValueError):
        duration(words)


# What programs see of their container


async def test_the_environment_is_a_real_runtimes(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.start(
        "sleep", "inf", image={"Env": ["IMAGE=1", "BOTH=image"]}, envs=[{"key": "BOTH", "value": b"a=b"}]
    )
    done = await case.exec("env")
    assert done.stdout.decode().splitlines() == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=pod-host",
        "IMAGE=1",
        "BOTH=a=b",
    ]


async def test_user_directory_and_hostname_are_those_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.start(
        "sleep",
        "inf",
        working_dir="/srv/app",
        security={
            "run_as_user": cri.Int64Value(value=1234),
            "run_as_group": cri.Int64Value(value=5),
            "supplemental_groups": [7],
        },
    )
    facts = case.container.facts
    assert (facts.uid, facts.gid, facts.supplemental_groups) == (1234, 5, (5, 7))
    done = await case.exec("sh", "-c", "pwd; id; id -u; hostname; cat /etc/hostname; ls /srv")
    assert done.stdout.decode() == "/srv/app\nuid=1234 gid=5 groups=5,7\n1234\npod-host\npod-host\napp\n"


async def test_an_image_user_by_name_exists(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf", image={"User": "app"})
    assert (await case.exec("whoami")).stdout == b"app\n"
    assert case.container.facts.uid == 1000


async def test_processes_are_numbered_and_listed_as_in_a_pid_namespace(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("nginx", "-g", "daemon off;")
    done = await case.exec("sh", "-c", "sleep 77 & ps; cat /proc/1/comm /proc/self/comm; echo $$ $!")
    text = done.stdout.decode()
    assert "    1 root      0:00 nginx -g daemon off;\n" in text
    assert "    3 root      0:00 sleep 77\n" in text
    assert text.endswith("nginx\ncat\n2 3\n")


async def test_files_last_as_long_as_the_container(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case, other = await node.start("sleep", "inf"), await node.start("sleep", "inf")
    await case.exec("sh", "-c", "echo kept > /tmp/f")
    assert (await case.exec("cat", "/tmp/f")).stdout == b"kept\n"
    assert (await other.exec("cat", "/tmp/f")).code == 1


async def test_files_in_memory_have_a_limit(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    done = await case.exec("sh", "-c", f"head -c {LIMIT + 1} /dev/zero > /tmp/f; echo $?; wc -c < /tmp/f")
    assert done.stdout == f"1\n{LIMIT}\n".encode()
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("path", ["/etc/new", "/tmp/new", "/proc/new"])
async def test_a_read_only_root_filesystem_cannot_be_written(path: str, tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf", security={"readonly_rootfs": True})
    done = await case.exec("touch", path)
    assert (done.code, done.stderr) == (1, f"touch: {path}: Read-only file system\n".encode())


# Mounts


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "f").write_text("from the host\n")
    return made


def _mount(host: Path, inside: str, *, readonly: bool = False) -> dict[str, object]:
    return {"host_path": str(host), "container_path": inside, "readonly": readonly}


async def test_a_mount_is_the_hosts_directory(tmp_path: Path, volume: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf", mounts=[_mount(volume, "/data")])
    script = (
        "cat /data/sub/f; echo new > /data/g; echo more >> /data/g; mkdir /data/d; rm /data/sub/f; "
        "ls /data /data/sub; ls /"
    )
    done = await case.exec("sh", "-c", script)
    assert done.stdout.decode().startswith("from the host\n/data:\nd\ng\nsub\n\n/data/sub:\n")
    assert "data\n" in done.stdout.decode()
    assert (volume / "g").read_text() == "new\nmore\n"
    assert not (volume / "sub" / "f").exists() and (volume / "d").is_dir()


async def test_two_containers_share_a_volume(tmp_path: Path, volume: Path) -> None:
    node = Node(tmp_path)
    one = await node.start("sleep", "inf", mounts=[_mount(volume, "/a")])
    other = await node.start("sleep", "inf", mounts=[_mount(volume, "/b/c")])
    await one.exec("sh", "-c", "echo shared > /a/x")
    assert (await other.exec("cat", "/b/c/x")).stdout == b"shared\n"


async def test_a_termination_message_reaches_the_host(tmp_path: Path) -> None:
    message = tmp_path / "message"
    message.touch()
    mounts = [_mount(message, "/dev/termination-log")]
    case = await Node(tmp_path).shell("echo died because > /dev/termination-log; exit 1", mounts=mounts)
    assert case.code == 1
    assert message.read_text() == "died because\n"


async def test_a_read_only_mount_is_not_written(tmp_path: Path, volume: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf", mounts=[_mount(volume, "/data", readonly=True)])
    for command in (
        "echo x > /data/sub/f",
        "rm /data/sub/f",
        "mkdir /data/d",
        "touch /data/g",
        "rm -r /data/sub",
    ):
        done = await case.exec("sh", "-c", command)
        assert done.code == 1 and b"Read-only file system" in done.stderr, command
    assert (volume / "sub" / "f").read_text() == "from the host\n"
    assert sorted(each.name for each in volume.iterdir()) == ["sub"]


async def test_no_link_leads_out_of_a_mount(tmp_path: Path, volume: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (volume / "out").symlink_to(tmp_path / "secret")
    (volume / "up").symlink_to("..")
    (volume / "in").symlink_to("sub/f")
    case = await Node(tmp_path).start("sleep", "inf", mounts=[_mount(volume, "/data")])
    for path in ("/data/out", "/data/up/secret", "/data/../secret", "/data/sub/../../secret"):
        for command in (f"cat {path}", f"echo spoilt > {path}", f"rm {path}"):
            done = await case.exec("sh", "-c", command)
            assert b"secret" not in done.stdout
    assert (tmp_path / "secret").read_text() == "secret\n"
    assert (await case.exec("cat", "/data/in")).stdout == b"from the host\n"


async def test_a_script_in_a_volume_runs_with_its_interpreter(tmp_path: Path, volume: Path) -> None:
    (volume / "run.sh").write_text('#!/usr/bin/env bash\necho "$0 $1"\nexit 6\n')
    node = Node(tmp_path)
    case = await node.run("/scripts/run.sh", "arg", mounts=[_mount(volume, "/scripts")])
    assert (case.code, case.output()) == (6, "/scripts/run.sh arg\n")


async def test_a_fifo_on_the_host_holds_nobody_up(tmp_path: Path, volume: Path) -> None:
    os.mkfifo(volume / "fifo")
    case = await Node(tmp_path).start("sleep", "inf", mounts=[_mount(volume, "/data")])
    assert (await case.exec("cat", "/data/fifo")).code == 1
    assert (await case.exec("sh", "-c", "echo x > /data/fifo")).code == 1
