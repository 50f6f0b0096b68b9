"""Limits of fake containers' logs: those of real ones, on the world's clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwright.config import LogsConfig
from podwright.engines.base import Container, Image, Sandbox
from podwright.engines.log_limits import ANNOTATION, LogLimits
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.logs import reader, rotation
from podwright.logs.limits import Limits
from podwright.wire import cri_pb2 as cri
from tests.fake.containers import Node


def node(tmp_path: Path, **logs: object) -> Node:
    made = Node(tmp_path)
    made.world.logs.limits = LogLimits.of(LogsConfig(**logs))  # type: ignore[arg-type]
    return made


async def texts(path: Path) -> list[str]:
    return [line.text.decode() for line in await reader.collect(reader.follow(path))]


async def test_a_rate_is_by_the_worlds_clock(tmp_path: Path) -> None:
    case = node(tmp_path, rate_lines=5)
    script = "for i in 1 2 3 4 5 6 7 8; do echo $i; done; sleep 10; echo later; sleep 10"
    ran = await case.shell(script)
    got = await texts(ran.log_file)
    assert got[:5] == ["1", "2", "3", "4", "5"] and got[6:] == ["later"]
    assert got[5].startswith("podwright: more than 5 lines a second, 3 lines (")


async def test_a_log_is_rotated_and_every_line_kept(tmp_path: Path) -> None:
    case = node(tmp_path, max_size="4Ki", max_files=50, compress=True)
    ran = await case.shell("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done")
    assert await texts(ran.log_file) == [f"line {n}" for n in range(300)]
    old = rotation.rotated(str(ran.log_file))
    assert len(old) >= 3 and [each.compressed for each in old[-2:]] == [True, False]


async def test_a_full_log_says_so(tmp_path: Path) -> None:
    case = node(tmp_path, max_size="4Ki")
    ran = await case.shell("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done")
    *_, last, total = await texts(ran.log_file)
    assert last == "podwright: log limit of 4096 bytes reached, lines are dropped from here on"
    assert total.startswith("podwright: log limit of 4096 bytes reached, ") and "dropped" in total
    assert ran.log_file.stat().st_size <= 4096


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        ({"max_size": "ten"}, "logs.max_size"),
        ({"max_size": "1Ki"}, "logs.max_size: is 1024, it must be 4096"),
        ({"max_size": "1Mi", "max_files": 1}, "logs.max_files: must be 2 or more"),
        ({"max_files": 3}, "logs.max_files: needs max_size"),
        ({"max_size": "1Mi", "compress": True}, "logs.compress: needs max_files"),
        ({"rate_lines": -1}, "logs.rate_lines: must not be below 0"),
        ({"rate_bytes": "1Mi", "burst": 0.0}, "logs.burst"),
    ],
)
def test_settings_that_mean_nothing_are_named(logs: dict[str, object], words: str) -> None:
    with pytest.raises(FailedPrecondition, match=f"configuration {words}"):
        LogLimits.of(LogsConfig(**logs))  # type: ignore[arg-type]


async def test_pods_choose_limits_only_where_they_may(tmp_path: Path) -> None:
    script, wish = "for i in 1 2 3; do echo $i; done", {ANNOTATION: "rate_lines=1"}
    ran = await node(tmp_path / "no").shell(script, annotations=wish)
    assert await texts(ran.log_file) == ["1", "2", "3"]
    ran = await node(tmp_path / "yes", allow_annotations=True, rate_lines=100).shell(script, annotations=wish)
    first, told = await texts(ran.log_file)
    assert first == "1" and told.startswith("podwright: more than 1 lines a second, 2 lines (")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("rate=3", "'rate' is none of max_size, "),
        ("rate_lines=many", "no quantity"),
        ("compress=yes", "'yes' is no value of compress"),
        ("max_files=5", "max_files needs max_size"),
    ],
)
async def test_an_annotation_that_means_nothing_is_refused(tmp_path: Path, value: str, words: str) -> None:
    case = node(tmp_path, allow_annotations=True)
    with pytest.raises(InvalidArgument, match=words) as refused:
        await case.create("sleep", "1", annotations={ANNOTATION: value})
    assert f"config.annotations[{ANNOTATION}]" in str(refused.value)


def test_a_containers_own_annotation_goes_before_its_pods() -> None:
    pod = cri.PodSandboxConfig(
        annotations={ANNOTATION: "max_size=1Mi", f"{ANNOTATION}/web": "rate_lines=7", f"{ANNOTATION}/x": "?"}
    )
    config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="web"))
    config.annotations[ANNOTATION] = "max_size=2Mi"
    image = Image("sha256:" + "0" * 64, (), (), 1, {})
    container = Container("1", "web", Sandbox("2", "pod", pod, ""), config, image, "/x")
    limits = LogLimits.of(LogsConfig(allow_annotations=True)).of_container(container)
    assert limits == Limits(max_size=2 << 20, rate_lines=7)
