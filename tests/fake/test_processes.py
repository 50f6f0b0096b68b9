"""Processes of fake containers on a clock that stands still: how they start, are signalled, and end."""

from __future__ import annotations

import asyncio
import signal
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from podwright.engines.base import Presence
from podwright.engines.fake.engine import FakeEngine
from podwright.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PodwrightError,
)
from tests.fake.containers import START, Node, open_files

TERM, KILL, USR1, HUP = signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGHUP


def scripted(**script: Any) -> dict[str, Any]:
    """A scenario in which every container does this."""
    return {"containers": [script]}


# Ends


async def test_a_program_ends_when_it_is_done(tmp_path: Path) -> None:
    case = await Node(tmp_path).run("sleep", "5", seconds=4.999)
    assert case.running
    await case.node.clock.advance(0.001)
    assert (case.code, case.ended_at) == (0, 5.0)


@pytest.mark.parametrize(
    ("argv", "code"), [(["true"], 0), (["false"], 1), (["exit", "3"], 3), (["sh", "-c", "exit 9"], 9)]
)
async def test_exit_status(argv: list[str], code: int, tmp_path: Path) -> None:
    assert (await Node(tmp_path).run(*argv)).code == code


@pytest.mark.parametrize(
    "argv",
    [
        ["sleep", "inf"],
        ["pause"],
        ["/pause"],
        ["tail", "-f", "/dev/null"],
        ["nginx", "-g", "daemon off;"],
        ["/no/such/program"],
        ["sh", "-c", "exec nginx"],
        ["sh", "-c", "top"],
        ["sh", "-c", "cd /tmp && x=1 nginx -g x > log"],
    ],
)
async def test_what_only_waits_runs_until_it_is_signalled(argv: list[str], tmp_path: Path) -> None:
    case = await Node(tmp_path).run(*argv, seconds=1e6)
    assert case.running
    await case.signal(TERM)
    assert case.code == 143


@pytest.mark.parametrize(
    "argv",
    [
        ["sleep", "inf"],
        ["sleep", "60"],
        ["nginx"],
        ["sh", "-c", "sleep 1000"],
        ["sh", "-c", "echo up; exec sleep inf"],
        ["sh", "-c", "echo up; nginx"],
    ],
)
async def test_what_only_waits_has_no_task_and_no_file(argv: list[str], tmp_path: Path) -> None:
    tasks, files = len(asyncio.all_tasks()), open_files()
    node = Node(tmp_path)
    for _ in range(5):
        case = await node.run(*argv, seconds=0, log=False)
        assert case.running
    assert len(asyncio.all_tasks()) == tasks
    assert open_files() == files


async def test_a_waiting_container_is_small(tmp_path: Path) -> None:
    node = Node(tmp_path)
    cases = [await node.create("sleep", "inf", log=False) for _ in range(2000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for case in cases:
        await node.engine.start_container(case.container)
    each = (tracemalloc.get_traced_memory()[0] - before) / len(cases)
    tracemalloc.stop()
    assert each < 700, f"{each:.0f} bytes"
    made = sys.getsizeof(cases[0].made)
    assert each + made < 1024


async def test_a_missing_program_fails_the_start_where_the_scenario_wants_it(tmp_path: Path) -> None:
    node = Node(tmp_path, {"unknown_programs": "fail"})
    for argv, words in (
        (["nginx"], r'"nginx": executable file not found in \$PATH'),
        (["/no/such"], "/no/such: no such file"),
    ):
        with pytest.raises(PodwrightError, match=words):
            await node.start(*argv)
    assert (await node.run("true")).code == 0


@pytest.mark.parametrize(
    "script",
    ["top; true", "trap : TERM; top", "! top || exit 127", "(top)", "top | cat; exit 127", "f() { top; }; f"],
)
async def test_a_program_that_the_first_process_does_not_become_is_missing(
    script: str, tmp_path: Path
) -> None:
    case = await Node(tmp_path).shell(script)
    assert case.code in (0, 127)
    assert case.output("stderr") == "sh: top: not found\n"


async def test_a_missing_program_ends_a_shell_where_the_scenario_wants_it(tmp_path: Path) -> None:
    case = await Node(tmp_path, {"unknown_programs": "fail"}).shell("echo up; nginx")
    assert (case.code, case.output("stderr")) == (127, "sh: nginx: not found\n")


async def test_without_a_command_there_is_nothing_to_create(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.command"):
        await Node(tmp_path).create()


async def test_image_and_request_together_say_what_runs(tmp_path: Path) -> None:
    node = Node(tmp_path)
    image = {"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}
    plain = await node.run(image=image)
    with_args = await node.run(image=image, args=["arg"])
    with_command = await node.run("echo", "own", image=image)
    assert [case.output() for case in (plain, with_args, with_command)] == [
        "entry cmd\n",
        "entry arg\n",
        "own\n",
    ]


# Signals


@pytest.mark.parametrize("number", [TERM, signal.SIGINT, HUP, USR1, signal.SIGQUIT, KILL, 34])
async def test_a_signal_ends_a_program_with_128_and_its_number(number: int, tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    await case.signal(number)
    assert case.code == 128 + number


@pytest.mark.parametrize(
    "number", [signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG, signal.SIGSTOP]
)
async def test_signals_that_end_nothing(number: int, tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    await case.signal(number)
    await case.node.clock.advance(60)
    assert case.running


async def test_a_trap_runs_and_decides(tmp_path: Path) -> None:
    script = "trap 'echo got term; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    case = await Node(tmp_path).shell(script, seconds=1)
    await case.signal(TERM)
    assert case.running  # the sleep in the foreground comes first
    await case.node.clock.advance(0.05)
    assert (case.code, case.output()) == (9, "up\ngot term\n")


async def test_wait_is_interrupted_by_a_trap(tmp_path: Path) -> None:
    case = await Node(tmp_path).shell("trap 'echo bye; exit 0' TERM; sleep inf & wait")
    await case.signal(TERM)
    await case.node.clock.advance(0)
    assert (case.code, case.output(), case.ended_at) == (0, "bye\n", 60.0)


async def test_read_is_interrupted_by_a_trap(tmp_path: Path) -> None:
    script = "trap 'echo caught' USR1; read line; echo \"$? [$line]\"; read line; echo $line"
    case = await Node(tmp_path).shell(script, stdin=True)
    await case.signal(USR1)
    await case.node.clock.advance(0)
    assert case.made.inside is not None and case.made.inside.stdin is not None
    await case.made.inside.stdin.writer.write(b"typed\n")
    await case.node.clock.advance(0)
    assert (case.code, case.output()) == (0, "caught\n138 []\ntyped\n")


async def test_commands_come_from_standard_input_one_by_one(tmp_path: Path) -> None:
    case = await Node(tmp_path).run("sh", stdin=True)
    assert case.made.inside is not None and case.made.inside.stdin is not None
    keyboard = case.made.inside.stdin.writer
    for line, output in (
        ("echo one\n", "one\n"),
        ("for i in a b\ndo echo $i\n", "one\n"),
        ("done\n", "one\na\nb\n"),
    ):
        await keyboard.write(line.encode())
        await case.node.clock.advance(0)
        assert case.output() == output
    await keyboard.write(b"exit 4\n")
    await case.node.clock.advance(0)
    assert case.code == 4


async def test_an_ignored_signal_is_ignored_by_children_as_well(tmp_path: Path) -> None:
    case = await Node(tmp_path).shell("trap '' TERM; sleep 100 & kill $!; wait; echo waited", seconds=99)
    await case.signal(TERM)
    assert case.running
    await case.node.clock.advance(1)
    assert (case.code, case.output()) == (0, "waited\n")


async def test_sigkill_ends_everything_at_once(tmp_path: Path) -> None:
    script = (
        "trap 'echo never' TERM EXIT; (while :; do sleep 1; echo child; done) & while :; do sleep 1; done"
    )
    case = await Node(tmp_path, scripted(ignore=["SIGTERM", "SIGKILL"], stopping="10s")).shell(
        script, seconds=2.5
    )
    running = asyncio.ensure_future(case.exec("sleep", "1000"))
    await case.node.clock.advance(0)
    await case.signal(TERM)
    assert case.running
    await case.signal(KILL)
    assert case.code == 137
    assert (await running).code == 137
    await case.node.clock.advance(100)
    assert case.output() == "child\nchild\n"
    assert len(asyncio.all_tasks()) == 1


async def test_what_a_script_ignores_and_how_long_its_stop_takes(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(ignore=["SIGHUP"], stopping="3s"))
    case = await node.start("sleep", "inf")
    await case.signal(HUP)
    await node.clock.advance(10)
    assert case.running
    await case.signal(TERM)
    await node.clock.advance(1)
    await case.signal(TERM)  # does not start it anew
    await node.clock.advance(1.999)
    assert case.running
    await node.clock.advance(0.001)
    assert (case.code, case.ended_at) == (143, 13.0)


async def test_times_are_drawn_for_each_container(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(stopping={"uniform": ["1s", "9s"]}))
    cases = [await node.start("sleep", "inf") for _ in range(5)]
    for case in cases:
        await case.signal(TERM)
    await node.clock.advance(10)
    ends = [case.ended_at for case in cases]
    assert len(set(ends)) == 5 and all(1 <= each <= 9 for each in ends)


async def test_a_container_can_kill_itself_but_its_init_only_by_a_signal_it_takes(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.start("sleep", "inf")
    await case.exec("kill", "-9", "1")  # the kernel protects the first process of a PID namespace
    assert case.running
    task = asyncio.ensure_future(case.exec("kill", "1"))
    await node.clock.advance(0)
    assert case.code == 143 and task.done()


async def test_signals_after_the_end_are_fine(tmp_path: Path) -> None:
    case = await Node(tmp_path).run("true")
    await case.signal(TERM)
    await case.signal(KILL)
    assert case.code == 0


# Scripts


async def test_a_scripted_end(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(exit={"after": "30s", "code": 7}))
    case = await node.run("nginx", seconds=29)
    assert case.running
    await node.clock.advance(1)
    assert (case.code, case.ended_at) == (7, 30.0)


async def test_a_scripted_end_takes_the_place_of_the_programs_own(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(exit={"after": "30s", "code": 7}))
    case = await node.run("sh", "-c", "echo hi; exit 1", seconds=29)
    assert case.running and case.output() == "hi\n"
    await node.clock.advance(1)
    assert case.code == 7
    signalled = await node.run("sh", "-c", "trap 'exit 4' TERM; sleep 1; sleep 1", seconds=0.5)
    await signalled.signal(TERM)
    await node.clock.advance(1)
    assert signalled.code == 4


async def test_a_signal_before_a_scripted_end(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(exit={"after": "30s", "code": 7}))
    case = await node.start("nginx")
    await case.signal(TERM)
    await node.clock.advance(60)
    assert (case.code, case.ended_at) == (143, 0.0)


async def test_a_scripted_end_by_lack_of_memory(tmp_path: Path) -> None:
    case = await Node(tmp_path, scripted(exit={"after": "1s", "oom": True})).run("nginx")
    assert case.made.exit is not None
    assert (case.made.exit.code, case.made.exit.oom_killed) == (137, True)


async def test_an_end_for_the_first_starts_only(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(exit={"after": "1s", "code": 1, "times": 2}))
    cases = [await node.run("sleep", "inf", name="app") for _ in range(3)]
    other = await node.run("sleep", "inf", name="other")
    assert [case.made.presence for case in cases] == [Presence.EXITED, Presence.EXITED, Presence.RUNNING]
    assert other.code == 1


async def test_another_program_than_the_containers_own(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(program=["sh", "-c", "echo other; exit 2"]))
    case = await node.run("nginx")
    assert (case.code, case.output()) == (2, "other\n")


async def test_a_scripted_start_error(tmp_path: Path) -> None:
    node = Node(tmp_path, scripted(start_error="no device of that kind"))
    case = await node.create("nginx")
    with pytest.raises(PodwrightError, match="no device of that kind"):
        await node.engine.start_container(case.container)
    assert case.made.presence is Presence.CREATED and not case.log_file.exists()


async def test_scripted_lines(tmp_path: Path) -> None:
    logs = [
        {"text": "started", "after": "1s"},
        {"text": "line {n} {x}", "stream": "stderr", "after": "2s", "every": "10s", "count": 3},
        {"text": "tick {n}", "every": "20s"},
    ]
    case = await Node(tmp_path, scripted(logs=logs)).run("nginx", seconds=45)
    at = [(round((line.time - START) / 1e9), line.stream, line.text.decode()) for line in case.lines()]
    assert at == [
        (0, "stdout", "tick 0"),
        (1, "stdout", "started"),
        (2, "stderr", "line 0 {x}"),
        (12, "stderr", "line 1 {x}"),
        (20, "stdout", "tick 1"),
        (22, "stderr", "line 2 {x}"),
        (40, "stdout", "tick 2"),
    ]
    await case.signal(TERM)
    await case.node.clock.advance(100)
    assert len(case.lines()) == 7


# Memory


@pytest.mark.parametrize(
    "script", ["x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo survived", "exec tail /dev/zero"]
)
async def test_too_much_memory_ends_the_container(script: str, tmp_path: Path) -> None:
    case = await Node(tmp_path).shell(script, resources={"memory_limit_in_bytes": 4 << 20})
    assert case.made.exit is not None
    assert (case.made.exit.code, case.made.exit.oom_killed, case.output()) == (137, True, "")


async def test_too_much_memory_ends_an_exec_but_not_the_container(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf", resources={"memory_limit_in_bytes": 4 << 20})
    assert (await case.exec("tail", "/dev/zero")).code == 137
    assert case.running


# ExecSync


async def test_exec_keeps_the_streams_apart_and_within_the_limit(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    assert tuple(vars_of(await case.exec("sh", "-c", "echo out; echo err >&2; exit 7"))) == (
        b"out\n",
        b"err\n",
        7,
    )
    done = await case.exec("sh", "-c", "head -c 1000000 /dev/zero; echo end >&2; exit 2", limit=1000)
    assert (len(done.stdout), done.stderr, done.code) == (1000, b"end\n", 2)


def vars_of(result: Any) -> tuple[bytes, bytes, int]:
    return result.stdout, result.stderr, result.code


async def test_exec_of_a_missing_program_says_so_in_a_runtimes_words(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("nginx")
    for program, words in (
        ("nginx", b'"nginx": executable file not found in $PATH'),
        ("/no/such/program", b"/no/such/program: no such file"),
    ):
        done = await case.exec(program)
        assert (done.code, done.stdout) == (127, b"") and words in done.stderr
    assert (await case.exec("sh", "-c", "nginx")).code == 127


async def test_exec_within_and_beyond_its_time(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    quick = asyncio.ensure_future(case.exec("sh", "-c", "sleep 1; echo done", timeout=5))
    slow = asyncio.ensure_future(case.exec("sh", "-c", "sleep 4321 & sleep 4321", timeout=5))
    await case.node.clock.advance(4.9)
    assert quick.result().stdout == b"done\n"
    assert not slow.done() and b"sleep 4321" in (await case.exec("ps")).stdout
    await case.node.clock.advance(0.1)
    with pytest.raises(DeadlineExceeded, match=r"'sh' timed out: .* 5 s"):
        slow.result()
    assert b"4321" not in (await case.exec("ps")).stdout
    assert case.running


async def test_a_daemonised_child_does_not_hold_the_answer_and_ends_with_the_container(
    tmp_path: Path,
) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    assert vars_of(await case.exec("sh", "-c", "(sleep 5; echo late > /tmp/late) & echo started")) == (
        b"started\n",
        b"",
        0,
    )
    await case.node.clock.advance(5)
    assert (await case.exec("cat", "/tmp/late")).stdout == b"late\n"
    await case.exec("sh", "-c", "sleep inf &")
    await case.signal(KILL)
    assert len(asyncio.all_tasks()) == 1


async def test_an_exec_ends_with_its_container(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "5")
    running = asyncio.ensure_future(case.exec("sh", "-c", "echo begun; sleep 100"))
    await case.node.clock.advance(5)
    assert vars_of(await running) == (b"begun\n", b"", 137)
    with pytest.raises(FailedPrecondition, match="has ended"):
        await case.exec("true")


async def test_a_caller_that_goes_away_takes_its_exec_along(tmp_path: Path) -> None:
    case = await Node(tmp_path).start("sleep", "inf")
    running = asyncio.ensure_future(case.exec("sh", "-c", "sleep 77"))
    await case.node.clock.advance(1)
    running.cancel()
    await asyncio.wait([running])
    assert b"77" not in (await case.exec("ps")).stdout


async def test_a_server_that_crashes_leaves_its_exec_running(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.start("sleep", "inf")
    running = asyncio.ensure_future(case.exec("sh", "-c", "sleep 7; touch /tmp/done"))
    await node.clock.advance(1)
    node.engine.crash()
    running.cancel()
    await asyncio.wait([running])
    await node.clock.advance(10)
    node.engine = FakeEngine(node.world)
    assert (await case.exec("test", "-e", "/tmp/done")).code == 0


async def test_processes_outlive_the_engine_and_their_exits_are_found(tmp_path: Path) -> None:
    node = Node(tmp_path)
    case = await node.shell("sleep 5; echo later; exit 3", seconds=1)
    node.engine.crash()
    await node.clock.advance(10)
    node.engine = FakeEngine(node.world)
    seen = await node.engine.observe_container(case.container)
    assert seen.exit is not None and (seen.exit.code, case.ended_at, case.output()) == (3, 5.0, "later\n")


async def test_scripted_answers(tmp_path: Path) -> None:
    answers = [
        {"command": "probe*", "stdout": "not yet\n", "stderr": "why\n", "code": 1, "times": 2, "after": "2s"},
        {"command": "probe*", "stdout": "well\n"},
    ]
    case = await Node(tmp_path, scripted(exec=answers)).start("nginx")
    results = []
    for _ in range(3):
        results.append(vars_of(await case.timed_exec("probe", "--all")))
    assert results == [(b"not yet\n", b"why\n", 1)] * 2 + [(b"well\n", b"", 0)]
    assert (await case.exec("echo", "unscripted")).stdout == b"unscripted\n"


async def test_a_scripted_answer_can_come_too_late(tmp_path: Path) -> None:
    case = await Node(tmp_path, scripted(exec=[{"after": "10s"}])).start("nginx")
    late = asyncio.ensure_future(case.exec("probe", timeout=1))
    await case.node.clock.advance(1)
    with pytest.raises(DeadlineExceeded):
        late.result()


# The whole


async def test_standard_input_is_empty_unless_it_is_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path)
    assert (await node.shell('read line; echo "$? [$line]"')).output() == "1 []\n"
    waiting = await node.run("cat", stdin=True)
    assert waiting.running
    inside = waiting.made.inside
    assert inside is not None and inside.stdin is not None
    await inside.stdin.writer.write(b"typed\n")
    await node.clock.advance(0)
    assert waiting.output() == "typed\n"
    inside.stdin.writer.close()
    await node.clock.advance(0)
    assert waiting.code == 0


async def test_the_world_is_switched_off_as_a_whole(tmp_path: Path) -> None:
    node = Node(tmp_path)
    files = open_files()
    case = await node.shell("sleep 100 & while :; do echo x; sleep 1; done")
    assert open_files() > files
    node.world.close()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    assert open_files() == files
    assert case.code == 137


async def test_a_removed_container_leaves_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    files = open_files()
    case = await node.shell("while :; do echo x; sleep 1; done")
    await node.engine.remove_container(case.container)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1 and open_files() == files
    assert case.log_file.exists()
