"""Programs that a client runs in a fake container, and the answers that a script has for them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from podwright.engines.base import Container, ExecResult
from podwright.engines.fake.inside import Inside
from podwright.engines.fake.programs.context import Context, Program
from podwright.engines.fake.programs.streams import Capture, Stream
from podwright.engines.fake.scenario import ExecScript
from podwright.engines.fake.starting import missing
from podwright.engines.fake.subject import Subject
from podwright.engines.fake.world import FakeContainer, World
from podwright.engines.refusals import NOT_EXECUTABLE, NOT_FOUND
from podwright.errors import DeadlineExceeded, FailedPrecondition


async def run(
    world: World,
    made: FakeContainer,
    container: Container,
    argv: Sequence[str],
    timeout: float | None,
    limit: int,
    attended: Callable[[], bool],
) -> ExecResult:
    """Run `argv` in a running container and wait for its end; of each stream `limit` bytes are kept.

    DeadlineExceeded after `timeout` seconds, and all that it started is killed; so it is when the caller goes
    away while `attended` (a server that has crashed kills nothing any more). A program that cannot be run has
    127 or 126 for a code, and the reason on standard error; FailedPrecondition when the container has ended.
    """
    inside = entered(world, made, container)
    out, errors = Capture(limit), Capture(limit)
    found = program_of(world, inside, list(argv))
    if found is None:
        code, why = refusal(inside, argv[0])
        return ExecResult(b"", f"{why}\n".encode(), code)
    program, words = found
    process = inside.spawn(program, words, {0: Stream(), 1: out, 2: errors})
    try:
        async with world.clock.timeout(timeout):
            code = await process.wait()
    except TimeoutError:
        raise DeadlineExceeded(
            f"command {argv[0]!r} timed out: it did not end within {timeout:g} s"
        ) from None
    finally:
        if process.code is None and attended():
            inside.signal_group(process.group, signal.SIGKILL)
    return ExecResult(bytes(out.kept), bytes(errors.kept), code)


def entered(world: World, made: FakeContainer, container: Container) -> Inside:
    """FailedPrecondition when it does not run."""
    if made.process is None:
        raise FailedPrecondition(f"container {container.id} has ended")
    inside = made.inside = made.inside or Inside(world, made, container)
    return inside


def program_of(world: World, inside: Inside, argv: list[str]) -> tuple[Program, list[str]] | None:
    """What an exec of `argv` runs, and its arguments: a script's answer or a program; None without both."""
    answer = _answer(world, Subject.of_container(inside.container), argv)
    return (_scripted(world, answer), argv) if answer is not None else inside.resolve(argv)


def refusal(inside: Inside, name: str) -> tuple[int, str]:
    """The code of a command that cannot be run, and the reason in a runtime's words."""
    if "/" in name and inside.files.kind(name) is not None:
        return NOT_EXECUTABLE, f'exec: "{name}": permission denied'
    return NOT_FOUND, missing(name)


def _answer(world: World, subject: Subject, argv: list[str]) -> ExecScript | None:
    """The first of the script's answers that fits and has not been given often enough."""
    text = " ".join(argv)
    for place, each in enumerate(world.scenario.script(subject).exec):
        if not fnmatchcase(text, each.command):
            continue
        if each.times:
            key = (f"exec {place}", subject.namespace, subject.pod, subject.container)
            world.counts[key] += 1
            if world.counts[key] > each.times:
                continue
        return each
    return None


def _scripted(world: World, answer: ExecScript) -> Program:
    async def program(context: Context) -> int:
        await context.clock.sleep(answer.after.draw(world.chance))
        await context.out(answer.stdout)
        await context.fds[2].write(answer.stderr.encode())
        return answer.code

    return program
