"""The log of calls: what is remembered, what is found, and what failed assertions say."""

from __future__ import annotations

import asyncio
import re
import weakref
from typing import Any

import pytest

from podwright import errors
from podwright.engines.fake.subject import Subject
from podwright.testing import Call, Calls
from podwright.testing import calls as module
from podwright.wire import cri_pb2 as cri
from tests.testing import requests


def made(calls: Calls, rpc: str, subject: Subject | None = None, request: Any = None, **outcome: Any) -> Call:
    call = calls.begin(rpc, request or cri.VersionRequest(), subject or Subject(), False)
    calls.end(call, outcome.get("answer"), outcome.get("error"))
    return call


def pulled(calls: Calls, image: str, **auth: str) -> Call:
    return made(calls, "PullImage", Subject(image=image), requests.pull(image, **auth))


MAIN = Subject("c1", "web", "default", "main", "nginx:1.25", {"app": "web"})
SIDE = Subject("c2", "web", "default", "side", "envoy", {"app": "web"})
OTHER = Subject("c3", "db", "default", "main", "postgres", {"app": "db"})


@pytest.fixture
def calls() -> Calls:
    calls = Calls()
    for subject in (MAIN, SIDE, OTHER):
        made(calls, "CreateContainer", subject)
    made(calls, "StartContainer", MAIN)
    made(calls, "StartContainer", SIDE, error=errors.NotFound("no container"))
    return calls


def test_calls_are_numbered_in_their_order_and_found_by_whom_they_are_about(calls: Calls) -> None:
    assert calls.names() == ["CreateContainer"] * 3 + ["StartContainer"] * 2
    assert [call.number for call in calls] == [1, 2, 3, 4, 5]
    assert [call.number for call in calls.of("CreateContainer", pod="web")] == [1, 2]
    assert [call.number for call in calls.of(container="main")] == [1, 3, 4]
    assert [call.number for call in calls.of("Start*", pod="web", container="s*")] == [5]
    assert [call.number for call in calls.of(labels={"app": "db"})] == [3]
    assert [call.number for call in calls.of(image="nginx*")] == [1, 4]
    assert [call.number for call in calls.of("*", failed=True)] == [5]
    assert [call.number for call in calls.of("StartContainer", failed=False)] == [4]
    assert calls.last("CreateContainer").subject is OTHER


def test_the_oldest_are_dropped_and_counted() -> None:
    calls = Calls(kept=3)
    for _ in range(5):
        made(calls, "Version")
    assert [call.number for call in calls] == [3, 4, 5]
    assert (calls.dropped, calls.total, len(calls)) == (2, 5, 3)
    with pytest.raises(AssertionError, match=r"The calls \(2 earlier ones not shown\):"):
        calls.assert_called("Status")
    calls.clear()
    assert (calls.dropped, len(calls)) == (0, 0)
    assert made(calls, "Version").number == 6


def test_times_are_the_clocks() -> None:
    ticks = iter(range(1_000_000_000, 10_000_000_000, 500_000_000))
    calls = Calls(clock=lambda: next(ticks))
    call = made(calls, "Version")
    assert (call.started, call.ended, call.seconds) == (1_000_000_000, 1_500_000_000, 0.5)
    waiting = calls.begin("Version", cri.VersionRequest(), Subject(), False)
    assert (waiting.outcome, waiting.ended, waiting.seconds) == ("under way", 0, 0.0)


def test_messages_are_as_they_were_when_they_passed() -> None:
    calls = Calls()
    request = cri.ContainerStatusRequest(container_id="c1")
    call = calls.begin("ContainerStatus", request, MAIN, False)
    request.container_id = "changed later"
    assert (call.request, call.response) == (cri.ContainerStatusRequest(container_id="c1"), None)
    answer = cri.ContainerStatusResponse(status=cri.ContainerStatus(id="c1", exit_code=3))
    calls.end(call, answer.SerializeToString())
    assert call.response == answer
    assert made(calls, "ContainerStatus", MAIN, answer=answer).response == answer
    assert made(calls, "Version").response is None


def test_an_error_is_kept_and_what_its_frames_knew_is_not() -> None:
    class Thing:
        """Weakly referenced."""

    calls, seen = Calls(), []

    def fails() -> None:
        thing = Thing()
        seen.append(weakref.ref(thing))
        raise errors.InvalidArgument("config", "is required")

    try:
        fails()
    except errors.InvalidArgument as error:
        call = made(calls, "Version", error=error)
    assert seen[0]() is None
    assert call.outcome == "InvalidArgument: config: is required"
    assert isinstance(call.error, errors.InvalidArgument) and call.error.field == "config"


def test_oldest_calls_are_forgotten_for_want_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 10_000)
    calls = Calls()
    long = cri.VersionResponse(version="x" * 3000)
    for _ in range(3):
        made(calls, "Version", answer=long)
    assert [call.number for call in calls] == [2, 3]
    assert calls.dropped == 1
    late = calls.begin("Version", cri.VersionRequest(version="x" * 9500), MAIN, False)
    assert [call.number for call in calls] == [4]  # the last is kept, whatever it takes
    made(calls, "Version")
    assert late not in list(calls)
    calls.end(late, long)  # forgotten already: its answer takes nobody's room
    for _ in range(20):
        made(calls, "Version")
    assert [call.number for call in calls] == list(range(17, 26))


def test_long_answers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG", 100)
    calls = Calls()
    assert made(calls, "Version", answer=cri.VersionResponse(version="x" * 98)).response is not None
    call = made(calls, "Version", answer=cri.VersionResponse(version="x" * 99))
    assert (call.response, call.outcome) == (None, "ok")


def test_assert_called_returns_the_calls_or_says_what_was_called_instead(calls: Calls) -> None:
    assert [call.number for call in calls.assert_called("CreateContainer", times=3)] == [1, 2, 3]
    calls.assert_called("StartContainer", container="main", times=1)
    with pytest.raises(AssertionError) as failed:
        calls.assert_called("StartContainer", times=1)
    assert str(failed.value).splitlines() == [
        "StartContainer was called twice, not once.",
        "The calls:",
        "      4 StartContainer web/main: ok",
        "      5 StartContainer web/side: NotFound: no container",
    ]
    with pytest.raises(AssertionError, match=r"StartContainer \(pod='db'\) was not called\."):
        calls.assert_called("StartContainer", pod="db")
    with pytest.raises(AssertionError, match="RunPodSandbox was called never, not 4 times"):
        calls.assert_called("RunPodSandbox", times=4)
    with pytest.raises(AssertionError, match="No call was made at all"):
        Calls().assert_called("Version")


def test_assert_not_called_lists_the_calls_that_there_were(calls: Calls) -> None:
    calls.assert_not_called("RemoveContainer")
    calls.assert_not_called("StartContainer", pod="db")
    with pytest.raises(AssertionError, match="called twice, not never") as failed:
        calls.assert_not_called("StartContainer")
    assert "web/side" in str(failed.value) and "CreateContainer" not in str(failed.value)


async def test_a_name_that_is_no_calls_is_no_answer(calls: Calls) -> None:
    for ask in (
        calls.of,
        calls.last,
        calls.assert_called,
        calls.assert_not_called,  # would hold for ever
        lambda rpc: calls.assert_order([f"{rpc} web/main"]),
        calls.wait,  # would wait for ever
    ):
        with pytest.raises(errors.InvalidArgument, match="did you mean 'StartContainer'"):
            async with asyncio.timeout(10):
                answer: Any = ask("StartContainr")
                await answer


def test_an_outcome_has_the_errors_code_and_its_words_once() -> None:
    calls = Calls()
    assert made(calls, "Version", error=errors.PodwrightError("odd")).outcome == "Unknown: odd"
    failed = made(calls, "ExecSync", error=errors.CommandFailed("fake", 127, "no ls"))
    assert failed.outcome == "Unknown: fake failed with status 127: no ls"
    busy = made(calls, "Version", error=errors.RegistryUnavailable("503"))
    assert busy.outcome == "RegistryUnavailable: 503"


def test_assert_order_allows_others_between(calls: Calls) -> None:
    calls.assert_order(["CreateContainer", "CreateContainer db/main", "StartContainer web/side"])
    calls.assert_order([])
    calls.assert_order("StartContainer web/side")
    with pytest.raises(
        AssertionError, match=r"^CreateContainer db/main was not called after StartContainer web/main\."
    ):
        calls.assert_order(["StartContainer web/main", "CreateContainer db/main"])
    with pytest.raises(AssertionError, match=re.escape("CreateContainer was not called after CreateC")):
        calls.assert_order(["CreateContainer"] * 4)  # each call counts once


def test_assert_pulled_goes_by_the_credentials_that_count() -> None:
    calls = Calls()
    pulled(calls, "nginx:1.25", username="bob", password="hunter2")
    pulled(calls, "nginx:1.25", auth="YWxpY2U6c2VjcmV0")  # alice:secret
    pulled(calls, "nginx:1.25", username="eve", password="x", server_address="elsewhere.test")
    calls.assert_pulled("nginx:1.25", times=3)
    calls.assert_pulled("nginx:1.25", username="bob", password="hunter2", times=1)
    calls.assert_pulled("nginx:1.25", username="alice", password="secret")
    calls.assert_pulled("nginx:1.25", username="", times=1)  # eve's were for another registry
    with pytest.raises(AssertionError) as failed:
        calls.assert_pulled("nginx:1.25", username="bob", password="wrong")
    assert str(failed.value) == (
        "nginx:1.25 was pulled by 'bob' with that password never; there were 3 pulls of it:"
        " by 'alice', 'bob', nobody in particular"
    )
    with pytest.raises(AssertionError, match=r"PullImage \(image='redis'\) was not called"):
        calls.assert_pulled("redis")
    with pytest.raises(AssertionError, match="by 'bob' once, not twice"):
        calls.assert_pulled("nginx:1.25", username="bob", times=2)
    pulled(calls, "envoy")
    with pytest.raises(AssertionError, match="never; there was 1 pull of it: by nobody in particular"):
        calls.assert_pulled("envoy", username="bob")


def test_no_text_of_a_call_shows_credentials() -> None:
    calls = Calls()
    call = pulled(calls, "nginx", username="bob", password="hunter2", registry_token="tok3n")
    texts = [repr(call), repr(calls), repr(list(calls))]
    for check in (
        lambda: calls.assert_not_called("PullImage"),
        lambda: calls.assert_pulled("nginx", username="x", password="y"),
        lambda: calls.assert_order(["Version"]),
    ):
        with pytest.raises(AssertionError) as failed:
            check()
        texts.append(str(failed.value))
    for text in texts:
        assert "hunter2" not in text and "tok3n" not in text
    assert call.request.auth.password == "hunter2"  # kept, to be asserted


async def test_wait_waits_for_the_end_of_so_many_calls(calls: Calls) -> None:
    async with asyncio.timeout(10):
        assert (await calls.wait("CreateContainer", times=3)).number == 3
        waiting = asyncio.create_task(calls.wait("CreateContainer", times=2, pod="db"))
        begun = calls.begin("CreateContainer", cri.CreateContainerRequest(), OTHER, False)
        made(calls, "CreateContainer", MAIN)
        await asyncio.sleep(0)
        assert not waiting.done()
        calls.end(begun, None)
        assert await waiting is begun
