"""Hooks: where they are found, how they are bounded, what becomes of their failures and changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from podwright import hooks
from podwright.errors import FailedPrecondition
from podwright.hooks.finding import find
from podwright.hooks.running import Hooks
from podwright.wire import cri_pb2 as cri

EXAMPLE = Path(__file__).parents[2] / "examples" / "hooks" / "site.py"
TARGET = hooks.Target("container", "c" * 64, cri.PodSandboxConfig(), cri.ContainerConfig(), "crun")


def of(*functions: Any) -> Hooks:
    """Hooks of functions, named as they are."""
    from dataclasses import replace

    found = [
        replace(hook, name=function.__name__)
        for function in functions
        for hook in getattr(function, hooks.ATTRIBUTE)
    ]
    return Hooks(sorted(found, key=lambda hook: (hook.order, hook.name)))


async def test_the_example_is_found_and_works(tmp_path: Path) -> None:
    file = tmp_path / "site.py"
    file.write_bytes(EXAMPLE.read_bytes())
    file.chmod(0o644)
    loaded = Hooks(find([str(file)], points=[]))
    assert [hook.name for hook in loaded] == [
        "site.tell_of_failures",
        "site.no_moving_images",
        "site.debuggers_die_first",
    ]
    request = cri.CreateContainerRequest()
    request.config.image.image = "box:1"
    await loaded.validate("CreateContainer", request)
    request.config.image.image = "box:latest"
    with pytest.raises(
        hooks.Rejected, match=r"^config\.image\.image: box:latest is not pinned.*no_moving_images"
    ):
        await loaded.validate("CreateContainer", request)
    tool = cri.ContainerConfig(labels={"site/role": "tool"})
    target = hooks.Target("container", "c" * 64, cri.PodSandboxConfig(), tool, "crun")
    spec = {"process": {"oomScoreAdj": 0, "args": ["x"]}, "annotations": {}}
    origins = {"process.args": "request: config.command"}
    adjusted = await loaded.adjust(spec, target, origins)
    assert adjusted["process"] == {"oomScoreAdj": 1000, "args": ["x"]}
    assert spec["process"]["oomScoreAdj"] == 0, "the rules' own spec is shared, and stays"
    assert origins == {
        "process.args": "request: config.command",
        "process.oomScoreAdj": "hook: site.debuggers_die_first",
        "annotations[site/adjusted]": "hook: site.debuggers_die_first",
    }


def test_entry_points_name_functions_or_modules() -> None:
    function = EntryPoint("one", "tests.hooks.sample:refuse", "podwright.hooks")
    module = EntryPoint("all", "tests.hooks.sample", "podwright.hooks")
    assert [hook.name for hook in find([], [function])] == ["one"]
    assert [hook.name for hook in find([], [module])] == ["all.refuse", "all.later"]
    with pytest.raises(FailedPrecondition, match="hook none: json:dumps is no function marked"):
        find([], [EntryPoint("none", "json:dumps", "podwright.hooks")])
    with pytest.raises(FailedPrecondition, match=r"hook gone \(no_such_module\) cannot be loaded"):
        find([], [EntryPoint("gone", "no_such_module", "podwright.hooks")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def f(: pass", "cannot be loaded: SyntaxError"),
        ("raise OSError('gone')", "cannot be loaded: OSError: gone"),
        ("def f(request): pass", "has no function marked"),
        (
            "from podwright import hooks\n@hooks.validate('Version')\ndef f(r): pass",
            "no request of .'Version'",
        ),
    ],
)
def test_a_file_that_is_no_hook_keeps_the_node_from_starting(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "bad.py"
    file.write_text(content)
    file.chmod(0o644)
    with pytest.raises(FailedPrecondition, match=words):
        find([str(file)], [])


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "open.py"
    file.write_bytes(EXAMPLE.read_bytes())
    file.chmod(0o666)
    with pytest.raises(FailedPrecondition, match="can be changed by others"):
        find([str(file)], [])
    with pytest.raises(FailedPrecondition, match="no absolute path"):
        find(["site.py"], [])
    with pytest.raises(FailedPrecondition, match="cannot be read: No such file"):
        find([str(tmp_path / "absent.py")], [])


async def test_hooks_run_in_their_order_and_see_copies() -> None:
    seen: list[str] = []

    @hooks.validate("CreateContainer", order=2)
    def second(request: cri.CreateContainerRequest) -> None:
        seen.append(request.pod_sandbox_id)

    @hooks.validate(order=1)
    async def first(request: cri.CreateContainerRequest) -> None:
        seen.append("first")
        request.pod_sandbox_id = "changed"

    request = cri.CreateContainerRequest(pod_sandbox_id="asked")
    await of(second, first).validate("CreateContainer", request)
    assert seen == ["first", "asked"]
    assert request.pod_sandbox_id == "asked"
    await of(second).validate("RunPodSandbox", cri.RunPodSandboxRequest())
    assert len(seen) == 2


async def test_one_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    @hooks.validate(timeout=0.05)
    def stuck(request: Any) -> None:
        release.wait(60)

    @hooks.validate(timeout=0.05)
    async def asleep(request: Any) -> None:
        await asyncio.Event().wait()

    try:
        for function in (stuck, asleep):
            with pytest.raises(
                FailedPrecondition, match=rf"hook {function.__name__} did not end within 0\.05 s"
            ):
                await of(function).validate("CreateContainer", cri.CreateContainerRequest())
    finally:
        release.set()


async def test_any_exception_rejects_in_words() -> None:
    @hooks.adjust()
    def broken(spec: dict[str, Any], target: hooks.Target) -> None:
        spec["process"]["no such member"]["x"] = 1

    @hooks.adjust()
    def no_json(spec: dict[str, Any], target: hooks.Target) -> None:
        spec["process"]["cwd"] = Path("/")

    with pytest.raises(FailedPrecondition, match="hook broken failed: KeyError: 'no such member'"):
        await of(broken).adjust({"process": {}}, TARGET)
    with pytest.raises(FailedPrecondition, match=r"hook no_json: process\.cwd is PosixPath.*no JSON value"):
        await of(no_json).adjust({"process": {}}, TARGET)


async def test_watchers_hear_their_events_and_cannot_stop_others(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    @hooks.watch("CONTAINER_STOPPED_EVENT")
    def stopped(event: cri.ContainerEventResponse) -> None:
        raise RuntimeError("no pager")

    @hooks.watch(order=5)
    async def every(event: cri.ContainerEventResponse) -> None:
        seen.append(event.container_id)

    async def events() -> AsyncIterator[bytes]:
        for id, kind in (("a", cri.CONTAINER_STARTED_EVENT), ("b", cri.CONTAINER_STOPPED_EVENT)):
            event = cri.ContainerEventResponse(container_id=id, container_event_type=kind)
            yield event.SerializeToString()

    await of(stopped, every).watch(events())
    assert seen == ["a", "b"]
    assert "CONTAINER_STOPPED_EVENT of b: hook stopped failed: RuntimeError: no pager" in caplog.text


def test_marks_name_only_what_exists() -> None:
    with pytest.raises(ValueError, match="are no events"):
        hooks.watch("STARTED")
    with pytest.raises(ValueError, match="needs time"):
        hooks.adjust(timeout=0)
