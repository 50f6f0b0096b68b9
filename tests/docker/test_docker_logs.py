"""CRI logs of containers on a real Docker Engine: whole, in order, and there when the end is told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from podwright.config import Config, LogsConfig
from podwright.engines.base import Presence
from podwright.engines.docker.engine import DockerEngine
from podwright.errors import FailedPrecondition, InvalidArgument
from podwright.logs import reader
from podwright.wire import cri_pb2 as cri
from tests.docker.conftest import docker_opened
from tests.oci.bench import Bench
from tests.oci.clients import PATIENCE

pytestmark = pytest.mark.root

RECORD = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z (stdout|stderr) [FP] .*")


def records(path: str) -> list[bytes]:
    return Path(path).read_bytes().splitlines()


async def grows_to(path: str, text: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        while text not in Path(path).read_bytes():  # noqa: ASYNC110 - a small file, and a test
            await asyncio.sleep(0.02)


async def test_all_of_it_is_there_when_the_end_is_told(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    script = (
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo err >&2; printf 'no newline'"
    )
    container = await docker_bench.container(sandbox, "sh", "-c", script)
    await docker_bench.exit_of(container)
    found = records(container.log_path)
    assert all(RECORD.fullmatch(each) for each in found)
    out = [each.split(b" ", 3)[3] for each in found if b" stdout F " in each]
    assert out == [b"line %d" % n for n in range(3000)]
    assert [each.split(b" ", 2)[2] for each in found if b" stderr " in each] == [b"F err"]
    assert any(each.endswith(b" stdout P no newline") for each in found)


async def test_the_end_brings_what_nobody_has_told_of(
    docker_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr("podwright.engines.docker.logs._Followed._has_news", never)
    container = await docker_bench.container(await docker_bench.sandbox(), "sh", "-c", "sleep 0.2; echo last")
    await docker_bench.exit_of(container)
    assert Path(container.log_path).read_bytes().endswith(b" stdout F last\n")


async def test_long_lines_are_parts(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    script = "a=aaaaaaaaaaaaaaaa; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do a=$a$a; done; echo $a; echo short"
    container = await docker_bench.container(sandbox, "sh", "-c", script)
    await docker_bench.exit_of(container)
    tags = [each.split(b" ", 3)[2] for each in records(container.log_path)]
    assert tags == [b"P"] * 4 + [b"F", b"F"]
    lines = await reader.collect(reader.follow(container.log_path))
    assert [len(line.text) for line in lines] == [65536, 5]


async def test_a_renamed_log_is_gone_on_with_in_a_new_one_when_that_is_asked_for(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    script = "echo first; while [ ! -e /go ]; do sleep 0.05; done; echo second; while :; do sleep 0.1; done"
    container = await docker_bench.container(sandbox, "sh", "-c", script)
    await grows_to(container.log_path, b"first")
    renamed = f"{container.log_path}.20261122-064244"
    Path(container.log_path).rename(renamed)
    await docker_bench.engine.reopen_log(container)
    assert Path(container.log_path).read_bytes() == b""
    await docker_bench.exec(container, "sh", "-c", "echo >/go")
    await grows_to(container.log_path, b"second")
    assert (
        b"second" not in Path(renamed).read_bytes() and b"first" not in Path(container.log_path).read_bytes()
    )
    await docker_bench.engine.signal_container(container, 9)
    await docker_bench.exit_of(container)
    with pytest.raises(FailedPrecondition, match="does not run"):
        await docker_bench.engine.reopen_log(container)


@pytest.mark.parametrize("ended", [False, True])
async def test_what_was_said_while_podwright_was_away_is_caught_up(
    docker_config: Config, ended: bool
) -> None:
    async with docker_opened(docker_config) as bench:
        sandbox = await bench.sandbox()
        wait = "while [ ! -e /go ]; do sleep 0.02; done"
        script = f"echo before; {wait}; echo between; while [ ! -e /end ]; do sleep 0.02; done; echo after"
        container = await bench.container(sandbox, "sh", "-c", script)
        await grows_to(container.log_path, b"before")
        await bench.engine._logs.close()
        await bench.exec(container, "sh", "-c", "echo >/go")
        if ended:
            await bench.exec(container, "sh", "-c", "echo >/end")
            await bench.exit_of(container)
        assert b"between" not in Path(container.log_path).read_bytes()
        other = DockerEngine(docker_config)
        await other.open()
        try:
            seen = await other.observe_container(container)
            if ended:
                assert seen.presence == Presence.EXITED
            else:
                await grows_to(container.log_path, b"between")
                await bench.exec(container, "sh", "-c", "echo >/end")
                async for each in other.exits():
                    if each.id == container.id:
                        break
            texts = [each.split(b" ", 3)[3] for each in records(container.log_path)]
            assert texts == [b"before", b"between", b"after"]
            await other.observe_container(container)
            assert [each.split(b" ", 3)[3] for each in records(container.log_path)] == texts
        finally:
            await other.close()


async def test_limits_of_the_configuration_and_of_pods_hold(docker_config: Config) -> None:
    limits = LogsConfig(max_size="8Ki", max_files=3, compress=True, allow_annotations=True)
    config = msgspec.structs.replace(docker_config, logs=limits)
    async with docker_opened(config) as bench:
        sandbox = await bench.sandbox()
        script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
        container = await bench.container(sandbox, "sh", "-c", script)
        await bench.exit_of(container)
        files = sorted(each.name for each in Path(container.log_path).parent.iterdir())
        assert len(files) == 3 and files[0] == "0.log" and files[1].endswith(".gz")
        assert Path(container.log_path).stat().st_size <= 8192
        lines = await reader.collect(reader.follow(container.log_path))
        assert lines[-1].text == b"line 1999" and len(lines) > 250
        unlimited = cri.ContainerConfig(annotations={"log-limits.podwright.io": "max_files=0,compress=false"})
        container = await bench.container(sandbox, "sh", "-c", script, config=unlimited)
        await bench.exit_of(container)
        assert b"log limit of 8192 bytes reached" in Path(container.log_path).read_bytes()
        wrong = cri.ContainerConfig(annotations={"log-limits.podwright.io": "max_size=much"})
        with pytest.raises(InvalidArgument, match=r"log-limits\.podwright\.io"):
            await bench.container(sandbox, "true", config=wrong)


async def test_a_log_that_cannot_be_written_keeps_the_container_from_starting(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    container = await docker_bench.container(sandbox, "sh", "-c", "sleep 100", start=False)
    Path(container.log_path).mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match=r"0\.log cannot be written"):
        await docker_bench.engine.start_container(container)
    assert (await docker_bench.engine.observe_container(container)).presence == Presence.CREATED


async def test_without_a_path_what_it_says_is_dropped_and_can_be_attached_to(docker_bench: Bench) -> None:
    sandbox = await docker_bench.sandbox()
    container = await docker_bench.container(sandbox, "sh", "-c", "echo x; sleep 100", log=False)
    info = await docker_bench.engine.container_info(container)
    assert "json-file" not in str(info)
    with pytest.raises(FailedPrecondition):
        await docker_bench.engine.reopen_log(container)
