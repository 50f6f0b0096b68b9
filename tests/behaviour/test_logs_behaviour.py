"""Container logs: the CRI format, long and unfinished lines, rotation."""

from __future__ import annotations

import asyncio
import re
import stat
from pathlib import Path

from grpc import StatusCode

from podwright.engines.log_limits import ANNOTATION
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.behaviour.client import Client, rejected
from tests.behaviour.stage import until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(Z|[+-]\d\d:\d\d)")


def test_log_lines_carry_time_stream_and_tag(client: Client) -> None:
    container = client.once("/bin/sh", "-c", "echo one; echo two words >&2; echo")
    until(lambda: len(container.log_lines()) == 3, "three lines")
    lines = container.log_lines()
    assert all(TIME.fullmatch(time) for time, *_ in lines)
    assert sorted(line[1:] for line in lines) == [
        ("stderr", "F", "two words"),
        ("stdout", "F", ""),
        ("stdout", "F", "one"),
    ]


def test_long_lines_are_split_into_partial_ones(client: Client) -> None:
    container = client.once("/bin/sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end")
    container.await_output("end\n")
    lines = container.log_lines()
    assert container.output() == "x" * 50000 + "\nend\n"
    assert [tag for *_, tag, _ in lines[:-2]] == ["P"] * (len(lines) - 2)
    assert all(len(text) <= 16 << 10 for *_, text in lines)


def test_an_unfinished_last_line_is_partial(client: Client) -> None:
    container = client.once("printf", "no newline")
    until(lambda: container.log_lines(), "the line")
    [(_, stream, tag, text)] = container.log_lines()
    assert (stream, tag, text) == ("stdout", "P", "no newline")


def test_the_log_is_not_for_everyone(client: Client) -> None:
    container = client.once("/bin/echo", "x")
    assert stat.S_IMODE(container.log_file.stat().st_mode) & 0o007 == 0


def test_reopen_after_a_rename_writes_a_new_file(client: Client) -> None:
    script = "echo before; until [ -e /tmp/go ]; do sleep 0.02; done; echo after; sleep 2147483"
    container = client.pod().shell(script)
    container.await_output("before")
    old = container.log_file.with_suffix(".old")
    container.log_file.rename(old)
    client.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container.id))
    assert container.log_file.exists()
    container.sh("touch /tmp/go")
    container.await_output("after")
    assert "after" not in old.read_text()


def test_rotation_loses_no_line(client: Client) -> None:
    script = "i=0; until [ -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 0.001; done"
    container = client.pod().shell(script)
    for number in range(4):
        container.await_output(str(number))
        container.log_file.rename(f"{container.log_file}.20260101-00000{number}")
        client.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container.id))
    container.sh("touch /tmp/stop")
    container.ended()
    lines = asyncio.run(reader.collect(reader.follow(container.log_file)))
    assert [line.text for line in lines] == [b"%d" % n for n in range(len(lines))]


def test_a_log_has_limits_where_its_pod_may_choose_them(client: Client) -> None:
    script = "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i+1)); done"
    rotated = client.once("/bin/sh", "-c", script, annotations={ANNOTATION: "max_size=4Ki,max_files=9"})
    lines = asyncio.run(reader.collect(reader.follow(rotated.log_file)))
    assert [line.text for line in lines] == [b"%d" % n for n in range(400)]
    assert len(list(rotated.log_file.parent.glob(f"{rotated.log_file.name}.*"))) > 2
    full = client.once("/bin/sh", "-c", script, annotations={ANNOTATION: "max_size=4Ki"})
    texts = [text for *_, text in full.log_lines()]
    assert texts[:3] == ["0", "1", "2"] and full.log_file.stat().st_size <= 4096
    assert texts[-2].startswith("podwright: log limit of 4096 bytes reached")
    assert re.fullmatch(r"podwright: log limit .*, \d+ lines \(\d+ bytes\) dropped", texts[-1])


def test_limits_of_a_log_that_mean_nothing_are_refused(client: Client) -> None:
    with rejected(StatusCode.INVALID_ARGUMENT, "rate_lines"):
        client.pod().create("/bin/true", annotations={ANNOTATION: "rate_lines"})


def test_reopen_is_for_running_containers(client: Client) -> None:
    pod = client.pod()
    for container in (pod.create("/bin/true"), pod.run("/bin/true").ended()):
        with rejected(StatusCode.FAILED_PRECONDITION):
            client.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container.id))


def test_without_both_log_paths_output_is_discarded(client: Client) -> None:
    pod = client.pod()
    config = pod.container_config("/bin/echo", "gone")
    config.log_path = ""
    container = pod.create(config=config)
    container.start()
    container.ended()
    assert container.status().log_path == ""
    assert container.status().exit_code == 0

    no_directory = client.pod_config()
    directory = Path(no_directory.log_directory)
    no_directory.log_directory = ""
    other = client.pod(no_directory).create("/bin/echo", "gone")
    other.start()
    other.ended()
    assert other.status().log_path == ""
    assert not list(directory.iterdir())


def test_every_container_of_a_pod_has_its_own_log(client: Client) -> None:
    pod = client.pod()
    containers = [pod.run("/bin/echo", str(n)).ended() for n in range(3)]
    assert [c.output() for c in containers] == ["0\n", "1\n", "2\n"]
